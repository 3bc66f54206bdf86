//! The writer's side: counters in slots that one thread owns.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};

use shm_buffers::slots::{Slot, Slots};

use super::counts::Outcome;
use super::one_writer::OneWriter;
use super::slots::{
    BYTES, SLOTS, STEP_DONE, STEP_TASK, STEP_TOTAL, WriterState, assert_slot_count, task_number,
};
use super::source::Registration;
use super::total::Total;

/// The counters of one writer: owned by one thread, read by a [`Bar`](crate::Bar).
///
/// Counters can move to another thread, but threads cannot share them: a slot has one writer, so counting is a plain
/// load and store instead of a locked instruction. Threads that share one value count with
/// [`Bar::inc`](crate::Bar::inc), or take their own counters ([`Bar::counters`](crate::Bar::counters) shows both with
/// rayon).
///
/// ```
/// use progress::{Counters, Outcome};
/// let counters = Counters::in_process();
/// let done = counters.counter(Outcome::Done); // outside of the loop: then `inc` is a load and a store
/// for _ in 0..10 {
///     done.inc();
/// }
/// assert_eq!(done.get(), 10);
/// ```
///
/// ```compile_fail
/// fn shared<T: Sync>(_: T) {}
/// shared(progress::Counters::in_process()); // error: `Counters` have one writer, so threads cannot share them
/// ```
#[derive(Debug)]
pub struct Counters {
    slots: Slots,
    /// If a bar made these counters, it takes the slots back on drop.
    registration: Option<Registration>,
    /// Set when other code has a copy of the slots.
    slots_shared: AtomicBool,
    _one_writer: OneWriter,
}

impl Counters {
    /// Returns counters in `slots`, whose only writer is the caller. They start from the numbers in the slots.
    ///
    /// # Panics
    /// If there are fewer than [`SLOTS`].
    pub fn new(slots: Slots) -> Self {
        assert_slot_count(&slots);
        WriterState::start(&slots);
        Self::started(slots, None)
    }

    /// Returns counters in slots that the bar of `registration` made for them.
    pub(super) fn of_bar(slots: Slots, registration: Registration) -> Self {
        WriterState::start(&slots);
        Self::started(slots, Some(registration))
    }

    /// Returns the counters of a writer that was recorded in its state.
    pub(super) fn started(slots: Slots, registration: Option<Registration>) -> Self {
        Self {
            slots,
            registration,
            slots_shared: AtomicBool::new(false),
            _one_writer: OneWriter::default(),
        }
    }

    /// Returns counters in new slots of this process. [`Bar::counters`](crate::Bar::counters) also adds them to a bar.
    pub fn in_process() -> Self {
        Self::new(Slots::in_process(SLOTS))
    }

    /// Returns the slots, for [`Bar::add_source`](crate::Bar::add_source).
    pub fn slots(&self) -> Slots {
        self.slots_shared.store(true, Ordering::Relaxed);
        self.slots.clone()
    }

    /// Returns the counter of `outcome`.
    #[inline]
    pub fn counter(&self, outcome: Outcome) -> Counter<'_> {
        self.at(outcome.slot())
    }

    /// Returns the counter of bytes: the position of a bar with [`Unit::Bytes`](crate::Unit::Bytes), additional
    /// information in the text of others.
    #[inline]
    pub fn bytes(&self) -> Counter<'_> {
        self.at(BYTES)
    }

    /// Reports that `done` of `total` of the running task is finished, in any unit of the op. From the second call on,
    /// this is a few loads and a store, so an op may call it in each of its rounds.
    ///
    /// The step is a part of this one task. It ends when these counters count an outcome. If another writer counts the
    /// outcomes, end it with `step(0, Total::Unknown)` when the task ends.
    ///
    /// ```
    /// use progress::{Bar, Outcome, Total};
    /// let bar = Bar::new("train", Total::Known(8));
    /// let counters = bar.counters();
    /// for batch in 1..=100 {
    ///     // learn from the batch
    ///     counters.step(batch, Total::Known(100));
    /// }
    /// counters.counter(Outcome::Done).inc();
    /// ```
    #[inline]
    pub fn step(&self, done: u64, total: Total) {
        let total = match total {
            Total::Known(total) => total,
            Total::Unknown => 0,
        };
        let (task, now) = (self.slots.slot(STEP_TASK), task_number(&self.slots));
        if task.get() == now && self.slots.slot(STEP_TOTAL).get() == total {
            self.slots.slot(STEP_DONE).set(done);
            return;
        }
        // A reader that sees one of the new numbers also sees this 0, or the task to which the number belongs.
        task.set(0);
        self.slots.slot(STEP_TOTAL).store_release(total);
        self.slots.slot(STEP_DONE).store_release(done);
        task.store_release(now);
    }

    #[inline]
    fn at(&self, index: usize) -> Counter<'_> {
        Counter {
            slot: self.slots.slot(index),
            one_writer: PhantomData,
        }
    }
}

impl Drop for Counters {
    fn drop(&mut self) {
        match (&self.registration, *self.slots_shared.get_mut()) {
            (Some(registration), false) => registration.recycle(&self.slots),
            (registration, _) => {
                WriterState::end(&self.slots);
                if let Some(registration) = registration {
                    registration.retire(None);
                }
            }
        }
    }
}

/// One number of [`Counters`]. It cannot leave its thread.
///
/// ```compile_fail
/// let counters = progress::Counters::in_process();
/// let done = counters.counter(progress::Outcome::Done);
/// std::thread::scope(|scope| {
///     scope.spawn(|| done.inc());
/// });
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Counter<'a> {
    slot: Slot<'a>,
    /// A reference to what is not `Sync` is neither `Send` nor `Sync`.
    one_writer: PhantomData<&'a OneWriter>,
}

impl Counter<'_> {
    /// Adds one.
    #[inline]
    pub fn inc(self) {
        self.slot.add(1);
    }

    /// Adds `n`.
    #[inline]
    pub fn add(self, n: u64) {
        self.slot.add(n);
    }

    /// Returns the current number.
    #[inline]
    pub fn get(self) -> u64 {
        self.slot.get()
    }
}

#[cfg(test)]
mod tests {
    use super::super::counts::Counts;
    use super::super::step::{Step, StepState};
    use super::*;

    #[test]
    fn each_counter_has_its_own_slot() {
        let counters = Counters::in_process();
        counters.counter(Outcome::Done).add(5);
        counters.counter(Outcome::Failed).inc();
        counters.counter(Outcome::Retried).add(2);
        counters.bytes().add(1 << 40);
        let counts = Counts {
            done: 5,
            failed: 1,
            retried: 2,
            bytes: 1 << 40,
        };
        assert_eq!(Counts::read(&counters.slots()), counts);
        assert_eq!(counts.ended(), 6);
    }

    #[test]
    fn step_ends_with_its_task() {
        let counters = Counters::in_process();
        let read = || {
            StepState::read(&counters.slots())
                .step()
                .map(|step| (step.done, step.total))
        };
        assert_eq!(read(), None);
        counters.step(0, Total::Known(4));
        assert_eq!(read(), Some((0, Total::Known(4))));
        counters.step(3, Total::Known(4));
        counters.step(3, Total::Known(6));
        assert_eq!(read(), Some((3, Total::Known(6))));
        for outcome in [Outcome::Done, Outcome::Failed, Outcome::Retried] {
            counters.counter(outcome).inc();
            assert_eq!(read(), None, "{outcome:?}");
            counters.step(7, Total::Unknown);
            assert_eq!(read(), Some((7, Total::Unknown)));
        }
        counters.step(0, Total::Unknown);
        assert_eq!(read(), None);
    }

    #[test]
    fn step_is_never_read_with_the_total_of_another_task() {
        // Each task has a total of its own, and the step encodes the task.
        let counters = Counters::in_process();
        let slots = counters.slots();
        let writer = std::thread::spawn(move || {
            for task in 1..=20_000_u64 {
                for done in 0..3 {
                    counters.step(task * 4 + done, Total::Known(task));
                }
                counters.counter(Outcome::Done).inc();
            }
        });
        while !writer.is_finished() {
            if let StepState::At(Step { done, total }) = StepState::read(&slots) {
                assert_eq!(Total::Known(done / 4), total);
            }
        }
        writer.join().expect("no panic");
    }

    #[test]
    #[should_panic(expected = "need 8 slots, but there are only 2")]
    fn too_few_slots_panic() {
        let _ = Counters::new(Slots::in_process(2));
    }
}
