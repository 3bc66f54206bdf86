//! The parts of the accounting: ranges of tasks, as they were taken from the input, and batches, as they are sent.

use std::time::Instant;

use log_bridge::relay::Received;

use crate::batcher::DraftTask;
use crate::report::NodeEnd;
use crate::wire::{Join, NodeCounts};

/// What follows from a loss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send a batch.
    Send(u64),
    /// The task has no output: it has reached the number of nodes that it may cost.
    Fail {
        job: u32,
        index: u64,
        node: String,
        losses: u32,
    },
}

/// Counts of a run. Everything that is ignored is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) duplicates: u64,
    /// Answers with a wrong index, another task's hash, or bytes that are no answer.
    pub(crate) invalid: u64,
    /// Messages of other runs.
    pub(crate) foreign: u64,
    /// Batches that were sent again.
    pub(crate) resent: u64,
    pub(crate) nodes_lost: u64,
}

/// A node that has joined.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) join: Join,
    pub(crate) counts: NodeCounts,
    pub(crate) state: NodeEnd,
    /// Its records.
    pub(crate) logs: Received,
    /// Outputs of it that were delivered.
    pub(crate) delivered: u64,
    /// The number of nodes that joined before.
    pub(crate) number: usize,
    /// When it was last heard.
    pub(super) seen: Instant,
}

pub(super) struct Range {
    pub(super) tasks: Vec<DraftTask>,
    pub(super) encoded: Vec<u8>,
    pub(super) open: usize,
    pub(super) batches: Vec<u64>,
}

pub(super) struct Batch {
    pub(super) job: u32,
    /// The index of the first task of its range.
    pub(super) range: u64,
    /// The positions of its tasks in the range.
    pub(super) positions: Positions,
    pub(super) alone: bool,
    pub(super) holder: Option<Holder>,
    /// When it was sent; `None` while that is under way.
    pub(super) sent: Option<Instant>,
}

pub(super) enum Positions {
    All,
    Some(Vec<u32>),
}

pub(super) struct Holder {
    pub(super) node: u64,
    /// Which of the batch's tasks may have started, and not ended.
    pub(super) begun: std::ops::Range<usize>,
    /// When the node was last known to have it.
    pub(super) seen: Instant,
    /// The node has done what it will: all of its answers are in the stream up to this number.
    pub(super) finished: Option<Finished>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Finished {
    pub(crate) sequence: u64,
    /// The rest has not started.
    pub(crate) released: bool,
}

impl Range {
    /// Returns whether a task belongs to this range, which begins at `first`.
    pub(super) fn has(&self, first: u64, index: u64) -> bool {
        index >= first && index - first < self.tasks.len() as u64
    }

    /// Returns where the encoding of a task lies.
    pub(super) fn bytes_of(&self, position: usize) -> std::ops::Range<usize> {
        let before = position.checked_sub(1);
        before.map_or(0, |before| self.tasks[before].end)..self.tasks[position].end
    }

    pub(super) fn task(&self, position: usize) -> &[u8] {
        &self.encoded[self.bytes_of(position)]
    }
}

impl Batch {
    pub(super) fn len(&self, range: &Range) -> usize {
        match &self.positions {
            Positions::All => range.tasks.len(),
            Positions::Some(positions) => positions.len(),
        }
    }

    pub(super) fn all_positions(&self, range: &Range) -> impl Iterator<Item = usize> {
        (0..self.len(range)).map(|at| match &self.positions {
            Positions::All => at,
            Positions::Some(positions) => positions[at] as usize,
        })
    }
}
