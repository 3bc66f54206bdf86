//! Turns a test that hangs into a test that fails. The tests of `invoker` include this file, too.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Aborts the process unless it is dropped in time.
pub(crate) struct Watchdog(#[expect(dead_code, reason = "dropping it ends the wait")] mpsc::Sender<()>);

/// Wine takes several times as long as Windows to start a process.
const WINE_FACTOR: u64 = 5;

/// Starts a [`Watchdog`] that aborts the process after `seconds` seconds.
pub(crate) fn watchdog(seconds: u64) -> Watchdog {
    let seconds = match std::env::var_os("UNDER_WINE") {
        Some(_) => seconds * WINE_FACTOR,
        None => seconds,
    };
    let (alive, dropped) = mpsc::channel::<()>();
    let name = thread::current().name().unwrap_or("a test").to_owned();
    thread::spawn(move || {
        if dropped.recv_timeout(Duration::from_secs(seconds)) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{name} hangs: not done after {seconds} s");
            std::process::abort();
        }
    });
    Watchdog(alive)
}
