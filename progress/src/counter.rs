//! What a writer does: counting in slots that it alone owns.

use std::cell::OnceCell;
use std::marker::PhantomData;

use shm_buffers::slots::{Slot, Slots};

use crate::bar::{Source, Total};

/// How many slots one writer needs: one per [`Outcome`], one for bytes, three for [`Counters::step`], the rest kept
/// for what is to come.
///
/// Both sides of a shared region must reserve this many: `layout.slots(progress::SLOTS)`.
pub const SLOTS: usize = 8;

const BYTES: usize = 3;
const STEP_DONE: usize = 4;
/// 0 where nobody knows.
const STEP_TOTAL: usize = 5;
/// Which task the two belong to, see [`ordinal`]; 0 while they change, and before the first.
const STEP_TASK: usize = 6;

/// How a task, or one attempt at it, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It gave a result. Moves the bar.
    Done,
    /// It was given up. Moves the bar.
    Failed,
    /// An attempt was lost and is made again. Does not move the bar.
    Retried,
}

impl Outcome {
    fn slot(self) -> usize {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Retried => 2,
        }
    }
}

/// The writing side of a bar: owned by one thread, read by whoever draws.
///
/// It can be moved to another thread but not shared, because a slot has one writer: counting is then a plain load
/// and store instead of a locked instruction.
///
/// ```
/// use progress::{Counters, Outcome};
/// let counters = Counters::in_process();
/// let done = counters.counter(Outcome::Done); // take it out of the loop: then `inc` is a load and a store
/// for _ in 0..10 {
///     done.inc();
/// }
/// assert_eq!(done.get(), 10);
/// ```
///
/// ```compile_fail
/// fn shared<T: Sync>(_: T) {}
/// shared(progress::Counters::in_process());
/// ```
#[derive(Debug)]
pub struct Counters {
    slots: Slots,
    /// The bar that they are dropped back to.
    of_bar: Option<Source>,
    /// Set when other code has the slots as well. It also keeps counters from being shared by threads.
    given_away: OnceCell<()>,
}

impl Counters {
    /// Counts in `slots`, of which the caller is the one writer. Counts that are already there go on.
    ///
    /// # Panics
    /// If there are fewer than [`SLOTS`].
    pub fn new(slots: Slots) -> Self {
        assert_enough(&slots);
        Self {
            slots,
            of_bar: None,
            given_away: OnceCell::new(),
        }
    }

    /// Counts in `slots` that the bar of `source` has made and added.
    pub(crate) fn of_bar(slots: Slots, source: Source) -> Self {
        let mut counters = Self::new(slots);
        counters.of_bar = Some(source);
        counters
    }

    /// Counts in slots of its own, in this process only. [`Bar::counters`](crate::Bar::counters) does this and adds
    /// them to a bar.
    pub fn in_process() -> Self {
        Self::new(Slots::in_process(SLOTS))
    }

    /// The slots, to be added to a [`Bar`](crate::Bar).
    pub fn slots(&self) -> Slots {
        let _ = self.given_away.set(());
        self.slots.clone()
    }

    /// The counter of `outcome`.
    #[inline]
    pub fn counter(&self, outcome: Outcome) -> Counter<'_> {
        self.at(outcome.slot())
    }

    /// The counter of bytes: the position of a bar with [`Unit::Bytes`](crate::Unit::Bytes), a note on others.
    #[inline]
    pub fn bytes(&self) -> Counter<'_> {
        self.at(BYTES)
    }

    /// Tells how far the running task is, in whatever units the op works: `done` of `total`. A few loads and a store
    /// from the second call on, so call it as often as it is convenient.
    ///
    /// It counts as a part of that one task, and is forgotten as soon as these counters count an outcome. Where
    /// someone else counts the outcomes, `step(0, Total::Unknown)` at the end of a task forgets it.
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
        let (task, now) = (self.slots.slot(STEP_TASK), ordinal(&self.slots));
        if task.get() == now && self.slots.slot(STEP_TOTAL).get() == total {
            self.slots.slot(STEP_DONE).set(done);
            return;
        }
        // Who sees one of the new numbers sees that they are changing, or whose they are.
        task.set(0);
        self.slots.slot(STEP_TOTAL).publish(total);
        self.slots.slot(STEP_DONE).publish(done);
        task.publish(now);
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
        if let Some(source) = self.of_bar.take() {
            match self.given_away.get() {
                None => source.recycle(&self.slots),
                Some(()) => source.retire(),
            }
        }
    }
}

/// One number of [`Counters`]. Stays in the thread that took it.
#[derive(Debug, Clone, Copy)]
pub struct Counter<'a> {
    slot: Slot<'a>,
    one_writer: PhantomData<*const ()>,
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

    /// The number now.
    #[inline]
    pub fn get(self) -> u64 {
        self.slot.get()
    }
}

/// How many outcomes were counted, and one more: names the running task, and is never 0.
#[inline]
fn ordinal(slots: &Slots) -> u64 {
    let counted = (0..BYTES).fold(0, |sum: u64, index| sum.wrapping_add(slots.slot(index).get()));
    counted.checked_add(1).unwrap_or(1)
}

/// How far a writer is in its running task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Steps {
    /// It never told.
    Untold,
    /// It told of the task before, and not yet of this one.
    Before,
    /// So far.
    At(Step),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) done: u64,
    pub(crate) total: Total,
}

impl Steps {
    /// What the writer of `slots` told of the task that it now runs.
    pub(crate) fn read(slots: &Slots) -> Self {
        let task = slots.slot(STEP_TASK).observe();
        let done = slots.slot(STEP_DONE).observe();
        let total = slots.slot(STEP_TOTAL).observe();
        if (task, done, total) == (0, 0, 0) {
            return Self::Untold;
        }
        let same = slots.slot(STEP_TASK).get() == task && ordinal(slots) == task;
        if !same || (done, total) == (0, 0) {
            return Self::Before;
        }
        Self::At(Step {
            done,
            total: match total {
                0 => Total::Unknown,
                total => Total::Known(total),
            },
        })
    }

    pub(crate) fn at(self) -> Option<Step> {
        match self {
            Self::At(step) => Some(step),
            Self::Untold | Self::Before => None,
        }
    }

    /// How much of the task is done, from 0 to 1; `None` where the total is unknown.
    pub(crate) fn share(self) -> Option<f64> {
        match self {
            Self::Untold => None,
            Self::Before => Some(0.0),
            Self::At(step) => step.share(),
        }
    }
}

impl Step {
    fn share(self) -> Option<f64> {
        match self.total {
            Total::Known(total) => Some((self.done as f64 / total.max(1) as f64).min(1.0)),
            Total::Unknown => None,
        }
    }
}

/// What was counted, summed over writers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    outcomes: [u64; 3],
    bytes: u64,
}

impl Counts {
    /// Nothing counted.
    pub fn new() -> Self {
        Self::default()
    }

    /// With `n` tasks that ended as `outcome`.
    pub fn with(mut self, outcome: Outcome, n: u64) -> Self {
        self.outcomes[outcome.slot()] = n;
        self
    }

    /// With `n` bytes.
    pub fn with_bytes(mut self, n: u64) -> Self {
        self.bytes = n;
        self
    }

    /// How many tasks ended as `outcome`.
    pub fn get(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome.slot()]
    }

    /// How many bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Tasks that need no more work: done and failed.
    pub fn ended(&self) -> u64 {
        self.get(Outcome::Done).saturating_add(self.get(Outcome::Failed))
    }

    pub(crate) fn read(slots: &Slots) -> Self {
        Self {
            outcomes: std::array::from_fn(|i| slots.slot(i).get()),
            bytes: slots.slot(BYTES).get(),
        }
    }

    /// Saturates: a slot may hold anything that a broken writer left there.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            outcomes: std::array::from_fn(|i| self.outcomes[i].saturating_add(other.outcomes[i])),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

pub(crate) fn assert_enough(slots: &Slots) {
    assert!(
        slots.len() >= SLOTS,
        "a writer of progress needs {SLOTS} slots, here are {}",
        slots.len()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_slot_of_its_own() {
        let counters = Counters::in_process();
        counters.counter(Outcome::Done).add(5);
        counters.counter(Outcome::Failed).inc();
        counters.counter(Outcome::Retried).add(2);
        counters.bytes().add(1 << 40);
        let counts = Counts::new()
            .with(Outcome::Done, 5)
            .with(Outcome::Failed, 1)
            .with(Outcome::Retried, 2)
            .with_bytes(1 << 40);
        assert_eq!(Counts::read(&counters.slots()), counts);
        assert_eq!(counts.ended(), 6);
    }

    #[test]
    fn a_step_is_forgotten_with_its_task() {
        let counters = Counters::in_process();
        let told = || {
            Steps::read(&counters.slots())
                .at()
                .map(|step| (step.done, step.total))
        };
        assert_eq!(told(), None);
        counters.step(0, Total::Known(4));
        assert_eq!(told(), Some((0, Total::Known(4))));
        counters.step(3, Total::Known(4));
        counters.step(3, Total::Known(6));
        assert_eq!(told(), Some((3, Total::Known(6))));
        for outcome in [Outcome::Done, Outcome::Failed, Outcome::Retried] {
            counters.counter(outcome).inc();
            assert_eq!(told(), None, "{outcome:?}");
            counters.step(7, Total::Unknown);
            assert_eq!(told(), Some((7, Total::Unknown)));
        }
        counters.step(0, Total::Unknown);
        assert_eq!(told(), None);
    }

    #[test]
    fn steps_are_never_read_with_the_total_of_another_task() {
        // Each task has a total of its own, and is told from its first to its last step.
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
            if let Steps::At(Step { done, total }) = Steps::read(&slots) {
                assert_eq!(Total::Known(done / 4), total);
            }
        }
        writer.join().expect("no panic");
    }

    #[test]
    fn a_broken_writer_is_at_most_through_with_its_task() {
        let step = |done, total| Step {
            done,
            total: Total::Known(total),
        };
        assert_eq!(step(u64::MAX, 1).share(), Some(1.0));
        assert_eq!(step(5, 0).share(), Some(1.0));
        let slots = Slots::in_process(SLOTS);
        (0..SLOTS).for_each(|index| slots.slot(index).set(u64::MAX));
        assert_eq!(Steps::read(&slots), Steps::Before);
    }

    #[test]
    #[should_panic(expected = "needs 8 slots, here are 2")]
    fn too_few_slots_are_refused() {
        let _ = Counters::new(Slots::in_process(2));
    }

    #[test]
    fn a_broken_writer_saturates_the_sum() {
        let broken = Counts::new().with(Outcome::Done, u64::MAX);
        assert_eq!(broken.plus(broken).ended(), u64::MAX);
    }
}
