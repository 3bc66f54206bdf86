//! Unix.
#![allow(unsafe_code)]

pub(crate) mod pipes;

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ExitStatus};

pub(crate) use ipc_channel::ipc::IpcReceiverSet as ReceiverSet;

use super::Image;
use crate::error::Cause;

/// What to execute to run this program again: on Linux the very inode that runs, also after the file was replaced.
pub(crate) fn program() -> io::Result<OsString> {
    if cfg!(target_os = "linux") {
        Ok("/proc/self/exe".into())
    } else {
        Ok(std::env::current_exe()?.into())
    }
}

/// Whether `path` can be executed.
pub(crate) fn check_executable(path: &Path) -> io::Result<()> {
    // Directories may be "executed", too.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    Ok(rustix::fs::access(path, rustix::fs::Access::EXEC_OK)?)
}

/// Whether files can be made in the directory `path`, as far as can be told without making one.
pub(crate) fn check_writable(path: &Path) -> io::Result<()> {
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    Ok(rustix::fs::access(path, access)?)
}

/// Whether the system refused to execute a file because of what is in it.
pub(crate) fn is_no_program(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOEXEC)
}

pub(crate) fn image_of_program() -> io::Result<Image> {
    let meta = std::fs::metadata(program()?)?;
    let modified = meta.mtime() as i128 * 1_000_000_000 + i128::from(meta.mtime_nsec());
    Ok(Image {
        file: (meta.dev(), meta.ino()),
        len: meta.len(),
        modified: modified as u128,
    })
}

/// Whether two addresses lie in the same loaded object (executable or library).
pub(crate) fn same_image(one: usize, other: usize) -> bool {
    let base = |address: usize| {
        let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
        // SAFETY: dladdr takes any address and writes only to `info`, which is valid for writes.
        let found = unsafe { libc::dladdr(address as *const libc::c_void, info.as_mut_ptr()) };
        // SAFETY: all-zero is a valid Dl_info (null pointers), and dladdr may only have made it better.
        let info = unsafe { info.assume_init() };
        (found != 0).then_some(info.dli_fbase as usize)
    };
    match (base(one), base(other)) {
        (Some(one), Some(other)) => one == other,
        // A static executable has no dynamic objects to tell apart.
        (None, None) => true,
        _ => false,
    }
}

/// Ends this process, at once and without any clean-up that could hang.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Asks the system to end this process when its parent's spawning thread ends, and tells whether the parent
/// is still `leader`.
pub(crate) fn die_with(leader: u32) -> bool {
    #[cfg(target_os = "linux")]
    {
        // Best effort: the liveness channel does the same everywhere.
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    }
    rustix::process::getppid().is_some_and(|parent| parent.as_raw_nonzero().get() as u32 == leader)
}

/// A worker sees to its leader's end itself: [`die_with`].
pub(crate) fn end_with_us(_child: &Child) {}

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

/// Runs `send` so that a peer that is gone does not end this process, whatever it wants SIGPIPE to do otherwise.
pub(crate) fn without_sigpipe<R>(send: impl FnOnce() -> R) -> R {
    #[cfg(target_os = "linux")]
    if is_sigpipe_deadly() {
        return with_sigpipe_blocked(send);
    }
    send()
}

#[cfg(target_os = "linux")]
fn is_sigpipe_deadly() -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: with no new action, sigaction only writes the current one to `action`, which is valid for writes.
    let asked = unsafe { libc::sigaction(libc::SIGPIPE, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: all-zero is a valid sigaction, and the call may have written a valid one.
    let action = unsafe { action.assume_init() };
    asked == 0 && action.sa_sigaction == libc::SIG_DFL
}

#[cfg(target_os = "linux")]
fn with_sigpipe_blocked<R>(send: impl FnOnce() -> R) -> R {
    let mut pipe = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: `pipe` is valid for writes.
    unsafe { libc::sigemptyset(pipe.as_mut_ptr()) };
    // SAFETY: as above, and SIGPIPE is a valid signal.
    unsafe { libc::sigaddset(pipe.as_mut_ptr(), libc::SIGPIPE) };
    let mut before = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    let mut pending = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: `pending` is valid for writes.
    unsafe { libc::sigpending(pending.as_mut_ptr()) };
    // SAFETY: a zeroed set is valid, and sigpending may have filled it.
    let was_pending = unsafe { libc::sigismember(pending.as_ptr(), libc::SIGPIPE) } == 1;
    // SAFETY: `pipe` was initialized above, `before` is valid for writes; only this thread's mask changes.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, pipe.as_ptr(), before.as_mut_ptr()) };
    let result = send();
    if !was_pending {
        let at_once = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: takes a SIGPIPE that `send` raised, if any; the set and the time are valid, no info is wanted.
        unsafe { libc::sigtimedwait(pipe.as_ptr(), std::ptr::null_mut(), &at_once) };
    }
    // SAFETY: `before` was written by the first pthread_sigmask.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    result
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
