//! What Linux reports of processes, files, threads and shared memory.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::process::{Pid, Signal};

use super::TempDir;

/// Returns the pids of the processes whose temporary directory is `tmp`: a leader and its workers.
pub(crate) fn processes_within(tmp: &Path) -> Vec<u32> {
    let variable = [b"TMPDIR=", tmp.as_os_str().as_bytes()].concat();
    let processes = std::fs::read_dir("/proc").expect("/proc is readable").flatten();
    let has_variable = |path: &Path| {
        let environment = std::fs::read(path.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|it| it == variable)
    };
    let pid = |path: PathBuf| {
        let pid = path.file_name()?.to_str()?.parse().ok()?;
        has_variable(&path).then_some(pid)
    };
    processes.filter_map(|entry| pid(entry.path())).collect()
}

/// Returns the pids of a leader, which may have ended, and its workers.
pub(crate) fn processes_of(_: &Child, tmp: &TempDir) -> Vec<u32> {
    processes_within(tmp.path())
}

/// Returns the paths of this project's named shared memory.
pub(crate) fn shared_memory() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().contains("shm-buffers"));
    ours.map(|entry| entry.path()).collect()
}

/// Asserts that no shared memory without a living owner has come since `before`.
///
/// Tests of this and other packages come and go at the same time. An owner locks its memory shortly after it has created
/// it, so only memory that stays without a lock is left behind.
pub(crate) fn assert_no_shared_memory_left(before: &[PathBuf]) {
    let has_no_owner = |path: &PathBuf| {
        let lock = FlockOperation::NonBlockingLockExclusive;
        std::fs::File::open(path).is_ok_and(|file| rustix::fs::flock(&file, lock).is_ok())
    };
    let mut new = shared_memory();
    new.retain(|path| !before.contains(path));
    for _ in 0..20 {
        new.retain(has_no_owner);
        if new.is_empty() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("left behind: {new:?}");
}

/// Whether this process was started as a worker and has not called `init` yet: its standard input is a socket then, as
/// that of no other process of these tests is.
pub(crate) fn is_worker_before_init() -> bool {
    let stdin = std::fs::read_link("/proc/self/fd/0");
    stdin.is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
}

/// Returns the number of open files of this process.
pub(crate) fn open_files() -> usize {
    let files = std::fs::read_dir("/proc/self/fd");
    files.expect("/proc is readable").count()
}

/// Returns the number of threads of this process.
pub(crate) fn threads() -> usize {
    let threads = std::fs::read_dir("/proc/self/task");
    threads.expect("/proc is readable").count()
}

/// Whether this process has children, running or not yet reaped.
pub(crate) fn has_children() -> bool {
    let waited = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
    !matches!(waited, Err(rustix::io::Errno::CHILD))
}

/// Sends a signal to a process.
pub(crate) fn signal(pid: u32, signal: Signal) {
    rustix::process::kill_process(id(pid), signal).expect("the process has not been reaped");
}

/// Kills a process; returns `false` if there is no such process.
pub(crate) fn try_kill(pid: u32) -> bool {
    rustix::process::kill_process(id(pid), Signal::KILL).is_ok()
}

fn id(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed()).expect("no pid is 0")
}

/// Whether a process is stopped.
pub(crate) fn is_stopped(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") T "))
}

/// Returns the user and system time that this process has used, without its children's.
pub(crate) fn cpu_time() -> Duration {
    const USER: usize = 14;
    const SYSTEM: usize = 15;
    let ticks = [USER, SYSTEM].map(|field| stat("self", field).expect("/proc is readable"));
    Duration::from_millis(ticks.iter().sum::<u64>() * 1000 / rustix::param::clock_ticks_per_second())
}

/// Returns the scheduling policy of a process or thread, given its directory in `/proc`.
pub(crate) fn policy(of: &str) -> Option<u64> {
    const POLICY: usize = 41;
    stat(of, POLICY)
}

/// Returns a field of the `stat` of a process or thread. Fields are counted as in `proc(5)`; the first three are not supported.
fn stat(of: &str, field: usize) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{of}/stat")).ok()?;
    // The second field is the name, which may have spaces; the third one is a letter.
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_whitespace().nth(field - 3)?.parse().ok()
}

/// Returns the user and system time that this thread has used.
pub(crate) fn thread_cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("/proc is readable");
    let ns = stat.split(' ').next().and_then(|ns| ns.parse().ok());
    Duration::from_nanos(ns.expect("schedstat starts with a number"))
}

/// Waits until none of the processes has used any processor time for 300 ms.
pub(crate) fn wait_until_idle(pids: &[u32]) {
    let used = || -> Vec<String> {
        let stat = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/schedstat"));
        pids.iter().map(|pid| stat(pid).unwrap_or_default()).collect()
    };
    let mut before = used();
    loop {
        thread::sleep(Duration::from_millis(300));
        let now = used();
        if now == before {
            return;
        }
        before = now;
    }
}
