//! OOM kills: the kernel counts them for each cgroup.

use std::path::PathBuf;

use shm_buffers::limits::{CgroupVersion, Cgroups, Controller};

use crate::error::Cause;

/// Where the OOM kills of this process's cgroup are counted, and with them those of the processes that it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Counter {
    file: PathBuf,
    /// `None` for the whole machine's.
    cgroup: Option<String>,
}

/// Tells deaths for want of memory from others.
#[derive(Debug)]
pub(crate) struct OomKills {
    counter: Option<Counter>,
    /// Kills that were told, or were of others.
    known: u64,
}

impl OomKills {
    /// Looks for the counter; where there is none, no death is for want of memory.
    pub(crate) fn new() -> Self {
        let machine = Counter {
            file: "/proc/vmstat".into(),
            cgroup: None,
        };
        let counter = locate(&Cgroups::of_this_process())
            .into_iter()
            .chain([machine])
            .find(|counter| counter.read().is_some());
        let mut kills = Self { counter, known: 0 };
        kills.forget();
        kills
    }

    /// No worker is dead that was not told of: who was killed up to now was somebody else.
    pub(crate) fn forget(&mut self) {
        self.known = self.counter.as_ref().and_then(Counter::read).unwrap_or(0);
    }

    /// A worker has died of a SIGKILL that was not ours; its cause, if that was for want of memory.
    pub(crate) fn cause(&mut self) -> Option<Cause> {
        let counter = self.counter.as_ref()?;
        // The kernel counts before it kills.
        if counter.read()? <= self.known {
            return None;
        }
        self.known += 1;
        Some(Cause::OutOfMemory {
            cgroup: counter.cgroup.clone(),
        })
    }
}

impl Counter {
    fn read(&self) -> Option<u64> {
        count(&std::fs::read_to_string(&self.file).ok()?)
    }
}

/// The number of kills, from any of the files that tell it: cgroup v2's `memory.events`, v1's `memory.oom_control`,
/// the machine's `/proc/vmstat`.
fn count(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
    line.trim().parse().ok()
}

/// The files that may count the kills of this process's cgroup, the innermost group first. A group that does not exist
/// here (the paths of a container may be those outside of it) is counted by the one that encloses it.
fn locate(groups: &Cgroups) -> Vec<Counter> {
    let counter = |group: shm_buffers::limits::Cgroup| Counter {
        file: group.dir.join(match group.version {
            CgroupVersion::V1 => "memory.oom_control",
            CgroupVersion::V2 => "memory.events",
        }),
        cgroup: Some(group.name),
    };
    let groups = groups.enclosing(Controller::Memory);
    groups.into_iter().map(counter).collect()
}

// Only there are paths what they are there.
#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn each_version_has_its_file() {
        let mounts = "\
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
        let found = locate(&Cgroups::parse("4:memory:/jobs/7\n0::/jobs\n", mounts));
        let files: Vec<_> = found.iter().map(|it| it.file.display().to_string()).collect();
        assert_eq!(
            files,
            [
                "memory/jobs/7/memory.oom_control",
                "memory/jobs/memory.oom_control",
                "memory/memory.oom_control",
                "unified/jobs/memory.events",
                "unified/memory.events"
            ]
            .map(|file| format!("/sys/fs/cgroup/{file}"))
        );
        assert_eq!(found[0].cgroup.as_deref(), Some("/jobs/7"));
        assert_eq!(locate(&Cgroups::parse("nonsense", mounts)), []);
    }

    #[test]
    fn counts() {
        let events = "low 0\nhigh 0\nmax 36\noom 5\noom_kill 4\noom_group_kill 0\n";
        assert_eq!(count(events), Some(4));
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 12\n"), Some(12));
        assert_eq!(
            count("oom_kill_disable 0\nunder_oom 0\n"),
            None,
            "before Linux 4.13"
        );
    }

    #[test]
    fn as_many_deaths_as_were_counted() {
        let file = std::env::temp_dir().join(format!("proc-pool-oom-{}", std::process::id()));
        let write =
            |kills: u64| std::fs::write(&file, format!("oom_kill {kills}\n")).expect("it is writable");
        write(3);
        let counter = Counter {
            file: file.clone(),
            cgroup: Some("/jobs".to_owned()),
        };
        let mut kills = OomKills {
            counter: Some(counter),
            known: 0,
        };
        kills.forget();
        assert_eq!(kills.cause(), None);
        write(5);
        let cgroup = Some("/jobs".to_owned());
        for _ in 0..2 {
            assert_eq!(
                kills.cause(),
                Some(Cause::OutOfMemory {
                    cgroup: cgroup.clone()
                })
            );
        }
        assert_eq!(kills.cause(), None);
        write(9);
        kills.forget();
        assert_eq!(kills.cause(), None, "it was somebody else");
        std::fs::remove_file(&file).expect("it is there");
        assert_eq!(kills.cause(), None);
    }
}
