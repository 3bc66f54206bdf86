//! Catching an op's panic with all that is known of it.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use serde::{Deserialize, Serialize};

/// Bytes of a message, and of a backtrace, at most.
const MAX_MESSAGE: usize = 8 << 10;
const MAX_BACKTRACE: usize = 16 << 10;

/// What is known of a panic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Panic {
    /// Its message.
    pub message: String,
    /// `file:line:column`.
    pub location: String,
    /// The stack, when `RUST_BACKTRACE` asks for it.
    pub backtrace: Option<String>,
}

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    /// What the hook saw of a panic on this thread.
    static SEEN: RefCell<Option<Panic>> = const { RefCell::new(None) };
}

/// Runs `op`; its panic becomes a value and is not printed. Panics elsewhere, also of other threads that `op`
/// started, are printed as ever.
///
/// The first call puts a panic hook in front of the one there is.
///
/// # Errors
/// The panic.
pub fn catch_panic<R>(op: impl FnOnce() -> R) -> Result<R, Panic> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !CATCHING.get() {
                before(info);
                return;
            }
            let backtrace = Backtrace::capture();
            let captured = backtrace.status() == BacktraceStatus::Captured;
            let seen = Panic {
                message: String::new(),
                location: info.location().map(ToString::to_string).unwrap_or_default(),
                backtrace: captured.then(|| bounded(backtrace.to_string(), MAX_BACKTRACE)),
            };
            SEEN.with_borrow_mut(|last| *last = Some(seen));
        }));
    });
    // One that was caught within an earlier op says nothing about this one.
    SEEN.with_borrow_mut(|last| *last = None);
    let outer = CATCHING.replace(true);
    let caught = panic::catch_unwind(AssertUnwindSafe(op));
    CATCHING.set(outer);
    caught.map_err(|payload| {
        let mut panic = SEEN.with_borrow_mut(Option::take).unwrap_or_default();
        panic.message = thrown(payload);
        panic
    })
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
