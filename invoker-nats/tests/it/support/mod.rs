//! Servers and processes of tests. All of them end with the test.

mod process;
mod server;
mod turn;

#[cfg(unix)]
pub(crate) use process::Role;
pub(crate) use process::{Process, wait_for_nodes};
pub(crate) use server::Server;
pub(crate) use turn::{alone, share};

use std::time::{Duration, Instant};

/// Waits for a condition. Panics after a minute.
pub(crate) fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_or_explain(condition, || what.to_owned());
}

/// Waits for a condition. Panics after a minute, with the text that `explain` returns then.
fn wait_or_explain(mut condition: impl FnMut() -> bool, explain: impl Fn() -> String) {
    let started = Instant::now();
    while !condition() {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "{}: not after a minute",
            explain()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns the resident memory of a process in bytes.
#[cfg(target_os = "linux")]
pub(crate) fn resident(pid: u32) -> u64 {
    proc_pool::ProcessMemory::of(pid).expect("it exists").resident
}
