//! Who was killed for want of memory: the kernel counts that for each control group.

use std::path::PathBuf;

use crate::error::Cause;

/// Where kills for want of memory are counted, for this process and those that it starts.
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
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let groups = locate(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"));
        let machine = Counter {
            file: "/proc/vmstat".into(),
            cgroup: None,
        };
        let counter = groups
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

/// The files that may count this process's group, by the texts of its `/proc/self/cgroup` and `/proc/self/mountinfo`
/// (cgroups(7), proc_pid_mountinfo(5)): the one of the hierarchy that has the memory controller first.
fn locate(groups: &str, mounts: &str) -> Vec<Counter> {
    let mut found = Vec::new();
    for version in [1, 2] {
        let group = groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let ours = match version {
                1 => controllers.split(',').any(|it| it == "memory"),
                _ => controllers.is_empty(),
            };
            (ours && path.starts_with('/')).then_some(path)
        });
        let Some(group) = group else { continue };
        for line in mounts.lines() {
            let Some((root, point)) = mounted(line, version) else {
                continue;
            };
            // A container may see only a part of the hierarchy.
            let below = group.strip_prefix(root.trim_end_matches('/'));
            let Some(below) = below.filter(|below| below.is_empty() || below.starts_with('/')) else {
                continue;
            };
            let mut file = PathBuf::from(point);
            file.push(below.trim_start_matches('/'));
            file.push(match version {
                1 => "memory.oom_control",
                _ => "memory.events",
            });
            let cgroup = Some(group.to_owned());
            found.push(Counter { file, cgroup });
        }
    }
    found
}

/// Root and mount point of a line that mounts the hierarchy with the memory controller.
fn mounted(line: &str, version: u32) -> Option<(&str, &str)> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let mut after = after.split(' ');
    let options = after.clone().nth(2).unwrap_or_default();
    let ours = match (version, after.next()?) {
        (1, "cgroup") => options.split(',').any(|it| it == "memory"),
        (2, "cgroup2") => true,
        _ => false,
    };
    let place = (before.next()?, before.next()?);
    ours.then_some(place)
}

// Only there are paths what they are there.
#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn files(groups: &str, mounts: &str) -> Vec<String> {
        let found = locate(groups, mounts);
        found.iter().map(|it| it.file.display().to_string()).collect()
    }

    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn version_2() {
        let group = "0::/user.slice/user-1000.slice/session-3.scope\n";
        assert_eq!(
            files(group, V2),
            ["/sys/fs/cgroup/user.slice/user-1000.slice/session-3.scope/memory.events"]
        );
        assert_eq!(
            files("0::/\n", V2),
            ["/sys/fs/cgroup/memory.events"],
            "a container's own root"
        );
        assert_eq!(files(group, ""), [""; 0]);
    }

    #[test]
    fn version_1_and_both_at_once() {
        let groups = "9:name=systemd:/\n4:memory:/jobs/7\n3:cpuset:/\n1:cpu,cpuacct:/\n0::/jobs\n";
        assert_eq!(
            files(groups, V1),
            [
                "/sys/fs/cgroup/memory/jobs/7/memory.oom_control",
                "/sys/fs/cgroup/unified/jobs/memory.events"
            ]
        );
        assert_eq!(locate(groups, V1)[0].cgroup.as_deref(), Some("/jobs/7"));
    }

    #[test]
    fn a_part_of_the_hierarchy() {
        let mounts = "600 599 0:26 /docker/ab12 /sys/fs/cgroup/memory ro,relatime master:12 - cgroup cgroup rw,memory\n";
        assert_eq!(
            files("4:memory:/docker/ab12/job\n", mounts),
            ["/sys/fs/cgroup/memory/job/memory.oom_control"]
        );
        for other in ["elsewhere", "docker/ab123"] {
            assert_eq!(files(&format!("4:memory:/{other}\n"), mounts), [""; 0]);
        }
    }

    #[test]
    fn nonsense_is_nothing() {
        for nonsense in ["", ":::", "4:memory", "a - b", "1 2 3 4 - cgroup2", "\n\n - - - "] {
            assert_eq!(files(nonsense, V1), [""; 0], "{nonsense}");
            assert_eq!(files("0::/\n", nonsense), [""; 0], "{nonsense}");
        }
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
