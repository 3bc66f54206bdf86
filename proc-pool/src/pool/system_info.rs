//! [`SystemInfo`]: the cores and limits of this process, for checks before a pool is built.

use std::path::Path;
use std::{fs, io};

use shm_buffers::limits::Cgroups;

use crate::os;
use crate::pool::workers::cores;
use crate::wire::entry;
use crate::worker::init;

/// The cores and limits that a pool of this process has. Numbers that the system does not report are `None`; most are reported
/// by Linux only.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SystemInfo {
    /// Number of cores that a pool uses: the meaning of [`Workers::All`](crate::Workers::All).
    pub usable: usize,
    /// Number of the machine's cores; hardware threads of one core count once.
    pub physical: Option<usize>,
    /// Number of processors that are online.
    pub online: Option<usize>,
    /// Number of processors on which this process may run.
    pub affinity: Option<usize>,
    /// Processor time that the enclosing cgroups allow, in processors.
    pub quota: Option<f64>,
    /// Maximum number of files that this process may have open.
    pub open_files: Option<u64>,
    /// Number of files that this process has open.
    pub files: Option<u64>,
    /// Maximum number of processes and threads of this user.
    pub processes: Option<u64>,
    /// The reason why this program can't be executed again; `None` if it can.
    pub program_problem: Option<String>,
    /// Whether [`init`](crate::init()) was called.
    pub initialized: bool,
}

/// Number of files that the leader has open for each worker: its shared memory, its connection, and while the worker starts the
/// other end of the connection.
pub const FILES_PER_WORKER: u64 = 3;

impl SystemInfo {
    /// Reads the current values.
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
            quota: Cgroups::of_this_process().cpu_quota(),
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

/// Checks that this program can be executed again.
fn program() -> io::Result<()> {
    let program = os::own_executable()?;
    os::check_executable(Path::new(&program))?;
    // The check includes the identity of the executable.
    entry::identify()
}

/// Returns the count of numbers in a list such as `0-3,8`.
fn listed(list: &str) -> Option<usize> {
    let count = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first)?.checked_add(1)
    };
    list.trim().split(',').map(count).sum()
}

/// Returns the soft limit of that name in proc_pid_limits(5); `None` if it is unlimited.
fn soft_limit(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Counts the different cores in proc_cpuinfo(5).
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
    }

    #[test]
    fn it_tells_of_here() {
        let here = SystemInfo::now();
        assert!(here.usable > 0 && here.program_problem.is_none());
        if cfg!(target_os = "linux") {
            assert!(
                here.open_files > here.files && here.affinity <= here.online,
                "{here:?}"
            );
        }
    }
}
