//! Panics as events.

use std::panic;

/// Installs a panic hook that emits an ERROR event with target `panic`, then calls the hook that was installed before.
///
/// A worker calls it once, early, if panics of any of its threads should appear among the leader's logs.
pub fn log_panics() {
    let previous = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let location = info.location().map(tracing::field::display);
        let thread = std::thread::current();
        let thread = thread.name();
        let payload = info.payload();
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        let text = text.unwrap_or("with a value of unknown type");
        tracing::error!(target: "panic", location, thread, "panicked: {text}");
        previous(info);
    }));
}
