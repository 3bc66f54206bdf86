//! When a bar ended, by the clock of each reporter that shows it.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::clock::Clock;

/// The end of a bar on one reporter.
#[derive(Debug)]
pub(crate) struct End {
    clock: Arc<Clock>,
    at: OnceLock<Duration>,
}

/// The moment of an end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum When {
    Now,
    At(Instant),
}

impl End {
    /// The end of a bar that still runs.
    pub(crate) fn new(clock: &Arc<Clock>) -> Arc<Self> {
        Arc::new(Self {
            clock: Arc::clone(clock),
            at: OnceLock::new(),
        })
    }

    /// `None` while the bar runs.
    pub(crate) fn at(&self) -> Option<Duration> {
        self.at.get().copied()
    }

    pub(crate) fn stamp(&self, when: When) {
        let _ = self.at.set(match when {
            When::Now => self.clock.now(),
            When::At(then) => self.clock.at(then),
        });
    }
}
