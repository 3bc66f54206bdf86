//! Catching panics of ops and of other user code, with everything that is known of them. The panics that end a process go to
//! [`last_panics`].

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::io::Write;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::{Mutex, Once, PoisonError};
use std::thread;

use serde::{Deserialize, Serialize};
use shm_buffers::Printable;

use crate::last_panics;

/// Maximum lengths of a message and of a backtrace, in bytes.
const MAX_MESSAGE: usize = 8 << 10;
const MAX_BACKTRACE: usize = 16 << 10;
/// Maximum number of recent panics kept for a thread: together with the one that ends the process, all of them can be written.
const MAX_RECENT: usize = last_panics::MAX_PANICS - 1;
/// Maximum number of panics kept of threads that do not catch, in case an op resumes one.
const MAX_OTHERS: usize = 16;

/// The message and origin of a panic. Its [`Display`](fmt::Display) is one line without control characters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Panic {
    /// The panic's message.
    pub message: String,
    /// `file:line:column`, or empty if unknown.
    pub location: String,
    /// The backtrace, if `RUST_BACKTRACE` requests it.
    pub backtrace: Option<String>,
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = Printable(&self.message);
        match &*self.location {
            "" => write!(f, "panicked: {message}"),
            location => write!(f, "panicked at {}: {message}", Printable(location)),
        }
    }
}

thread_local! {
    /// Whether this thread is within [`catch_panic`].
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    /// Whether this thread has recent panics.
    static HAS_RECENT: Cell<bool> = const { Cell::new(false) };
    /// The recent panics of this thread, oldest first; within [`catch_panic`], those of its op.
    static RECENT: RefCell<Vec<Panic>> = const { RefCell::new(Vec::new()) };
}

/// The recent panics of threads that do not catch. An op may resume such a panic, after a join or through a library that catches
/// and resumes panics, such as rayon.
static OTHERS: Mutex<VecDeque<Panic>> = Mutex::new(VecDeque::new());

/// Runs `op` and returns its output or its panic. The panic is not printed.
///
/// Panics of other threads are printed as usual, also those of threads that `op` started. So is a panic that no process survives
/// (in an `extern "C"` function, in a drop during unwinding, any with `panic = "abort"`); in a worker, such a panic also becomes
/// part of the task's error.
///
/// The first call installs a panic hook, which calls the previous hook for every panic that it does not catch.
///
/// # Errors
/// The panic of `op`. If `op` resumed a panic of another thread, its location is known as long as its message is that of one of
/// the last 16 panics of other threads.
pub fn catch_panic<R>(op: impl FnOnce() -> R) -> Result<R, Panic> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| hook(info, &*before)));
    });
    // A panic that was caught within an earlier op must not lend its location to a panic of this one.
    if HAS_RECENT.replace(false) {
        RECENT.with_borrow_mut(Vec::clear);
    }
    let previous = CATCHING.replace(true);
    let caught = panic::catch_unwind(AssertUnwindSafe(op));
    CATCHING.set(previous);
    caught.map_err(|payload| {
        let message = take_message(payload);
        let mut recent = RECENT.with_borrow_mut(std::mem::take);
        let own = recent.iter().rposition(|panic| panic.message == message);
        let known = match own {
            Some(index) => Some(recent.swap_remove(index)),
            None => take_other(&message),
        };
        Panic {
            message,
            ..known.unwrap_or_default()
        }
    })
}

/// Removes and returns the last panic of another thread with this message.
fn take_other(message: &str) -> Option<Panic> {
    let mut others = OTHERS.lock().unwrap_or_else(PoisonError::into_inner);
    let index = others.iter().rposition(|panic| panic.message == message)?;
    others.remove(index)
}

fn hook(info: &PanicHookInfo<'_>, before: &dyn Fn(&PanicHookInfo<'_>)) {
    // The thread's locals are gone at its end.
    let catching = CATCHING.try_with(Cell::get).unwrap_or_default();
    let backtrace = Backtrace::capture();
    let captured = backtrace.status() == BacktraceStatus::Captured;
    let panic = Panic {
        message: bounded(message(info.payload()), MAX_MESSAGE),
        location: info.location().map(ToString::to_string).unwrap_or_default(),
        backtrace: captured.then(|| bounded(backtrace.to_string(), MAX_BACKTRACE)),
    };
    if is_fatal(info) {
        let earlier = RECENT.try_with(RefCell::take).unwrap_or_default();
        let all = earlier.iter().chain([&panic]);
        let texts: Vec<String> = all
            .map(|panic| bounded(panic.to_string(), last_panics::MAX_TEXT))
            .collect();
        last_panics::write(texts.iter().map(|text| &**text));
        if catching {
            earlier.iter().for_each(print);
        }
        return before(info);
    }
    if !catching {
        let mut others = OTHERS.lock().unwrap_or_else(PoisonError::into_inner);
        if others.len() == MAX_OTHERS {
            others.pop_front();
        }
        others.push_back(panic.clone());
    }
    let _ = RECENT.try_with(|recent| {
        let mut recent = recent.borrow_mut();
        if recent.len() == MAX_RECENT {
            recent.remove(0);
        }
        recent.push(panic);
        HAS_RECENT.set(true);
    });
    if !catching {
        before(info);
    }
}

/// Returns whether the process aborts after this panic. The standard library exposes this only in its `Debug` output.
fn is_fatal(info: &PanicHookInfo<'_>) -> bool {
    cfg!(panic = "abort") || format!("{info:?}").contains("can_unwind: false")
}

/// Prints a panic that was not printed when it happened, as the standard library would have.
fn print(panic: &Panic) {
    let thread = thread::current();
    let (
        name,
        Panic {
            location, message, ..
        },
    ) = (thread.name().unwrap_or("<unnamed>"), panic);
    // A closed standard error is no reason to fail.
    let _ = writeln!(
        std::io::stderr(),
        "\nthread '{name}' panicked at {location}:\n{message}"
    );
}

/// Runs user code (a waker, an observer, a decoder, a drop) in a thread of the pool or in the middle of the pool's own work, so
/// that its panic does not end the thread. The panic hook has printed the panic.
///
/// # Errors
/// The panic's message.
#[inline]
pub fn guarded<R>(user: impl FnOnce() -> R) -> Result<R, String> {
    panic::catch_unwind(AssertUnwindSafe(user)).map_err(take_message)
}

/// Returns the message of a panic's payload. Leaks a payload whose drop could panic, too.
#[cold]
fn take_message(payload: Box<dyn Any + Send>) -> String {
    let message = bounded(message(&*payload), MAX_MESSAGE);
    if !(payload.is::<String>() || payload.is::<&str>()) {
        std::mem::forget(payload);
    }
    message
}

/// Returns the message of a panic's payload, if the payload is a string.
fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a payload that is not a string".to_owned())
}

/// Truncates `text` to `max` bytes and marks the cut.
fn bounded(mut text: String, max: usize) -> String {
    if text.len() > max {
        let end = (0..=max).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caught_panic_has_its_message_and_location() {
        let panic = catch_panic(|| panic!("no {}", 7)).unwrap_err();
        assert_eq!(panic.message, "no 7");
        assert!(panic.location.contains("panics.rs"), "{}", panic.location);
        assert_eq!(catch_panic(|| 3), Ok(3));
    }

    #[test]
    fn resumed_panic_of_another_thread_has_its_location() {
        let panic = catch_panic(|| {
            let other = thread::spawn(|| panic!("elsewhere {}", 8)).join();
            other.unwrap_or_else(|payload| panic::resume_unwind(payload))
        });
        let panic = panic.map(|()| "no panic").unwrap_err();
        assert_eq!(panic.message, "elsewhere 8");
        assert!(panic.location.contains("panics.rs"), "{panic}");
    }

    #[test]
    fn panic_caught_by_the_op_does_not_lend_its_location() {
        let panic = catch_panic(|| -> () {
            let caught = panic::catch_unwind(|| panic!("caught"));
            assert!(caught.is_err());
            panic::resume_unwind(Box::new("made without a panic"));
        });
        let panic = panic.map(|()| "no panic").unwrap_err();
        assert_eq!(panic.to_string(), "panicked: made without a panic");
    }

    #[test]
    fn payload_of_any_type_becomes_a_bounded_message() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("in drop");
            }
        }
        let panic = catch_panic(|| panic::panic_any(Bomb)).unwrap_err();
        assert_eq!(panic.message, "a payload that is not a string");
        let long = "ü".repeat(MAX_MESSAGE);
        let panic = catch_panic(|| panic!("{long}")).unwrap_err();
        assert!(panic.message.len() <= MAX_MESSAGE + 4 && panic.message.ends_with('…'));
    }
}
