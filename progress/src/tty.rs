//! What a terminal is and does to processes that write to it: job control, and consoles of Windows.
#![allow(unsafe_code)]

/// Whether this process is in the foreground of the terminal that standard error is.
///
/// It is where there is no job control: on other systems, and on a terminal of another session.
#[cfg(all(unix, feature = "bars"))]
pub(crate) fn stderr_in_foreground() -> bool {
    rustix::termios::tcgetpgrp(std::io::stderr()).map_or(true, |group| group == rustix::process::getpgrp())
}

#[cfg(all(not(unix), feature = "bars"))]
pub(crate) fn stderr_in_foreground() -> bool {
    true
}

/// Lets this thread write to a terminal from the background, where `stty tostop` would stop the whole process.
///
/// A terminal sends no SIGTTOU for a write of a thread that blocks it (POSIX.1-2024, 11.1.4 Terminal Access Control).
#[cfg(unix)]
pub(crate) fn write_from_the_background() {
    let mut signals = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` requires memory for one set, which `signals` is; it initializes it.
    if unsafe { libc::sigemptyset(signals.as_mut_ptr()) } != 0 {
        return;
    }
    // SAFETY: `sigaddset` requires an initialized set: `sigemptyset` above succeeded on it.
    if unsafe { libc::sigaddset(signals.as_mut_ptr(), libc::SIGTTOU) } != 0 {
        return;
    }
    // SAFETY: `pthread_sigmask` requires an initialized set, which this is, and may be given no place for the old one. It
    // changes the mask of this thread only, which runs none but this crate's code and the writer it was given.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, signals.as_ptr(), std::ptr::null_mut()) };
}

#[cfg(not(unix))]
pub(crate) fn write_from_the_background() {}

/// Lets the console that standard error is understand ECMA-48 sequences; whether it does.
///
/// It does where standard error is no console: then it is the pipe of a terminal emulator.
#[cfg(windows)]
pub(crate) fn stderr_understands_sequences() -> bool {
    use std::os::windows::io::AsRawHandle;
    use windows_sys::Win32::System::Console::{
        ENABLE_VIRTUAL_TERMINAL_PROCESSING, GetConsoleMode, SetConsoleMode,
    };

    let stderr = std::io::stderr().as_raw_handle();
    let mut mode = 0;
    // SAFETY: `GetConsoleMode` takes any handle, and writes to a number that is there.
    if unsafe { GetConsoleMode(stderr, &mut mode) } == 0 {
        return true;
    }
    // SAFETY: `SetConsoleMode` takes any handle and any flags.
    unsafe { SetConsoleMode(stderr, mode | ENABLE_VIRTUAL_TERMINAL_PROCESSING) != 0 }
}

#[cfg(not(windows))]
pub(crate) fn stderr_understands_sequences() -> bool {
    true
}
