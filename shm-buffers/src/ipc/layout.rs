//! [`Layout`]: divides a [`Region`](super::Region) into spans.

use super::words::WORD;

/// Words between two values that different sides write: two 64-byte cache lines, because adjacent lines are
/// fetched in pairs.
pub(super) const LINE_WORDS: usize = 16;

/// A part of a region, in 8-byte words.
///
/// Only a [`Layout`] makes spans. Both sides of a region make the same calls in the same order, and so agree on every
/// span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub(super) start: usize,
    pub(super) words: usize,
}

/// Assigns parts of a region, one after the other.
///
/// ```
/// use shm_buffers::slots::Slots;
/// use shm_buffers::{Layout, Region};
///
/// let mut layout = Layout::new();
/// let ring = layout.ring(4096);
/// let slots = layout.slots(8);
/// let region = Region::on_heap(layout.byte_len());
/// let slots = Slots::new(&region, slots);
/// assert_eq!(slots.len(), 8);
/// # let _ = ring;
/// ```
#[derive(Debug, Clone, Default)]
pub struct Layout {
    words: usize,
}

impl Layout {
    /// Creates an empty layout.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of bytes that a region needs to hold everything assigned so far.
    pub fn byte_len(&self) -> usize {
        self.words * WORD
    }

    /// Assigns the next `words` words. The span after it starts on another cache line pair.
    pub(super) fn reserve(&mut self, words: usize) -> Span {
        let span = Span {
            start: self.words,
            words,
        };
        self.words = (self.words + words).next_multiple_of(LINE_WORDS);
        span
    }
}
