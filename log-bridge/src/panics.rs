//! Panics as events.

use std::panic;

/// Emits an ERROR event of target `panic` for every panic of this process, then does what was done before.
///
/// To be called once in a worker, if panics are to appear among the leader's logs.
pub fn log_panics() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let location = info.location().map(tracing::field::display);
        let thread = std::thread::current();
        let thread = thread.name();
        let payload = info.payload();
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        let text = text.unwrap_or("with a value of unknown type");
        tracing::error!(target: "panic", location, thread, "panicked: {text}");
        before(info);
    }));
}
