//! [`Surroundings`]: what a pool will find where this process runs, asked before there is one.

use std::path::Path;
use std::{fs, io};

use shm_buffers::limits::{CgroupVersion, Cgroups, Controller};

use crate::entry;
use crate::init;
use crate::os;
use crate::workers::cores;

/// What a pool will find where this process runs. Numbers that the system does not tell are `None`; most are Linux's.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Surroundings {
    /// Cores that the pool takes itself to have: what [`Workers::All`](crate::Workers::All) means.
    pub usable: usize,
    /// The machine's cores; hardware threads of one core count once.
    pub physical: Option<usize>,
    /// Processors that are on line.
    pub online: Option<usize>,
    /// Processors that this process may run on.
    pub affinity: Option<usize>,
    /// Processors' worth of time that the enclosing control groups allow.
    pub quota: Option<f64>,
    /// How many files this process may have open.
    pub open_files: Option<u64>,
    /// How many it has.
    pub files: Option<u64>,
    /// How many processes and threads this user may have.
    pub processes: Option<u64>,
    /// Why this program can't be executed again.
    pub program_problem: Option<String>,
    /// Whether [`init`](crate::init()) was called.
    pub initialized: bool,
}

/// Files that a pool's process has open for each worker: its shared memory, its connection, and the other end of that
/// while the worker starts.
pub const FILES_PER_WORKER: u64 = 3;

impl Surroundings {
    /// What is there now.
    pub fn now() -> Self {
        let read = |path: &str| fs::read_to_string(path).ok();
        let limits = read("/proc/self/limits");
        let limit = |name| limits.as_deref().and_then(|text| soft_limit(text, name));
        Self {
            usable: cores(),
            physical: read("/proc/cpuinfo").and_then(|text| physical(&text)),
            online: read("/sys/devices/system/cpu/online").and_then(|text| listed(&text)),
            affinity: read("/proc/self/status").and_then(|text| {
                let list = text
                    .lines()
                    .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
                listed(list?)
            }),
            quota: quota(&Cgroups::of_this_process()),
            open_files: limit("Max open files"),
            files: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|files| files.count() as u64),
            processes: limit("Max processes"),
            program_problem: program().err().map(|e| e.to_string()),
            initialized: init::is_initialized(),
        }
    }
}

/// Whether this program can be executed again.
fn program() -> io::Result<()> {
    let program = os::program()?;
    os::check_executable(Path::new(&program))?;
    // Its identity is looked at, too.
    entry::identify()
}

/// How many numbers a list such as `0-3,8` has.
fn listed(list: &str) -> Option<usize> {
    let count = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first)?.checked_add(1)
    };
    list.trim().split(',').map(count).sum()
}

/// The soft limit of that name in proc_pid_limits(5); `None` where it is unlimited.
fn soft_limit(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The different cores in proc_cpuinfo(5).
fn physical(text: &str) -> Option<usize> {
    let mut cores = std::collections::BTreeSet::new();
    let mut package = "";
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        match key.trim() {
            "physical id" => package = value.trim(),
            "core id" => drop(cores.insert((package, value.trim()))),
            _ => {}
        }
    }
    (!cores.is_empty()).then_some(cores.len())
}

/// The least quota of the enclosing cgroups, in processors.
fn quota(groups: &Cgroups) -> Option<f64> {
    let groups = groups.enclosing(Controller::Cpu);
    let quotas = groups.iter().filter_map(|group| match group.version {
        CgroupVersion::V1 => {
            let (quota, period) = group
                .read("cpu.cfs_quota_us")
                .zip(group.read("cpu.cfs_period_us"))?;
            share(&format!("{quota} {period}"))
        }
        CgroupVersion::V2 => share(&group.read("cpu.max")?),
    });
    quotas.reduce(f64::min)
}

/// `quota period`, where the quota may be `max` or -1.
fn share(text: &str) -> Option<f64> {
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    let (quota, period) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    (quota > 0.0 && period > 0.0).then_some(quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_texts_are_understood() {
        assert_eq!(
            (listed("0-3,8\n"), listed("0"), listed("3-1"), listed("")),
            (Some(5), Some(1), None, None)
        );
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax processes  unlimited  unlimited  processes\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(soft_limit(limits, "Max open files"), Some(1024));
        assert_eq!(soft_limit(limits, "Max processes"), None);
        let cpu = |package, core| format!("processor: 1\nphysical id\t: {package}\ncore id\t\t: {core}\n\n");
        let text = [cpu(0, 0), cpu(0, 1), cpu(0, 0), cpu(1, 0)].concat();
        assert_eq!((physical(&text), physical("processor: 0\n")), (Some(3), None));
        assert_eq!(
            (share("50000 100000\n"), share("max 100000"), share("-1\n 100000")),
            (Some(0.5), None, None)
        );
    }

    #[test]
    fn the_narrowest_quota_counts() {
        let root = std::env::temp_dir().join(format!("quota-{}", std::process::id()));
        let quota_of = |mounts: &str, groups: &str, files: &[(&str, &str)]| {
            let all = [("proc/self/mountinfo", mounts), ("proc/self/cgroup", groups)];
            for (path, text) in all.iter().chain(files) {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            let found = quota(&Cgroups::below(&root));
            fs::remove_dir_all(&root).unwrap();
            found
        };
        let v2 = [
            ("sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
        ];
        let mounts = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(quota_of(mounts, "0::/a/b\n", &v2), Some(1.5));
        let v1 = [
            ("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ];
        // As in a container: a part of the hierarchy, where systemd mounts it.
        let mounts = "32 31 0:29 /docker/ab /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n";
        assert_eq!(quota_of(mounts, "1:cpu,cpuacct:/docker/ab/a\n", &v1), Some(0.5));
        assert_eq!(quota_of("", "", &[]), None);
    }

    #[test]
    fn it_tells_of_here() {
        let here = Surroundings::now();
        assert!(here.usable > 0 && here.program_problem.is_none());
        if cfg!(target_os = "linux") {
            assert!(
                here.open_files > here.files && here.affinity <= here.online,
                "{here:?}"
            );
        }
    }
}
