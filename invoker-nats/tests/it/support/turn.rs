//! [`Turn`]: how many clusters run at the same time. Most tests wait for most of their time; but more clusters would lose nodes
//! because of load.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::watchdog::{Watchdog, watchdog};

const PLACES: usize = 3;

static FREE: Mutex<usize> = Mutex::new(PLACES);
static FREED: Condvar = Condvar::new();

fn free() -> MutexGuard<'static, usize> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The places of a test, and its watchdog, which does not count the time before.
pub(crate) struct Turn {
    places: usize,
    _watchdog: Watchdog,
}

/// Waits for a place beside other tests.
pub(crate) fn share(seconds: u64) -> Turn {
    Turn::wait(1, seconds)
}

/// Waits until no other test has a cluster: for tests that compute much, or measure the memory of this process.
pub(crate) fn alone(seconds: u64) -> Turn {
    Turn::wait(PLACES, seconds)
}

impl Turn {
    fn wait(places: usize, seconds: u64) -> Self {
        let free = FREED.wait_while(free(), |free| *free < places);
        *free.unwrap_or_else(PoisonError::into_inner) -= places;
        Self {
            places,
            _watchdog: watchdog(seconds),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *free() += self.places;
        FREED.notify_all();
    }
}
