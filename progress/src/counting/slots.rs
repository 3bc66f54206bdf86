//! The layout of a writer's slots, which both sides of a shared region agree on.

use std::sync::atomic::{Ordering, fence};

use shm_buffers::slots::Slots;

/// The number of slots that one writer needs: one for each [`Outcome`](crate::Outcome), one for bytes, three for
/// [`Counters::step`](crate::Counters::step), and one for the writer's state.
///
/// Both sides of a shared region reserve this many: `layout.slots(progress::SLOTS)`.
pub const SLOTS: usize = 8;

/// The slots of outcomes are the ones before it.
pub(super) const BYTES: usize = 3;
pub(super) const STEP_DONE: usize = 4;
/// 0 if the total is not known.
pub(super) const STEP_TOTAL: usize = 5;
/// The [`task_number`] to which the other two slots of the step belong; 0 while they change, and before the first step.
pub(super) const STEP_TASK: usize = 6;
/// The [`WriterState`], to which every side only adds.
const STATE: usize = 7;

/// Returns the number of counted outcomes plus one: it identifies the running task and is never 0.
#[inline]
pub(super) fn task_number(slots: &Slots) -> u64 {
    let counted = (0..BYTES).fold(0, |sum: u64, index| sum.wrapping_add(slots.slot(index).get()));
    counted.checked_add(1).unwrap_or(1)
}

/// Panics if there are fewer than [`SLOTS`].
pub(super) fn assert_slot_count(slots: &Slots) {
    assert!(
        slots.len() >= SLOTS,
        "a writer's counters need {SLOTS} slots, but there are only {}",
        slots.len()
    );
}

/// How many writers of the slots have started (bits 0 to 31) and ended (bits 32 to 62), and whether the reader has
/// retired the slots (bit 63).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WriterState(u64);

const ONE_ENDED: u64 = 1 << 32;
const RETIRED: u64 = 1 << 63;

impl WriterState {
    /// If the result [has ended](Self::has_ended), all that the writers counted is visible to this thread.
    pub(super) fn read(slots: &Slots) -> Self {
        Self(slots.slot(STATE).load_acquire())
    }

    /// Records that a writer has started, and returns the state before. Of several writers that start at the same
    /// time, only one gets the state in which none has started. A writer sees what earlier ones counted.
    pub(super) fn start(slots: &Slots) -> Self {
        let before = slots.slot(STATE).fetch_add(1);
        fence(Ordering::Acquire);
        Self(before)
    }

    /// Records that a writer has ended: it counts no more.
    pub(super) fn end(slots: &Slots) {
        fence(Ordering::Release);
        slots.slot(STATE).fetch_add(ONE_ENDED);
    }

    /// Records that the reader sums the slots no more. Called at most once for the same slots.
    pub(super) fn retire(slots: &Slots) {
        slots.slot(STATE).fetch_add(RETIRED);
    }

    pub(super) fn has_started(self) -> bool {
        self.started() > 0
    }

    /// Whether there was a writer, and each writer has ended.
    pub(super) fn has_ended(self) -> bool {
        let ended = (self.0 & !RETIRED) / ONE_ENDED;
        self.has_started() && self.started() == ended
    }

    pub(super) fn is_retired(self) -> bool {
        self.0 & RETIRED != 0
    }

    fn started(self) -> u64 {
        self.0 % ONE_ENDED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_have_ended_when_each_of_their_writers_has() {
        let slots = Slots::in_process(SLOTS);
        let state = || WriterState::read(&slots);
        assert!(!state().has_started() && !state().has_ended());
        assert!(!WriterState::start(&slots).has_started());
        assert!(state().has_started() && !state().has_ended());
        assert!(WriterState::start(&slots).has_started());
        WriterState::end(&slots);
        assert!(!state().has_ended());
        WriterState::end(&slots);
        assert!(state().has_ended() && !state().is_retired());
        WriterState::retire(&slots);
        assert!(state().has_ended() && state().is_retired());
        assert!(WriterState::start(&slots).is_retired());
        assert!(!state().has_ended());
    }
}
