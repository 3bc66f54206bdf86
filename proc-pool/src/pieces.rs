//! Pieces: how a payload that is too large for a frame crosses, through an arena that the leader made.
//!
//! Each piece is a [block](shm_buffers::arena) in the arena and a frame in the ring that says where, of fixed size. The
//! receiver copies a block into memory of its own and gives it back by a count; how many bytes are to come it has from the
//! first piece, and each further one must agree. Memory is taken as pieces arrive, so that a wrong number costs nothing.

use std::sync::atomic::{Ordering, fence};

use shm_buffers::arena::{Block, BlockError, BlockReader, BlockWriter};
use shm_buffers::slots::Slots;

use crate::protocol::Tag;

/// Bytes of a piece's frame.
pub(crate) const FRAME: usize = 1 + 3 * size_of::<u64>();
/// Memory that is taken ahead of what has arrived, at most.
const AHEAD: u64 = 16 << 20;

/// One piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    block: Block,
    /// Bytes of the payload behind it.
    left: u64,
}

impl Piece {
    /// The piece that is a block of a payload of which `rest` bytes, the block's included, have not been sent.
    pub(crate) fn new(block: Block, rest: usize) -> Self {
        let left = (rest as u64).saturating_sub(block.len);
        Self { block, left }
    }

    pub(crate) fn frame(self) -> [u8; FRAME] {
        let mut frame = [Tag::Piece as u8; FRAME];
        let numbers = [self.block.offset, self.block.len, self.left];
        let fields = frame[1..].as_chunks_mut().0;
        for (field, number) in fields.iter_mut().zip(numbers) {
            *field = number.to_le_bytes();
        }
        frame
    }

    /// The piece of a frame, given without its tag.
    fn of(payload: &[u8]) -> Option<Self> {
        let (fields, []) = payload.as_chunks() else {
            return None;
        };
        let &[offset, len, left] = fields else {
            return None;
        };
        let number = u64::from_le_bytes;
        let (offset, len) = (number(offset), number(len));
        let block = Block { offset, len };
        let left = number(left);
        Some(Self { block, left })
    }
}

/// The state of a payload after a piece of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrived {
    /// More of it is to come.
    Part,
    Whole(Vec<u8>),
    /// It came to its end, and there was no memory for it.
    Lost(String),
}

/// The sender breaks the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;

/// The receiving end.
#[derive(Debug)]
pub(crate) struct Inbound {
    reader: BlockReader,
    /// Where blocks are given back, by their number.
    given_back: Slots,
    count: u64,
    /// The number of blocks that the sender waits for.
    wanted: Slots,
    /// It was rung for that one.
    rung: u64,
    /// Bytes of a payload, at most.
    most: u64,
    bytes: Vec<u8>,
    /// Bytes that are to come, of a payload in progress.
    left: Option<u64>,
    /// Why the payload in progress is not kept.
    lost: Option<String>,
}

impl Inbound {
    pub(crate) fn new(reader: BlockReader, given_back: Slots, wanted: Slots, most: u64) -> Self {
        Self {
            reader,
            given_back,
            count: 0,
            wanted,
            rung: 0,
            most,
            bytes: Vec::new(),
            left: None,
            lost: None,
        }
    }

    /// Whether a payload has arrived in part.
    pub(crate) fn is_under_way(&self) -> bool {
        self.left.is_some()
    }

    /// Blocks that were given back.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Takes the piece of a frame, given without its tag.
    pub(crate) fn take(&mut self, payload: &[u8]) -> Result<Arrived, Broken> {
        let piece = Piece::of(payload).ok_or(Broken)?;
        let Piece { block, left } = piece;
        let all = left.checked_add(block.len).ok_or(Broken)?;
        match self.left {
            Some(expected) if expected != all => return Err(Broken),
            None if all > self.most => return Err(Broken),
            Some(_) => {}
            None => {
                self.bytes.clear();
                // It may be refused, or a lie: what arrives is asked for again.
                let ahead = usize::try_from(all.min(AHEAD)).unwrap_or(0);
                let _ = self.bytes.try_reserve(ahead);
            }
        }
        let read = match self.lost {
            None => self.reader.read(block, &mut self.bytes),
            Some(_) => Ok(()),
        };
        match read {
            Ok(()) => {}
            Err(e @ BlockError::Memory { .. }) => {
                self.lost = Some(e.to_string());
                self.bytes = Vec::new();
            }
            Err(_) => return Err(Broken),
        }
        self.left = Some(left);
        self.count += 1;
        self.given_back.slot(0).publish(self.count);
        if left > 0 {
            return Ok(Arrived::Part);
        }
        self.left = None;
        Ok(match self.lost.take() {
            None => Arrived::Whole(std::mem::take(&mut self.bytes)),
            Some(reason) => Arrived::Lost(reason),
        })
    }

    /// Forgets the payload in progress: its rest won't come.
    pub(crate) fn forget(&mut self) {
        self.left = None;
        self.lost = None;
        self.bytes = Vec::new();
    }

    /// Whether the sender waits for what was given back, and was not rung for that.
    pub(crate) fn is_awaited(&mut self) -> bool {
        // With the one in `Outbound::wish`: either we see the wish, or the sender sees what was given back.
        fence(Ordering::SeqCst);
        let wanted = self.wanted.slot(0).get();
        let awaited = wanted > self.rung && self.count >= wanted;
        if awaited {
            self.rung = wanted;
        }
        awaited
    }

    /// Memory of a payload that was dealt with, for the next one; `most` bytes of it at most.
    pub(crate) fn reuse(&mut self, mut bytes: Vec<u8>, most: usize) {
        if self.left.is_none() {
            bytes.clear();
            bytes.shrink_to(most);
            self.bytes = bytes;
        }
    }
}

/// Where there is room for a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Block(Block),
    /// Nowhere until blocks are given back.
    NoRoom,
    /// Nowhere. Then no piece was ever sent.
    NoMemory,
}

/// Why [`Found::NoMemory`] is a task's error.
pub(crate) const NO_MEMORY: &str = "no memory to share for large payloads; free some, or raise the limit";

/// Whether the sender has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Blocks were given back already.
    Granted,
    /// The receiver will ring.
    Open,
}

/// The sending end.
#[derive(Debug)]
pub(crate) struct Outbound {
    writer: BlockWriter,
    given_back: Slots,
    wanted: Slots,
}

impl Outbound {
    pub(crate) fn new(writer: BlockWriter, given_back: Slots, wanted: Slots) -> Self {
        Self {
            writer,
            given_back,
            wanted,
        }
    }

    /// Takes note of what was given back.
    pub(crate) fn collect(&mut self) -> Result<(), Broken> {
        let count = self.given_back.slot(0).observe();
        self.writer.given_back(count).map_err(|_| Broken)
    }

    /// Blocks that the receiver has not given back.
    pub(crate) fn under_way(&self) -> usize {
        self.writer.under_way()
    }

    /// Blocks that the receiver has given back.
    pub(crate) fn count_given_back(&self) -> u64 {
        self.writer.count_given_back()
    }

    /// The next block of a payload of which `rest` bytes are left.
    pub(crate) fn find(&mut self, rest: usize) -> Found {
        match self.writer.find(rest) {
            Some(block) => Found::Block(block),
            None if self.writer.under_way() == 0 => Found::NoMemory,
            None => Found::NoRoom,
        }
    }

    /// Writes that block. Its frame is shown afterwards.
    pub(crate) fn fill(&mut self, block: Block, rest: &[u8]) -> Result<(), Broken> {
        self.writer.fill(block, rest).map_err(|_| Broken)
    }

    /// Wishes to be rung when half of what is under way was given back.
    pub(crate) fn wish(&mut self) -> Wish {
        let before = self.writer.count_given_back();
        let wanted = before + self.writer.under_way().div_ceil(2) as u64;
        self.wanted.slot(0).set(wanted);
        // With the one in `Inbound::is_awaited`.
        fence(Ordering::SeqCst);
        match self.given_back.slot(0).observe() >= wanted {
            true => Wish::Granted,
            false => Wish::Open,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shm_buffers::{Layout, Region};

    const ARENA: usize = 16 << 10;

    fn ends(most: u64) -> (Outbound, Inbound) {
        let mut layout = Layout::new();
        let (arena, slots) = (layout.arena(ARENA), layout.slots(2));
        let region = Region::on_heap(layout.bytes());
        let slots = Slots::new(&region, slots);
        let parts = || (slots.part(0..1), slots.part(1..2));
        let (given_back, wanted) = parts();
        let outbound = Outbound::new(BlockWriter::new(&region, arena), given_back, wanted);
        let (given_back, wanted) = parts();
        let inbound = Inbound::new(BlockReader::new(&region, arena), given_back, wanted, most);
        (outbound, inbound)
    }

    fn frame(offset: u64, len: u64, left: u64) -> [u8; FRAME] {
        let block = Block { offset, len };
        Piece { block, left }.frame()
    }

    #[test]
    fn payloads_of_any_size_cross_in_pieces() {
        let (mut outbound, mut inbound) = ends(u64::MAX);
        for len in [1, 1000, 1024, 1025, ARENA, 10 * ARENA + 3] {
            let sent: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let mut at = 0;
            let mut frames = std::collections::VecDeque::new();
            let received = loop {
                outbound.collect().expect("an honest count");
                while at < len
                    && let Found::Block(block) = outbound.find(len - at)
                {
                    outbound.fill(block, &sent[at..]).expect("it was found");
                    frames.push_back(Piece::new(block, len - at).frame());
                    at += block.len as usize;
                }
                if at < len {
                    assert_eq!(outbound.wish(), Wish::Open);
                    assert!(!inbound.is_awaited());
                }
                let frame = frames.pop_front().expect("there is room for one");
                match inbound.take(&frame[1..]).expect("an honest piece") {
                    Arrived::Part => {}
                    Arrived::Whole(bytes) => break bytes,
                    Arrived::Lost(reason) => panic!("{reason}"),
                }
            };
            assert!(received == sent && !inbound.is_under_way(), "{len}");
        }
    }

    #[test]
    fn a_wish_is_seen_once() {
        let (mut outbound, mut inbound) = ends(u64::MAX);
        for _ in 0..4 {
            let Found::Block(block) = outbound.find(100) else {
                panic!("there is room")
            };
            outbound.fill(block, &[0; 100]).expect("it was found");
        }
        assert_eq!(outbound.wish(), Wish::Open);
        let mut awaited = Vec::new();
        for _ in 0..4 {
            inbound.take(&frame(0, 100, 0)[1..]).expect("a whole payload");
            awaited.push(inbound.is_awaited());
        }
        assert_eq!(awaited, [false, true, false, false]);
        assert_eq!(outbound.wish(), Wish::Granted);
    }

    #[test]
    fn forged_pieces_break_the_lane_and_take_no_memory() {
        let arena = ARENA as u64;
        for forged in [
            frame(0, 0, 0),
            frame(0, 0, 10),
            frame(0, arena + 1, 0),
            frame(arena, 1, 0),
            frame(1, 1, 0),
            frame(u64::MAX, 1, 0),
            frame(0, u64::MAX, 0),
            frame(0, u64::MAX, 1),
            frame(0, 1, u64::MAX),
            frame(0, 1, 1 << 20),
            [0xff; FRAME],
        ] {
            let (_, mut inbound) = ends(1 << 20);
            assert_eq!(inbound.take(&forged[1..]), Err(Broken), "{forged:?}");
            assert_eq!((inbound.count(), inbound.bytes.len()), (0, 0));
        }
        for len in (0..FRAME - 1).chain([FRAME, 100]) {
            let (_, mut inbound) = ends(1 << 20);
            assert_eq!(inbound.take(&vec![0; len]), Err(Broken), "{len}");
        }
        // A number that is large but possible is believed no further than is stated.
        let (_, mut inbound) = ends(u64::MAX);
        assert_eq!(inbound.take(&frame(0, 8, 1 << 50)[1..]), Ok(Arrived::Part));
        assert!(inbound.bytes.capacity() as u64 <= 2 * AHEAD);
    }

    #[test]
    fn pieces_that_do_not_follow_from_the_one_before_break_the_lane() {
        for (len, left) in [(8, 92), (8, 91), (100, 0), (92, 1)] {
            let (_, mut inbound) = ends(1 << 20);
            assert_eq!(inbound.take(&frame(0, 8, 92)[1..]), Ok(Arrived::Part));
            let second = inbound.take(&frame(0, len, left)[1..]);
            assert_eq!(second.is_err(), len + left != 92, "{len} {left}");
        }
    }
}
