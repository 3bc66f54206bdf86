//! A test that hangs fails.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Aborts the process unless it is dropped in time.
pub(crate) struct Watchdog(#[expect(dead_code, reason = "its drop is the news")] mpsc::Sender<()>);

pub(crate) fn watchdog(seconds: u64) -> Watchdog {
    let (alive, news) = mpsc::channel::<()>();
    let name = thread::current().name().unwrap_or("a test").to_owned();
    thread::spawn(move || {
        if news.recv_timeout(Duration::from_secs(seconds)) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{name} hangs: not done after {seconds} s");
            std::process::abort();
        }
    });
    Watchdog(alive)
}
