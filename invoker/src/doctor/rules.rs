//! Derives the findings from the facts. Pure, so that tests can make up any machine.

use proc_pool::FILES_PER_WORKER;

use super::diagnosis::{Advice, Finding, Verdict};
use super::facts::Facts;
use crate::report::bytes;

/// The default size of `/dev/shm` in containers.
const CONTAINER_SHM: u64 = 64 << 20;
/// Bytes of shared memory between a leader and each worker, rounded up.
const WORKER_MEMORY: u64 = 1 << 20;
/// With less available memory, any job that needs processes is tight.
const LITTLE_MEMORY: u64 = 256 << 20;

/// Returns a finding without a problem.
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
    /// Adds a problem if `condition` holds, unless the finding has one that is as bad.
    fn problem_if(
        mut self,
        condition: bool,
        verdict: Verdict,
        feature: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        if condition && verdict > self.verdict {
            self.verdict = verdict;
            self.advice = Some(Advice {
                feature: feature.into(),
                remedy: remedy.into(),
            });
        }
        self
    }
}

fn or_unknown<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "unknown".to_owned(), text)
}

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![cores(facts)];
    found.extend(memory(facts));
    found.extend(processes(facts));
    found.extend(environment(facts));
    found
}

fn cores(Facts { system, .. }: &Facts) -> Finding {
    let count = |n: Option<usize>| or_unknown(n, |n| n.to_string());
    let text = format!(
        "{} usable; cores {}, processors {}, by affinity {}, by quota {}",
        system.usable,
        count(system.physical),
        count(system.online),
        count(system.affinity),
        system
            .quota
            .map_or("any".to_owned(), |quota| format!("{quota:.2}")),
    );
    let fewer = system.online.is_some_and(|online| system.usable < online);
    let fraction = system.quota.filter(|quota| *quota < 1.0);
    finding("cores", text, Some(system.usable as f64))
        .problem_if(
            fewer,
            Verdict::Limited,
            "`Workers::All` means fewer workers than the machine has processors",
            "raise the CPU quota or the affinity (`docker run --cpus`, `taskset`)",
        )
        .problem_if(
            fraction.is_some(),
            Verdict::Limited,
            "with less than one processor, the leader and its workers wait for each other, and deadlines pass",
            "raise the CPU quota, or set longer deadlines",
        )
}

fn memory(Facts { memory, sharing, .. }: &Facts) -> Vec<Finding> {
    let size = |n: Option<u64>| or_unknown(n, bytes);
    let number = |n: Option<u64>| n.map(|n| n as f64);
    let text = format!(
        "{} available of {}, cgroup's limit {}",
        size(memory.available),
        size(memory.total),
        memory.cgroup_limit.map_or("none".to_owned(), bytes),
    );
    let little = memory
        .available
        .is_some_and(|available| available < LITTLE_MEMORY);
    let available = finding("memory", text, number(memory.available)).problem_if(
        little,
        Verdict::Limited,
        "a larger model is refused, and the OOM killer may kill workers",
        "free memory, raise the container's limit, or use `Backing::File`",
    );
    let text = match sharing {
        Ok(()) => "created, sealed and attached".to_owned(),
        Err(reason) => reason.clone(),
    };
    let sealing = finding("anonymous-shm", text, None).problem_if(
        sharing.is_err(),
        Verdict::Broken,
        "`Backing::Anonymous` does not work, so models cannot be sealed; `Backing::Auto` uses named memory",
        "mount /proc and allow memfd_create, or use `Backing::Named` or `Backing::File`",
    );
    let text = format!("{} free of {}", size(memory.shm_free), size(memory.shm));
    let as_in_container = memory.shm.is_some_and(|shm| shm <= CONTAINER_SHM);
    let shm = finding("dev-shm", text, number(memory.shm_free)).problem_if(
        as_in_container,
        Verdict::Limited,
        format!("`Backing::Named` holds models up to {}; anonymous memory has no such limit", size(memory.shm_free)),
        "use `Backing::Auto`, or enlarge /dev/shm (`docker run --shm-size=8g`; an emptyDir of medium Memory in Kubernetes)",
    );
    let huge = finding(
        "huge-pages",
        format!("{} reserved and free", size(memory.huge_free)),
        number(memory.huge_free),
    )
    .problem_if(
        memory.huge_free.is_none_or(|free| free == 0),
        Verdict::Limited,
        "`Backing::HugePages` has no pages",
        "if you use it, reserve pages (`sysctl vm.nr_hugepages=N`)",
    );
    let most = |n: Option<u64>| n.map_or("no limit".to_owned(), bytes);
    let file_size = finding("file-size", most(memory.file_size), number(memory.file_size))
        .problem_if(
            memory.file_size.is_some(),
            Verdict::Limited,
            "larger models, payloads and files are refused: on Linux the limit applies to shared memory, too",
            "raise the limit (`ulimit -f unlimited`)",
        )
        .problem_if(
            cfg!(target_os = "linux") && memory.file_size.is_some_and(|most| most < WORKER_MEMORY),
            Verdict::Broken,
            "no worker process can start: each shares more memory than that with its leader",
            "raise the limit (`ulimit -f unlimited`)",
        );
    let address_space = finding(
        "address-space",
        most(memory.address_space),
        number(memory.address_space),
    )
    .problem_if(
        memory.address_space.is_some(),
        Verdict::Limited,
        "models that do not fit are refused, and threads may fail to start",
        "raise the limit (`ulimit -v unlimited`), and limit memory with a cgroup or `memory_limit_bytes` instead",
    );
    vec![available, sealing, shm, huge, file_size, address_space]
}

fn processes(Facts { system, .. }: &Facts) -> Vec<Finding> {
    let limit = |n: Option<u64>| n.map_or("no limit".to_owned(), |n| n.to_string());
    let left = system
        .open_files
        .map(|most| most.saturating_sub(system.files.unwrap_or(0)) / FILES_PER_WORKER);
    let text = format!(
        "{} open of {}: room for {} workers",
        or_unknown(system.files, |n| n.to_string()),
        limit(system.open_files),
        left.map_or("any number of".to_owned(), |n| format!("about {n}")),
    );
    let few = |workers: u64| left.is_some_and(|left| left < workers);
    let open_files = finding("open-files", text, system.open_files.map(|n| n as f64))
        .problem_if(
            few(2 * system.usable as u64),
            Verdict::Limited,
            "many workers, or large payloads in flight, run out of files",
            "raise the limit (`ulimit -n 4096`)",
        )
        .problem_if(
            few(system.usable as u64),
            Verdict::Broken,
            "one worker per core cannot start",
            "raise the limit (`ulimit -n 4096`), or use fewer workers",
        );
    let processes = finding(
        "processes",
        limit(system.processes),
        system.processes.map(|n| n as f64),
    )
    .problem_if(
        system
            .processes
            .is_some_and(|most| most < 16 * system.usable as u64 + 64),
        Verdict::Limited,
        "the user's other processes and threads count as well: workers may fail to start",
        "raise the limit (`ulimit -u`; `docker run --pids-limit`)",
    );
    let text = match &system.program_problem {
        None => "can be executed again".to_owned(),
        Some(problem) => problem.clone(),
    };
    let program = finding("program", text, None).problem_if(
        system.program_problem.is_some(),
        Verdict::Broken,
        "`Executor::Processes` cannot execute this program again",
        "mount /proc and make the program executable, or use `Executor::Threads`",
    );
    let text = if system.initialized {
        "was called"
    } else {
        "was not called"
    };
    let init = finding("init", text, None).problem_if(
        !system.initialized,
        Verdict::Broken,
        "`Executor::Processes` does not start",
        "call `invoker::init()` in the first line of `main`",
    );
    vec![open_files, processes, program, init]
}

fn environment(facts: &Facts) -> Vec<Finding> {
    let text = if facts.terminal { "yes" } else { "no" };
    let terminal = finding("terminal", text, None).problem_if(
        !facts.terminal,
        Verdict::Limited,
        "progress is shown as lines, not as a bar",
        "INVOKER_PROGRESS=bar shows a bar anyway",
    );
    let text = facts.backtrace.clone().unwrap_or_else(|| "not set".to_owned());
    let backtrace = finding("RUST_BACKTRACE", text, None).problem_if(
        facts.backtrace.as_deref().is_none_or(|value| value == "0"),
        Verdict::Limited,
        "errors of ops that panic have no backtrace",
        "set RUST_BACKTRACE=1",
    );
    let text = match &facts.variables {
        Err(reason) => reason.clone(),
        Ok(set) if set.is_empty() => "not set".to_owned(),
        Ok(set) => {
            let set = set.iter().map(|(name, value)| format!("{name}={value}"));
            set.collect::<Vec<_>>().join(" ")
        }
    };
    let variables = finding("INVOKER_*", text, None).problem_if(
        facts.variables.is_err(),
        Verdict::Broken,
        "no invoker can be built",
        "correct the variable, or unset it",
    );
    vec![terminal, backtrace, variables]
}

#[cfg(test)]
mod tests {
    use super::super::diagnosis::Diagnosis;
    use super::*;
    use proc_pool::SystemInfo;
    use shm_buffers::MemoryInfo;

    /// A machine without any problem.
    fn good() -> Facts {
        let mut system = SystemInfo::default();
        system.usable = 4;
        system.physical = Some(4);
        system.online = Some(4);
        system.affinity = Some(4);
        system.open_files = Some(1024);
        system.files = Some(10);
        system.initialized = true;
        let mut memory = MemoryInfo::default();
        memory.total = Some(16 << 30);
        memory.available = Some(8 << 30);
        memory.shm = Some(8 << 30);
        memory.shm_free = Some(8 << 30);
        memory.huge_free = Some(1 << 30);
        Facts {
            memory,
            system,
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
    fn a_machine_without_problems_is_fine() {
        let diagnosis = diagnose(|_| {});
        assert_eq!(diagnosis.worst(), Verdict::Fine, "{diagnosis}");
        assert!(diagnosis.findings.iter().all(|finding| finding.advice.is_none()));
        assert!(
            diagnosis.to_string().contains("INVOKER_WORKERS=4,2"),
            "{diagnosis}"
        );
    }

    /// Asserts that exactly one finding has a problem, and that its text contains `words`.
    fn finds(name: &str, verdict: Verdict, words: &str, change: impl FnOnce(&mut Facts)) {
        let diagnosis = diagnose(change);
        let bad: Vec<_> = diagnosis
            .findings
            .iter()
            .filter(|finding| finding.verdict > Verdict::Fine)
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
    fn every_problem_is_found_with_its_remedy() {
        use Verdict::{Broken, Limited};
        finds("dev-shm", Limited, "up to 60.0 MiB", |facts| {
            facts.memory.shm = Some(64 << 20);
            facts.memory.shm_free = Some(60 << 20);
        });
        finds("dev-shm", Limited, "--shm-size", |facts| {
            facts.memory.shm = Some(64 << 20)
        });
        finds("anonymous-shm", Broken, "Operation not permitted", |facts| {
            facts.sharing = Err("Operation not permitted".into());
        });
        finds("memory", Limited, "limit 100.0 MiB", |facts| {
            facts.memory.cgroup_limit = Some(100 << 20);
            facts.memory.available = Some(50 << 20);
        });
        finds("huge-pages", Limited, "nr_hugepages", |facts| {
            facts.memory.huge_free = Some(0)
        });
        finds("file-size", Limited, "100.0 MiB", |facts| {
            facts.memory.file_size = Some(100 << 20);
        });
        if cfg!(target_os = "linux") {
            finds("file-size", Broken, "no worker process", |facts| {
                facts.memory.file_size = Some(512 << 10)
            });
        }
        finds("address-space", Limited, "ulimit -v", |facts| {
            facts.memory.address_space = Some(8 << 30);
        });
        finds("cores", Limited, "by quota 1.50", |facts| {
            facts.system.quota = Some(1.5);
            facts.system.usable = 1;
        });
        finds("open-files", Limited, "ulimit -n", |facts| {
            facts.system.open_files = Some(30)
        });
        finds("open-files", Broken, "room for about 2 workers", |facts| {
            facts.system.open_files = Some(16);
        });
        finds("processes", Limited, "pids-limit", |facts| {
            facts.system.processes = Some(50)
        });
        finds("program", Broken, "Executor::Threads", |facts| {
            facts.system.program_problem = Some("No such file".into());
        });
        finds("init", Broken, "first line of `main`", |facts| {
            facts.system.initialized = false
        });
        finds("terminal", Limited, "INVOKER_PROGRESS", |facts| {
            facts.terminal = false
        });
        finds("RUST_BACKTRACE", Limited, "RUST_BACKTRACE=1", |facts| {
            facts.backtrace = None
        });
        finds("INVOKER_*", Broken, "`0`", |facts| {
            facts.variables = Err("INVOKER_WORKERS is `0`; it must be numbers".into());
        });
    }

    #[test]
    fn unknown_numbers_are_no_problems() {
        let diagnosis = diagnose(|facts| {
            facts.memory = MemoryInfo::default();
            let system = &mut facts.system;
            (system.physical, system.online, system.affinity) = (None, None, None);
            (system.open_files, system.files, system.processes) = (None, None, None);
        });
        let bad = diagnosis
            .findings
            .iter()
            .filter(|finding| finding.verdict > Verdict::Fine);
        assert_eq!(
            bad.map(|it| it.name).collect::<Vec<_>>(),
            ["huge-pages"],
            "{diagnosis}"
        );
    }
}
