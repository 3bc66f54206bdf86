//! The panic hook that takes bars off the screen while a panic is reported.

use std::panic;
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};
use std::time::Duration;

use crate::shared::Shared;

/// How long a panicking thread waits for a reporter that is busy. It may be busy because of the very thread.
const PATIENCE: Duration = Duration::from_millis(500);

/// The reporters whose bars are in the way.
static GUARDED: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());
static HOOK: Once = Once::new();

/// Takes the bars of `shared` off the screen during each panic's report from now on.
pub(crate) fn guard(shared: &Arc<Shared>) {
    let mut guarded = GUARDED.lock().unwrap_or_else(PoisonError::into_inner);
    guarded.retain(|other| other.strong_count() > 0 && !other.ptr_eq(&Arc::downgrade(shared)));
    guarded.push(Arc::downgrade(shared));
    drop(guarded);
    // A panicking thread may not set hooks.
    if std::thread::panicking() {
        return;
    }
    HOOK.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let suspended = suspend();
            report(info);
            suspended.iter().for_each(|shared| shared.resume());
        }));
    });
}

fn suspend() -> Vec<Arc<Shared>> {
    let guarded: Vec<_> = {
        let guarded = GUARDED.lock().unwrap_or_else(PoisonError::into_inner);
        guarded.iter().filter_map(Weak::upgrade).collect()
    };
    guarded
        .into_iter()
        .filter(|shared| shared.try_suspend(PATIENCE))
        .collect()
}
