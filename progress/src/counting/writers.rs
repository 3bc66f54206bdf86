//! The writers of a bar: the slots that it sums, and what retired writers counted.

use std::collections::BTreeMap;

use shm_buffers::slots::Slots;

use super::counts::Counts;
use super::sample::SourceId;
use super::slots::{SLOTS, WriterState};

/// The number of unused slots of dropped counters that a bar keeps for new counters.
pub(super) const MAX_FREE: usize = 64;

/// The number of detached writers at which the first look is taken for those that have ended.
const MIN_SWEEP: usize = 64;

/// The writers of a bar. Every change is made under the bar's lock, as each sum is read, so a sum has each count once.
#[derive(Debug, Default)]
pub(super) struct Writers {
    live: BTreeMap<SourceId, Slots>,
    next_id: u64,
    /// Live writers whose source was dropped. They are retired when their counters are dropped.
    detached: Vec<SourceId>,
    /// The number of detached writers at which those that have ended are retired next.
    next_sweep: usize,
    /// Slots of dropped counters, all zero, of which no other code has a copy.
    free: Vec<Slots>,
    lines: Vec<Line>,
    /// The sum of the counts of retired writers.
    retired: Counts,
}

/// The line of one writer.
#[derive(Debug)]
pub(super) struct Line {
    /// `None` when the writer is gone and no other has taken the line.
    source: Option<SourceId>,
    pub(super) label: String,
    pub(super) message: String,
}

impl Writers {
    pub(super) fn add(&mut self, slots: Slots) -> SourceId {
        let id = SourceId(self.next_id);
        self.next_id += 1;
        self.live.insert(id, slots);
        id
    }

    /// Adds a writer with a line of its own.
    pub(super) fn add_labeled(&mut self, label: String, slots: Slots) -> SourceId {
        let id = self.add(slots);
        let is_free = |line: &&mut Line| line.source.is_none();
        let has_label = |line: &Line| line.source.is_none() && line.label == label;
        let free = match self.lines.iter().position(has_label) {
            Some(index) => self.lines.get_mut(index),
            None => self.lines.iter_mut().find(is_free),
        };
        let line = Line {
            source: Some(id),
            label,
            message: String::new(),
        };
        match free {
            Some(free) => *free = line,
            None => self.lines.push(line),
        }
        id
    }

    /// Adds a writer in zeroed slots of this process.
    pub(super) fn add_in_process(&mut self) -> (SourceId, Slots) {
        let slots = self.free.pop().unwrap_or_else(|| Slots::in_process(SLOTS));
        (self.add(slots.clone()), slots)
    }

    /// Removes a writer and keeps `counts`, or its current counts. Does nothing if the writer is removed already.
    pub(super) fn retire(&mut self, id: SourceId, counts: Option<Counts>) {
        let Some(slots) = self.live.remove(&id) else {
            return;
        };
        if let Some(line) = self.line_mut(id) {
            line.source = None;
        }
        let counts = counts.unwrap_or_else(|| Counts::read(&slots));
        self.retired = self.retired.saturating_add(counts);
    }

    /// Retires the writer of slots of which no other code has a copy, and keeps the slots for the next writer.
    pub(super) fn recycle(&mut self, id: SourceId, slots: &Slots) {
        self.retire(id, None);
        if self.free.len() < MAX_FREE {
            (0..slots.len()).for_each(|index| slots.slot(index).set(0));
            self.free.push(slots.clone());
        }
    }

    /// Retires a live writer when its counters are dropped.
    pub(super) fn detach(&mut self, id: SourceId) {
        if !self.live.contains_key(&id) {
            return;
        }
        self.detached.push(id);
        // The number has to double before the next look, which bounds the time for each writer.
        if self.detached.len() >= self.next_sweep.max(MIN_SWEEP) {
            self.retire_ended();
            self.next_sweep = 2 * self.detached.len();
        }
    }

    /// Retires detached writers that have ended.
    pub(super) fn retire_ended(&mut self) {
        let mut detached = std::mem::take(&mut self.detached);
        detached.retain(|id| {
            let slots = self.live.get(id);
            let has_ended = slots.is_none_or(|slots| WriterState::read(slots).has_ended());
            if has_ended {
                self.retire(*id, None);
            }
            !has_ended
        });
        self.detached = detached;
    }

    pub(super) fn sum(&self) -> Counts {
        let counts = self.live.values().map(Counts::read);
        counts.fold(self.retired, Counts::saturating_add)
    }

    /// Returns the slots of a writer that is not retired.
    pub(super) fn slots(&self, id: SourceId) -> Option<&Slots> {
        self.live.get(&id)
    }

    pub(super) fn live(&self) -> impl Iterator<Item = &Slots> {
        self.live.values()
    }

    /// Returns the writers that have lines.
    pub(super) fn lines(&self) -> impl Iterator<Item = (SourceId, &Line, &Slots)> {
        let used = self.lines.iter().filter_map(|line| Some((line.source?, line)));
        used.filter_map(|(id, line)| Some((id, line, self.live.get(&id)?)))
    }

    pub(super) fn line_mut(&mut self, id: SourceId) -> Option<&mut Line> {
        self.lines.iter_mut().find(|line| line.source == Some(id))
    }

    /// Returns the number of writers, unused slots and lines that are kept in memory.
    #[cfg(test)]
    pub(super) fn kept(&self) -> (usize, usize, usize) {
        (self.live.len(), self.free.len(), self.lines.len())
    }
}
