//! Terminals from the view of processes that write to them: job control on Unix, consoles on Windows.
#![allow(unsafe_code, reason = "blocks a signal; sets the mode of a console")]

#[cfg(unix)]
use std::mem::MaybeUninit;

/// Whether this process is in the foreground of the terminal on standard error.
///
/// Returns true where there is no job control: on other systems, and on a terminal of another session.
#[cfg(all(unix, feature = "indicatif"))]
pub(crate) fn stderr_in_foreground() -> bool {
    rustix::termios::tcgetpgrp(std::io::stderr()).map_or(true, |group| group == rustix::process::getpgrp())
}

#[cfg(all(not(unix), feature = "indicatif"))]
pub(crate) fn stderr_in_foreground() -> bool {
    true
}

/// Calls `write` so that it can write to a terminal from the background, where `stty tostop` would otherwise stop the
/// whole process.
///
/// A terminal sends no SIGTTOU for a write of a thread that blocks it (POSIX.1-2024, 11.1.4 Terminal Access Control).
#[cfg(unix)]
pub(crate) fn allow_background_write<T>(write: impl FnOnce() -> T) -> T {
    let mut blocked = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` requires memory for one set, which `blocked` is. It initializes it, and cannot fail for it.
    unsafe { libc::sigemptyset(blocked.as_mut_ptr()) };
    // SAFETY: `sigaddset` requires an initialized set: `sigemptyset` has initialized `blocked`.
    unsafe { libc::sigaddset(blocked.as_mut_ptr(), libc::SIGTTOU) };
    // SAFETY: `pthread_sigmask` requires an initialized set, which `blocked` is, and memory for another, which `before`
    // is. It changes the mask of this thread only.
    let failed = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, blocked.as_ptr(), before.as_mut_ptr()) };
    let result = write();
    if failed == 0 {
        // SAFETY: `pthread_sigmask` has initialized `before`, because it succeeded; the pointer for the old set may be
        // null.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    }
    result
}

#[cfg(not(unix))]
pub(crate) fn allow_background_write<T>(write: impl FnOnce() -> T) -> T {
    write()
}

/// Enables ECMA-48 sequences on the console on standard error, and returns whether it interprets them.
///
/// Returns true if standard error is not a console: then it is the pipe of a terminal emulator.
#[cfg(windows)]
pub(crate) fn stderr_interprets_sequences() -> bool {
    use std::os::windows::io::AsRawHandle;
    use windows_sys::Win32::System::Console::{
        ENABLE_VIRTUAL_TERMINAL_PROCESSING, GetConsoleMode, SetConsoleMode,
    };

    let stderr = std::io::stderr().as_raw_handle();
    let mut mode = 0;
    // SAFETY: `GetConsoleMode` accepts any handle and writes to `mode`, a local variable that is valid for writes.
    if unsafe { GetConsoleMode(stderr, &mut mode) } == 0 {
        return true;
    }
    // SAFETY: `SetConsoleMode` accepts any handle and any flags.
    unsafe { SetConsoleMode(stderr, mode | ENABLE_VIRTUAL_TERMINAL_PROCESSING) != 0 }
}

#[cfg(not(windows))]
pub(crate) fn stderr_interprets_sequences() -> bool {
    true
}
