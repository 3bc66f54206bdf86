//! The panic hook that clears the bars while a panic is reported.

use std::panic;
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};
use std::time::Duration;

use super::shared::SharedDisplay;

/// The longest time for which a panicking thread waits for a busy reporter. The same thread may be what keeps it busy.
const TIMEOUT: Duration = Duration::from_millis(500);

/// The displays to clear.
static DISPLAYS: Mutex<Vec<Weak<SharedDisplay>>> = Mutex::new(Vec::new());
static HOOK: Once = Once::new();

/// Clears the bars of `display` while a panic is reported, from now on.
pub(super) fn install(display: &Arc<SharedDisplay>) {
    let mut displays = DISPLAYS.lock().unwrap_or_else(PoisonError::into_inner);
    displays.retain(|other| other.strong_count() > 0 && !other.ptr_eq(&Arc::downgrade(display)));
    displays.push(Arc::downgrade(display));
    drop(displays);
    // A panicking thread must not set hooks.
    if std::thread::panicking() {
        return;
    }
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let suspended = suspend();
            previous(info);
            suspended.iter().for_each(|display| display.resume());
        }));
    });
}

fn suspend() -> Vec<Arc<SharedDisplay>> {
    let displays: Vec<_> = {
        let displays = DISPLAYS.lock().unwrap_or_else(PoisonError::into_inner);
        displays.iter().filter_map(Weak::upgrade).collect()
    };
    displays
        .into_iter()
        .filter(|display| display.try_suspend(TIMEOUT))
        .collect()
}
