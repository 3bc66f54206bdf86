//! Small outputs that are decoded several at a time: some of what one costs is paid once for all of them.

use std::collections::VecDeque;

use super::Map;
use crate::leader::tasks::jobs::{Completion, Outcome};

/// Maximum number of outputs that are decoded at a time.
pub(super) const MAX_DECODED: usize = 64;

/// The outputs that are returned next, of tasks with consecutive indices.
pub(super) struct Decoded<R> {
    pub(super) outputs: VecDeque<R>,
    /// The index of the first one's task.
    pub(super) index: u64,
}

impl<R> Default for Decoded<R> {
    fn default() -> Self {
        Self {
            outputs: VecDeque::new(),
            index: 0,
        }
    }
}

impl<R> Decoded<R> {
    pub(super) fn len(&self) -> usize {
        self.outputs.len()
    }

    pub(super) fn clear(&mut self) {
        self.outputs.clear();
    }
}

impl<I: Iterator, R> Map<'_, I, R> {
    /// Returns the next output, if it is decoded.
    #[inline]
    pub(super) fn next_decoded(&mut self) -> Option<R> {
        let output = self.decoded.outputs.pop_front()?;
        self.last = self.decoded.index;
        self.decoded.index += 1;
        self.returned += 1;
        Some(output)
    }

    /// Decodes finished tasks if they are small ones of a run, no more than there is credit for. Returns whether they were.
    pub(super) fn decode_run(&mut self) -> bool {
        // A tap sees each output when it is returned.
        if !self.errors.is_empty() || self.tap.is_some() {
            return false;
        }
        let Some(run) = self.done.next_run(self.credit.clamp(1, MAX_DECODED)) else {
            return false;
        };
        let Some(result) = self.decode.run(&run, &self.done.bytes, &mut self.decoded.outputs) else {
            return false;
        };
        let decoded = self.decoded.len();
        self.done.skip(decoded);
        if let Err(fault) = result {
            self.done.skip(1);
            self.errors.push_back(Completion {
                index: run.index + decoded as u64,
                outcome: Outcome::Fault(fault),
            });
        }
        if self.is_next(run.index) {
            self.decoded.index = run.index;
        } else {
            let bytes = decoded * run.len;
            self.later.add(run.index, &mut self.decoded.outputs, bytes);
        }
        true
    }
}
