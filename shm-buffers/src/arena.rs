//! Arenas: blocks of bytes in shared memory, for what is too large for a ring.
//!
//! One process writes blocks ([`BlockWriter`]), the other copies them out ([`BlockReader`]). Which block is meant is sent by
//! other means, such as a frame of a [`ring`](crate::ring), which also orders the accesses; blocks are given back in the order
//! in which they were written, as a count that the reader publishes in a [slot](crate::slots).
//!
//! Nothing is trusted: the reader checks each block against the arena and copies each of its bytes once, into private memory,
//! before anything looks at it; the writer checks the count. Memory is only touched as relaxed atomic words, so a peer
//! that writes at the same time causes wrong bytes, never undefined behaviour.
//!
//! Blocks lie as low as the order allows: memory that was touched before is used again, and an arena takes pages only for the
//! blocks that were ever under way at the same time.
//!
//! ```
//! use shm_buffers::arena::{BlockReader, BlockWriter};
//! use shm_buffers::{Layout, Region};
//!
//! let mut layout = Layout::new();
//! let span = layout.arena(1 << 20);
//! let region = Region::on_heap(layout.bytes());
//! let (mut writer, mut reader) = (BlockWriter::new(&region, span), BlockReader::new(&region, span));
//! let block = writer.find(5).unwrap();
//! writer.fill(block, b"large").unwrap();
//! let mut copy = Vec::new();
//! reader.read(block, &mut copy).unwrap();
//! assert_eq!(copy, b"large");
//! writer.given_back(1).unwrap();
//! ```

use std::collections::VecDeque;

use crate::layout::Span;
use crate::region::Region;
use crate::ring::words;

const WORD: usize = size_of::<u64>();
/// Blocks begin at multiples of that: a cache line pair.
const ALIGN: u64 = 128;
/// A block is a sixteenth of its arena at most, so that one side writes while the other reads, but no larger than this, so
/// that it is in a cache when it is read.
const LARGEST: usize = 1 << 20;
const PARTS: usize = 16;

/// A part of an arena, in bytes from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Where it begins.
    pub offset: u64,
    /// Its length.
    pub len: u64,
}

/// Why a block can't be used: its peer has made it up.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// It is empty, misaligned or reaches beyond the arena.
    #[error("block of {len} bytes at {offset} is impossible in an arena of {capacity} bytes")]
    Impossible {
        /// [`Block::offset`].
        offset: u64,
        /// [`Block::len`].
        len: u64,
        /// Bytes of the arena.
        capacity: u64,
    },
    /// The reader gave back blocks that it was not sent, or took blocks back.
    #[error("{given_back} blocks are given back of {written}, after {before}")]
    Count {
        /// Blocks that are said to be given back.
        given_back: u64,
        /// Blocks that were given back before.
        before: u64,
        /// Blocks that were written.
        written: u64,
    },
    /// There is no memory for a copy.
    #[error("no memory for a copy of {len} bytes")]
    Memory {
        /// Bytes that the copy has, with this block.
        len: usize,
    },
}

/// The writing end.
#[derive(Debug)]
pub struct BlockWriter {
    region: Region,
    span: Span,
    /// Those under way, oldest first: where each begins and where the room behind it begins.
    under_way: VecDeque<(u64, u64)>,
    given_back: u64,
    /// Bytes from the start that have pages.
    touched: u64,
    /// Bytes from the start that are used: all, unless there was no memory for more.
    limit: u64,
}

impl BlockWriter {
    /// The writing end of the arena that `span` assigns in `region`.
    ///
    /// # Panics
    /// If `span` lies outside the region.
    pub fn new(region: &Region, span: Span) -> Self {
        let _ = region.span(span);
        Self {
            region: region.clone(),
            span,
            under_way: VecDeque::new(),
            given_back: 0,
            touched: 0,
            limit: (span.words * WORD) as u64,
        }
    }

    /// Blocks that were written and not given back.
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Blocks that have been given back.
    pub fn count_given_back(&self) -> u64 {
        self.given_back
    }

    /// The longest block, where there is memory for it.
    pub fn largest(&self) -> usize {
        (self.span.words * WORD / PARTS).clamp(WORD, LARGEST)
    }

    /// Where the next block would be: one of `len` bytes, or the longest if that is shorter. `None` if there is no room now,
    /// or, with nothing under way, no memory at all.
    ///
    /// Memory that was not touched before is made here. Where the system has none, the arena ends there.
    pub fn find(&mut self, len: usize) -> Option<Block> {
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

    fn place(&self, len: usize) -> Option<Block> {
        let end = self.limit;
        let len = (len.min(self.largest()) as u64).min(end);
        if len == 0 {
            return None;
        }
        let fits = |start: u64, end: u64| end.checked_sub(start).is_some_and(|room| room >= len);
        let block = |offset| Some(Block { offset, len });
        let (Some(&(first, _)), Some(&(last, next))) = (self.under_way.front(), self.under_way.back()) else {
            return block(0);
        };
        if last < first {
            // The room is between the newest and the oldest one.
            return fits(next, first).then_some(Block { offset: next, len });
        }
        // As low as possible.
        if fits(0, first) {
            block(0)
        } else if fits(next, end) {
            block(next)
        } else {
            None
        }
    }

    /// Writes the beginning of `bytes` into a block that was [found](Self::find), and counts it as under way.
    ///
    /// # Errors
    /// [`BlockError::Impossible`] if it was not found just now, or is longer than `bytes`.
    pub fn fill(&mut self, block: Block, bytes: &[u8]) -> Result<(), BlockError> {
        let found = usize::try_from(block.len)
            .ok()
            .filter(|&len| self.place(len) == Some(block));
        let bytes = found.and_then(|len| bytes.get(..len));
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
        self.under_way.push_back((block.offset, next));
        Ok(())
    }

    /// The reader reports that it has given back `count` blocks since the start.
    ///
    /// # Errors
    /// [`BlockError::Count`] if that can't be.
    pub fn given_back(&mut self, count: u64) -> Result<(), BlockError> {
        let more = count.checked_sub(self.given_back);
        let more = more.filter(|&more| more <= self.under_way.len() as u64);
        let Some(more) = more else {
            return Err(BlockError::Count {
                given_back: count,
                before: self.given_back,
                written: self.given_back + self.under_way.len() as u64,
            });
        };
        self.under_way.drain(..more as usize);
        self.given_back = count;
        Ok(())
    }
}

/// The reading end.
#[derive(Debug, Clone)]
pub struct BlockReader {
    region: Region,
    span: Span,
    /// Bytes from the start that have pages: a peer that names others must not have us touch them unprepared.
    touched: u64,
}

impl BlockReader {
    /// The reading end of the arena that `span` assigns in `region`.
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

    /// Appends a copy of `block` to `out`; after an error, `out` is unchanged. Each byte is read once.
    ///
    /// # Errors
    /// [`BlockError::Impossible`], [`BlockError::Memory`].
    pub fn read(&mut self, block: Block, out: &mut Vec<u8>) -> Result<(), BlockError> {
        let Some(words) = words_of(&self.region, self.span, block) else {
            return Err(impossible(self.span, block));
        };
        // Not more than the arena has.
        let len = block.len as usize;
        let memory = BlockError::Memory { len: out.len() + len };
        let end = (block.offset + block.len).next_multiple_of(ALIGN);
        if end > self.touched {
            let new = self.touched as usize / WORD..(block.offset as usize + len).div_ceil(WORD);
            self.region.populate(self.span, new).map_err(|_| memory)?;
            self.touched = end;
        }
        out.try_reserve(len).map_err(|_| memory)?;
        words::append(words, len, out);
        Ok(())
    }
}

/// The words of a block that may be anything.
fn words_of(region: &Region, span: Span, block: Block) -> Option<&[crate::sync::AtomicU64]> {
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
    use crate::Layout;

    fn arena(bytes: usize) -> (BlockWriter, BlockReader) {
        let mut layout = Layout::new();
        // It does not begin where the region does, and something lies behind it.
        layout.slots(3);
        let span = layout.arena(bytes);
        layout.slots(3);
        let region = Region::on_heap(layout.bytes());
        (BlockWriter::new(&region, span), BlockReader::new(&region, span))
    }

    fn bytes(seed: u64, len: usize) -> Vec<u8> {
        (0..len as u64).map(|at| (at * 7 + seed) as u8).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let (mut writer, mut reader) = arena(1 << 20);
        for len in [1, 7, 8, 9, 127, 128, 129, 4095, writer.largest()] {
            let block = writer.find(len).expect("nothing is under way");
            let sent = bytes(len as u64, len);
            writer.fill(block, &sent).expect("it was found");
            let mut copy = b"before".to_vec();
            reader.read(block, &mut copy).expect("it is there");
            assert_eq!(copy.split_off(6), sent, "{len}");
            writer
                .given_back(writer.count_given_back() + 1)
                .expect("it was written");
        }
    }

    #[test]
    fn blocks_under_way_never_overlap_and_room_always_comes_back() {
        let (mut writer, mut reader) = arena(16 << 10);
        let mut random = 1u64;
        let mut next = move |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        let mut under_way = VecDeque::new();
        let mut taken = 0;
        for round in 0..20_000 {
            let len = 1 + next(2000) as usize;
            if let Some(block) = writer.find(len) {
                let sent = bytes(round, block.len as usize);
                writer.fill(block, &sent).expect("it was found");
                under_way.push_back((block, sent));
            } else {
                assert!(!under_way.is_empty(), "an empty arena has room");
            }
            for _ in 0..next(3) {
                let Some((block, sent)) = under_way.pop_front() else {
                    break;
                };
                let mut copy = Vec::new();
                reader.read(block, &mut copy).expect("it is there");
                assert_eq!(copy, sent);
                taken += 1;
            }
            writer.given_back(taken).expect("they were written");
            assert_eq!(writer.under_way(), under_way.len());
        }
    }

    #[test]
    fn a_block_at_a_time_stays_where_it_is() {
        let (mut writer, _) = arena(16 << 20);
        for round in 0..100 {
            let block = writer.find(1 << 20).expect("nothing is under way");
            assert_eq!(block.offset, 0);
            writer.fill(block, &[0; 1 << 20]).expect("it was found");
            writer.given_back(round + 1).expect("it was written");
        }
    }

    #[test]
    fn impossible_blocks_are_refused_and_leave_nothing() {
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
            writer.fill(block, &[0; 8]).expect_err("impossible");
        }
        assert_eq!((copy.as_slice(), writer.under_way()), (&b"before"[..], 0));
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
    fn an_arena_without_memory_for_all_of_it_is_smaller() {
        let (mut writer, _) = arena(1 << 20);
        let first = writer.find(1000).expect("there is memory");
        writer.fill(first, &[0; 1000]).expect("it was found");
        writer.limit = writer.touched;
        assert_eq!(writer.find(1), None, "a block is under way");
        writer.given_back(1).expect("it was written");
        let second = writer.find(1 << 20).expect("there is room");
        assert_eq!((second.offset, second.len), (0, 1024));
        writer.limit = 0;
        assert_eq!(writer.find(1), None, "there is no memory at all");
    }

    #[test]
    fn counts_that_can_not_be_are_refused() {
        let (mut writer, _) = arena(1 << 12);
        for _ in 0..2 {
            let block = writer.find(100).expect("there is room");
            writer.fill(block, &[0; 100]).expect("it was found");
        }
        for lie in [3, u64::MAX] {
            writer.given_back(lie).expect_err("so many were not written");
        }
        writer.given_back(1).expect("two were written");
        writer.given_back(0).expect_err("fewer than before");
        assert_eq!((writer.under_way(), writer.count_given_back()), (1, 1));
    }
}

#[cfg(all(test, loom))]
mod model {
    //! Every interleaving, by loom.

    use super::*;
    use crate::Layout;
    use crate::slots::Slots;
    use loom::thread;

    #[test]
    fn loom_a_block_is_not_written_again_before_it_was_read() {
        loom::model(|| {
            let mut layout = Layout::new();
            let (arena, slots) = (layout.arena(16), layout.slots(2));
            let region = Region::on_heap(layout.bytes());
            let mut writer = BlockWriter::new(&region, arena);
            let slots = Slots::new(&region, slots);
            let (mut reader, theirs) = (BlockReader::new(&region, arena), slots.clone());
            let block = Block { offset: 0, len: 8 };
            writer.fill(block, &[1; 8]).unwrap();
            slots.slot(0).publish(1);
            let reading = thread::spawn(move || {
                if theirs.slot(0).observe() == 1 {
                    let mut copy = Vec::new();
                    reader.read(block, &mut copy).unwrap();
                    assert_eq!(copy, [1; 8]);
                    theirs.slot(1).publish(1);
                }
            });
            writer.given_back(slots.slot(1).observe()).unwrap();
            if writer.under_way() == 0 {
                let block = writer.find(8).unwrap();
                assert_eq!(block.offset, 0);
                writer.fill(block, &[2; 8]).unwrap();
            }
            reading.join().unwrap();
        });
    }
}
