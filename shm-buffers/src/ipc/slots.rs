//! Atomic slots: numbers that one thread writes and any process reads.
//!
//! A slot has one writer. That makes [`Slot::add`] a relaxed load and a relaxed store, which take less than a nanosecond;
//! an atomic read-modify-write takes ten times as long. Readers never see a torn value. Crates for counters keep them in
//! the memory of one process, so slots are written by hand.

use super::layout::{Layout, Span};
use super::region::{Region, RegionWords};
use crate::sync::{AtomicU64, Ordering};

/// A sequence of slots in a [`Region`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Slots(RegionWords);

impl Layout {
    /// Assigns `count` [slots](crate::slots).
    pub fn slots(&mut self, count: usize) -> Span {
        self.reserve(count)
    }
}

impl Slots {
    /// Returns the slots that `span` assigns in `region`.
    ///
    /// # Panics
    /// If `span` was made for a larger region.
    pub fn new(region: &Region, span: Span) -> Self {
        Self(RegionWords::new(region, span))
    }

    /// Creates `count` slots in this process only.
    pub fn in_process(count: usize) -> Self {
        let mut layout = Layout::new();
        let span = layout.slots(count);
        Self::new(&Region::on_heap(layout.byte_len()), span)
    }

    /// Returns the number of slots.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether the sequence has no slots.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the slots in `range`; its slot 0 is slot `range.start` of these.
    ///
    /// # Panics
    /// If `range` reaches beyond [`len`](Self::len).
    pub fn part(&self, range: std::ops::Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.len(),
            "no slots {range:?} of {}",
            self.len()
        );
        Self(self.0.part(range))
    }

    /// Returns the slot `index`.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len).
    #[inline]
    pub fn slot(&self, index: usize) -> Slot<'_> {
        Slot(&self.0[index])
    }
}

/// A number in shared memory, with one writer and any number of readers.
#[derive(Debug, Clone, Copy)]
pub struct Slot<'a>(&'a AtomicU64);

impl Slot<'_> {
    /// Returns the value (a relaxed load).
    #[inline]
    pub fn get(self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Returns the value. A reader that loads a value also sees everything that its writer did before
    /// [`store_release`](Self::store_release).
    #[inline]
    pub fn load_acquire(self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Replaces the value (a relaxed store). Only the slot's writer calls it.
    #[inline]
    pub fn set(self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Replaces the value. A reader that loads it with [`load_acquire`](Self::load_acquire) also sees everything that was
    /// done before.
    #[inline]
    pub fn store_release(self, value: u64) {
        self.0.store(value, Ordering::Release);
    }

    /// Adds `n`, wrapping, to a slot that several threads write, and returns the previous value. Takes ten times as long as
    /// [`add`](Self::add).
    #[inline]
    pub fn fetch_add(self, n: u64) -> u64 {
        self.0.fetch_add(n, Ordering::Relaxed)
    }

    /// Adds `n`, wrapping. Only the slot's writer calls it: two writers would lose counts.
    #[inline]
    pub fn add(self, n: u64) {
        self.0
            .store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }
}

/// Sleeping until a slot changes (`futex(2)`).
///
/// Linux only: other systems have no such call that works between processes. Portable code sleeps on a channel.
#[cfg(all(target_os = "linux", not(loom)))]
impl Slot<'_> {
    /// Sleeps until a [wake](Self::wake), if the lower 32 bits of the slot are those of `value`. Otherwise returns immediately.
    ///
    /// Also returns after a signal, and may return spuriously: load the value again.
    ///
    /// # Errors
    /// If the system call is not allowed.
    pub fn sleep_while(self, value: u64) -> std::io::Result<()> {
        crate::os::futex::wait(self.0, value, None)
    }

    /// Sleeps as [`sleep_while`](Self::sleep_while) does, at most for this time.
    ///
    /// # Errors
    /// As [`sleep_while`](Self::sleep_while).
    pub fn sleep_while_for(self, value: u64, timeout: std::time::Duration) -> std::io::Result<()> {
        crate::os::futex::wait(self.0, value, Some(timeout))
    }

    /// Wakes all threads that [sleep](Self::sleep_while) on the slot, in any process. Call it after
    /// [`store_release`](Self::store_release).
    ///
    /// # Errors
    /// As [`sleep_while`](Self::sleep_while).
    pub fn wake(self) -> std::io::Result<()> {
        crate::os::futex::wake(self.0)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_part_shares_the_memory_of_its_slots() {
        let slots = Slots::in_process(5);
        let part = slots.part(2..4);
        part.slot(1).set(7);
        assert_eq!((part.len(), slots.slot(3).get()), (2, 7));
        assert!(slots.part(5..5).is_empty());
    }

    #[test]
    fn add_wraps_and_leaves_other_slots_unchanged() {
        let slots = Slots::in_process(2);
        slots.slot(1).set(u64::MAX);
        slots.slot(1).add(3);
        assert_eq!((slots.slot(0).get(), slots.slot(1).get()), (0, 2));
    }
}

#[cfg(all(test, loom))]
mod model {
    //! Every interleaving, with loom.

    use super::*;
    use loom::thread;

    #[test]
    fn loom_an_acquired_value_comes_with_earlier_writes() {
        loom::model(|| {
            let slots = Slots::in_process(2);
            let theirs = slots.clone();
            let writer = thread::spawn(move || {
                theirs.slot(0).set(7);
                theirs.slot(1).store_release(1);
            });
            if slots.slot(1).load_acquire() == 1 {
                assert_eq!(slots.slot(0).get(), 7);
            }
            writer.join().unwrap();
            assert_eq!((slots.slot(0).get(), slots.slot(1).get()), (7, 1));
        });
    }

    #[test]
    fn loom_add_never_decreases_and_fetch_add_loses_nothing() {
        loom::model(|| {
            let slots = Slots::in_process(2);
            let theirs = slots.clone();
            let writer = thread::spawn(move || {
                theirs.slot(0).add(1);
                theirs.slot(1).fetch_add(1);
                theirs.slot(0).add(1);
            });
            slots.slot(1).fetch_add(1);
            let first = slots.slot(0).get();
            assert!(slots.slot(0).get() >= first);
            writer.join().unwrap();
            assert_eq!((slots.slot(0).get(), slots.slot(1).get()), (2, 2));
        });
    }
}
