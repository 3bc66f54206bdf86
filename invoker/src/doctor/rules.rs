//! What follows from the facts: pure, so that any machine can be tried.

use proc_pool::FILES_PER_WORKER;

use super::{Advice, Facts, Finding, Verdict};
use crate::report::bytes;

/// What containers have for `/dev/shm` if nobody says otherwise.
const CONTAINER_SHM: u64 = 64 << 20;
/// Bytes of shared memory between a leader and each worker, rounded up.
const WORKER_MEMORY: u64 = 1 << 20;
/// Less memory than that is tight for any job worth its processes.
const LITTLE_MEMORY: u64 = 256 << 20;

/// A finding that is fine so far.
fn finding(name: &'static str, found: impl Into<String>, number: Option<f64>) -> Finding {
    Finding {
        name,
        found: found.into(),
        number,
        verdict: Verdict::Fine,
        advice: None,
    }
}

impl Finding {
    /// It is not, if `so`.
    fn but(
        mut self,
        so: bool,
        verdict: Verdict,
        feature: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        if so && verdict > self.verdict {
            self.verdict = verdict;
            self.advice = Some(Advice {
                feature: feature.into(),
                remedy: remedy.into(),
            });
        }
        self
    }
}

fn or_unknown<T>(value: Option<T>, tell: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "unknown".to_owned(), tell)
}

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![cores(facts)];
    found.extend(memory(facts));
    found.extend(processes(facts));
    found.extend(surface(facts));
    found
}

fn cores(Facts { around, .. }: &Facts) -> Finding {
    let count = |n: Option<usize>| or_unknown(n, |n| n.to_string());
    let text = format!(
        "{} to use; cores {}, processors {}, by affinity {}, by quota {}",
        around.usable,
        count(around.physical),
        count(around.online),
        count(around.affinity),
        around
            .quota
            .map_or("any".to_owned(), |quota| format!("{quota:.2}")),
    );
    let fewer = around.online.is_some_and(|online| around.usable < online);
    let fraction = around.quota.filter(|quota| *quota < 1.0);
    finding("cores", text, Some(around.usable as f64))
        .but(
            fewer,
            Verdict::Limited,
            "`Workers::All` means fewer workers than the machine has processors",
            "raise the CPU quota or the affinity (`docker run --cpus`, `taskset`)",
        )
        .but(
            fraction.is_some(),
            Verdict::Limited,
            "less than one processor: everything waits, deadlines too",
            "raise the CPU quota, and give deadlines room",
        )
}

fn memory(Facts { room, sharing, .. }: &Facts) -> Vec<Finding> {
    let size = |n: Option<u64>| or_unknown(n, bytes);
    let number = |n: Option<u64>| n.map(|n| n as f64);
    let text = format!(
        "{} available of {}, cgroup's limit {}",
        size(room.available),
        size(room.memory),
        room.limit.map_or("none".to_owned(), bytes),
    );
    let little = room.available.is_some_and(|available| available < LITTLE_MEMORY);
    let available = finding("memory", text, number(room.available)).but(
        little,
        Verdict::Limited,
        "a larger model is refused, and the OOM killer may kill workers",
        "free memory, raise the container's limit, or use `Backing::File`",
    );
    let text = match sharing {
        Ok(()) => "made, sealed and attached".to_owned(),
        Err(reason) => reason.clone(),
    };
    let sealing = finding("anonymous-shm", text, None).but(
        sharing.is_err(),
        Verdict::Broken,
        "`Backing::Anonymous` does not work, and with it sealing; `Backing::Auto` takes named memory",
        "mount /proc, and allow memfd_create, or say `Backing::Named` or `Backing::File`",
    );
    let text = format!("{} free of {}", size(room.shm_free), size(room.shm));
    let as_in_container = room.shm.is_some_and(|shm| shm <= CONTAINER_SHM);
    let shm = finding("dev-shm", text, number(room.shm_free)).but(
        as_in_container,
        Verdict::Limited,
        format!("`Backing::Named` holds models up to {}; anonymous memory is not bound by that", size(room.shm_free)),
        "leave `Backing::Auto`, or enlarge it (`docker run --shm-size=8g`; an emptyDir of medium Memory in Kubernetes)",
    );
    let huge = finding(
        "huge-pages",
        format!("{} reserved and free", size(room.huge_free)),
        number(room.huge_free),
    )
    .but(
        room.huge_free.is_none_or(|free| free == 0),
        Verdict::Limited,
        "`Backing::HugePages` has none",
        "reserve some (`sysctl vm.nr_hugepages=N`), or leave it: nothing else needs them",
    );
    let most = |n: Option<u64>| n.map_or("no limit".to_owned(), bytes);
    let file_size = finding("file-size", most(room.file_size), number(room.file_size))
        .but(
            room.file_size.is_some(),
            Verdict::Limited,
            "larger models, payloads and files are refused: on Linux the limit holds for shared memory, too",
            "raise the limit (`ulimit -f unlimited`)",
        )
        .but(
            cfg!(target_os = "linux") && room.file_size.is_some_and(|most| most < WORKER_MEMORY),
            Verdict::Broken,
            "no worker process can be started: it shares more memory than that with its leader",
            "raise the limit (`ulimit -f unlimited`)",
        );
    let address_space = finding(
        "address-space",
        most(room.address_space),
        number(room.address_space),
    )
    .but(
        room.address_space.is_some(),
        Verdict::Limited,
        "models that do not fit are refused, and threads may not start",
        "raise the limit (`ulimit -v unlimited`), and limit memory by a cgroup or `memory_limit` instead",
    );
    vec![available, sealing, shm, huge, file_size, address_space]
}

fn processes(Facts { around, .. }: &Facts) -> Vec<Finding> {
    let limit = |n: Option<u64>| n.map_or("no limit".to_owned(), |n| n.to_string());
    let left = around
        .open_files
        .map(|most| most.saturating_sub(around.files.unwrap_or(0)) / FILES_PER_WORKER);
    let text = format!(
        "{} open of {}: room for {} workers",
        or_unknown(around.files, |n| n.to_string()),
        limit(around.open_files),
        left.map_or("any number of".to_owned(), |n| format!("about {n}")),
    );
    let few = |workers: u64| left.is_some_and(|left| left < workers);
    let open_files = finding("open-files", text, around.open_files.map(|n| n as f64))
        .but(
            few(2 * around.usable as u64),
            Verdict::Limited,
            "many workers, or large payloads under way, run out of files",
            "raise the limit (`ulimit -n 4096`)",
        )
        .but(
            few(around.usable as u64),
            Verdict::Broken,
            "one worker a core does not start",
            "raise the limit (`ulimit -n 4096`), or ask for fewer workers",
        );
    let processes = finding(
        "processes",
        limit(around.processes),
        around.processes.map(|n| n as f64),
    )
    .but(
        around
            .processes
            .is_some_and(|most| most < 16 * around.usable as u64 + 64),
        Verdict::Limited,
        "the user's other processes and threads count as well: workers may not start",
        "raise the limit (`ulimit -u`; `docker run --pids-limit`)",
    );
    let text = match &around.program_problem {
        None => "can be executed again".to_owned(),
        Some(problem) => problem.clone(),
    };
    let program = finding("program", text, None).but(
        around.program_problem.is_some(),
        Verdict::Broken,
        "`Executor::Processes` can't start this program again",
        "mount /proc and let the program be executable, or use `Executor::Threads`",
    );
    let text = if around.initialized {
        "was called"
    } else {
        "was not called"
    };
    let init = finding("init", text, None).but(
        !around.initialized,
        Verdict::Broken,
        "`Executor::Processes` is refused",
        "call `invoker::init()` in the first line of `main`",
    );
    vec![open_files, processes, program, init]
}

fn surface(facts: &Facts) -> Vec<Finding> {
    let text = if facts.terminal { "yes" } else { "no" };
    let terminal = finding("terminal", text, None).but(
        !facts.terminal,
        Verdict::Limited,
        "progress comes as lines, not as a bar",
        "none is needed; INVOKER_PROGRESS=bar insists",
    );
    let text = facts.backtrace.clone().unwrap_or_else(|| "not set".to_owned());
    let backtrace = finding("RUST_BACKTRACE", text, None).but(
        facts.backtrace.as_deref().is_none_or(|value| value == "0"),
        Verdict::Limited,
        "errors of ops that panic come without a backtrace",
        "set RUST_BACKTRACE=1",
    );
    let text = match &facts.variables {
        Err(wrong) => wrong.clone(),
        Ok(set) if set.is_empty() => "none is set".to_owned(),
        Ok(set) => {
            let set = set.iter().map(|(name, value)| format!("{name}={value}"));
            set.collect::<Vec<_>>().join(" ")
        }
    };
    let variables = finding("INVOKER_*", text, None).but(
        facts.variables.is_err(),
        Verdict::Broken,
        "no invoker can be built",
        "correct the variable, or remove it",
    );
    vec![terminal, backtrace, variables]
}

#[cfg(test)]
mod tests {
    use super::super::Diagnosis;
    use super::*;
    use proc_pool::Surroundings;
    use shm_buffers::Room;

    /// A machine that leaves nothing to wish for.
    fn good() -> Facts {
        let mut around = Surroundings::default();
        around.usable = 4;
        around.physical = Some(4);
        around.online = Some(4);
        around.affinity = Some(4);
        around.open_files = Some(1024);
        around.files = Some(10);
        around.initialized = true;
        let mut room = Room::default();
        room.memory = Some(16 << 30);
        room.available = Some(8 << 30);
        room.shm = Some(8 << 30);
        room.shm_free = Some(8 << 30);
        room.huge_free = Some(1 << 30);
        Facts {
            room,
            around,
            sharing: Ok(()),
            terminal: true,
            backtrace: Some("1".into()),
            variables: Ok(vec![("INVOKER_WORKERS", "4,2".into())]),
        }
    }

    fn diagnose(change: impl FnOnce(&mut Facts)) -> Diagnosis {
        let mut facts = good();
        change(&mut facts);
        let findings = findings(&facts);
        Diagnosis { findings }
    }

    #[test]
    fn a_good_machine_is_fine() {
        let diagnosis = diagnose(|_| {});
        assert_eq!(diagnosis.worst(), Verdict::Fine, "{diagnosis}");
        assert!(diagnosis.findings.iter().all(|finding| finding.advice.is_none()));
        assert!(
            diagnosis.to_string().contains("INVOKER_WORKERS=4,2"),
            "{diagnosis}"
        );
    }

    /// Exactly one finding is worse, and its advice has those words.
    fn finds(name: &str, verdict: Verdict, words: &str, change: impl FnOnce(&mut Facts)) {
        let diagnosis = diagnose(change);
        let bad: Vec<_> = diagnosis
            .findings
            .iter()
            .filter(|it| it.verdict > Verdict::Fine)
            .collect();
        let [bad] = bad[..] else {
            panic!("{name}: {diagnosis}")
        };
        assert_eq!((bad.name, bad.verdict), (name, verdict), "{diagnosis}");
        assert!(diagnosis.to_string().contains(words), "{diagnosis}");
        let json: serde_json::Value = serde_json::from_str(&diagnosis.to_json()).expect("it is JSON");
        let found = json["findings"]
            .as_array()
            .and_then(|all| all.iter().find(|it| it["name"] == name));
        assert!(found.is_some_and(|it| it["advice"]["remedy"].is_string() && it["verdict"] != "fine"));
    }

    #[test]
    fn what_is_missing_is_told_with_the_remedy() {
        use Verdict::{Broken, Limited};
        finds("dev-shm", Limited, "up to 60.0 MiB", |facts| {
            facts.room.shm = Some(64 << 20);
            facts.room.shm_free = Some(60 << 20);
        });
        finds("dev-shm", Limited, "--shm-size", |facts| {
            facts.room.shm = Some(64 << 20)
        });
        finds("anonymous-shm", Broken, "Operation not permitted", |facts| {
            facts.sharing = Err("Operation not permitted".into());
        });
        finds("memory", Limited, "limit 100.0 MiB", |facts| {
            facts.room.limit = Some(100 << 20);
            facts.room.available = Some(50 << 20);
        });
        finds("huge-pages", Limited, "nr_hugepages", |facts| {
            facts.room.huge_free = Some(0)
        });
        finds("file-size", Limited, "100.0 MiB", |facts| {
            facts.room.file_size = Some(100 << 20);
        });
        if cfg!(target_os = "linux") {
            finds("file-size", Broken, "no worker process", |facts| {
                facts.room.file_size = Some(512 << 10)
            });
        }
        finds("address-space", Limited, "ulimit -v", |facts| {
            facts.room.address_space = Some(8 << 30);
        });
        finds("cores", Limited, "by quota 1.50", |facts| {
            facts.around.quota = Some(1.5);
            facts.around.usable = 1;
        });
        finds("open-files", Limited, "ulimit -n", |facts| {
            facts.around.open_files = Some(30)
        });
        finds("open-files", Broken, "room for about 2 workers", |facts| {
            facts.around.open_files = Some(16);
        });
        finds("processes", Limited, "pids-limit", |facts| {
            facts.around.processes = Some(50)
        });
        finds("program", Broken, "Executor::Threads", |facts| {
            facts.around.program_problem = Some("No such file".into());
        });
        finds("init", Broken, "first line of `main`", |facts| {
            facts.around.initialized = false
        });
        finds("terminal", Limited, "INVOKER_PROGRESS", |facts| {
            facts.terminal = false
        });
        finds("RUST_BACKTRACE", Limited, "RUST_BACKTRACE=1", |facts| {
            facts.backtrace = None
        });
        finds("INVOKER_*", Broken, "`0`", |facts| {
            facts.variables = Err("INVOKER_WORKERS is `0`; it has to be numbers".into());
        });
    }

    #[test]
    fn a_system_that_tells_nothing_is_not_blamed() {
        let diagnosis = diagnose(|facts| {
            facts.room = Room::default();
            let around = &mut facts.around;
            (around.physical, around.online, around.affinity) = (None, None, None);
            (around.open_files, around.files, around.processes) = (None, None, None);
        });
        let bad = diagnosis.findings.iter().filter(|it| it.verdict > Verdict::Fine);
        assert_eq!(
            bad.map(|it| it.name).collect::<Vec<_>>(),
            ["huge-pages"],
            "{diagnosis}"
        );
    }
}
