//! Numbers of outcomes and bytes, of one writer or summed over several.

use shm_buffers::slots::Slots;

use super::slots::BYTES;

/// How a task, or one attempt at it, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The task returned a result. Moves the bar.
    Done,
    /// The task failed and is not retried. Moves the bar.
    Failed,
    /// An attempt was lost, and the task is retried. Does not move the bar.
    Retried,
}

impl Outcome {
    #[inline]
    pub(super) fn slot(self) -> usize {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Retried => 2,
        }
    }
}

/// Numbers of outcomes and bytes, of one writer or summed over several.
///
/// A supervisor that corrects the counts of a dead writer changes fields of what it has read:
///
/// ```
/// use progress::{Bar, Counters, Outcome, Total};
/// let bar = Bar::new("recommend", Total::Known(3));
/// let counters = Counters::in_process();
/// let source = bar.add_source(counters.slots());
/// counters.counter(Outcome::Done).add(2);
///
/// // The result of one of the two tasks was lost with the writer.
/// let mut counts = source.counts();
/// counts.done -= 1;
/// counts.retried += 1;
/// source.retire_with(counts);
/// assert_eq!(bar.counts().done, 1);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counts {
    /// The number of tasks that returned a result.
    pub done: u64,
    /// The number of tasks that failed and are not retried.
    pub failed: u64,
    /// The number of lost attempts.
    pub retried: u64,
    /// The number of bytes.
    pub bytes: u64,
}

impl Counts {
    /// Returns the number of tasks that need no more work: done and failed.
    pub fn ended(&self) -> u64 {
        self.done.saturating_add(self.failed)
    }

    pub(super) fn read(slots: &Slots) -> Self {
        Self::from_numbers(|index| slots.slot(index).get())
    }

    /// Returns the counts whose numbers are in these slots.
    pub(super) fn from_numbers(number: impl Fn(usize) -> u64) -> Self {
        Self {
            done: number(Outcome::Done.slot()),
            failed: number(Outcome::Failed.slot()),
            retried: number(Outcome::Retried.slot()),
            bytes: number(BYTES),
        }
    }

    /// Saturates, because a broken writer may have left any number in a slot.
    pub(super) fn saturating_add(self, other: Self) -> Self {
        Self {
            done: self.done.saturating_add(other.done),
            failed: self.failed.saturating_add(other.failed),
            retried: self.retried.saturating_add(other.retried),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sum_saturates_with_the_numbers_of_a_broken_writer() {
        let broken = Counts {
            done: u64::MAX,
            ..Counts::default()
        };
        assert_eq!(broken.saturating_add(broken).ended(), u64::MAX);
    }
}
