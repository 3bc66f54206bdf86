//! Arenas: blocks of bytes in shared memory, for payloads that are too large for a ring.
//!
//! One process writes blocks ([`BlockWriter`]), the other one reads them ([`BlockReader`]): it copies a block out, or
//! [holds](BlockReader::hold) one whose bytes it does not need yet, or perhaps never. The position of a block is sent by other
//! means, such as a frame of a [`ring`](crate::ring), which also orders the accesses. The reader releases blocks in any order, and the
//! writer sees that in a queue in the arena that has room for every block.
//!
//! Nothing is trusted. The reader checks each block against the arena and copies each of its bytes once, into private memory,
//! before the bytes are interpreted; the writer checks each block that comes back. Memory is accessed as relaxed atomic words
//! only, so a peer that writes at the same time causes wrong bytes, never undefined behaviour.
//!
//! Each block lies as low as the others allow. So memory is reused once it was touched, and an arena takes pages only for the
//! largest number of bytes that were in flight at the same time, until the writer [returns](BlockWriter::release_pages) them to
//! the system.
//!
//! ```
//! use shm_buffers::arena::{BlockReader, BlockWriter};
//! use shm_buffers::{Layout, Region};
//!
//! let mut layout = Layout::new();
//! let span = layout.arena(1 << 20);
//! let region = Region::on_heap(layout.byte_len());
//! let (mut writer, mut reader) = (BlockWriter::new(&region, span), BlockReader::new(&region, span));
//! let block = writer.next_block(5).unwrap();
//! writer.write(block, b"large").unwrap();
//! let mut copy = Vec::new();
//! reader.read(block, &mut copy).unwrap();
//! assert_eq!(copy, b"large");
//! reader.release(block);
//! writer.collect().unwrap();
//! assert_eq!(writer.in_flight(), 0);
//! ```

mod events;
#[cfg(not(loom))]
mod held;
mod reader;
#[cfg(all(test, not(loom)))]
mod tests;
mod writer;

use std::error::Error;
use std::fmt;

#[cfg(not(loom))]
pub use self::held::HeldBlock;
pub use self::reader::BlockReader;
pub use self::writer::BlockWriter;

use super::layout::{LINE_WORDS, Layout, Span};
use super::region::Region;
use super::words::WORD;
use crate::sync::AtomicU64;

/// Blocks start at multiples of this many bytes: a pair of cache lines.
const ALIGN: u64 = (LINE_WORDS * WORD) as u64;

/// A part of an arena, in bytes from the arena's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// The first byte.
    pub offset: u64,
    /// The number of bytes.
    pub len: u64,
}

/// Where an arena is in a region: the result of [`Layout::arena`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArenaSpan {
    /// The queue of events, and a number, both written by the reader.
    events: Span,
    blocks: Span,
}

impl ArenaSpan {
    /// Returns the number of bytes for blocks.
    fn capacity(self) -> u64 {
        (self.blocks.words * WORD) as u64
    }
}

/// Why a block can't be used.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlockError {
    /// The block is empty, misaligned or reaches beyond the arena: no correct peer sends it.
    Impossible {
        /// [`Block::offset`].
        offset: u64,
        /// [`Block::len`].
        len: u64,
        /// Bytes of the arena.
        capacity: u64,
    },
    /// The reader has released a block that is not in flight, or taken one for a second time.
    NotInFlight {
        /// [`Block::offset`].
        offset: u64,
    },
    /// The system has no memory for a copy.
    Memory {
        /// Bytes of the copy, this block included.
        len: usize,
    },
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Impossible {
                offset,
                len,
                capacity,
            } => write!(
                f,
                "block of {len} bytes at {offset} is impossible in an arena of {capacity} bytes"
            ),
            Self::NotInFlight { offset } => {
                write!(
                    f,
                    "cannot take or release the block at {offset}: it is not in flight"
                )
            }
            Self::Memory { len } => write!(f, "no memory for a copy of {len} bytes"),
        }
    }
}

impl Error for BlockError {}

impl Layout {
    /// Assigns an [arena](crate::arena) with blocks of `bytes` bytes in all, rounded up to whole words.
    pub fn arena(&mut self, bytes: usize) -> ArenaSpan {
        ArenaSpan {
            events: self.reserve(events::words(events::max_blocks(bytes))),
            blocks: self.reserve(bytes.div_ceil(WORD)),
        }
    }
}

/// Returns the words of a block, or `None` if the block is impossible.
fn words_of(region: &Region, span: ArenaSpan, block: Block) -> Option<&[AtomicU64]> {
    let Block { offset, len } = block;
    if len == 0 || !offset.is_multiple_of(ALIGN) {
        return None;
    }
    let (start, len) = (usize::try_from(offset).ok()?, usize::try_from(len).ok()?);
    let start = start / WORD;
    let end = start.checked_add(len.div_ceil(WORD))?;
    region.span(span.blocks).get(start..end)
}

fn impossible(span: ArenaSpan, block: Block) -> BlockError {
    BlockError::Impossible {
        offset: block.offset,
        len: block.len,
        capacity: span.capacity(),
    }
}

crate::debug_with_causes!(BlockError);

#[cfg(all(test, loom))]
mod model {
    //! Every interleaving, with loom.

    use super::*;
    use crate::slots::Slots;
    use loom::thread;

    /// Two blocks are in flight. The reader releases them in the other order; the writer then uses their bytes again.
    #[test]
    fn loom_a_block_is_not_overwritten_before_it_was_read() {
        loom::model(|| {
            let mut layout = Layout::new();
            let (arena, slots) = (layout.arena(256), layout.slots(1));
            let region = Region::on_heap(layout.byte_len());
            let mut writer = BlockWriter::new(&region, arena);
            let slots = Slots::new(&region, slots);
            let (mut reader, theirs) = (BlockReader::new(&region, arena), slots.clone());
            let blocks = [1, 2].map(|content| {
                let block = writer.next_block(8).unwrap();
                writer.write(block, &[content; 8]).unwrap();
                block
            });
            slots.slot(0).store_release(1);
            let reading = thread::spawn(move || {
                if theirs.slot(0).load_acquire() == 1 {
                    for (block, content) in [(blocks[1], 2), (blocks[0], 1)] {
                        let mut copy = Vec::new();
                        reader.read(block, &mut copy).unwrap();
                        assert_eq!(copy, [content; 8]);
                        reader.release(block);
                    }
                }
            });
            writer.collect().unwrap();
            let free = match writer.in_flight() {
                0 => Some(blocks[0]),
                1 => Some(blocks[1]),
                _ => None,
            };
            assert_eq!(writer.next_block(8), free);
            if let Some(block) = free {
                writer.write(block, &[3; 8]).unwrap();
            }
            reading.join().unwrap();
        });
    }
}
