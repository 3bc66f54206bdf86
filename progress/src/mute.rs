//! A process that must not draw: a worker, whose leader does.

use std::sync::atomic::{AtomicBool, Ordering};

static MUTE: AtomicBool = AtomicBool::new(false);

/// Makes every reporter that this process starts from now on draw nothing on standard error, whatever it was asked for.
///
/// For worker processes: their leader draws, and two programs that draw on one terminal erase each other's lines. Bars
/// still count, and log lines are still written. A reporter with an [output](crate::ReporterBuilder::output) of its own
/// draws there as before.
pub fn mute() {
    MUTE.store(true, Ordering::Relaxed);
}

pub(crate) fn is_mute() -> bool {
    MUTE.load(Ordering::Relaxed)
}
