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

/// Outputs as they lie in the buffers of a map: those of [`Map::take_ready`].
#[derive(Debug)]
pub enum Ready<'a> {
    /// Small outputs.
    Run(ReadyRun<'a>),
    /// The index of a task, and its output.
    One(u64, Result<&'a [u8], Fault>),
}

/// Small outputs of equal length of tasks with consecutive indices.
#[derive(Debug, Clone, Copy)]
pub struct ReadyRun<'a> {
    /// The index of the first task.
    pub first: u64,
    /// The outputs, each behind its tag.
    frames: &'a [u8],
    frame_len: usize,
}

impl<'a> ReadyRun<'a> {
    /// Returns the number of tasks.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.frames.len() / self.frame_len
    }

    /// Returns the length of each output.
    pub fn output_len(&self) -> usize {
        self.frame_len - 1
    }

    /// Splits it behind its first `count` tasks: the rest is `None` if there are not more.
    pub fn split(self, count: usize) -> (Self, Option<Self>) {
        let Some((frames, rest)) = self.frames.split_at_checked(count.saturating_mul(self.frame_len)) else {
            return (self, None);
        };
        let first = self.first + count as u64;
        let rest = Self {
            first,
            frames: rest,
            ..self
        };
        (
            Self { frames, ..self },
            Some(rest).filter(|rest| !rest.frames.is_empty()),
        )
    }

    /// Appends the outputs, one behind the other.
    pub fn copy_to(&self, into: &mut Vec<u8>) {
        into.reserve(self.len() * self.output_len());
        for frame in self.frames.chunks_exact(self.frame_len) {
            into.extend_from_slice(&frame[1..]);
        }
    }
}

impl<I: Iterator, R> Map<'_, I, R> {
    /// Calls `use_outputs` with the encoded outputs of tasks that have finished, in the order of completion, and submits tasks for which
    /// workers have room. Like [`try_next`](Self::try_next), it waits for nothing but the input. Returns the number of tasks, or `None` if
    /// there are no more outputs.
    ///
    /// # Panics
    /// If the map is ordered.
    #[doc(hidden)]
    pub fn take_ready(&mut self, mut use_outputs: impl FnMut(Ready<'_>)) -> Option<usize> {
        assert!(
            self.order == OutputOrder::AsCompleted,
            "only outputs in the order of completion are taken as they lie"
        );
        if self.event_loop.is_here() {
            self.exchange();
        }
        if !self.event_loop.is_here() {
            let error = self.fail_forked()?.err()?;
            use_outputs(Ready::One(error.task, Err(error.fault)));
            return Some(1);
        }
        // Half of them, so that workers get new tasks before the other half is used.
        let most = self.available() / 2 + 1;
        let mut taken = 0;
        while taken < most {
            if let Some(run) = self
                .done
                .next_run(most - taken)
                .filter(|_| self.errors.is_empty())
            {
                self.done.skip(run.count);
                self.last = run.index + run.count as u64 - 1;
                self.returned += run.count as u64;
                taken += run.count;
                use_outputs(Ready::Run(ReadyRun {
                    first: run.index,
                    frames: &self.done.bytes[run.frames()],
                    frame_len: run.frame_len(),
                }));
                continue;
            }
            let Some(Completion { index, outcome }) = self.take() else {
                break;
            };
            self.last = index;
            self.returned += 1;
            taken += 1;
            let mut use_output = |output| use_outputs(Ready::One(index, output));
            match outcome {
                Outcome::Bytes { start, end } => use_output(Ok(&self.done.bytes[start..end])),
                Outcome::Large(bytes) => use_output(Ok(&bytes)),
                // Only a map of bytes is read in this way, for which outputs contain their buffers.
                Outcome::Apart(_) => use_output(Err(read_as_bytes())),
                Outcome::Fault(fault) => use_output(Err(*fault)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_split_behind_any_of_its_outputs() {
        let run = ReadyRun {
            first: 7,
            frames: &[0, 1, 2, 0, 3, 4, 0, 5, 6],
            frame_len: 3,
        };
        let outputs = |run: &ReadyRun<'_>| {
            let mut outputs = vec![9];
            run.copy_to(&mut outputs);
            assert_eq!(outputs.len(), 1 + run.len() * run.output_len());
            outputs
        };
        assert_eq!(outputs(&run), [9, 1, 2, 3, 4, 5, 6]);
        let (start, rest) = run.split(2);
        let rest = rest.expect("one is left");
        assert_eq!((start.first, &outputs(&start)[..]), (7, &[9, 1, 2, 3, 4][..]));
        assert_eq!((rest.first, &outputs(&rest)[..]), (9, &[9, 5, 6][..]));
        for count in [3, 4, usize::MAX] {
            let (all, rest) = run.split(count);
            assert!(all.len() == 3 && rest.is_none(), "{count}");
        }
        // Outputs without bytes have their tags.
        let empty = ReadyRun {
            first: 0,
            frames: &[0; 4],
            frame_len: 1,
        };
        assert_eq!((empty.len(), outputs(&empty)), (4, vec![9]));
        assert_eq!(
            empty.split(1).1.map(|rest| (rest.first, rest.len())),
            Some((1, 3))
        );
    }
}
