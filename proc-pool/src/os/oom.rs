//! OOM kills: the kernel counts them for each cgroup.

use std::time::{Duration, Instant};

use shm_buffers::limits::{Cgroup, Cgroups, Controller, machine_oom_kills};

use crate::error::ExitCause;

/// Counts the OOM kills of this process's cgroup, and with them those of the processes that it starts.
#[derive(Debug)]
enum Counter {
    Cgroup(Cgroup),
    /// Counts those of the whole machine.
    Machine,
}

/// Distinguishes deaths by the OOM killer from other deaths.
#[derive(Debug)]
pub(crate) struct OomKills {
    counter: Option<Counter>,
    /// Number of kills that were reported, or did not concern workers.
    known: u64,
    /// When the counter was last read to forget its kills.
    forgotten_at: Instant,
}

/// Kills are forgotten at most once in this time: reading the counter takes a part of the time of starting a process.
const FORGET_EVERY: Duration = Duration::from_millis(5);

impl OomKills {
    /// Finds the counter. Without a counter, no death is attributed to the OOM killer.
    pub(crate) fn new() -> Self {
        Self::with(&Cgroups::of_this_process())
    }

    /// Returns a value that attributes no death to the OOM killer.
    pub(crate) fn none() -> Self {
        Self {
            counter: None,
            known: 0,
            forgotten_at: Instant::now(),
        }
    }

    /// Uses the innermost cgroup that exists here: the paths of a container may be those outside of it.
    fn with(groups: &Cgroups) -> Self {
        let groups = groups.enclosing(Controller::Memory);
        let counter = groups
            .into_iter()
            .map(Counter::Cgroup)
            .chain([Counter::Machine])
            .find(|counter| counter.read().is_some());
        let mut kills = Self {
            counter,
            ..Self::none()
        };
        kills.forget();
        kills
    }

    /// Ignores the kills up to a moment ago. The caller has no dead worker whose cause is unknown, so they did not concern workers.
    pub(crate) fn forget_earlier(&mut self) {
        if self.forgotten_at.elapsed() >= FORGET_EVERY {
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.known = self.counter.as_ref().and_then(Counter::read).unwrap_or(0);
        self.forgotten_at = Instant::now();
    }

    /// Returns the cause of a worker's death by a SIGKILL that the leader did not send, if it was an OOM kill.
    pub(crate) fn cause(&mut self) -> Option<ExitCause> {
        let counter = self.counter.as_ref()?;
        // The kernel counts before it kills.
        if counter.read()? <= self.known {
            return None;
        }
        self.known += 1;
        Some(ExitCause::OutOfMemory {
            cgroup: match counter {
                Counter::Cgroup(group) => Some(group.name.clone()),
                Counter::Machine => None,
            },
        })
    }
}

impl Counter {
    fn read(&self) -> Option<u64> {
        match self {
            Self::Cgroup(group) => group.oom_kills(),
            Self::Machine => machine_oom_kills(),
        }
    }
}

// The test writes files of Linux.
#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn as_many_deaths_are_oom_kills_as_were_counted() {
        let root = std::env::temp_dir().join(format!("proc-pool-oom-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            std::fs::write(path, text).expect("the file can be written");
        };
        write("proc/self/cgroup", "0::/jobs\n");
        write(
            "proc/self/mountinfo",
            "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        );
        let events = "sys/fs/cgroup/jobs/memory.events";
        let write = |kills: u64| write(events, &format!("oom_kill {kills}\n"));
        write(3);
        let mut kills = OomKills::with(&Cgroups::with_root(&root));
        assert_eq!(kills.cause(), None);
        write(5);
        let cgroup = Some("/jobs".to_owned());
        for _ in 0..2 {
            assert_eq!(
                kills.cause(),
                Some(ExitCause::OutOfMemory {
                    cgroup: cgroup.clone()
                })
            );
        }
        assert_eq!(kills.cause(), None);
        write(9);
        kills.forget();
        assert_eq!(kills.cause(), None, "the kills were forgotten");
        std::fs::remove_dir_all(&root).expect("the directory exists");
        assert_eq!(kills.cause(), None);
    }
}
