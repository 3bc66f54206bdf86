//! The input of renderers: bars at one moment.

use std::time::Duration;

use crate::counting::sample::{BarState, PARTS, Sample, SampleKind};
use crate::counting::total::Total;

/// A bar, or the line of one writer, at one moment, with its times and rate.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) sample: Sample,
    /// The labels of the bars it is nested in, outermost first.
    pub(crate) parents: Vec<String>,
    pub(crate) elapsed: Duration,
    /// Tasks or bytes per second: smoothed while the bar runs, over its whole time after its end.
    pub(crate) rate: Option<f64>,
    pub(crate) eta: Option<Duration>,
}

impl View {
    pub(crate) fn is_running(&self) -> bool {
        self.sample.state == BarState::Running
    }

    /// Returns how much of a bar, or of a writer's running task, is done, from 0 to 1. `None` if the total is not
    /// known.
    pub(crate) fn fraction(&self) -> Option<f64> {
        match (self.sample.kind, self.sample.total) {
            (SampleKind::Source(steps), _) => steps.fraction(),
            (SampleKind::Bar, Total::Unknown) => None,
            (SampleKind::Bar, Total::Known(0)) => Some(1.0),
            (SampleKind::Bar, Total::Known(total)) => {
                Some((self.sample.parts as f64 / PARTS as f64 / total as f64).min(1.0))
            }
        }
    }
}

/// Whether bars may be on the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScreenAccess {
    Allowed,
    /// The program writes to the screen itself, between `suspend` and `resume`.
    Suspended,
}
