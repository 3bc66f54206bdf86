//! The switch that turns off drawing in worker processes.

use std::sync::atomic::{AtomicBool, Ordering};

static DISABLED: AtomicBool = AtomicBool::new(false);

/// Disables drawing on standard error for all reporters that this process starts after the call.
///
/// For worker processes, whose leader draws: two programs that draw on one terminal erase each other's lines. Bars
/// still count, and log lines are still written. A reporter with its own
/// [output](crate::ReporterBuilder::output) is not affected.
pub fn disable_drawing() {
    DISABLED.store(true, Ordering::Relaxed);
}

pub(crate) fn is_drawing_disabled() -> bool {
    DISABLED.load(Ordering::Relaxed)
}
