//! OOM kills: the kernel counts them for each cgroup.

use shm_buffers::limits::{Cgroup, Cgroups, Controller, machine_oom_kills};

use crate::error::ExitCause;

/// Counts the OOM kills of this process's cgroup, and with them those of the processes that it starts.
#[derive(Debug)]
enum Counter {
    Cgroup(Cgroup),
    /// Counts those of the whole machine.
    Machine,
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
        Self::with(&Cgroups::of_this_process())
    }

    /// The innermost cgroup comes first. A cgroup that does not exist here (the paths of a container may be those outside of
    /// it) is counted by the one that encloses it.
    fn with(groups: &Cgroups) -> Self {
        let groups = groups.enclosing(Controller::Memory);
        let counter = groups
            .into_iter()
            .map(Counter::Cgroup)
            .chain([Counter::Machine])
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

// Only there are paths what they are there.
#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn as_many_deaths_as_were_counted() {
        let root = std::env::temp_dir().join(format!("proc-pool-oom-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            std::fs::write(path, text).expect("it is writable");
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
        assert_eq!(kills.cause(), None, "it was somebody else");
        std::fs::remove_dir_all(&root).expect("it exists");
        assert_eq!(kills.cause(), None);
    }
}
