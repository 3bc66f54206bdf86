//! Processes of Unix systems other than Linux.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

fn pid(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed()).expect("no pid is 0")
}

/// Kills a process; returns `false` if there is no such process.
pub(crate) fn try_kill(process: u32) -> bool {
    kill_process(pid(process), Signal::KILL).is_ok()
}

/// Waits until the processes have ended and were reaped, at most `ms` milliseconds; returns `false` if one is left.
pub(crate) fn ends_within(pids: &[u32], ms: u64) -> bool {
    let deadline = Instant::now() + Duration::from_millis(ms);
    loop {
        if pids.iter().all(|&it| test_kill_process(pid(it)).is_err()) {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Returns the pids of what the process, which may have ended, has started and still runs.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let parent = parent.to_string();
    let listed = std::process::Command::new("pgrep").args(["-P", &parent]).output();
    let listed = listed.expect("pgrep is installed").stdout;
    let pids = String::from_utf8_lossy(&listed).into_owned();
    pids.lines().filter_map(|pid| pid.parse().ok()).collect()
}

/// Whether this process has children, running or not yet reaped.
pub(crate) fn has_children() -> bool {
    let waited = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
    !matches!(waited, Err(rustix::io::Errno::CHILD))
}
