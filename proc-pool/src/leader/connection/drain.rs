//! Collecting outcomes of a worker, and tasks that come back without one.

use shm_buffers::ring::Wakeup;

use super::WorkerConnection;
use super::read::{Read, read};
use crate::error::{Fault, KillReason};
use crate::leader::tasks::in_flight::{Recalled, Recovered, RetainedPayload, Task};
use crate::leader::tasks::jobs::{Completions, JobKey, Jobs, Outcome, OutputApart, Run};
use crate::wire::layout::slot;
use crate::wire::payload::Large;
use crate::wire::tags::Tag;

/// Why the outcomes of a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JobDrained {
    /// The next outcome belongs to another job, or no outcome is outstanding.
    NextJob,
    /// The ring is empty, or as much was taken as may be.
    Pause,
}

/// Why the small outputs of a job ended.
#[derive(Debug)]
enum SmallDrained {
    /// The next outcome belongs to another job, or no outcome is outstanding.
    NextJob,
    /// The ring is empty.
    Empty,
    /// As much was taken as may be.
    Enough,
    /// The ring is corrupt.
    Corrupt,
    /// The outcome of task `index` is something else; its frame starts at `start`.
    Other { index: u64, start: usize },
}

const INLINE: u8 = Tag::Inline as u8;

/// Bytes of outputs that are copied before the caller has its turn. Small ones then are still in the cache. And a caller usually drops a
/// large one before it asks for the next, which then gets the same memory, not returned to the system in between.
pub(crate) const COLLECT_BYTES: usize = 64 << 10;
/// Bytes of outputs that are taken where the outputs themselves are not of interest, but what the worker has finished: more than its ring
/// and its arena hold of what was not taken.
pub(crate) const BOUNDED_BYTES: usize = 64 << 20;

/// The least number of bytes that such a frame counts as: a worker could send millions of pieces of one byte. All that a ring holds are
/// less than [`BOUNDED_BYTES`] nevertheless.
const LEAST_BYTES: usize = 4 << 10;

/// How much of a worker's outcomes is taken.
#[derive(Debug)]
pub(crate) enum DrainLimit<'a> {
    /// Outputs until their bytes reach this number, from which they are subtracted.
    Share(&'a mut usize),
    /// A bounded amount, [`BOUNDED_BYTES`]: a living worker may write as fast as it is read.
    Bounded,
    /// Everything that a dead worker has left.
    All,
}

impl WorkerConnection {
    /// Moves the available outcomes to their jobs, and returns their number. Also continues the large task that is being sent.
    pub(crate) fn drain(&mut self, jobs: &mut Jobs, limit: DrainLimit<'_>) -> usize {
        let before = self.in_flight.count_answered();
        let mut count = 0;
        if self.pieces_in.has_unreleased() {
            self.pieces_in.release_blocks();
            self.wake_if_awaiting_pieces();
        }
        let pieces = self.pieces_in.count();
        let mut own;
        let budget = match limit {
            DrainLimit::Share(bytes) => bytes,
            DrainLimit::Bounded => {
                own = BOUNDED_BYTES;
                &mut own
            }
            DrainLimit::All => {
                own = usize::MAX;
                &mut own
            }
        };
        // Only sent tasks can be answered: more answers than tasks are invalid, and stay in the ring.
        while self.broken.is_none()
            && let Some((key, _)) = self.in_flight.next()
        {
            let (drained, end) = match jobs.get(key) {
                Some(job) => self.drain_job(key, &mut job.done, job.alignment, budget),
                None => {
                    let mut discarded = Completions::default();
                    std::mem::swap(&mut discarded.bytes, &mut self.scratch);
                    let drained = self.drain_job(key, &mut discarded, 1, budget);
                    discarded.clear();
                    self.scratch = discarded.bytes;
                    drained
                }
            };
            if drained > 0 {
                jobs.completed(key, drained);
                count += drained;
            }
            if end == JobDrained::Pause {
                break;
            }
        }
        let answered = self.in_flight.count_answered();
        if answered > before {
            self.claims.acknowledge(answered);
            self.full = false;
            if self.outcomes.finish_read() == Wakeup::Needed {
                self.wake_worker();
            }
            let busy = (
                self.control.slot(slot::BUSY_NS).get(),
                self.control.slot(slot::BUSY_TASKS).get(),
            );
            self.window.observe(
                busy.1.saturating_sub(self.last_busy.1),
                busy.0.saturating_sub(self.last_busy.0),
            );
            self.last_busy = busy;
        } else if (self.pieces_in.count() > pieces || self.pieces_in.awaits_payload())
            && self.outcomes.finish_read() == Wakeup::Needed
        {
            self.wake_worker();
        }
        if self.pieces_in.has_unreleased() && self.outcomes.is_empty() == Ok(true) {
            self.pieces_in.release_wanted_blocks();
            self.wake_if_awaiting_pieces();
        }
        self.send_pieces();
        count
    }

    /// Returns whether only a part of an output was taken.
    pub(crate) fn is_receiving(&self) -> bool {
        self.pieces_in.is_under_way() || self.pieces_in.awaits_payload()
    }

    /// Takes outcomes of the job `key` until one of another job comes. Returns how many tasks were finished, and why it ended.
    fn drain_job(
        &mut self,
        key: JobKey,
        done: &mut Completions,
        alignment: usize,
        budget: &mut usize,
    ) -> (usize, JobDrained) {
        let mut count = 0;
        loop {
            let in_pieces = self.pieces_in.is_under_way();
            let (small, end) = match self.pieces_in.awaits_payload() {
                false => self.drain_small(key, done, budget),
                true => (0, self.pop_frame(done)),
            };
            count += small;
            if in_pieces && small > 0 {
                // They came in the middle of another output.
                self.broken = Some(KillReason::Corrupt);
                return (count, JobDrained::Pause);
            }
            let (index, start) = match end {
                SmallDrained::Other { index, start } => (index, start),
                SmallDrained::NextJob => return (count, JobDrained::NextJob),
                SmallDrained::Empty | SmallDrained::Enough => return (count, JobDrained::Pause),
                SmallDrained::Corrupt => {
                    self.broken = Some(KillReason::Corrupt);
                    return (count, JobDrained::Pause);
                }
            };
            let taken = self.pieces_in.count();
            let bytes = self.pieces_in.bytes_taken();
            let pieces = &mut self.pieces_in;
            let mut read = read(self.worker, &mut done.bytes, start, pieces, alignment);
            if in_pieces && self.pieces_in.count() == taken {
                read = Read::Corrupt;
            }
            let bytes = self.pieces_in.bytes_taken() - bytes;
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            *budget = budget.saturating_sub(bytes.max(LEAST_BYTES));
            let read = match read {
                Read::Done(outcome) => self.with_buffers(outcome, &mut done.bytes),
                Read::Recalled if self.pieces_in.awaits_payload() => Read::Corrupt,
                read => read,
            };
            let outcome = match read {
                Read::Done(outcome) => outcome,
                Read::Part => {
                    self.wake_if_awaiting_pieces();
                    if *budget == 0 {
                        return (count, JobDrained::Pause);
                    }
                    continue;
                }
                Read::Recalled if self.claims.is_revoked(self.in_flight.count_answered() + 1) => {
                    let returned = self.in_flight.pop_returned();
                    self.subtract_large(returned.as_ref());
                    self.returned.extend(returned);
                    continue;
                }
                Read::Recalled | Read::Corrupt => {
                    // The worker will be killed; its end settles the other tasks.
                    self.pop_answered();
                    self.broken = Some(KillReason::Corrupt);
                    self.lost.push((key, index));
                    return (count, JobDrained::Pause);
                }
            };
            self.wake_if_awaiting_pieces();
            self.pop_answered();
            if key != JobKey::NONE {
                done.push(index, outcome);
                count += 1;
            }
            if *budget == 0 {
                return (count, JobDrained::Pause);
            }
        }
    }

    /// Takes small outputs of small tasks of the job `key` until something else comes. Returns how many there were, and why it
    /// ended.
    fn drain_small(
        &mut self,
        key: JobKey,
        done: &mut Completions,
        budget: &mut usize,
    ) -> (usize, SmallDrained) {
        let mut count = 0;
        let full = done.bytes.len().saturating_add(*budget);
        let drained = loop {
            let run = match self.in_flight.front_run(key) {
                Some(run) if key != JobKey::NONE => run,
                _ if self.in_flight.next().is_some_and(|(next, _)| next == key) => {
                    break self.pop_frame(done);
                }
                _ => break SmallDrained::NextJob,
            };
            let start = done.bytes.len();
            let (popped, len) = match self.outcomes.pop_run(INLINE, run.count, &mut done.bytes) {
                Ok((0, _)) => match self.pop_frame(done) {
                    SmallDrained::Other { .. } if done.bytes.get(start) == Some(&INLINE) => {
                        (1, done.bytes.len() - start)
                    }
                    drained => break drained,
                },
                Ok(popped) => popped,
                Err(_) => break SmallDrained::Corrupt,
            };
            done.push_run(Run {
                index: run.index,
                start: start + 1,
                len: len - 1,
                count: popped,
            });
            self.in_flight.pop_answered_run(popped);
            count += popped;
            if done.bytes.len() >= full {
                break SmallDrained::Enough;
            }
        };
        *budget = full.saturating_sub(done.bytes.len());
        (count, drained)
    }

    /// Takes the next frame, of an output whose buffers came before it or of an outcome that is none of several alike.
    fn pop_frame(&mut self, done: &mut Completions) -> SmallDrained {
        let start = done.bytes.len();
        match (self.outcomes.pop(&mut done.bytes), self.in_flight.next()) {
            (Ok(Some(_)), Some((_, index))) => SmallDrained::Other { index, start },
            (Ok(None), _) => SmallDrained::Empty,
            _ => SmallDrained::Corrupt,
        }
    }

    /// Joins an output and the buffers that came before it. A small output is the end of `bytes`.
    fn with_buffers(&mut self, outcome: Outcome, bytes: &mut Vec<u8>) -> Read {
        let Some(apart) = self.pieces_in.take_apart() else {
            return Read::Done(outcome);
        };
        let encoded = match outcome {
            // The worker found no memory for one of the buffers.
            Outcome::Fault(_) => return Read::Done(outcome),
            _ if !apart.is_complete() => return Read::Corrupt,
            Outcome::Bytes { start, end } => {
                let encoded = bytes[start..end].to_vec();
                bytes.truncate(start - 1);
                encoded.into()
            }
            Outcome::Large(encoded) => encoded,
            Outcome::Apart(_) => return Read::Corrupt,
        };
        if let Some(reason) = apart.lost {
            return Read::Done(Outcome::Fault(Box::new(Fault::Output(reason))));
        }
        let buffers = apart.received;
        Read::Done(Outcome::Apart(Box::new(OutputApart { encoded, buffers })))
    }

    /// Wakes the worker if it waits for pieces to be taken.
    fn wake_if_awaiting_pieces(&mut self) {
        if self.pieces_in.must_wake_sender() {
            self.wake_worker();
        }
    }

    #[inline]
    fn pop_answered(&mut self) {
        if let Some(large) = self.in_flight.pop_answered() {
            self.large_bytes -= large.len();
        }
    }

    /// Subtracts the size of a large task that left `in_flight`.
    fn subtract_large(&mut self, task: Option<&Task<Large>>) {
        if let Some(RetainedPayload::Large(large)) = task.map(|task| &task.payload) {
            self.large_bytes -= large.len();
        }
    }

    /// Takes back every task that the worker has not started: from now on it starts none of them. Tasks whose jobs are not `wanted`
    /// are dropped.
    pub(crate) fn recall(&mut self, wanted: impl Fn(JobKey) -> bool) -> Recalled<Large> {
        let answered = self.in_flight.count_answered();
        let kept = self.claims.revoke(answered + self.in_flight.outstanding() as u64);
        if kept < answered {
            // The worker has answered more tasks than it claims to have started.
            self.broken = Some(KillReason::Corrupt);
            return Recalled::default();
        }
        let recalled = self.in_flight.recall(kept, wanted);
        for task in &recalled.wanted {
            self.subtract_large(Some(task));
        }
        self.large_bytes -= recalled
            .dropped_large
            .iter()
            .map(|large| large.len())
            .sum::<usize>();
        if self.in_flight.last_is_recalled() {
            self.withdraw_outgoing();
        }
        recalled
    }

    /// Removes and returns the tasks that the worker has reported as not started since the last call.
    pub(crate) fn take_returned(&mut self) -> Vec<Task<Large>> {
        std::mem::take(&mut self.returned)
    }

    /// Removes and returns all tasks of a worker that is dead, after everything that it had written was drained: those that can be
    /// recovered, and those that are lost.
    pub(crate) fn take_unanswered(&mut self) -> (Recovered<Large>, Vec<(JobKey, u64)>) {
        self.large_bytes = 0;
        self.forget_outgoing();
        let mut recovered = self.in_flight.take_unanswered(self.claims.claimed());
        recovered.not_started.splice(..0, self.take_returned());
        (recovered, std::mem::take(&mut self.lost))
    }
}
