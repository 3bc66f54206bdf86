//! Counts of OOM kills: the kernel counts them for each cgroup and for the machine.

use super::cgroup::{Cgroup, CgroupVersion};
use super::memory::field;

/// The name of the count in all three files.
const OOM_KILL: &str = "oom_kill";

impl Cgroup {
    /// Returns the number of processes of this cgroup (in version 2, of its descendants as well) that the OOM killer has killed,
    /// or `None` if the cgroup does not count them (Linux before 4.13).
    pub fn oom_kills(&self) -> Option<u64> {
        let file = match self.version {
            CgroupVersion::V1 => "memory.oom_control",
            CgroupVersion::V2 => "memory.events",
        };
        field(&self.read(file)?, OOM_KILL)
    }
}

/// Returns the number of processes that the machine's OOM killer has killed, or `None` if the system does not count them.
pub fn machine_oom_kills() -> Option<u64> {
    field(&std::fs::read_to_string("/proc/vmstat").ok()?, OOM_KILL)
}

// Only on systems with the same path separator.
#[cfg(all(test, unix))]
mod tests {
    use std::fs;

    use super::super::{Cgroups, Controller};

    #[test]
    fn each_version_has_its_file() {
        let root = tempfile::tempdir().expect("a directory");
        let mounts = "\
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
        for (path, text) in [
            ("proc/self/mountinfo", mounts),
            ("proc/self/cgroup", "4:memory:/jobs/7\n0::/jobs\n"),
            (
                "sys/fs/cgroup/memory/jobs/7/memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 12\n",
            ),
            // Before Linux 4.13.
            (
                "sys/fs/cgroup/memory/jobs/memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\n",
            ),
            (
                "sys/fs/cgroup/unified/jobs/memory.events",
                "low 0\nhigh 0\nmax 36\noom 5\noom_kill 4\noom_group_kill 0\n",
            ),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, text).expect("the file is writable");
        }
        let groups = Cgroups::with_root(root.path()).enclosing(Controller::Memory);
        let kills: Vec<_> = groups.iter().map(|group| group.oom_kills()).collect();
        assert_eq!(kills, [Some(12), None, None, Some(4), None]);
    }
}
