//! Catching an op's panic with all that is known of it.

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

/// Bytes of a message, and of a backtrace, at most.
const MAX_MESSAGE: usize = 8 << 10;
const MAX_BACKTRACE: usize = 16 << 10;
/// Panics of a thread that are kept: with the one that ends the process, all can be written.
const KEPT: usize = last_panics::MOST - 1;
/// Panics of other threads that are kept, in case an op passes one on.
const ELSEWHERE: usize = 16;

/// A panic's message and origin. Its display is one line without control characters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Panic {
    /// Its message.
    pub message: String,
    /// `file:line:column`; empty when it is not known.
    pub location: String,
    /// The stack, when `RUST_BACKTRACE` asks for it.
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
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    /// The last panics of this thread, oldest first; in a thread that catches, those of the op that it runs.
    static SEEN: RefCell<Vec<Panic>> = const { RefCell::new(Vec::new()) };
}

/// The last panics of threads that do not catch: an op gets them from a join, or from a library that does, such as rayon.
static OTHERS: Mutex<VecDeque<Panic>> = Mutex::new(VecDeque::new());

/// Runs `op`; its panic becomes a value and is not printed. Panics elsewhere, also of other threads that `op`
/// started, are printed as ever. So is a panic that no process survives (in an `extern "C"` function, in a drop while another
/// one unwinds, any with `panic = "abort"`); in a worker, it also becomes part of the task's error.
///
/// The first call puts a panic hook in front of the one there is.
///
/// # Errors
/// The panic. Of one that another thread has passed on, the location is known as well, unless its message is not that of one of the
/// last panics.
pub fn catch_panic<R>(op: impl FnOnce() -> R) -> Result<R, Panic> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| hook(info, &*before)));
    });
    // One that was caught within an earlier op says nothing about this one.
    SEEN.with_borrow_mut(Vec::clear);
    let outer = CATCHING.replace(true);
    let caught = panic::catch_unwind(AssertUnwindSafe(op));
    CATCHING.set(outer);
    caught.map_err(|payload| {
        let message = thrown(payload);
        let mut seen = SEEN.with_borrow_mut(std::mem::take);
        let own = seen.iter().rposition(|panic| panic.message == message);
        let known = match own {
            Some(index) => Some(seen.swap_remove(index)),
            None => passed_on(&message),
        };
        Panic {
            message,
            ..known.unwrap_or_default()
        }
    })
}

/// The last panic of another thread with this message.
fn passed_on(message: &str) -> Option<Panic> {
    let mut others = OTHERS.lock().unwrap_or_else(PoisonError::into_inner);
    let index = others.iter().rposition(|panic| panic.message == message)?;
    others.remove(index)
}

fn hook(info: &PanicHookInfo<'_>, before: &dyn Fn(&PanicHookInfo<'_>)) {
    // Both are gone at the end of a thread.
    let catching = CATCHING.try_with(Cell::get).unwrap_or_default();
    let backtrace = Backtrace::capture();
    let captured = backtrace.status() == BacktraceStatus::Captured;
    let panic = Panic {
        message: bounded(message(info.payload()), MAX_MESSAGE),
        location: info.location().map(ToString::to_string).unwrap_or_default(),
        backtrace: captured.then(|| bounded(backtrace.to_string(), MAX_BACKTRACE)),
    };
    if is_fatal(info) {
        let earlier = SEEN.try_with(RefCell::take).unwrap_or_default();
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
        if others.len() == ELSEWHERE {
            others.pop_front();
        }
        others.push_back(panic.clone());
    }
    let _ = SEEN.try_with(|seen| {
        let mut seen = seen.borrow_mut();
        if seen.len() == KEPT {
            seen.remove(0);
        }
        seen.push(panic);
    });
    if !catching {
        before(info);
    }
}

/// Whether the process aborts after this panic. The standard library knows, and says so only in its `Debug`.
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
    // Where standard error is gone, there is nothing to print to.
    let _ = writeln!(
        std::io::stderr(),
        "\nthread '{name}' panicked at {location}:\n{message}"
    );
}

/// Runs user code in a thread of the pool, or in the middle of the pool's own work: a waker, an observer, a decoder, a
/// drop. The panic hook has printed its panic; nothing of the pool ends with it.
///
/// # Errors
/// The panic's message.
#[inline]
pub(crate) fn guarded<R>(user: impl FnOnce() -> R) -> Result<R, String> {
    panic::catch_unwind(AssertUnwindSafe(user)).map_err(thrown)
}

/// The message of a panic's payload. A payload whose drop may panic, too, is leaked.
#[cold]
fn thrown(payload: Box<dyn Any + Send>) -> String {
    let message = bounded(message(&*payload), MAX_MESSAGE);
    if !(payload.is::<String>() || payload.is::<&str>()) {
        std::mem::forget(payload);
    }
    message
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a value that is no string".to_owned())
}

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
    fn message_and_location_are_kept() {
        let panic = catch_panic(|| panic!("no {}", 7)).unwrap_err();
        assert_eq!(panic.message, "no 7");
        assert!(panic.location.contains("panics.rs"), "{}", panic.location);
        assert_eq!(catch_panic(|| 3), Ok(3));
    }

    #[test]
    fn a_panic_of_another_thread_that_was_passed_on_has_its_location() {
        let panic = catch_panic(|| {
            let other = thread::spawn(|| panic!("elsewhere {}", 8)).join();
            other.unwrap_or_else(|payload| panic::resume_unwind(payload))
        });
        let panic = panic.map(|()| "no panic").unwrap_err();
        assert_eq!(panic.message, "elsewhere 8");
        assert!(panic.location.contains("panics.rs"), "{panic}");
    }

    #[test]
    fn a_panic_that_was_caught_on_the_way_lends_its_location_to_no_other() {
        let panic = catch_panic(|| -> () {
            let caught = panic::catch_unwind(|| panic!("caught"));
            assert!(caught.is_err());
            panic::resume_unwind(Box::new("made without a panic"));
        });
        let panic = panic.map(|()| "no panic").unwrap_err();
        assert_eq!(panic.to_string(), "panicked: made without a panic");
    }

    #[test]
    fn any_payload_will_do() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("in drop");
            }
        }
        let panic = catch_panic(|| panic::panic_any(Bomb)).unwrap_err();
        assert_eq!(panic.message, "a value that is no string");
        let long = "ü".repeat(MAX_MESSAGE);
        let panic = catch_panic(|| panic!("{long}")).unwrap_err();
        assert!(panic.message.len() <= MAX_MESSAGE + 4 && panic.message.ends_with('…'));
    }
}
