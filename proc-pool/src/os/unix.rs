//! The system calls of Unix: those of one process here, the larger topics in submodules.
#![allow(unsafe_code, reason = "calls _exit, and reads signal dispositions")]

mod credentials;
mod group;
pub(crate) mod introduction;
mod listener;
mod pinned_path;
pub(crate) mod pipes;
mod poller;

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::OnceLock;

pub(crate) use credentials::is_privileged;
pub(crate) use group::{ProcessGroup, die_with_parent, end_group};
pub(crate) use listener::{MessageListener, MessageReceiver};
pub(crate) use pinned_path::PinnedPath;
pub(crate) use poller::ListenerWaker;

use crate::error::ExitCause;

/// Returns the path by which to execute this program again. On Linux it leads to the very inode that runs, even if the file was
/// replaced.
pub(crate) fn own_executable() -> io::Result<OsString> {
    if cfg!(target_os = "linux") {
        Ok("/proc/self/exe".into())
    } else {
        Ok(std::env::current_exe()?.into())
    }
}

/// Returns the arguments with which to execute this program again, its name first. If the program was started through its
/// loader (`ld-linux.so ./program`), the executable of the process is the loader: then the loader's arguments come first.
pub(crate) fn arguments() -> std::vec::IntoIter<OsString> {
    static ARGUMENTS: OnceLock<Vec<OsString>> = OnceLock::new();
    let arguments = ARGUMENTS.get_or_init(|| {
        let own: Vec<OsString> = std::env::args_os().collect();
        #[cfg(target_os = "linux")]
        if let Some(all) = arguments_with_loader(own.len()) {
            return all;
        }
        own
    });
    arguments.clone().into_iter()
}

/// Returns all arguments of this process if it was started through its loader. The loader hides all but the last `own` ones.
#[cfg(target_os = "linux")]
fn arguments_with_loader(own: usize) -> Option<Vec<OsString>> {
    use std::os::unix::ffi::OsStringExt;
    // SAFETY: getauxval has no preconditions; it returns 0 for an entry that is missing.
    let loader = unsafe { libc::getauxval(libc::AT_BASE) };
    if loader != 0 {
        // The system itself has loaded the loader for this program.
        return None;
    }
    let line = std::fs::read("/proc/self/cmdline").ok()?;
    let all = line.strip_suffix(b"\0").unwrap_or(&line).split(|byte| *byte == 0);
    let mut all: Vec<_> = all.map(|part| OsString::from_vec(part.to_vec())).collect();
    let program = all.len().checked_sub(own).filter(|hidden| *hidden > 0)?;
    // Workers may be started in another directory.
    all[program] = std::path::absolute(&all[program]).ok()?.into();
    Some(all)
}

/// Checks that `path` is a file which this process may execute.
pub(crate) fn check_executable(path: &Path) -> io::Result<()> {
    // Directories have the permission to execute, too.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    Ok(rustix::fs::access(path, rustix::fs::Access::EXEC_OK)?)
}

/// Returns whether the system refused to execute a file because of its contents.
pub(crate) fn is_exec_format_error(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOEXEC)
}

/// Ends this process immediately, without any clean-up that could hang.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Returns the time in nanoseconds, by a monotonic clock that has the same value in all processes of the machine.
#[inline]
pub(crate) fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Returns the CPU time of this thread in nanoseconds. This is a system call, and so much slower than [`now_ns`].
pub(crate) fn thread_cpu_ns() -> Option<u64> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Some(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
}

/// Makes writing to a closed pipe or socket an error of the call, instead of the end of the process.
pub(crate) fn ignore_broken_pipes() {
    // SAFETY: SIGPIPE is a valid signal, and ignoring it needs no handler. Other threads (an async runtime's, if it was started
    // before `init`) lose no handler: Rust's start has ignored the signal already.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Returns whether a process ended in the way of one that this crate kills.
pub(crate) fn is_kill(status: ExitStatus) -> bool {
    status.signal() == Some(libc::SIGKILL)
}

/// Converts the status of a process that has ended.
pub(crate) fn exit_cause(status: ExitStatus) -> ExitCause {
    match (status.signal(), status.code()) {
        (Some(number), _) => ExitCause::Signal {
            number,
            name: signal_name(number),
        },
        (None, Some(code)) => ExitCause::Exited { code },
        (None, None) => ExitCause::Unknown,
    }
}

fn signal_name(number: i32) -> String {
    let known = [
        (libc::SIGABRT, "SIGABRT"),
        (libc::SIGALRM, "SIGALRM"),
        (libc::SIGBUS, "SIGBUS"),
        (libc::SIGFPE, "SIGFPE"),
        (libc::SIGHUP, "SIGHUP"),
        (libc::SIGILL, "SIGILL"),
        (libc::SIGINT, "SIGINT"),
        (libc::SIGKILL, "SIGKILL"),
        (libc::SIGPIPE, "SIGPIPE"),
        (libc::SIGQUIT, "SIGQUIT"),
        (libc::SIGSEGV, "SIGSEGV"),
        (libc::SIGSYS, "SIGSYS"),
        (libc::SIGTERM, "SIGTERM"),
        (libc::SIGTRAP, "SIGTRAP"),
        (libc::SIGUSR1, "SIGUSR1"),
        (libc::SIGUSR2, "SIGUSR2"),
        (libc::SIGXCPU, "SIGXCPU"),
        (libc::SIGXFSZ, "SIGXFSZ"),
    ];
    let name = known
        .iter()
        .find(|(n, _)| *n == number)
        .map(|(_, name)| (*name).to_owned());
    name.unwrap_or_else(|| number.to_string())
}
