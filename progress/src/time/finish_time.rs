//! The time at which a bar finished, by the clock of each reporter that shows it.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::clock::Clock;

/// The time at which a bar finished, by the clock of one reporter.
#[derive(Debug)]
pub(crate) struct FinishTime {
    clock: Arc<Clock>,
    time: OnceLock<Duration>,
}

/// A moment that is not yet converted to the time of a clock.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Moment {
    Now,
    At(Instant),
}

impl FinishTime {
    /// Returns the finish time of a bar that still runs.
    pub(crate) fn new(clock: &Arc<Clock>) -> Arc<Self> {
        Arc::new(Self {
            clock: Arc::clone(clock),
            time: OnceLock::new(),
        })
    }

    /// Returns the time, or `None` while the bar runs.
    pub(crate) fn get(&self) -> Option<Duration> {
        self.time.get().copied()
    }

    /// Sets the time, unless it is set already.
    pub(crate) fn record(&self, moment: Moment) {
        let _ = self.time.set(match moment {
            Moment::Now => self.clock.now(),
            Moment::At(instant) => self.clock.at(instant),
        });
    }
}
