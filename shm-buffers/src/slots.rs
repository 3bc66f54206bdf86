//! Atomic slots: numbers that one thread writes and any process reads.
//!
//! A slot has one writer. That makes [`Slot::add`] a relaxed load and a relaxed store, under a nanosecond, where
//! an atomic read-modify-write costs ten times as much. Readers never see a torn value.

use crate::layout::Span;
use crate::region::Region;
use crate::sync::{AtomicU64, Ordering};

/// A row of slots in a [`Region`]; cheap to clone.
#[derive(Debug, Clone)]
pub struct Slots {
    region: Region,
    span: Span,
}

impl Slots {
    /// The slots that `span` assigns in `region`.
    ///
    /// # Panics
    /// If `span` was made for a larger region.
    pub fn new(region: &Region, span: Span) -> Self {
        let _ = region.span(span);
        Self {
            region: region.clone(),
            span,
        }
    }

    /// `count` slots in this process only.
    pub fn in_process(count: usize) -> Self {
        let mut layout = crate::Layout::new();
        let span = layout.slots(count);
        Self::new(&Region::on_heap(layout.bytes()), span)
    }

    /// How many slots there are.
    pub fn len(&self) -> usize {
        self.span.words
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.span.words == 0
    }

    /// Some of them, counted from `range.start`.
    ///
    /// # Panics
    /// If `range` reaches beyond [`len`](Self::len).
    pub fn part(&self, range: std::ops::Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.len(),
            "no slots {range:?} of {}",
            self.len()
        );
        let span = Span {
            start: self.span.start + range.start,
            words: range.len(),
        };
        Self {
            region: self.region.clone(),
            span,
        }
    }

    /// Slot `index`.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len).
    #[inline]
    pub fn slot(&self, index: usize) -> Slot<'_> {
        Slot(&self.region.span(self.span)[index])
    }
}

/// One number in shared memory: one writer, any number of readers.
#[derive(Debug, Clone, Copy)]
pub struct Slot<'a>(&'a AtomicU64);

impl Slot<'_> {
    /// The value now.
    #[inline]
    pub fn get(self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The value now, and with it everything that its writer did before [`publish`](Self::publish).
    #[inline]
    pub fn observe(self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Replaces the value. For the slot's one writer.
    #[inline]
    pub fn set(self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Replaces the value; who [`observe`](Self::observe)s it sees everything done before.
    #[inline]
    pub fn publish(self, value: u64) {
        self.0.store(value, Ordering::Release);
    }

    /// Adds `n`, wrapping, for a slot that several threads write; gives what was there. Costs ten times
    /// [`add`](Self::add).
    #[inline]
    pub fn fetch_add(self, n: u64) -> u64 {
        self.0.fetch_add(n, Ordering::Relaxed)
    }

    /// Adds `n`, wrapping. For the slot's one writer: two writers would lose counts.
    #[inline]
    pub fn add(self, n: u64) {
        self.0
            .store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }
}

/// Sleeping until a slot changes, on Linux (`futex(2)`).
///
/// Other systems have nothing for it that works between processes; portable code sleeps on a channel.
#[cfg(all(target_os = "linux", not(loom)))]
impl Slot<'_> {
    /// Sleeps if the lower 32 bits of the value are those of `value`, until somebody [wakes](Self::wake) who sleeps here.
    ///
    /// Comes back for a signal as well, and now and then for no reason: look again.
    ///
    /// # Errors
    /// Where the system call is not allowed.
    pub fn sleep_at(self, value: u64) -> std::io::Result<()> {
        crate::os::futex::wait(self.0, value)
    }

    /// Wakes all who [sleep](Self::sleep_at) here, in whatever process; after [`publish`](Self::publish).
    ///
    /// # Errors
    /// As [`sleep_at`](Self::sleep_at).
    pub fn wake(self) -> std::io::Result<()> {
        crate::os::futex::wake(self.0)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn parts_are_the_same_memory() {
        let slots = Slots::in_process(5);
        let part = slots.part(2..4);
        part.slot(1).set(7);
        assert_eq!((part.len(), slots.slot(3).get()), (2, 7));
        assert!(slots.part(5..5).is_empty());
    }

    #[test]
    fn a_slot_adds_and_wraps() {
        let slots = Slots::in_process(2);
        slots.slot(1).set(u64::MAX);
        slots.slot(1).add(3);
        assert_eq!((slots.slot(0).get(), slots.slot(1).get()), (0, 2));
    }
}

#[cfg(all(test, loom))]
mod model {
    //! Every interleaving, by loom.

    use super::*;
    use loom::thread;

    #[test]
    fn loom_what_was_done_before_a_publication_is_seen_with_it() {
        loom::model(|| {
            let slots = Slots::in_process(2);
            let theirs = slots.clone();
            let writer = thread::spawn(move || {
                theirs.slot(0).set(7);
                theirs.slot(1).publish(1);
            });
            if slots.slot(1).observe() == 1 {
                assert_eq!(slots.slot(0).get(), 7);
            }
            writer.join().unwrap();
            assert_eq!((slots.slot(0).get(), slots.slot(1).get()), (7, 1));
        });
    }

    #[test]
    fn loom_one_writers_count_only_rises_and_several_ones_add_up() {
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
