//! The process's console control handler, on Windows. `pool::signals` reads the pipe into which the handler writes.
#![allow(unsafe_code, reason = "sets the console control handler")]

use std::io::{self, PipeReader, PipeWriter, Write};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use windows_sys::Win32::System::Console::{
    CTRL_BREAK_EVENT, CTRL_C_EVENT, CTRL_CLOSE_EVENT, CTRL_SHUTDOWN_EVENT, SetConsoleCtrlHandler,
};
use windows_sys::core::BOOL;

use super::Signal;

/// Exit code of a program that Ctrl-C has ended (`STATUS_CONTROL_C_EXIT`).
const CONTROL_C_EXIT: i32 = 0xC000_013A_u32 as i32;

/// Longer than the time that the system leaves a process whose console is closed.
const LAST_SECONDS: Duration = Duration::from_secs(60);

/// The pipe for signals, and the signals that are wanted. A lock is fine here, because handlers run in a thread of their own.
static WANTED: Mutex<Option<(PipeWriter, Vec<Signal>)>> = Mutex::new(None);

/// The installed handler.
pub(crate) struct Handlers(());

impl Handlers {
    /// Installs the handler, for no signals yet. Returns the pipe from which one byte for each signal can be read. At most one
    /// such value may exist at a time.
    pub(crate) fn new() -> io::Result<(Self, PipeReader)> {
        let (pipe_reader, pipe) = io::pipe()?;
        *WANTED.lock().unwrap_or_else(PoisonError::into_inner) = Some((pipe, Vec::new()));
        // SAFETY: `on_control` has the type of a handler and lives as long as the program.
        match unsafe { SetConsoleCtrlHandler(Some(on_control), 1) } {
            0 => Err(io::Error::last_os_error()),
            _ => Ok((Self(()), pipe_reader)),
        }
    }

    /// Sets the signals that are reported.
    pub(crate) fn install(&mut self, wanted: &[Signal]) -> io::Result<()> {
        if let Some((_, current)) = &mut *WANTED.lock().unwrap_or_else(PoisonError::into_inner) {
            *current = wanted.to_vec();
        }
        Ok(())
    }
}

impl Drop for Handlers {
    fn drop(&mut self) {
        // SAFETY: `on_control` has the type of a handler, and was installed.
        unsafe { SetConsoleCtrlHandler(Some(on_control), 0) };
        *WANTED.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Handles a control event. Returns non-zero if the signal was reported; then the system calls no other handler.
unsafe extern "system" fn on_control(event: u32) -> BOOL {
    let signal = match event {
        CTRL_C_EVENT => Signal::Interrupt,
        CTRL_BREAK_EVENT => Signal::Dump,
        CTRL_CLOSE_EVENT | CTRL_SHUTDOWN_EVENT => Signal::Terminate,
        _ => return 0,
    };
    let written = match &mut *WANTED.lock().unwrap_or_else(PoisonError::into_inner) {
        Some((pipe, wanted)) if wanted.contains(&signal) => pipe.write_all(&[signal as u8]).is_ok(),
        _ => false,
    };
    if written && signal == Signal::Terminate {
        // The system ends the process when this function returns, and after a few seconds in any case.
        thread::sleep(LAST_SECONDS);
    }
    BOOL::from(written)
}

impl Signal {
    /// Returns the signal that a byte from the pipe reports.
    pub(crate) fn of(byte: u8) -> Option<Self> {
        [Self::Interrupt, Self::Terminate, Self::Dump]
            .into_iter()
            .find(|signal| *signal as u8 == byte)
    }
}

/// Ends the process, as the signal would have done without a handler.
pub(crate) fn raise(_: Signal) {
    std::process::exit(CONTROL_C_EXIT)
}

/// Leaves Ctrl-C and Ctrl-Break to the leader, although the system sends them to all processes of the console. A worker has a
/// handler that does nothing, instead of ignoring Ctrl-C: programs that it starts would inherit that Ctrl-C is ignored.
pub(crate) fn leave_signals_to_leader() {
    // SAFETY: `do_nothing` has the type of a handler and lives as long as the program.
    unsafe { SetConsoleCtrlHandler(Some(do_nothing), 1) };
}

unsafe extern "system" fn do_nothing(event: u32) -> BOOL {
    BOOL::from(matches!(event, CTRL_C_EVENT | CTRL_BREAK_EVENT))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// Real events are tested in `tests/it`. This test calls the handler itself, because some systems can't send all events.
    #[test]
    fn only_wanted_events_are_reported() {
        let (mut handlers, mut pipe_reader) = Handlers::new().expect("a pipe can be made");
        // SAFETY: `on_control` accepts any number.
        let send = |event| unsafe { on_control(event) };
        let events = [
            (CTRL_C_EVENT, Signal::Interrupt),
            (CTRL_BREAK_EVENT, Signal::Dump),
        ];
        for (event, _) in events {
            assert_eq!(send(event), 0, "it is not wanted");
        }
        for (event, signal) in events {
            handlers.install(&[signal]).expect("it does not fail");
            let unwanted = events.into_iter().filter(|(other, _)| *other != event);
            assert!(unwanted.into_iter().all(|(other, _)| send(other) == 0));
            assert_eq!(send(event), 1);
            let mut byte = [0];
            pipe_reader.read_exact(&mut byte).expect("it was reported");
            assert_eq!(Signal::of(byte[0]), Some(signal));
        }
        handlers.install(&[Signal::Terminate]).expect("it does not fail");
        // The handler does not return for these events, because the process would end.
        for event in [CTRL_CLOSE_EVENT, CTRL_SHUTDOWN_EVENT] {
            thread::spawn(move || send(event));
            let mut byte = [0];
            pipe_reader.read_exact(&mut byte).expect("it was reported");
            assert_eq!(Signal::of(byte[0]), Some(Signal::Terminate));
        }
        drop(handlers);
        assert_eq!(
            pipe_reader.read(&mut [0]).expect("it is open"),
            0,
            "its other end is closed"
        );
        assert_eq!(send(CTRL_C_EVENT), 0);
    }
}
