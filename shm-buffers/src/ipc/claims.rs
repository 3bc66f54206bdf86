//! Claims: numbered tasks that one side claims in order and the other side may revoke.
//!
//! A leader sends tasks to a worker through a ring. The worker claims each task before it runs it
//! ([`Claimant::claim`]). The leader may revoke all tasks that are not claimed ([`Revoker::revoke`]): it learns immediately
//! which those are, without an answer of the worker, which may be busy for a long time. The worker skips a revoked task
//! when it reaches it.
//!
//! Neither side waits. Each task is run exactly once because both sides write first, then load what the other one wrote,
//! with a sequentially consistent fence in between: at least one of them sees the other's write (Dekker's algorithm). No
//! crate has this between processes, so it is written by hand and model-checked with loom.

use super::slots::Slots;
use crate::sync::{Ordering, fence};

/// Whether a task may be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Claim {
    /// The claimant runs the task.
    Granted,
    /// The task was revoked: another worker runs it.
    Revoked,
}

/// The side that runs tasks. Any process may read its number of claims.
#[derive(Debug)]
pub struct Claimant {
    claimed: Slots,
    revoked: Slots,
}

impl Claimant {
    /// Creates the claiming side. It writes its count to the first slot of `claimed` and reads the first slot of `revoked`;
    /// both are fresh.
    ///
    /// # Panics
    /// If one of them has no slot.
    pub fn new(claimed: Slots, revoked: Slots) -> Self {
        let _ = (claimed.slot(0), revoked.slot(0));
        Self { claimed, revoked }
    }

    /// Claims the next task. This has a sequentially consistent fence: what this thread has stored before is visible before it loads
    /// what follows.
    #[inline]
    pub fn claim(&mut self) -> Claim {
        let claimed = self.claimed.slot(0);
        claimed.add(1);
        // Pairs with the fence in `revoke`: either we see the revocation, or the revoker sees our claim.
        fence(Ordering::SeqCst);
        let number = claimed.get();
        match TaskRange::from_word(self.revoked.slot(0).get()) {
            Some(range) if range.contains(number) => Claim::Revoked,
            _ => Claim::Granted,
        }
    }
}

/// The side that sends tasks and may revoke them.
#[derive(Debug)]
pub struct Revoker {
    claimed: Slots,
    revoked: Slots,
    range: Option<TaskRange>,
}

impl Revoker {
    /// Creates the other side of a [`Claimant::new`] on the same slots.
    ///
    /// # Panics
    /// If one of them has no slot.
    pub fn new(claimed: Slots, revoked: Slots) -> Self {
        let _ = (claimed.slot(0), revoked.slot(0));
        Self {
            claimed,
            revoked,
            range: None,
        }
    }

    /// Returns the number of tasks that were claimed, including revoked ones that the claimant has reached. A hostile claimant
    /// may report any number.
    #[inline]
    pub fn claimed(&self) -> u64 {
        self.claimed.slot(0).get()
    }

    /// Revokes those of the first `sent` tasks that are not claimed.
    ///
    /// Returns a number of tasks: the claimant never runs a task with a higher number. It has claimed the tasks up to that
    /// number, or finds them revoked ([`is_revoked`](Self::is_revoked)) and reports that when it reaches them.
    pub fn revoke(&mut self, sent: u64) -> u64 {
        let from = match self.range {
            // The claimant may be reading this range now, or not have reported one of its tasks yet: they stay revoked.
            Some(range) => range.from,
            None => self.claimed().min(sent),
        };
        let to = sent.clamp(from, from.saturating_add(u64::from(u32::MAX)));
        let range = TaskRange { from, to };
        self.range = Some(range);
        self.revoked.slot(0).set(range.to_word());
        // Pairs with the fence in `claim`.
        fence(Ordering::SeqCst);
        self.claimed().min(sent)
    }

    /// Returns whether the claimant may report that this task, counted from 1, was revoked.
    pub fn is_revoked(&self, number: u64) -> bool {
        self.range.is_some_and(|range| range.contains(number))
    }

    /// Forgets a revocation that is over. Call it when the claimant has reported the outcome of its first `answered` tasks.
    #[inline]
    pub fn acknowledge(&mut self, answered: u64) {
        if self.range.is_some_and(|range| range.to <= answered) {
            self.range = None;
            self.revoked.slot(0).set(0);
        }
    }
}

/// The tasks from `from + 1` to `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TaskRange {
    from: u64,
    to: u64,
}

impl TaskRange {
    /// Encodes the range as one word, which can't be torn: the low half of `from`, and the number of tasks.
    fn to_word(self) -> u64 {
        (self.from & u64::from(u32::MAX)) << 32 | (self.to - self.from)
    }

    #[inline]
    fn from_word(word: u64) -> Option<Self> {
        let from = word >> 32;
        let to = from + (word & u64::from(u32::MAX));
        (to > from).then_some(Self { from, to })
    }

    /// Compares only the low half of `number`: a revocation is over long before the low half could mean another task.
    #[inline]
    fn contains(self, number: u64) -> bool {
        let offset = (number as u32).wrapping_sub(self.from as u32);
        offset > 0 && u64::from(offset) <= self.to - self.from
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn pair() -> (Claimant, Revoker) {
        let (claimed, revoked) = (Slots::in_process(1), Slots::in_process(1));
        (
            Claimant::new(claimed.clone(), revoked.clone()),
            Revoker::new(claimed, revoked),
        )
    }

    #[test]
    fn revoke_spares_claimed_and_later_tasks() {
        let (mut claimant, mut revoker) = pair();
        assert_eq!(claimant.claim(), Claim::Granted);
        assert_eq!(revoker.revoke(3), 1);
        assert_eq!(
            [1, 2, 3, 4].map(|n| revoker.is_revoked(n)),
            [false, true, true, false]
        );
        assert_eq!([claimant.claim(), claimant.claim()], [Claim::Revoked; 2]);
        // A task that is sent later is not revoked.
        assert_eq!(claimant.claim(), Claim::Granted);
        revoker.acknowledge(2);
        assert!(revoker.is_revoked(3));
        revoker.acknowledge(3);
        assert!(!revoker.is_revoked(3));
    }

    #[test]
    fn a_second_revocation_keeps_the_first() {
        let (mut claimant, mut revoker) = pair();
        assert_eq!(claimant.claim(), Claim::Granted);
        assert_eq!(revoker.revoke(2), 1);
        assert_eq!(claimant.claim(), Claim::Revoked);
        assert_eq!(revoker.revoke(4), 2);
        assert!(revoker.is_revoked(2) && revoker.is_revoked(4));
        assert_eq!([claimant.claim(), claimant.claim()], [Claim::Revoked; 2]);
        assert_eq!([claimant.claim(), claimant.claim()], [Claim::Granted; 2]);
        assert_eq!(revoker.revoke(7), 6);
        assert!(revoker.is_revoked(4) && revoker.is_revoked(7));
    }

    #[test]
    fn task_numbers_may_wrap_and_false_counts_are_bounded() {
        let (claimed, revoked) = (Slots::in_process(1), Slots::in_process(1));
        let mut revoker = Revoker::new(claimed.clone(), revoked.clone());
        let before = u64::from(u32::MAX) - 1;
        claimed.slot(0).set(before);
        let mut claimant = Claimant::new(claimed.clone(), revoked);
        assert_eq!(claimant.claim(), Claim::Granted);
        assert_eq!(revoker.revoke(before + 4), before + 1);
        assert_eq!(
            [claimant.claim(), claimant.claim(), claimant.claim()],
            [Claim::Revoked; 3]
        );
        assert_eq!(claimant.claim(), Claim::Granted);
        for count in [0, 1 << 40, u64::MAX - 1, u64::MAX] {
            claimed.slot(0).set(count);
            assert!(revoker.revoke(before + 9) <= before + 9);
        }
    }
}

#[cfg(all(test, loom))]
mod model {
    //! Every interleaving, with loom.

    use super::*;
    use loom::thread;

    /// Each task is run by the claimant, is certain to be revoked, or is reported as revoked by the claimant.
    #[test]
    fn loom_each_task_runs_once_at_every_time_of_a_revocation() {
        for revocations in [&[2u64][..], &[1, 2]] {
            loom::model(move || {
                let (claimed, revoked) = (Slots::in_process(1), Slots::in_process(1));
                let mut claimant = Claimant::new(claimed.clone(), revoked.clone());
                let mut revoker = Revoker::new(claimed, revoked);
                let worker = thread::spawn(move || [claimant.claim(), claimant.claim()]);
                // The tasks that the revoker is free to run elsewhere.
                let mut certain = [false; 2];
                for &sent in revocations {
                    for number in revoker.revoke(sent)..sent {
                        certain[number as usize] = true;
                    }
                }
                let ran = worker.join().unwrap();
                for (index, claim) in ran.into_iter().enumerate() {
                    match claim {
                        Claim::Granted => assert!(!certain[index], "task {index} runs twice"),
                        // Another worker runs it.
                        Claim::Revoked => assert!(revoker.is_revoked(index as u64 + 1)),
                    }
                }
            });
        }
    }
}
