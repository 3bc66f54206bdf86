//! The state of a bar that its clones, sources and counters share.

use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use super::counts::Counts;
use super::sample::{BarState, PARTS, Sample, SampleKind, SourceId};
use super::shards::Shards;
use super::step::StepState;
use super::total::{Total, Unit};
use super::writers::Writers;
use crate::time::finish_time::FinishTime;

/// The state of a bar.
#[derive(Debug)]
pub(super) struct SharedBar {
    /// The counts that threads add without counters.
    pub(super) shards: Shards,
    inner: Mutex<Inner>,
}

/// The state of a bar behind its lock.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) label: String,
    pub(super) message: String,
    pub(super) total: Total,
    pub(super) unit: Unit,
    pub(super) state: BarState,
    /// The finish times to set, one for each reporter that shows the bar.
    pub(super) finish_times: Vec<Weak<FinishTime>>,
    pub(super) writers: Writers,
    /// The largest position so far.
    max_position: u64,
    /// The largest position so far in [`PARTS`], including steps of running tasks.
    max_parts: u128,
}

impl SharedBar {
    pub(super) fn new(label: String, total: Total) -> Self {
        let inner = Mutex::new(Inner {
            label,
            message: String::new(),
            total,
            unit: Unit::default(),
            state: BarState::Running,
            finish_times: Vec::new(),
            writers: Writers::default(),
            max_position: 0,
            max_parts: 0,
        });
        Self {
            shards: Shards::default(),
            inner,
        }
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic leaves the state consistent: no change to it can panic halfway.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn sum(&self) -> Counts {
        let writers = self.inner().writers.sum();
        writers.saturating_add(self.shards.sum())
    }

    pub(super) fn sample(&self) -> Sample {
        self.inner().sample(&self.shards)
    }
}

impl Inner {
    fn position(&self, counts: Counts) -> u64 {
        match self.unit {
            Unit::Tasks => counts.ended(),
            Unit::Bytes => counts.bytes,
        }
    }

    /// Returns the finished steps of running tasks, in [`PARTS`]. A bar of bytes has none.
    fn parts_of_running_tasks(&self) -> u128 {
        match self.unit {
            Unit::Bytes => 0,
            Unit::Tasks => {
                let steps = self.writers.live().map(StepState::read);
                let fractions = steps.filter_map(StepState::fraction);
                fractions.map(|fraction| (fraction * PARTS as f64) as u128).sum()
            }
        }
    }

    fn sample(&mut self, shards: &Shards) -> Sample {
        self.writers.retire_ended();
        // Counts are read before steps: a task that ends between the two is missing, instead of counted twice.
        let counts = self.writers.sum().saturating_add(shards.sum());
        let exact = self.position(counts);
        let exact_parts = u128::from(exact) * u128::from(PARTS);
        self.max_position = self.max_position.max(exact);
        self.max_parts = self.max_parts.max(exact_parts + self.parts_of_running_tasks());
        let (position, parts, sources) = match self.state {
            BarState::Running => (self.max_position, self.max_parts, self.sample_sources()),
            BarState::Finished | BarState::Cleared => (exact, exact_parts, Vec::new()),
        };
        Sample {
            label: self.label.clone(),
            message: self.message.clone(),
            total: self.total,
            unit: self.unit,
            state: self.state,
            counts,
            position,
            parts,
            kind: SampleKind::Bar,
            sources,
        }
    }

    /// Returns samples of the writers that have lines.
    fn sample_sources(&self) -> Vec<(SourceId, Sample)> {
        let samples = self.writers.lines().map(|(id, line, slots)| {
            let counts = Counts::read(slots);
            let position = self.position(counts);
            let sample = Sample {
                label: line.label.clone(),
                message: line.message.clone(),
                total: Total::Unknown,
                unit: self.unit,
                state: self.state,
                counts,
                position,
                parts: u128::from(position) * u128::from(PARTS),
                kind: SampleKind::Source(StepState::read(slots)),
                sources: Vec::new(),
            };
            (id, sample)
        });
        samples.collect()
    }
}
