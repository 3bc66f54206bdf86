//! Outputs of an ordered map that have come before one that is returned earlier.

use std::collections::{BTreeMap, VecDeque};

use super::decoded::MAX_DECODED;
use crate::error::TaskError;

/// Maximum number of bytes of the outputs of a run, beyond the last one: a run is counted until the first of its outputs is taken.
const MAX_RUN_BYTES: usize = 64 << 10;

/// Maximum memory of the empty lists that are kept for the next runs, in bytes.
const MAX_SPARE_BYTES: usize = 1 << 20;

/// Outputs and errors of tasks, by index.
pub(super) struct Later<R> {
    /// Sorted by index. There are few: workers get tasks with consecutive indices.
    runs: VecDeque<LaterRun<R>>,
    errors: BTreeMap<u64, TaskError>,
    count: usize,
    bytes: usize,
    /// Empty.
    spare: Vec<VecDeque<R>>,
}

/// Outputs of tasks with consecutive indices, at least one.
struct LaterRun<R> {
    index: u64,
    outputs: VecDeque<R>,
    /// The size of their encodings.
    bytes: usize,
}

impl<R> Default for Later<R> {
    fn default() -> Self {
        Self {
            runs: VecDeque::new(),
            errors: BTreeMap::new(),
            count: 0,
            bytes: 0,
            spare: Vec::new(),
        }
    }
}

impl<R> Later<R> {
    /// Returns the number of outputs and errors.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Returns the size of the encodings of the outputs in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Adds the outputs of tasks from `index` on, [`MAX_DECODED`] at most, and leaves `outputs` empty. `bytes` is the size of their encodings.
    pub(super) fn add(&mut self, index: u64, outputs: &mut VecDeque<R>, bytes: usize) {
        self.count += outputs.len();
        self.bytes += bytes;
        let at = self.runs.partition_point(|run| run.index < index);
        let before = at.checked_sub(1).and_then(|before| self.runs.get_mut(before));
        if let Some(run) = before
            && run.index + run.outputs.len() as u64 == index
            && run.outputs.len() + outputs.len() <= MAX_DECODED
            && run.bytes < MAX_RUN_BYTES
        {
            run.outputs.append(outputs);
            run.bytes += bytes;
            return;
        }
        if !outputs.is_empty() {
            let outputs = std::mem::replace(outputs, self.spare.pop().unwrap_or_default());
            let run = LaterRun {
                index,
                outputs,
                bytes,
            };
            self.runs.insert(at, run);
        }
    }

    /// Adds the error of a task.
    pub(super) fn add_error(&mut self, error: TaskError) {
        self.count += 1;
        self.errors.insert(error.task, error);
    }

    /// Replaces the empty `outputs` with those of the tasks from `index` on, if they are here.
    #[inline]
    pub(super) fn take(&mut self, index: u64, outputs: &mut VecDeque<R>) -> bool {
        if self.runs.front().is_none_or(|run| run.index != index) {
            return false;
        }
        let Some(run) = self.runs.pop_front() else {
            return false;
        };
        self.count -= run.outputs.len();
        self.bytes -= run.bytes;
        let empty = std::mem::replace(outputs, run.outputs);
        debug_assert!(empty.is_empty(), "they are returned before others are taken");
        if self.spare.len() < MAX_SPARE_BYTES / (MAX_DECODED * size_of::<R>().max(1)) {
            self.spare.push(empty);
        }
        true
    }

    /// Returns the error of the task `index`, if it is here.
    #[inline]
    pub(super) fn take_error(&mut self, index: u64) -> Option<TaskError> {
        let first = self.errors.first_entry()?;
        let is_next = *first.key() == index;
        self.count -= usize::from(is_next);
        is_next.then(|| first.remove())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Fault;

    fn add(later: &mut Later<u64>, indices: std::ops::Range<u64>) {
        let (first, bytes) = (indices.start, (indices.end - indices.start) as usize);
        let mut outputs = indices.collect();
        later.add(first, &mut outputs, bytes);
        assert!(outputs.is_empty());
    }

    fn take_all(later: &mut Later<u64>, mut next: u64) -> u64 {
        let mut outputs = VecDeque::new();
        while later.take(next, &mut outputs) {
            for output in outputs.drain(..) {
                assert_eq!(output, next);
                next += 1;
            }
        }
        next
    }

    #[test]
    fn outputs_are_taken_in_order() {
        let mut later = Later::default();
        let ranges = [10..12, 5..6, 30..94, 6..10, 0..1, 20..30, 94..95, 12..20];
        for range in ranges {
            add(&mut later, range);
        }
        assert_eq!((later.len(), later.bytes()), (91, 91));
        // Runs that follow each other are joined, as far as they are not too long.
        assert_eq!(later.runs.len(), 6);
        assert_eq!(take_all(&mut later, 0), 1);
        assert_eq!(take_all(&mut later, 1), 1);
        assert_eq!(take_all(&mut later, 5), 95);
        assert_eq!((later.len(), later.bytes()), (0, 0));
    }

    #[test]
    fn errors_are_taken_in_their_places() {
        let mut later = Later::default();
        add(&mut later, 4..5);
        for task in [3, 5] {
            let fault = Fault::Cancelled;
            later.add_error(TaskError { task, fault });
        }
        assert_eq!(later.len(), 3);
        assert!(later.take_error(2).is_none());
        assert_eq!(later.take_error(3).map(|error| error.task), Some(3));
        assert_eq!(take_all(&mut later, 4), 5);
        assert_eq!(later.take_error(5).map(|error| error.task), Some(5));
        assert_eq!((later.len(), later.take_error(6).is_none()), (0, true));
    }

    #[test]
    fn a_run_of_large_outputs_is_short() {
        let mut later = Later::default();
        for index in 0..4 {
            later.add(index, &mut VecDeque::from([index]), MAX_RUN_BYTES);
        }
        assert_eq!(later.runs.len(), 4);
        assert_eq!(later.bytes(), 4 * MAX_RUN_BYTES);
        assert_eq!(take_all(&mut later, 0), 4);
    }
}
