//! The memory of a ring, as both of its ends see it: where everything is, and how one end sleeps and the other wakes it.

use super::words::Words;
use super::{Arm, Bell, Corrupt};
use crate::layout::{LINE_WORDS, Span};
use crate::region::Region;
use crate::sync::{AtomicU64, Ordering, fence};

pub(super) const TAIL: usize = 0;
pub(super) const FRAMES: usize = 1;
pub(super) const HEAD: usize = LINE_WORDS;
pub(super) const DATA_MARK: usize = 2 * LINE_WORDS;
pub(super) const SPACE_MARK: usize = 3 * LINE_WORDS;
pub(super) const DATA: usize = 4 * LINE_WORDS;

pub(super) const WORD: usize = size_of::<u64>();
#[cfg(not(loom))]
const MIN_WORDS: usize = 8;
#[cfg(loom)]
const MIN_WORDS: usize = 2;

/// A wake mark is stored plus one, so that fresh, zeroed memory means "nobody sleeps".
const AWAKE: u64 = 0;

pub(crate) fn words_for(capacity: usize) -> usize {
    DATA + capacity.div_ceil(WORD).next_power_of_two().max(MIN_WORDS)
}

#[derive(Debug)]
pub(super) struct Shared {
    region: Region,
    span: Span,
    pub(super) mask: u64,
}

impl Shared {
    pub(super) fn new(region: &Region, span: Span) -> Self {
        let words = region.span(span).len() - DATA;
        assert!(words.is_power_of_two(), "span was not made by Layout::ring");
        Self {
            region: region.clone(),
            span,
            mask: words as u64 - 1,
        }
    }

    /// All words of the ring: whoever needs several of them asks once.
    #[inline]
    pub(super) fn words(&self) -> &[AtomicU64] {
        self.region.span(self.span)
    }

    #[inline]
    pub(super) fn word(&self, index: usize) -> &AtomicU64 {
        &self.words()[index]
    }

    /// Where the word of data at `position` is among them.
    #[inline]
    pub(super) fn index(&self, position: u64) -> usize {
        DATA + (position & self.mask) as usize
    }

    #[inline]
    pub(super) fn capacity(&self) -> u64 {
        self.mask + 1
    }

    /// `words` words of data from `position` on.
    #[inline]
    pub(super) fn data(&self, position: u64, words: usize) -> Words<'_> {
        let data = &self.region.span(self.span)[DATA..];
        let start = (position & self.mask) as usize;
        let first = words.min(data.len() - start);
        Words {
            first: &data[start..start + first],
            second: &data[..words - first],
        }
    }

    pub(super) fn corrupt(&self, what: &'static str, value: u64, position: u64) -> Corrupt {
        Corrupt {
            what,
            value,
            position,
            capacity: self.capacity(),
        }
    }

    /// Declares a sleeper that waits until `reached()` is at least `target`.
    pub(super) fn arm(&self, mark: usize, target: u64, reached: usize) -> Arm {
        // Release: who claims the mark sees all that the sleeper did before.
        self.word(mark).store(target.wrapping_add(1), Ordering::Release);
        // With the fence in `bell`: either we see the peer's new position, or it sees our mark.
        fence(Ordering::SeqCst);
        if self.word(reached).load(Ordering::Acquire) < target {
            Arm::Sleep
        } else {
            self.disarm(mark)
        }
    }

    pub(super) fn disarm(&self, mark: usize) -> Arm {
        match self.word(mark).swap(AWAKE, Ordering::Relaxed) {
            AWAKE => Arm::BellComing,
            _ => Arm::Ready,
        }
    }

    /// Whether a sleeper that waits for at most `reached` has to be woken. Only one caller is told so.
    pub(super) fn bell(&self, mark: usize, reached: u64) -> Bell {
        fence(Ordering::SeqCst);
        let target = self.word(mark).load(Ordering::Relaxed);
        if target == AWAKE || reached < target.wrapping_sub(1) {
            return Bell::Silent;
        }
        match self.word(mark).swap(AWAKE, Ordering::AcqRel) {
            AWAKE => Bell::Silent,
            _ => Bell::Ring,
        }
    }
}
