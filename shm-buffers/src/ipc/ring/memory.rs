//! The memory of a ring, as both of its ends see it: the offsets of its fields, and how one end wakes the other.

use super::{Arm, Corrupt, Wakeup};
use crate::ipc::layout::{LINE_WORDS, Layout, Span};
use crate::ipc::region::{Region, RegionWords};
use crate::ipc::words::{WORD, Words};
use crate::sync::{AtomicU64, Ordering, fence};

/// The producer's position.
pub(super) const TAIL: usize = 0;
/// The number of frames that the producer has published.
pub(super) const FRAMES: usize = 1;
/// The consumer's position.
pub(super) const HEAD: usize = LINE_WORDS;
/// The wake mark of a consumer that waits for frames.
pub(super) const DATA_MARK: usize = 2 * LINE_WORDS;
/// The wake mark of a producer that waits for space.
pub(super) const SPACE_MARK: usize = 3 * LINE_WORDS;
/// The first word of the data.
pub(super) const DATA: usize = 4 * LINE_WORDS;

#[cfg(not(loom))]
const MIN_WORDS: usize = 8;
#[cfg(loom)]
const MIN_WORDS: usize = 2;

/// The wake mark of an end that is awake. Marks are stored plus one, so that zeroed memory means that both ends are awake.
const AWAKE: u64 = 0;

impl Layout {
    /// Assigns a [ring](crate::ring) whose frames may take up to `bytes` bytes together, rounded up to a power of two and
    /// to 64 bytes at least.
    pub fn ring(&mut self, bytes: usize) -> Span {
        self.reserve(DATA + bytes.div_ceil(WORD).next_power_of_two().max(MIN_WORDS))
    }
}

#[derive(Debug)]
pub(super) struct RingMemory {
    words: RegionWords,
    pub(super) mask: u64,
}

impl RingMemory {
    pub(super) fn new(region: &Region, span: Span) -> Self {
        let words = RegionWords::new(region, span);
        let capacity = words.len() - DATA;
        assert!(capacity.is_power_of_two(), "span was not made by Layout::ring");
        let mask = capacity as u64 - 1;
        Self { words, mask }
    }

    /// Returns all words of the ring. A caller that accesses several words calls this once.
    #[inline]
    pub(super) fn words(&self) -> &[AtomicU64] {
        &self.words
    }

    #[inline]
    pub(super) fn word(&self, index: usize) -> &AtomicU64 {
        &self.words()[index]
    }

    /// Returns the index, within [`words`](Self::words), of the data word at `position`.
    #[inline]
    pub(super) fn index(&self, position: u64) -> usize {
        DATA + (position & self.mask) as usize
    }

    /// Returns the number of data words.
    #[inline]
    pub(super) fn capacity(&self) -> u64 {
        self.mask + 1
    }

    /// Returns `words` data words from `position` on.
    #[inline]
    pub(super) fn data(&self, position: u64, words: usize) -> Words<'_> {
        let data = &self.words[DATA..];
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

    /// Declares that an end sleeps until a word of its peer is at least `target`.
    ///
    /// The caller has stored everything that its peer may wait for, and loads the peer's position and mark afterwards. The fence
    /// pairs with the one in `wakeup` and with the peer's own one here. Either this end sees the peer's new position and mark, or the peer
    /// sees this end's.
    pub(super) fn declare(&self, mark: usize, target: u64) {
        // Release: the peer that clears the mark sees everything that the sleeper did before.
        self.word(mark).store(target.wrapping_add(1), Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// Clears the mark of this end.
    pub(super) fn disarm(&self, mark: usize) -> Arm {
        match self.word(mark).swap(AWAKE, Ordering::Relaxed) {
            AWAKE => Arm::WakeupPending,
            _ => Arm::Ready,
        }
    }

    /// Returns whether an end has a mark: it sleeps, or is about to.
    pub(super) fn is_declared(&self, mark: usize) -> bool {
        self.word(mark).load(Ordering::Relaxed) != AWAKE
    }

    /// Returns whether a sleeper that waits for at most `reached` has to be woken, and clears its mark, so that only one
    /// caller wakes it.
    #[inline]
    pub(super) fn wakeup(&self, mark: usize, reached: u64) -> Wakeup {
        fence(Ordering::SeqCst);
        self.clear_reached(mark, reached)
    }

    /// Like [`wakeup`](Self::wakeup), after the fence of [`declare`](Self::declare).
    #[inline]
    pub(super) fn clear_reached(&self, mark: usize, reached: u64) -> Wakeup {
        let target = self.word(mark).load(Ordering::Relaxed);
        if target == AWAKE || reached < target.wrapping_sub(1) {
            return Wakeup::NotNeeded;
        }
        match self.word(mark).swap(AWAKE, Ordering::AcqRel) {
            AWAKE => Wakeup::NotNeeded,
            _ => Wakeup::Needed,
        }
    }
}
