//! The reports of an arena's reader to its writer: the number of blocks that are read in place, and a queue of events.
//!
//! Each event is one word, and says itself that it is new: it has the number of the lap around the queue. So the writer reads no count
//! beside it, and one transfer of a cache line brings several events.

use super::ALIGN;
use crate::ipc::layout::{LINE_WORDS, Span};
use crate::ipc::region::{Region, RegionWords};
use crate::sync::{AtomicU64, Ordering};

/// The bytes of an arena for each block that may be in flight.
const BYTES_PER_BLOCK: usize = 8 << 10;
const MAX_BLOCKS: usize = 1 << 10;
/// A block can be taken and released before the writer looks.
const EVENTS_PER_BLOCK: usize = 2;

/// The bits of an event: the lap, whether the block is released, and its offset in units of [`ALIGN`].
const LAP_SHIFT: u32 = 48;
const RELEASED: u64 = 1 << 47;

/// Returns the most blocks that can be in flight in an arena of `bytes` bytes.
pub(super) fn max_blocks(bytes: usize) -> usize {
    (bytes / BYTES_PER_BLOCK).clamp(4, MAX_BLOCKS)
}

/// Returns the number of words for that many blocks.
pub(super) fn words(max_blocks: usize) -> usize {
    LINE_WORDS + EVENTS_PER_BLOCK * max_blocks
}

/// A change of a block by the reader. The number is the block's offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// It has taken the block, and has not released it.
    Taken(u64),
    /// The block is not needed any more.
    Released(u64),
}

/// One end of the queue.
#[derive(Debug)]
pub(super) struct Events {
    words: RegionWords,
    /// The number of events that this end has put into the queue or taken out of it.
    count: u64,
}

impl Events {
    pub(super) fn new(region: &Region, span: Span) -> Self {
        Self {
            words: RegionWords::new(region, span),
            count: 0,
        }
    }

    /// Returns the most blocks that can be in flight.
    pub(super) fn max_blocks(&self) -> usize {
        (self.words.len() - LINE_WORDS) / EVENTS_PER_BLOCK
    }

    /// The number of blocks that stay in flight until the reader's user drops them.
    pub(super) fn in_place(&self) -> &AtomicU64 {
        &self.words[0]
    }

    /// Returns the word of the next event, and the lap that it has if it is new.
    #[inline]
    fn next(&self) -> (&AtomicU64, u64) {
        let words = &self.words[LINE_WORDS..];
        let (lap, at) = (self.count / words.len() as u64, self.count % words.len() as u64);
        // The words are 0 at the beginning. The first lap is 1, so they are not events.
        (&words[at as usize], (lap + 1) & (u64::MAX >> LAP_SHIFT))
    }

    /// Puts an event into the queue. There is room, because no more blocks are in flight than it has entries for; a writer that has sent
    /// more loses events.
    #[inline]
    pub(super) fn push(&mut self, event: Event) {
        let (offset, released) = match event {
            Event::Taken(offset) => (offset, 0),
            Event::Released(offset) => (offset, RELEASED),
        };
        let (word, lap) = self.next();
        word.store(lap << LAP_SHIFT | released | (offset / ALIGN), Ordering::Release);
        self.count += 1;
    }

    /// Takes the next event out of the queue.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Event> {
        let (word, lap) = self.next();
        let event = word.load(Ordering::Acquire);
        if event >> LAP_SHIFT != lap {
            return None;
        }
        self.count += 1;
        let offset = (event & (RELEASED - 1)) * ALIGN;
        Some(match event & RELEASED {
            0 => Event::Taken(offset),
            _ => Event::Released(offset),
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::Layout;

    #[test]
    fn events_arrive_once_and_in_order_over_many_laps() {
        let mut layout = Layout::new();
        let span = layout.slots(words(4));
        let region = Region::on_heap(layout.byte_len());
        let (mut reader, mut writer) = (Events::new(&region, span), Events::new(&region, span));
        assert_eq!((reader.max_blocks(), writer.pop()), (4, None));
        for round in 0..600_000 {
            let offset = round % 1000 * ALIGN;
            let events = [Event::Taken(offset), Event::Released(offset)];
            for event in events {
                reader.push(event);
            }
            assert_eq!(events.map(|_| writer.pop()), events.map(Some));
            assert_eq!(writer.pop(), None, "{round}");
        }
        assert!(writer.count / 8 > u64::from(u16::MAX), "laps repeat");
    }
}
