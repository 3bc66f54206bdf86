//! The end of the interpreter.
//!
//! Threads that Python calls daemons still run then. One that waits in this crate must not attach again: the interpreter would end it
//! by unwinding its stack, and no Rust function allows that. It waits for the end of the process instead.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ThreadId};

use pyo3::prelude::*;

static ENDING: AtomicBool = AtomicBool::new(false);
static MAIN: OnceLock<ThreadId> = OnceLock::new();

/// Makes all threads but the calling one stay detached from now on. Called by the main thread at the end of the interpreter.
#[pyfunction]
pub(crate) fn interpreter_ends() {
    let _ = MAIN.set(thread::current().id());
    ENDING.store(true, Ordering::SeqCst);
}

/// Runs `wait` detached from the interpreter. Returns to the interpreter only if that is not ending.
pub(crate) fn detached<T: Send>(py: Python<'_>, wait: impl FnOnce() -> T + Send) -> T {
    py.detach(|| {
        let value = wait();
        if ENDING.load(Ordering::SeqCst) && MAIN.get() != Some(&thread::current().id()) {
            loop {
                thread::park();
            }
        }
        value
    })
}
