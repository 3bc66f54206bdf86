//! [`BlockReader`]: the reading end of an arena.

use std::mem::MaybeUninit;

use super::events::{Event, Events};
use super::{ALIGN, ArenaSpan, Block, BlockError, impossible, words_of};
use crate::ipc::region::Region;
use crate::ipc::words::{WORD, Words};

#[cfg(not(loom))]
use super::held::HeldBlocks;

/// The reading end of an arena.
#[derive(Debug)]
pub struct BlockReader {
    pub(super) region: Region,
    pub(super) span: ArenaSpan,
    pub(super) events: Events,
    released: u64,
    #[cfg(not(loom))]
    pub(super) held: HeldBlocks,
    /// The number of bytes, from the start, whose pages are allocated. A peer may name any block; touching a page that the
    /// system has no memory for would kill this process.
    touched: u64,
}

impl BlockReader {
    /// Creates the reading end of the arena that `span` assigns in `region`.
    ///
    /// # Panics
    /// If `span` lies outside the region.
    pub fn new(region: &Region, span: ArenaSpan) -> Self {
        let _ = region.span(span.blocks);
        Self {
            region: region.clone(),
            span,
            events: Events::new(region, span.events),
            released: 0,
            #[cfg(not(loom))]
            held: HeldBlocks::default(),
            touched: 0,
        }
    }

    /// Records that the writer may return the pages of the arena to the system, so that the next block may need new ones.
    pub fn expect_new_pages(&mut self) {
        self.touched = 0;
    }

    /// Appends a copy of `block` to `out`. Each byte of the block is read once.
    ///
    /// # Errors
    /// [`BlockError::Impossible`] or [`BlockError::Memory`]. `out` is unchanged then.
    pub fn read(&mut self, block: Block, out: &mut Vec<u8>) -> Result<(), BlockError> {
        let len = self.check(block)?;
        let words = words_of(&self.region, self.span, block).unwrap_or_default();
        let memory = BlockError::Memory { len: out.len() + len };
        out.try_reserve(len).map_err(|_| memory)?;
        Words::from(words).append(len, out);
        Ok(())
    }

    /// Checks that the block lies in the arena, and that its pages are allocated. Returns its length in bytes.
    ///
    /// # Errors
    /// [`BlockError::Impossible`] or [`BlockError::Memory`].
    pub fn check(&mut self, block: Block) -> Result<usize, BlockError> {
        if words_of(&self.region, self.span, block).is_none() {
            return Err(impossible(self.span, block));
        }
        // `words_of` has checked that the arena has this many bytes.
        let len = block.len as usize;
        let end = (block.offset + block.len).next_multiple_of(ALIGN);
        if end > self.touched {
            let new = self.touched as usize / WORD..(block.offset as usize + len).div_ceil(WORD);
            // A correct writer has allocated these pages.
            let populated = self.region.populate(self.span.blocks, new, false);
            populated.map_err(|_| BlockError::Memory { len })?;
            self.touched = end;
        }
        Ok(len)
    }

    /// Copies `block` to the beginning of `out`, all of which then is initialized up to the returned length. Each byte of the block
    /// is read once.
    ///
    /// # Errors
    /// [`BlockError::Impossible`], also if `out` is shorter than the block, or [`BlockError::Memory`].
    pub fn read_into(&mut self, block: Block, out: &mut [MaybeUninit<u8>]) -> Result<usize, BlockError> {
        let len = self.check(block)?;
        let words = words_of(&self.region, self.span, block);
        let (Some(words), Some(out)) = (words, out.get_mut(..len)) else {
            return Err(impossible(self.span, block));
        };
        Ok(Words::from(words).read(out))
    }

    /// Lets the writer use the bytes of a block again. A block that is [held](Self::hold) is released by
    /// [`release_held`](Self::release_held).
    #[inline]
    pub fn release(&mut self, block: Block) {
        self.released += 1;
        self.events.push(Event::Released(block.offset));
    }

    /// Returns the number of released blocks.
    #[inline]
    pub fn count_released(&self) -> u64 {
        self.released
    }
}
