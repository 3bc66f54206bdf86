//! All available outputs in one call, for callers whose own costs for one are high: as they lie in the buffers of a map, for a caller that
//! sends them elsewhere, or decoded.

use super::{Map, OutputOrder};
use crate::error::{Fault, TaskError};
use crate::leader::tasks::decode::read_as_bytes;
use crate::leader::tasks::jobs::{Completion, Outcome};

/// What [`Map::take_decoded`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// This number of outputs; at least one.
    Outputs(usize),
    /// No output is available yet.
    Pending,
    /// There are no more outputs.
    End,
}

impl<I: Iterator, R> Map<'_, I, R> {
    /// Calls `use_output` with the index of each task that has finished and its encoded output, in the order of completion, and submits
    /// tasks for which workers have room. Like [`try_next`](Self::try_next), it waits for nothing but the input. Returns the number of
    /// calls, or `None` if there are no more outputs.
    ///
    /// # Panics
    /// If the map is ordered.
    #[doc(hidden)]
    pub fn take_ready(&mut self, mut use_output: impl FnMut(u64, Result<&[u8], Fault>)) -> Option<usize> {
        assert!(
            self.order == OutputOrder::AsCompleted,
            "only outputs in the order of completion are taken as they lie"
        );
        if self.event_loop.is_here() {
            self.exchange();
        }
        if !self.event_loop.is_here() {
            let error = self.fail_forked()?.err()?;
            use_output(error.task, Err(error.fault));
            return Some(1);
        }
        // Half of them, so that workers get new tasks before the other half is used.
        let most = self.available() / 2 + 1;
        let mut taken = 0;
        while taken < most
            && let Some(Completion { index, outcome }) = self.take()
        {
            self.last = index;
            self.returned += 1;
            taken += 1;
            match outcome {
                Outcome::Bytes { start, end } => use_output(index, Ok(&self.done.bytes[start..end])),
                Outcome::Large(bytes) => use_output(index, Ok(&bytes)),
                // Only a map of bytes is read in this way, for which outputs contain their buffers.
                Outcome::Apart(_) => use_output(index, Err(read_as_bytes())),
                Outcome::Fault(fault) => use_output(index, Err(*fault)),
            }
        }
        let ended = taken == 0 && self.input.is_none() && self.returned == self.next;
        (!ended).then_some(taken)
    }

    /// Calls `use_output` with each of the next outputs, or the error of its task, and submits tasks for which workers have room. It does the
    /// same as repeated calls of [`try_next`](Self::try_next), as far as those find outputs without another exchange with the workers.
    #[doc(hidden)]
    pub fn take_decoded(&mut self, mut use_output: impl FnMut(Result<R, TaskError>)) -> Taken {
        if self.event_loop.is_here() {
            self.renew_credit();
        }
        if !self.event_loop.is_here() {
            return match self.fail_forked() {
                Some(result) => {
                    use_output(result);
                    Taken::Outputs(1)
                }
                None => Taken::End,
            };
        }
        let mut taken = 0;
        while self.credit > 0
            && let Some(result) = self.next_ready()
        {
            self.credit -= 1;
            taken += 1;
            use_output(result);
        }
        match taken {
            0 if self.input.is_none() && self.returned == self.next => Taken::End,
            0 => Taken::Pending,
            taken => Taken::Outputs(taken),
        }
    }
}
