//! What a writer does: counting in slots that it alone owns.

use std::cell::Cell;
use std::marker::PhantomData;

use shm_buffers::slots::{Slot, Slots};

/// How many slots one writer needs: one per [`Outcome`], one for bytes, the rest kept for what is to come.
///
/// Both sides of a shared region must reserve this many: `layout.slots(progress::SLOTS)`.
pub const SLOTS: usize = 8;

const BYTES: usize = 3;

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
    one_writer: PhantomData<Cell<()>>,
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
            one_writer: PhantomData,
        }
    }

    /// Counts in slots of its own, in this process only. [`Bar::counters`](crate::Bar::counters) does this and adds
    /// them to a bar.
    pub fn in_process() -> Self {
        Self::new(Slots::in_process(SLOTS))
    }

    /// The slots, to be added to a [`Bar`](crate::Bar).
    pub fn slots(&self) -> Slots {
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

    #[inline]
    fn at(&self, index: usize) -> Counter<'_> {
        Counter {
            slot: self.slots.slot(index),
            one_writer: PhantomData,
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
