//! [`BlockWriter`]: the writing end of an arena.

use super::events::{Event, Events};
use super::{ALIGN, ArenaSpan, Block, BlockError, impossible, words_of};
use crate::ipc::region::Region;
use crate::ipc::words::{self, WORD};
use crate::sync::Ordering;

/// The most bytes of a block that is a part of a payload. A block of this size is still in a cache when it is read.
const MAX_BLOCK: usize = 1 << 20;
/// A block is at most this fraction of its arena, so that one side can write while the other one reads.
const MIN_BLOCKS: usize = 4;
/// If there is no free space for the next part of a payload, a smaller part may follow: at least this fraction of it. Blocks that are held
/// forever, at most half of the bytes and half of the number, then can't keep a payload from ever moving on.
const SPLIT: u64 = 64;
/// Beyond this many bytes, an arena grows in steps of this size, for each of which the system is asked first whether it has the memory.
const STEP: u64 = 4 << 20;

/// A block in flight.
#[derive(Debug, Clone, Copy)]
struct InFlight {
    start: u64,
    len: u64,
    is_taken: bool,
}

impl InFlight {
    /// Returns the offset of the first byte behind it that may be free.
    fn next(self) -> u64 {
        (self.start + self.len).next_multiple_of(ALIGN)
    }
}

/// The writing end of an arena.
#[derive(Debug)]
pub struct BlockWriter {
    region: Region,
    span: ArenaSpan,
    events: Events,
    /// The blocks in flight by their offsets.
    in_flight: Vec<InFlight>,
    /// The number of them that the reader has not taken, and their bytes.
    untaken: usize,
    untaken_bytes: u64,
    released: u64,
    /// The latest result of `next_block`, until it is written.
    next: Option<Block>,
    /// The number of bytes, from the start, whose pages are allocated.
    touched: u64,
    /// The number of bytes, from the start, that may be used: all, unless the system had no memory for more.
    limit: u64,
}

impl BlockWriter {
    /// Creates the writing end of the arena that `span` assigns in `region`.
    ///
    /// # Panics
    /// If `span` lies outside the region.
    pub fn new(region: &Region, span: ArenaSpan) -> Self {
        let _ = region.span(span.blocks);
        Self {
            region: region.clone(),
            span,
            events: Events::new(region, span.events),
            in_flight: Vec::new(),
            untaken: 0,
            untaken_bytes: 0,
            released: 0,
            next: None,
            touched: 0,
            limit: span.capacity(),
        }
    }

    /// Returns the number of blocks that were written and not released.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Returns the most blocks that can be in flight.
    pub fn max_in_flight(&self) -> usize {
        self.events.max_blocks()
    }

    /// Returns the number of bytes of the blocks that were written and not released, with the padding between them.
    pub fn in_flight_bytes(&self) -> u64 {
        self.in_flight
            .iter()
            .map(|block| block.next() - block.start)
            .sum()
    }

    /// Returns the number of blocks in flight that the reader has not taken: neither held nor released.
    pub fn untaken(&self) -> usize {
        self.untaken
    }

    /// Returns the number of bytes of these blocks.
    pub fn untaken_bytes(&self) -> u64 {
        self.untaken_bytes
    }

    /// Returns the number of blocks that the reader has taken, as of the last [`collect`](Self::collect).
    pub fn taken(&self) -> u64 {
        self.released + (self.in_flight.len() - self.untaken) as u64
    }

    /// Returns the number of blocks that the reader has released, as of the last [`collect`](Self::collect).
    pub fn released(&self) -> u64 {
        self.released
    }

    /// Returns how many of the blocks in flight the reader reads [in place](super::BlockReader::hold_in_place), as it says now. The
    /// number is not checked.
    pub fn count_in_place(&self) -> u64 {
        self.events.in_place().load(Ordering::Acquire)
    }

    /// Returns the most bytes of a block from [`next_block`](Self::next_block).
    pub fn max_block(&self) -> usize {
        self.max_whole_block().min(MAX_BLOCK)
    }

    /// Returns the most bytes of a block from [`whole_block`](Self::whole_block).
    pub fn max_whole_block(&self) -> usize {
        (self.span.blocks.words * WORD / MIN_BLOCKS).max(WORD)
    }

    /// Returns the next block, of `len` bytes or of [`max_block`](Self::max_block) if that is less. If no free space is as
    /// large, the block is the largest free space, unless that is less than a 64th.
    ///
    /// `None` means that the arena has no space until blocks are released or, if no block is in flight, that the system has
    /// no memory for it at all. Pages that were not touched before are allocated here. If the system has no memory for
    /// them, the arena shrinks to the pages that it has.
    pub fn next_block(&mut self, len: usize) -> Option<Block> {
        loop {
            // An arena that has shrunk may have fewer bytes than a block.
            let len = (len.min(self.max_block()) as u64).min(self.limit);
            let block = self.place(len).or_else(|| self.largest(len / SPLIT))?;
            if self.populate(block) {
                return Some(block);
            }
        }
    }

    /// Returns the next block, of `len` bytes in any case.
    ///
    /// `None` means that the arena has no space until blocks are released or, if no block is in flight, that it never has so much.
    /// Otherwise as [`next_block`](Self::next_block).
    pub fn whole_block(&mut self, len: usize) -> Option<Block> {
        if len > self.max_whole_block() {
            return None;
        }
        loop {
            let block = self.place(len as u64)?;
            if self.populate(block) {
                return Some(block);
            }
        }
    }

    /// Returns the lowest free block of `len` bytes.
    fn place(&self, len: u64) -> Option<Block> {
        if len == 0 || self.in_flight.len() == self.max_in_flight() {
            return None;
        }
        let mut offset = 0;
        for block in &self.in_flight {
            if block.start - offset >= len {
                break;
            }
            offset = block.next();
        }
        let space = self.limit.checked_sub(offset)?;
        (space >= len).then_some(Block { offset, len })
    }

    /// Returns the largest free block, if it has at least `min` bytes.
    fn largest(&self, min: u64) -> Option<Block> {
        if self.in_flight.len() == self.max_in_flight() {
            return None;
        }
        let mut largest = Block { offset: 0, len: 0 };
        let starts = self.in_flight.iter().map(|block| block.start);
        let nexts = self.in_flight.iter().map(|block| block.next());
        for (start, offset) in starts.chain([self.limit]).zip([0].into_iter().chain(nexts)) {
            let len = start.saturating_sub(offset);
            if len > largest.len {
                largest = Block { offset, len };
            }
        }
        (largest.len >= min.max(1)).then_some(largest)
    }

    /// Allocates the pages up to the end of `block`. If the system has no memory for them, the arena shrinks, and `false` is returned.
    fn populate(&mut self, block: Block) -> bool {
        let end = block.offset + block.len;
        while self.touched < end {
            // The first pages are few, and most arenas need no others: a check takes longer than to make them.
            let (to, is_checked) = match end <= STEP {
                true => (end, false),
                false => (
                    (self.touched + STEP)
                        .min(end.next_multiple_of(STEP))
                        .min(self.limit),
                    true,
                ),
            };
            let new = self.touched as usize / WORD..to.div_ceil(WORD as u64) as usize;
            match self.region.populate(self.span.blocks, new, is_checked) {
                Ok(()) => self.touched = to.next_multiple_of(ALIGN),
                Err(_) => {
                    self.limit = self.limit.min(self.touched);
                    return false;
                }
            }
        }
        self.next = Some(block);
        true
    }

    /// Writes the first bytes of `bytes` into `block`. The block is in flight from then on.
    ///
    /// # Errors
    /// [`BlockError::Impossible`] if `block` is not the result of the latest [`next_block`](Self::next_block) or
    /// [`whole_block`](Self::whole_block), or is longer than `bytes`.
    pub fn write(&mut self, block: Block, bytes: &[u8]) -> Result<(), BlockError> {
        let is_next = self.next == Some(block);
        let bytes = bytes.get(..block.len as usize).filter(|_| is_next);
        let (Some(bytes), Some(words)) = (bytes, words_of(&self.region, self.span, block)) else {
            return Err(impossible(self.span, block));
        };
        let (chunks, rest) = bytes.as_chunks::<WORD>();
        let (whole, last) = words.split_at(chunks.len());
        words::store(whole, chunks);
        if let Some(last) = last.first() {
            let mut chunk = [0; WORD];
            chunk[..rest.len()].copy_from_slice(rest);
            words::store(std::slice::from_ref(last), &[chunk]);
        }
        let (start, len) = (block.offset, block.len);
        let block = InFlight {
            start,
            len,
            is_taken: false,
        };
        let at = self.in_flight.partition_point(|block| block.start < start);
        self.in_flight.insert(at, block);
        self.untaken += 1;
        self.untaken_bytes += len;
        self.next = None;
        Ok(())
    }

    /// Returns the pages behind the last block in flight to the system, where that is supported (memory that is shared between
    /// processes on Linux). The blocks after it take new pages, as the first ones did.
    ///
    /// A system that had no memory for all of the arena may have some by then, so the arena has its full size again.
    pub fn release_pages(&mut self) {
        let kept = self.in_flight.last().map_or(0, |block| block.next());
        if self.touched > kept && self.region.release(self.span.blocks, kept as usize / WORD) {
            self.touched = kept;
            self.limit = self.span.capacity();
            self.next = None;
        }
    }

    /// Looks at what the reader has taken and released since the last call. The bytes of released blocks are free then.
    ///
    /// # Errors
    /// [`BlockError::NotInFlight`]: no correct reader does that. The arena must not be used any more then.
    #[inline]
    pub fn collect(&mut self) -> Result<(), BlockError> {
        while let Some(event) = self.events.pop() {
            let (Event::Taken(offset) | Event::Released(offset)) = event;
            let found = self.in_flight.binary_search_by_key(&offset, |block| block.start);
            let at = found.map_err(|_| BlockError::NotInFlight { offset })?;
            let block = &mut self.in_flight[at];
            let was_taken = std::mem::replace(&mut block.is_taken, true);
            if !was_taken {
                self.untaken -= 1;
                self.untaken_bytes -= block.len;
            }
            match event {
                Event::Taken(_) if was_taken => return Err(BlockError::NotInFlight { offset }),
                Event::Taken(_) => {}
                Event::Released(_) => {
                    self.in_flight.remove(at);
                    self.released += 1;
                }
            }
        }
        Ok(())
    }

    /// Lets the arena shrink as if the system had no memory for more pages. For tests.
    #[doc(hidden)]
    pub fn shrink_to_touched(&mut self) {
        self.limit = self.limit.min(self.touched);
    }

    #[cfg(test)]
    pub(super) fn shrink_to(&mut self, limit: u64) {
        self.limit = limit;
    }

    #[cfg(test)]
    pub(super) fn touched(&self) -> u64 {
        self.touched
    }
}
