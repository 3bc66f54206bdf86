//! The process's console control handler, Windows.
#![allow(unsafe_code)]

use std::io::{self, PipeReader, PipeWriter, Write};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use windows_sys::Win32::System::Console::{
    CTRL_BREAK_EVENT, CTRL_C_EVENT, CTRL_CLOSE_EVENT, CTRL_SHUTDOWN_EVENT, SetConsoleCtrlHandler,
};
use windows_sys::core::BOOL;

use super::Signal;

/// Exit status of a program that Ctrl-C has ended (`STATUS_CONTROL_C_EXIT`).
const CONTROL_C_EXIT: i32 = 0xC000_013A_u32 as i32;

/// More than the system leaves a process whose console is closed.
const LAST_SECONDS: Duration = Duration::from_secs(60);

/// Who is told of what. Handlers run in a thread of their own here: a lock is fine.
static TOLD: Mutex<Option<(PipeWriter, Vec<Signal>)>> = Mutex::new(None);

/// The handler, installed.
pub(crate) struct Handlers(());

impl Handlers {
    /// None yet; and where the bytes come that tell of signals. There may be one such value at a time.
    pub(crate) fn new() -> io::Result<(Self, PipeReader)> {
        let (heard, pipe) = io::pipe()?;
        *TOLD.lock().unwrap_or_else(PoisonError::into_inner) = Some((pipe, Vec::new()));
        // SAFETY: `on_control` has the type of a handler and lives as long as the program.
        match unsafe { SetConsoleCtrlHandler(Some(on_control), 1) } {
            0 => Err(io::Error::last_os_error()),
            _ => Ok((Self(()), heard)),
        }
    }

    /// Lets `wanted` be told, and no others.
    pub(crate) fn install(&mut self, wanted: &[Signal]) -> io::Result<()> {
        if let Some((_, told)) = &mut *TOLD.lock().unwrap_or_else(PoisonError::into_inner) {
            *told = wanted.to_vec();
        }
        Ok(())
    }
}

impl Drop for Handlers {
    fn drop(&mut self) {
        // SAFETY: as above; it was installed.
        unsafe { SetConsoleCtrlHandler(Some(on_control), 0) };
        *TOLD.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Non-zero if it was told: then the system asks no other handler.
unsafe extern "system" fn on_control(event: u32) -> BOOL {
    let signal = match event {
        CTRL_C_EVENT => Signal::Interrupt,
        CTRL_BREAK_EVENT => Signal::Dump,
        CTRL_CLOSE_EVENT | CTRL_SHUTDOWN_EVENT => Signal::Terminate,
        _ => return 0,
    };
    let told = match &mut *TOLD.lock().unwrap_or_else(PoisonError::into_inner) {
        Some((pipe, told)) if told.contains(&signal) => pipe.write_all(&[signal as u8]).is_ok(),
        _ => false,
    };
    if told && signal == Signal::Terminate {
        // The system ends the process when this returns, and after a few seconds in any case.
        thread::sleep(LAST_SECONDS);
    }
    BOOL::from(told)
}

impl Signal {
    /// What a byte from the pipe tells.
    pub(crate) fn of(byte: u8) -> Option<Self> {
        [Self::Interrupt, Self::Terminate, Self::Dump]
            .into_iter()
            .find(|signal| *signal as u8 == byte)
    }
}

/// Does what the signal would have done.
pub(crate) fn raise(_: Signal) {
    std::process::exit(CONTROL_C_EXIT)
}

/// Lets Ctrl-C and Ctrl-Break, which go to all processes of the console, be the leader's affair. By a handler that does
/// nothing: a program that is started from here has them as ever, where it would inherit that Ctrl-C is ignored.
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

    /// What the system does is tested in `tests/it`; here, also what some systems can't do.
    #[test]
    fn each_event_is_told_to_who_wants_it() {
        let (mut handlers, mut heard) = Handlers::new().expect("there is a pipe");
        // SAFETY: it takes any number.
        let tell = |event| unsafe { on_control(event) };
        let events = [
            (CTRL_C_EVENT, Signal::Interrupt),
            (CTRL_BREAK_EVENT, Signal::Dump),
        ];
        for (event, _) in events {
            assert_eq!(tell(event), 0, "nobody wants it");
        }
        for (event, signal) in events {
            handlers.install(&[signal]).expect("it does not fail");
            let untold = events.into_iter().filter(|(other, _)| *other != event);
            assert!(untold.into_iter().all(|(other, _)| tell(other) == 0));
            assert_eq!(tell(event), 1);
            let mut byte = [0];
            heard.read_exact(&mut byte).expect("it was told");
            assert_eq!(Signal::of(byte[0]), Some(signal));
        }
        handlers.install(&[Signal::Terminate]).expect("it does not fail");
        // It does not come back: the process would end with it.
        for event in [CTRL_CLOSE_EVENT, CTRL_SHUTDOWN_EVENT] {
            thread::spawn(move || tell(event));
            let mut byte = [0];
            heard.read_exact(&mut byte).expect("it was told");
            assert_eq!(Signal::of(byte[0]), Some(Signal::Terminate));
        }
        drop(handlers);
        assert_eq!(
            heard.read(&mut [0]).expect("it is open"),
            0,
            "its other end is closed"
        );
        assert_eq!(tell(CTRL_C_EVENT), 0);
    }
}
