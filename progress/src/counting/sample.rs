//! The state of a bar at one moment.

use super::counts::Counts;
use super::step::StepState;
use super::total::{Total, Unit};

/// The number of parts into which [`Sample::parts`] divides a task.
pub(crate) const PARTS: u64 = 1 << 20;

/// Whether a bar is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BarState {
    Running,
    /// Its last line is drawn once and stays.
    Finished,
    /// It is drawn no more.
    Cleared,
}

/// A bar, or the line of one writer, at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) label: String,
    pub(crate) message: String,
    pub(crate) total: Total,
    pub(crate) unit: Unit,
    pub(crate) state: BarState,
    pub(crate) counts: Counts,
    pub(crate) position: u64,
    /// The position, including the finished steps of running tasks, in [`PARTS`].
    pub(crate) parts: u128,
    pub(crate) kind: SampleKind,
    /// The writers that have lines of their own.
    pub(crate) sources: Vec<(SourceId, Sample)>,
}

/// Identifies a writer within its bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SourceId(pub(crate) u64);

/// Whether a [`Sample`] has the numbers of a bar or of one writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SampleKind {
    Bar,
    Source(StepState),
}
