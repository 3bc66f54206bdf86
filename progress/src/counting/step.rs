//! How far a writer is in its running task, as the bar reads it.

use shm_buffers::slots::Slots;

use super::slots::{STEP_DONE, STEP_TASK, STEP_TOTAL, task_number};
use super::total::Total;

/// How far a writer is in its running task, as far as it reports that with [`Counters::step`](crate::Counters::step).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StepState {
    /// The writer never called `step`.
    NeverReported,
    /// The writer reported a step of an earlier task, and none of this one yet.
    NotYetReported,
    At(Step),
}

/// A step of a task, in the op's own units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) done: u64,
    pub(crate) total: Total,
}

impl StepState {
    pub(super) fn read(slots: &Slots) -> Self {
        let task = slots.slot(STEP_TASK).load_acquire();
        let done = slots.slot(STEP_DONE).load_acquire();
        let total = slots.slot(STEP_TOTAL).load_acquire();
        if (task, done, total) == (0, 0, 0) {
            return Self::NeverReported;
        }
        let is_unchanged = slots.slot(STEP_TASK).get() == task && task_number(slots) == task;
        if !is_unchanged || (done, total) == (0, 0) {
            return Self::NotYetReported;
        }
        Self::At(Step {
            done,
            total: match total {
                0 => Total::Unknown,
                total => Total::Known(total),
            },
        })
    }

    pub(crate) fn step(self) -> Option<Step> {
        match self {
            Self::At(step) => Some(step),
            Self::NeverReported | Self::NotYetReported => None,
        }
    }

    /// Returns how much of the task is done, from 0 to 1, or `None` if the total is not known.
    pub(crate) fn fraction(self) -> Option<f64> {
        match self {
            Self::NeverReported => None,
            Self::NotYetReported => Some(0.0),
            Self::At(step) => step.fraction(),
        }
    }
}

impl Step {
    fn fraction(self) -> Option<f64> {
        match self.total {
            Total::Known(total) => Some((self.done as f64 / total.max(1) as f64).min(1.0)),
            Total::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::slots::SLOTS;
    use super::*;

    #[test]
    fn fraction_of_a_broken_writer_is_at_most_one() {
        let step = |done, total| Step {
            done,
            total: Total::Known(total),
        };
        assert_eq!(step(u64::MAX, 1).fraction(), Some(1.0));
        assert_eq!(step(5, 0).fraction(), Some(1.0));
        let slots = Slots::in_process(SLOTS);
        (0..SLOTS).for_each(|index| slots.slot(index).set(u64::MAX));
        assert_eq!(StepState::read(&slots), StepState::NotYetReported);
    }
}
