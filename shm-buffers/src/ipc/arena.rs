//! Arenas: blocks of bytes in shared memory, for payloads that are too large for a ring.
//!
//! One process writes blocks ([`BlockWriter`]), the other one copies them out ([`BlockReader`]). The position of a block is
//! sent by other means, such as a frame of a [`ring`](crate::ring), which also orders the accesses. Blocks are released in the
//! order in which they were written: the reader publishes a count in a [slot](crate::slots). A reader that does not need the
//! bytes of a block yet, or perhaps never, can [hold](BlockReader::hold) it.
//!
//! Nothing is trusted. The reader checks each block against the arena and copies each of its bytes once, into private memory,
//! before the bytes are interpreted; the writer checks the count. Memory is accessed as relaxed atomic words only, so a peer
//! that writes at the same time causes wrong bytes, never undefined behaviour.
//!
//! Blocks lie as low as the order allows. So memory is reused once it was touched, and an arena takes pages only for the
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
//! writer.mark_released(1).unwrap();
//! ```

#[cfg(not(loom))]
mod held;

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::mem::MaybeUninit;

#[cfg(not(loom))]
pub use self::held::HeldBlock;

use super::layout::{LINE_WORDS, Layout, Span};
use super::region::Region;
use super::words::{self, WORD, Words};
use crate::sync::AtomicU64;

/// Blocks start at multiples of this many bytes: a pair of cache lines.
const ALIGN: u64 = (LINE_WORDS * WORD) as u64;
/// The most bytes of a block. A block of this size is still in a cache when it is read.
const MAX_BLOCK: usize = 1 << 20;
/// A block is at most this fraction of its arena, so that one side can write while the other one reads.
const MIN_BLOCKS: usize = 4;

/// A part of an arena, in bytes from the arena's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// The first byte.
    pub offset: u64,
    /// The number of bytes.
    pub len: u64,
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
    /// The reader's count of released blocks has decreased, or exceeds the number of written blocks.
    Count {
        /// The reader's count.
        released: u64,
        /// The count before.
        before: u64,
        /// Blocks that were written.
        written: u64,
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
            Self::Count {
                released,
                before,
                written,
            } => write!(
                f,
                "cannot release {released} blocks of {written} when {before} are released already"
            ),
            Self::Memory { len } => write!(f, "no memory for a copy of {len} bytes"),
        }
    }
}

impl Error for BlockError {}

impl Layout {
    /// Assigns an [arena](crate::arena) of `bytes` bytes, rounded up to whole words.
    pub fn arena(&mut self, bytes: usize) -> Span {
        self.reserve(bytes.div_ceil(WORD))
    }
}

/// The writing end of an arena.
#[derive(Debug)]
pub struct BlockWriter {
    region: Region,
    span: Span,
    /// The blocks in flight, oldest first: the offset of each, and the offset of the first free byte after it.
    in_flight: VecDeque<(u64, u64)>,
    in_flight_bytes: u64,
    released: u64,
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
    pub fn new(region: &Region, span: Span) -> Self {
        let _ = region.span(span);
        Self {
            region: region.clone(),
            span,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            released: 0,
            touched: 0,
            limit: (span.words * WORD) as u64,
        }
    }

    /// Returns the number of blocks that were written and not released.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Returns the number of bytes of the blocks that were written and not released, with the padding between them.
    pub fn in_flight_bytes(&self) -> u64 {
        self.in_flight_bytes
    }

    /// Returns the number of blocks that were released.
    pub fn released(&self) -> u64 {
        self.released
    }

    /// Returns the most bytes that a block can have.
    pub fn max_block(&self) -> usize {
        (self.span.words * WORD / MIN_BLOCKS).clamp(WORD, MAX_BLOCK)
    }

    /// Returns the next block, of `len` bytes or of [`max_block`](Self::max_block) if that is less.
    ///
    /// `None` means that the arena has no space until blocks are released or, if no block is in flight, that the system has
    /// no memory for it at all. Pages that were not touched before are allocated here. If the system has no memory for
    /// them, the arena shrinks to the pages that it has.
    pub fn next_block(&mut self, len: usize) -> Option<Block> {
        loop {
            let block = self.place(len)?;
            let end = block.offset + block.len;
            if end <= self.touched {
                return Some(block);
            }
            let words = |bytes: u64| bytes as usize / WORD;
            let new = words(self.touched)..words(end.next_multiple_of(WORD as u64));
            match self.region.populate(self.span, new) {
                Ok(()) => self.touched = end.next_multiple_of(ALIGN),
                Err(_) => self.limit = self.limit.min(self.touched),
            }
        }
    }

    /// Returns the next block as [`next_block`](Self::next_block) does, without allocating its pages.
    fn place(&self, len: usize) -> Option<Block> {
        let end = self.limit;
        let len = (len.min(self.max_block()) as u64).min(end);
        if len == 0 {
            return None;
        }
        let fits = |start: u64, end: u64| end.checked_sub(start).is_some_and(|space| space >= len);
        let block = |offset| Some(Block { offset, len });
        let (Some(&(first, _)), Some(&(last, next))) = (self.in_flight.front(), self.in_flight.back()) else {
            return block(0);
        };
        if last < first {
            // The only space is between the newest and the oldest block.
            return fits(next, first).then_some(Block { offset: next, len });
        }
        // The lowest free bytes.
        if fits(0, first) {
            block(0)
        } else if fits(next, end) {
            block(next)
        } else {
            None
        }
    }

    /// Writes the first bytes of `bytes` into `block`. The block is in flight from then on.
    ///
    /// # Errors
    /// [`BlockError::Impossible`] if `block` is not the result of the latest [`next_block`](Self::next_block), or is longer
    /// than `bytes`.
    pub fn write(&mut self, block: Block, bytes: &[u8]) -> Result<(), BlockError> {
        let len = usize::try_from(block.len)
            .ok()
            .filter(|&len| self.place(len) == Some(block));
        let bytes = len.and_then(|len| bytes.get(..len));
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
        let next = (block.offset + block.len).next_multiple_of(ALIGN);
        self.in_flight.push_back((block.offset, next));
        self.in_flight_bytes += next - block.offset;
        Ok(())
    }

    /// Returns the pages of the arena to the system if no block is in flight, where that is supported (memory that is shared
    /// between processes on Linux). The next block takes new pages, as the first one did.
    ///
    /// A system that had no memory for all of the arena may have some by then, so the arena has its full size again.
    pub fn release_pages(&mut self) {
        if self.in_flight.is_empty() && self.touched > 0 && self.region.release(self.span) {
            self.touched = 0;
            self.limit = (self.span.words * WORD) as u64;
        }
    }

    /// Records that the reader has released `count` blocks since the arena was created.
    ///
    /// # Errors
    /// [`BlockError::Count`] if the count is impossible.
    pub fn mark_released(&mut self, count: u64) -> Result<(), BlockError> {
        let more = count.checked_sub(self.released);
        let more = more.filter(|&more| more <= self.in_flight.len() as u64);
        let Some(more) = more else {
            return Err(BlockError::Count {
                released: count,
                before: self.released,
                written: self.released + self.in_flight.len() as u64,
            });
        };
        let released = self.in_flight.drain(..more as usize);
        self.in_flight_bytes -= released.map(|(offset, next)| next - offset).sum::<u64>();
        self.released = count;
        Ok(())
    }
}

/// The reading end of an arena.
#[derive(Debug, Clone)]
pub struct BlockReader {
    region: Region,
    span: Span,
    /// The number of bytes, from the start, whose pages are allocated. A peer may name any block; touching a page that the
    /// system has no memory for would kill this process.
    touched: u64,
}

impl BlockReader {
    /// Creates the reading end of the arena that `span` assigns in `region`.
    ///
    /// # Panics
    /// If `span` lies outside the region.
    pub fn new(region: &Region, span: Span) -> Self {
        let _ = region.span(span);
        Self {
            region: region.clone(),
            span,
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
            let populated = self.region.populate(self.span, new);
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
}

/// Returns the words of a block, or `None` if the block is impossible.
fn words_of(region: &Region, span: Span, block: Block) -> Option<&[AtomicU64]> {
    let Block { offset, len } = block;
    if len == 0 || !offset.is_multiple_of(ALIGN) {
        return None;
    }
    let (start, len) = (usize::try_from(offset).ok()?, usize::try_from(len).ok()?);
    let start = start / WORD;
    let end = start.checked_add(len.div_ceil(WORD))?;
    region.span(span).get(start..end)
}

fn impossible(span: Span, block: Block) -> BlockError {
    BlockError::Impossible {
        offset: block.offset,
        len: block.len,
        capacity: (span.words * WORD) as u64,
    }
}

crate::debug_with_causes!(BlockError);

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn arena(bytes: usize) -> (BlockWriter, BlockReader) {
        let mut layout = Layout::new();
        // The arena is neither the first nor the last part of its region.
        layout.slots(3);
        let span = layout.arena(bytes);
        layout.slots(3);
        let region = Region::on_heap(layout.byte_len());
        (BlockWriter::new(&region, span), BlockReader::new(&region, span))
    }

    fn bytes(seed: u64, len: usize) -> Vec<u8> {
        (0..len as u64).map(|at| (at * 7 + seed) as u8).collect()
    }

    #[test]
    fn a_block_is_read_as_it_was_written() {
        let (mut writer, mut reader) = arena(1 << 20);
        for len in [1, 7, 8, 9, 127, 128, 129, 4095, writer.max_block()] {
            let block = writer.next_block(len).expect("no block is in flight");
            let sent = bytes(len as u64, len);
            writer.write(block, &sent).expect("it is the next block");
            let mut copy = b"before".to_vec();
            reader.read(block, &mut copy).expect("it is there");
            assert_eq!(copy.split_off(6), sent, "{len}");
            writer
                .mark_released(writer.released() + 1)
                .expect("it was written");
        }
    }

    #[test]
    fn blocks_in_flight_never_overlap_and_space_is_reused() {
        let (mut writer, mut reader) = arena(16 << 10);
        let mut random = 1u64;
        let mut next = move |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        let mut in_flight = VecDeque::new();
        let mut taken = 0;
        for round in 0..20_000 {
            let len = 1 + next(2000) as usize;
            if let Some(block) = writer.next_block(len) {
                let sent = bytes(round, block.len as usize);
                writer.write(block, &sent).expect("it is the next block");
                in_flight.push_back((block, sent));
            } else {
                assert!(!in_flight.is_empty(), "an empty arena has space");
            }
            for _ in 0..next(3) {
                let Some((block, sent)) = in_flight.pop_front() else {
                    break;
                };
                let mut copy = Vec::new();
                reader.read(block, &mut copy).expect("it is there");
                assert_eq!(copy, sent);
                taken += 1;
            }
            writer.mark_released(taken).expect("they were written");
            assert_eq!(writer.in_flight(), in_flight.len());
            let bytes = in_flight
                .iter()
                .map(|(block, _)| block.len.next_multiple_of(ALIGN));
            assert_eq!(writer.in_flight_bytes(), bytes.sum::<u64>());
        }
    }

    #[test]
    fn a_single_block_in_flight_always_starts_at_0() {
        let (mut writer, _) = arena(16 << 20);
        for round in 0..100 {
            let block = writer.next_block(1 << 20).expect("no block is in flight");
            assert_eq!(block.offset, 0);
            writer.write(block, &[0; 1 << 20]).expect("it is the next block");
            writer.mark_released(round + 1).expect("it was written");
        }
    }

    #[test]
    fn impossible_blocks_are_refused_without_effect() {
        let (mut writer, mut reader) = arena(1 << 12);
        let capacity = 1 << 12;
        let mut copy = b"before".to_vec();
        for (offset, len) in [
            (0, 0),
            (0, capacity + 1),
            (128, capacity),
            (capacity, 1),
            (1, 1),
            (8, 8),
            (u64::MAX - 127, 128),
            (!127, u64::MAX),
            (0, u64::MAX),
        ] {
            let block = Block { offset, len };
            let refused = reader.read(block, &mut copy).expect_err("impossible");
            assert!(matches!(refused, BlockError::Impossible { .. }), "{refused}");
            writer.write(block, &[0; 8]).expect_err("impossible");
        }
        assert_eq!((copy.as_slice(), writer.in_flight()), (&b"before"[..], 0));
        reader
            .read(
                Block {
                    offset: 0,
                    len: capacity,
                },
                &mut copy,
            )
            .expect("all of it");
    }

    #[test]
    fn an_arena_shrinks_when_the_system_has_no_memory() {
        let (mut writer, _) = arena(1 << 20);
        let first = writer.next_block(1000).expect("there is memory");
        writer.write(first, &[0; 1000]).expect("it is the next block");
        writer.limit = writer.touched;
        assert_eq!(writer.next_block(1), None, "a block is in flight");
        writer.mark_released(1).expect("it was written");
        let second = writer.next_block(1 << 20).expect("there is space");
        assert_eq!((second.offset, second.len), (0, 1024));
        writer.limit = 0;
        assert_eq!(writer.next_block(1), None, "the arena has no pages at all");
    }

    /// Pages that were returned to the system are read as zeros.
    #[cfg(target_os = "linux")]
    #[test]
    fn an_idle_arena_returns_its_pages_and_is_used_again() {
        const LEN: usize = 1 << 20;
        let mut layout = Layout::new();
        let before = layout.slots(1);
        let span = layout.arena(LEN);
        let after = layout.slots(1);
        let region = Region::create(&crate::Backing::Anonymous, layout.byte_len()).expect("there is memory");
        let neighbours = [before, after].map(|span| crate::slots::Slots::new(&region, span));
        neighbours.iter().for_each(|slots| slots.slot(0).set(7));
        let (mut writer, mut reader) = (BlockWriter::new(&region, span), BlockReader::new(&region, span));
        let ones = vec![1; writer.max_block()];
        for round in 0..3 {
            let block = writer.next_block(LEN).expect("there is space");
            writer.write(block, &ones).expect("it is the next block");
            writer.release_pages();
            let mut copy = Vec::new();
            reader.read(block, &mut copy).expect("it is there");
            assert_eq!(copy, ones, "a block in flight keeps its pages");
            writer.mark_released(round + 1).expect("it was written");
            writer.release_pages();
            reader.expect_new_pages();
            copy.clear();
            reader.read(block, &mut copy).expect("it is there");
            // The pages at both ends are shared with others.
            let zeros = copy.iter().filter(|byte| **byte == 0).count();
            assert!(zeros >= copy.len() - 2 * 4096, "{zeros} of {}", copy.len());
        }
        assert!(neighbours.iter().all(|slots| slots.slot(0).get() == 7));
    }

    #[test]
    fn impossible_counts_are_refused() {
        let (mut writer, _) = arena(1 << 12);
        for _ in 0..2 {
            let block = writer.next_block(100).expect("there is space");
            writer.write(block, &[0; 100]).expect("it is the next block");
        }
        for count in [3, u64::MAX] {
            writer.mark_released(count).expect_err("more than were written");
        }
        writer.mark_released(1).expect("two were written");
        writer.mark_released(0).expect_err("fewer than before");
        assert_eq!((writer.in_flight(), writer.released()), (1, 1));
    }
}

#[cfg(all(test, loom))]
mod model {
    //! Every interleaving, with loom.

    use super::*;
    use crate::slots::Slots;
    use loom::thread;

    #[test]
    fn loom_a_block_is_not_overwritten_before_it_was_read() {
        loom::model(|| {
            let mut layout = Layout::new();
            let (arena, slots) = (layout.arena(16), layout.slots(2));
            let region = Region::on_heap(layout.byte_len());
            let mut writer = BlockWriter::new(&region, arena);
            let slots = Slots::new(&region, slots);
            let (mut reader, theirs) = (BlockReader::new(&region, arena), slots.clone());
            let block = Block { offset: 0, len: 8 };
            writer.write(block, &[1; 8]).unwrap();
            slots.slot(0).store_release(1);
            let reading = thread::spawn(move || {
                if theirs.slot(0).load_acquire() == 1 {
                    let mut copy = Vec::new();
                    reader.read(block, &mut copy).unwrap();
                    assert_eq!(copy, [1; 8]);
                    theirs.slot(1).store_release(1);
                }
            });
            writer.mark_released(slots.slot(1).load_acquire()).unwrap();
            if writer.in_flight() == 0 {
                let block = writer.next_block(8).unwrap();
                assert_eq!(block.offset, 0);
                writer.write(block, &[2; 8]).unwrap();
            }
            reading.join().unwrap();
        });
    }
}
