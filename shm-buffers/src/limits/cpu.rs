//! The processor time that cgroups allow (CFS bandwidth control).

use super::cgroup::{Cgroup, CgroupVersion, Cgroups, Controller};

impl Cgroup {
    /// Returns the processor time that the cgroup allows, in processors (1.5 is 150 ms in each 100 ms), or `None` without a
    /// quota.
    pub fn cpu_quota(&self) -> Option<f64> {
        match self.version {
            CgroupVersion::V1 => {
                let (quota, period) = self
                    .read("cpu.cfs_quota_us")
                    .zip(self.read("cpu.cfs_period_us"))?;
                processors(&format!("{quota} {period}"))
            }
            CgroupVersion::V2 => processors(&self.read("cpu.max")?),
        }
    }
}

impl Cgroups {
    /// Returns the least CPU quota of the enclosing cgroups, in processors, or `None` without a quota.
    pub fn cpu_quota(&self) -> Option<f64> {
        let groups = self.enclosing(Controller::Cpu);
        groups.iter().filter_map(Cgroup::cpu_quota).reduce(f64::min)
    }
}

/// Parses `quota period`, where the quota may also be `max` or -1.
fn processors(text: &str) -> Option<f64> {
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    let (quota, period) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    (quota > 0.0 && period > 0.0).then_some(quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the quota on an imitated machine with these files.
    #[cfg(unix)]
    fn quota(mounts: &str, groups: &str, files: &[(&str, &str)]) -> Option<f64> {
        let root = tempfile::tempdir().expect("a directory");
        let all = [("proc/self/mountinfo", mounts), ("proc/self/cgroup", groups)];
        for (path, text) in all.iter().chain(files) {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            std::fs::write(path, text).expect("the file is writable");
        }
        Cgroups::with_root(root.path()).cpu_quota()
    }

    #[test]
    fn quotas_are_parsed_as_processors() {
        assert_eq!(processors("50000 100000\n"), Some(0.5));
        for unlimited in ["max 100000", "-1\n 100000", "", "1", "1 0", "a b"] {
            assert_eq!(processors(unlimited), None, "{unlimited}");
        }
    }

    // Only on systems with the same path separator.
    #[cfg(unix)]
    #[test]
    fn the_least_quota_of_the_enclosing_cgroups_applies() {
        let v2 = [
            ("sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
        ];
        let mounts = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(quota(mounts, "0::/a/b\n", &v2), Some(1.5));
        let v1 = [
            ("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ];
        // As in a container: a part of the hierarchy, at systemd's mount point.
        let mounts = "32 31 0:29 /docker/ab /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n";
        assert_eq!(quota(mounts, "1:cpu,cpuacct:/docker/ab/a\n", &v1), Some(0.5));
        assert_eq!(quota("", "", &[]), None);
    }
}
