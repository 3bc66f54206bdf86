//! The layout of a writer's slots, which both sides of a shared region agree on.

use shm_buffers::slots::Slots;

/// The number of slots that one writer needs: one for each [`Outcome`](crate::Outcome), one for bytes, three for
/// [`Counters::step`](crate::Counters::step). The rest is reserved.
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
