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
    pub(super) fn slot(self) -> usize {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Retried => 2,
        }
    }
}

/// Numbers of outcomes and bytes, summed over writers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    outcomes: [u64; 3],
    bytes: u64,
}

impl Counts {
    /// Returns counts of zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the number of tasks with this `outcome`.
    #[must_use]
    pub fn with(mut self, outcome: Outcome, n: u64) -> Self {
        self.outcomes[outcome.slot()] = n;
        self
    }

    /// Sets the number of bytes.
    #[must_use]
    pub fn with_bytes(mut self, n: u64) -> Self {
        self.bytes = n;
        self
    }

    /// Returns the number of tasks, or attempts, with this `outcome`.
    pub fn get(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome.slot()]
    }

    /// Returns the number of bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the number of tasks that need no more work: done and failed.
    pub fn ended(&self) -> u64 {
        self.get(Outcome::Done).saturating_add(self.get(Outcome::Failed))
    }

    pub(super) fn read(slots: &Slots) -> Self {
        Self {
            outcomes: std::array::from_fn(|index| slots.slot(index).get()),
            bytes: slots.slot(BYTES).get(),
        }
    }

    /// Saturates, because a broken writer may have left any number in a slot.
    pub(super) fn saturating_add(self, other: Self) -> Self {
        Self {
            outcomes: std::array::from_fn(|i| self.outcomes[i].saturating_add(other.outcomes[i])),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sum_saturates_with_the_numbers_of_a_broken_writer() {
        let broken = Counts::new().with(Outcome::Done, u64::MAX);
        assert_eq!(broken.saturating_add(broken).ended(), u64::MAX);
    }
}
