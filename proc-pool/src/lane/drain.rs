//! A lane's way back: outcomes that are there, and tasks that come back without one.

use shm_buffers::ring::Bell;

use super::Lane;
use super::read::{Read, read};
use crate::error::KillReason;
use crate::jobs::{Completion, Completions, JobKey, Jobs, Outcome};
use crate::ledger::{Kept, Recalled, Settled, Task};
use crate::payload::Large;
use crate::protocol::{Tag, slot};

/// Why no more of a job's outcomes were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    /// The next one is another job's, or there is none.
    Over,
    /// None is there now.
    Dry,
}

/// Why no more small outputs were taken.
#[derive(Debug)]
enum Stop {
    /// The next one is another job's, or there is none.
    Over,
    /// None is there now.
    Dry,
    /// The ring is.
    Corrupt,
    /// Something else came for that task; it begins there.
    Other { index: u64, start: usize },
}

const INLINE: u8 = Tag::Inline as u8;

/// Pieces of outputs that are taken before others have their turn, at most: those of about two arenas.
const TURN: u64 = 32;

/// How much of a worker's outcomes is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Of a living worker, which may write for as long as it is read: a bounded amount.
    Turn,
    /// Of a dead one: everything.
    Rest,
}

impl Lane {
    /// Takes the outcomes that have come to their jobs, and returns their number. Continues the task that is being sent.
    pub(crate) fn drain(&mut self, jobs: &mut Jobs, extent: Extent) -> usize {
        let before = self.ledger.count_answered();
        let mut count = 0;
        let pieces = self.pieces_in.count();
        let last = match extent {
            Extent::Turn => pieces.saturating_add(TURN),
            Extent::Rest => u64::MAX,
        };
        // Who is answered was sent: more answers than tasks are a lie, and left in the ring.
        while self.broken.is_none()
            && let Some((key, _)) = self.ledger.next()
        {
            let (drained, run) = match jobs.get(key) {
                Some(job) => self.drain_job(key, &mut job.done, last),
                None => {
                    let mut nobody = Completions::default();
                    std::mem::swap(&mut nobody.bytes, &mut self.scratch);
                    let drained = self.drain_job(key, &mut nobody, last);
                    nobody.clear();
                    self.scratch = nobody.bytes;
                    drained
                }
            };
            if drained > 0 {
                jobs.came(key, drained);
                count += drained;
            }
            if run == Run::Dry {
                break;
            }
        }
        let answered = self.ledger.count_answered();
        if answered > before {
            self.claims.answered(answered);
            self.full = false;
            if self.outcomes.settle() == Bell::Ring {
                self.ring();
            }
            let busy = (
                self.control.slot(slot::BUSY_NS).get(),
                self.control.slot(slot::BUSY_TASKS).get(),
            );
            self.window.observe(
                busy.1.saturating_sub(self.busy.1),
                busy.0.saturating_sub(self.busy.0),
            );
            self.busy = busy;
        } else if self.pieces_in.count() > pieces && self.outcomes.settle() == Bell::Ring {
            self.ring();
        }
        self.feed();
        count
    }

    /// Takes outcomes for as long as they are `key`'s; gives how many tasks were finished.
    fn drain_job(&mut self, key: JobKey, done: &mut Completions, last: u64) -> (usize, Run) {
        let mut count = 0;
        loop {
            let in_pieces = self.pieces_in.is_under_way();
            let (small, stop) = self.drain_small(key, done);
            count += small;
            if in_pieces && small > 0 {
                // In the middle of another output.
                self.broken = Some(KillReason::Corrupt);
                return (count, Run::Dry);
            }
            let (index, start) = match stop {
                Stop::Other { index, start } => (index, start),
                Stop::Over => return (count, Run::Over),
                Stop::Dry => return (count, Run::Dry),
                Stop::Corrupt => {
                    self.broken = Some(KillReason::Corrupt);
                    return (count, Run::Dry);
                }
            };
            let taken = self.pieces_in.count();
            let mut read = read(self.worker, &mut done.bytes, start, &mut self.pieces_in);
            if in_pieces && self.pieces_in.count() == taken {
                read = Read::Corrupt;
            }
            let outcome = match read {
                Read::Done(outcome) => outcome,
                Read::Part => {
                    self.ring_if_awaited();
                    if self.pieces_in.count() >= last {
                        return (count, Run::Dry);
                    }
                    continue;
                }
                Read::Recalled if self.claims.is_recalled(self.ledger.count_answered() + 1) => {
                    let returned = self.ledger.returned();
                    self.forget(returned.as_ref());
                    self.returned.extend(returned);
                    continue;
                }
                Read::Recalled | Read::Corrupt => {
                    // This process's end settles it.
                    self.answered();
                    self.broken = Some(KillReason::Corrupt);
                    self.lost.push((key, index));
                    return (count, Run::Dry);
                }
            };
            self.ring_if_awaited();
            self.answered();
            if key != JobKey::NOBODY {
                done.list.push(Completion { index, outcome });
                count += 1;
            }
            if self.pieces_in.count() >= last {
                return (count, Run::Dry);
            }
        }
    }

    /// Takes small outputs of small tasks for as long as nothing else of `key`'s comes; gives how many there were.
    fn drain_small(&mut self, key: JobKey, done: &mut Completions) -> (usize, Stop) {
        let mut stop = Stop::Over;
        let mut count = 0;
        let mut bytes = 0;
        for sent in self.ledger.front(key) {
            let start = done.bytes.len();
            stop = match self.outcomes.pop(&mut done.bytes) {
                Ok(Some(_)) => Stop::Over,
                Ok(None) => Stop::Dry,
                Err(_) => Stop::Corrupt,
            };
            if !matches!(stop, Stop::Over) {
                break;
            }
            let index = sent.index;
            let small = sent.small().filter(|_| key != JobKey::NOBODY);
            let (Some(len), Some(&INLINE)) = (small, done.bytes.get(start)) else {
                stop = Stop::Other { index, start };
                break;
            };
            let (start, end) = (start + 1, done.bytes.len());
            let outcome = Outcome::Bytes { start, end };
            done.list.push(Completion { index, outcome });
            count += 1;
            bytes += len;
        }
        self.ledger.answered_run(count, bytes);
        (count, stop)
    }

    /// Rings if the worker waits for pieces to be taken that were.
    fn ring_if_awaited(&mut self) {
        if self.pieces_in.is_awaited() {
            self.ring();
        }
    }

    #[inline]
    fn answered(&mut self) {
        if let Some(large) = self.ledger.answered() {
            self.large -= large.len();
        }
    }

    /// That task is not in the ledger any more.
    fn forget(&mut self, task: Option<&Task<Large>>) {
        if let Some(Kept::Large(large)) = task.map(|task| &task.payload) {
            self.large -= large.len();
        }
    }

    /// Takes back every task that the worker has not started: from here on it starts none of them. Those whose jobs are
    /// not `wanted` are dropped.
    pub(crate) fn recall(&mut self, wanted: impl Fn(JobKey) -> bool) -> Recalled<Large> {
        let answered = self.ledger.count_answered();
        let kept = self.claims.recall(answered + self.ledger.outstanding() as u64);
        if kept < answered {
            // It has told of more than it began.
            self.broken = Some(KillReason::Corrupt);
            return Recalled::default();
        }
        let recalled = self.ledger.recall(kept, wanted);
        for task in &recalled.back {
            self.forget(Some(task));
        }
        self.large -= recalled.large.iter().map(|large| large.len()).sum::<usize>();
        if self.ledger.ends_with_recalled() {
            self.withdraw_outgoing();
        }
        recalled
    }

    /// Tasks that the worker gave back since.
    pub(crate) fn take_returned(&mut self) -> Vec<Task<Large>> {
        std::mem::take(&mut self.returned)
    }

    /// The worker is dead and everything it had written was drained.
    pub(crate) fn settle(&mut self) -> (Settled<Large>, Vec<(JobKey, u64)>) {
        self.large = 0;
        self.forget_outgoing();
        let mut settled = self.ledger.settle(self.claims.begun());
        settled.not_started.splice(..0, self.take_returned());
        (settled, std::mem::take(&mut self.lost))
    }
}
