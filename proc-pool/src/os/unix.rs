//! Unix.
#![allow(unsafe_code)]

mod credentials;
#[cfg(not(target_os = "linux"))]
pub(crate) mod doorbell;
mod group;
pub(crate) mod introduction;
mod kept;
mod listener;
pub(crate) mod pipes;
mod poller;

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::OnceLock;

pub(crate) use credentials::is_privileged;
pub(crate) use group::{Group, die_with, end_group};
pub(crate) use kept::Kept;
pub(crate) use listener::{Listener, Notes};
pub(crate) use poller::Waker;

use crate::error::Cause;

/// What to execute to run this program again: on Linux the very inode that runs, also after the file was replaced.
pub(crate) fn program() -> io::Result<OsString> {
    if cfg!(target_os = "linux") {
        Ok("/proc/self/exe".into())
    } else {
        Ok(std::env::current_exe()?.into())
    }
}

/// The arguments to run this program again with, its own name first. A program that was started through its loader
/// (`ld-linux.so ./program`) runs in a process of the loader's executable: the loader's arguments come before its own then.
pub(crate) fn arguments() -> std::vec::IntoIter<OsString> {
    static ARGUMENTS: OnceLock<Vec<OsString>> = OnceLock::new();
    let arguments = ARGUMENTS.get_or_init(|| {
        let own: Vec<OsString> = std::env::args_os().collect();
        #[cfg(target_os = "linux")]
        if let Some(whole) = through_loader(own.len()) {
            return whole;
        }
        own
    });
    arguments.clone().into_iter()
}

/// All arguments of this process, if it was started through its loader, which hides those before the last `own`.
#[cfg(target_os = "linux")]
fn through_loader(own: usize) -> Option<Vec<OsString>> {
    use std::os::unix::ffi::OsStringExt;
    // SAFETY: getauxval has no preconditions; an entry that is missing is reported as 0.
    let loader = unsafe { libc::getauxval(libc::AT_BASE) };
    if loader != 0 {
        // The system itself loaded it for this program.
        return None;
    }
    let line = std::fs::read("/proc/self/cmdline").ok()?;
    let whole = line.strip_suffix(b"\0").unwrap_or(&line).split(|byte| *byte == 0);
    let mut whole: Vec<_> = whole.map(|part| OsString::from_vec(part.to_vec())).collect();
    let program = whole.len().checked_sub(own).filter(|hidden| *hidden > 0)?;
    // Workers may be started in another directory.
    whole[program] = std::path::absolute(&whole[program]).ok()?.into();
    Some(whole)
}

/// Whether `path` can be executed.
pub(crate) fn check_executable(path: &Path) -> io::Result<()> {
    // Directories may be "executed", too.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    Ok(rustix::fs::access(path, rustix::fs::Access::EXEC_OK)?)
}

/// Whether the system refused to execute a file because of what is in it.
pub(crate) fn is_no_program(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOEXEC)
}

/// Ends this process, at once and without any clean-up that could hang.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Nanoseconds of a clock that all processes of the machine read alike, and that nobody sets.
#[inline]
pub(crate) fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Lets writing to a closed pipe or socket be an error of the call, not the process's end.
pub(crate) fn ignore_broken_pipes() {
    // SAFETY: SIGPIPE is a valid signal and ignoring it needs no handler; the worker has no other thread yet that
    // could care.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Whether a process ended the way one ends that we kill.
pub(crate) fn is_kill(status: ExitStatus) -> bool {
    status.signal() == Some(libc::SIGKILL)
}

pub(crate) fn cause(status: ExitStatus) -> Cause {
    match (status.signal(), status.code()) {
        (Some(number), _) => Cause::Signal {
            number,
            name: signal_name(number),
        },
        (None, Some(code)) => Cause::Exited { code },
        (None, None) => Cause::Unknown,
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
