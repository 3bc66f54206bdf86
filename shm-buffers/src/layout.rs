//! [`Layout`]: who lives where in a [`Region`](crate::Region).

use crate::ring;

/// Words between two things that different sides write: two 64-byte cache lines, because adjacent lines are
/// fetched in pairs.
pub(crate) const LINE_WORDS: usize = 16;

/// A part of a region, in 8-byte words. Made by [`Layout`] only; both sides make the same calls in the same
/// order and so agree on every span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub(crate) start: usize,
    pub(crate) words: usize,
}

/// Assigns parts of a region one after the other.
///
/// ```
/// use shm_buffers::{Layout, Region};
/// let mut layout = Layout::new();
/// let ring = layout.ring(4096);
/// let slots = layout.slots(8);
/// let region = Region::on_heap(layout.bytes());
/// let slots = shm_buffers::slots::Slots::new(&region, slots);
/// assert_eq!(slots.len(), 8);
/// # let _ = ring;
/// ```
#[derive(Debug, Clone, Default)]
pub struct Layout {
    words: usize,
}

impl Layout {
    /// An empty layout.
    pub fn new() -> Self {
        Self::default()
    }

    /// A ring whose frames may take up to `capacity` bytes together, rounded up to a power of two and to 64
    /// bytes at least.
    pub fn ring(&mut self, capacity: usize) -> Span {
        self.take(ring::words_for(capacity))
    }

    /// An [arena](crate::arena) of `bytes` bytes, rounded up to whole words.
    pub fn arena(&mut self, bytes: usize) -> Span {
        self.take(bytes.div_ceil(size_of::<u64>()))
    }

    /// `count` slots.
    pub fn slots(&mut self, count: usize) -> Span {
        self.take(count)
    }

    /// Bytes that a region needs to hold everything assigned so far.
    pub fn bytes(&self) -> usize {
        self.words * size_of::<u64>()
    }

    fn take(&mut self, words: usize) -> Span {
        let span = Span {
            start: self.words,
            words,
        };
        self.words = (self.words + words).next_multiple_of(LINE_WORDS);
        span
    }
}
