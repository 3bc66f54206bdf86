//! Pieces: how a payload that is too large for a frame travels, through an arena that the leader made. [`Outbound`] is the
//! sender's end and [`Inbound`] the receiver's; each direction has one of both.
//!
//! A piece is a [block](shm_buffers::arena) in the arena, and a frame of fixed size in the ring that says where the block is.
//! The receiver copies the block into private memory and frees it by incrementing a count. The first piece says how many
//! bytes the payload has, and each further piece must agree with that. The receiver allocates memory as pieces arrive, so a
//! wrong number costs nothing.
//!
//! [`held`](self::held) has the blocks that the receiver does not copy, or not yet: buffers of tasks and outputs.

mod held;

use std::sync::atomic::{Ordering, fence};

use shm_buffers::arena::{Block, BlockError, BlockReader, BlockWriter};
use shm_buffers::slots::Slots;

pub(crate) use self::held::{BuffersApart, MIN_APART, PieceOf, announcement};

use self::held::Unreleased;
use crate::os::NewPages;
use crate::wire::owned_bytes::OwnedBytes;
use crate::wire::tags::Tag;

/// Length of a piece's frame in bytes: the tag, then offset, length and remaining bytes.
pub(crate) const FRAME: usize = 1 + 3 * size_of::<u64>();
/// Maximum number of bytes in flight, or else two blocks. A processor's own cache holds this much beside the payloads: blocks that are
/// used again soon are still in it. With more, each block comes from memory.
const MAX_IN_FLIGHT: u64 = 1 << 20;
/// Maximum number of bytes that are allocated for a payload before they arrive.
const AHEAD: u64 = 128 << 20;

/// The description of a piece, which its frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    block: Block,
    /// Number of bytes of the payload that follow in later pieces.
    left: u64,
}

impl Piece {
    /// Describes `block`, the next piece of a payload of which `rest` bytes have not been sent, including this block.
    pub(crate) fn new(block: Block, rest: usize) -> Self {
        let left = (rest as u64).saturating_sub(block.len);
        Self { block, left }
    }

    pub(crate) fn frame(self) -> [u8; FRAME] {
        self.frame_of(Tag::Piece)
    }

    fn frame_of(self, tag: Tag) -> [u8; FRAME] {
        let mut frame = [tag as u8; FRAME];
        let numbers = [self.block.offset, self.block.len, self.left];
        let fields = frame[1..].as_chunks_mut().0;
        for (field, number) in fields.iter_mut().zip(numbers) {
            *field = number.to_le_bytes();
        }
        frame
    }

    /// Parses a frame without its tag.
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

/// The state of a payload after one of its pieces has arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrived {
    /// More pieces follow.
    Part,
    /// This was the last piece; the payload is complete.
    Whole(OwnedBytes),
    /// This was the last piece, but there was no memory for the payload.
    Lost(String),
}

/// The peer violates the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;

/// The receiver's end.
#[derive(Debug)]
pub(crate) struct Inbound {
    reader: BlockReader,
    /// The shared slot with the number of blocks that this end has freed.
    freed: Slots,
    /// The number of blocks that have arrived.
    count: u64,
    bytes_taken: u64,
    unreleased: Unreleased,
    /// The buffers that have arrived of a task or an output whose other parts follow.
    apart: Option<BuffersApart>,
    /// The shared slot with the number of freed blocks that the sender waits for.
    wanted: Slots,
    /// The last value of `wanted` for which the sender was woken.
    woken_for: u64,
    /// Maximum size of a payload in bytes.
    max_bytes: u64,
    bytes: OwnedBytes,
    new_pages: NewPages,
    /// Bytes still to arrive of the payload in progress, if there is one.
    left: Option<u64>,
    /// Why the payload in progress is discarded.
    lost: Option<String>,
}

impl Inbound {
    pub(crate) fn new(reader: BlockReader, freed: Slots, wanted: Slots, max_bytes: u64) -> Self {
        Self {
            reader,
            freed,
            count: 0,
            bytes_taken: 0,
            unreleased: Unreleased::default(),
            apart: None,
            wanted,
            woken_for: 0,
            max_bytes,
            bytes: OwnedBytes::default(),
            new_pages: NewPages::default(),
            left: None,
            lost: None,
        }
    }

    /// Returns whether only a part of a payload has arrived.
    pub(crate) fn is_under_way(&self) -> bool {
        self.left.is_some()
    }

    /// Returns the number of blocks that have arrived.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Returns the number of bytes in these blocks.
    pub(crate) fn bytes_taken(&self) -> u64 {
        self.bytes_taken
    }

    /// Copies the piece that a frame describes, and frees its block. `payload` is the frame without its tag. The bytes of a new
    /// payload get memory of the given alignment, if the payload consists of whole elements.
    pub(crate) fn take(&mut self, payload: &[u8], alignment: usize) -> Result<Arrived, Broken> {
        let piece = Piece::of(payload).ok_or(Broken)?;
        let Piece { block, left } = piece;
        let all = left.checked_add(block.len).ok_or(Broken)?;
        match self.left {
            Some(expected) if expected != all => return Err(Broken),
            None if all > self.max_bytes => return Err(Broken),
            Some(_) => {}
            None => {
                let empty = OwnedBytes::with_align(alignment, all);
                self.bytes.clear();
                if self.bytes.align() != empty.align() {
                    self.bytes = empty;
                }
                // The number may be forged, and the allocation may fail: memory for what arrives is reserved again below.
                let ahead = usize::try_from(all.min(AHEAD)).unwrap_or(0);
                let _ = self.bytes.try_reserve(ahead);
            }
        }
        let read = match self.lost {
            None => {
                let (bytes, reader) = (&mut self.bytes, &mut self.reader);
                self.new_pages
                    .observe(block.len as usize, || bytes.append(reader, block))
            }
            Some(_) => Ok(()),
        };
        match read {
            Ok(()) => {}
            Err(e @ BlockError::Memory { .. }) => {
                self.lost = Some(e.to_string());
                self.bytes = OwnedBytes::default();
            }
            Err(_) => return Err(Broken),
        }
        self.left = Some(left);
        self.count += 1;
        self.bytes_taken += block.len;
        self.unreleased.push_copied();
        self.publish_freed();
        if left > 0 {
            return Ok(Arrived::Part);
        }
        self.left = None;
        Ok(match self.lost.take() {
            None => Arrived::Whole(std::mem::take(&mut self.bytes)),
            Some(reason) => Arrived::Lost(reason),
        })
    }

    /// Lets the sender use the blocks again that are not needed any more.
    fn publish_freed(&mut self) {
        self.freed.slot(0).store_release(self.unreleased.count_released());
    }

    /// Discards the payload in progress, of which no more pieces follow.
    pub(crate) fn forget(&mut self) {
        self.left = None;
        self.lost = None;
        self.apart = None;
        self.bytes = OwnedBytes::default();
    }

    /// Frees the memory that is kept for the next payload. The pages of the arena are expected to be new then.
    pub(crate) fn release_memory(&mut self) {
        self.reader.expect_new_pages();
        if self.left.is_none() {
            self.bytes = OwnedBytes::default();
        }
    }

    /// Returns whether the caller must wake the sender now: it waits for blocks that have been freed. Returns `true` once for
    /// each request.
    pub(crate) fn must_wake_sender(&mut self) -> bool {
        // Pairs with the fence in `Outbound::request_wakeup`: either this side sees the request, or the sender sees the freed
        // blocks.
        fence(Ordering::SeqCst);
        let wanted = self.wanted.slot(0).get();
        let must_wake = wanted > self.woken_for && self.unreleased.count_released() >= wanted;
        if must_wake {
            self.woken_for = wanted;
        }
        must_wake
    }

    /// Frees the memory that is kept for the next payload, if it has more than `max_bytes` and no payload is arriving.
    #[inline]
    pub(crate) fn free(&mut self, max_bytes: usize) {
        if self.left.is_none() && self.bytes.capacity() > max_bytes {
            self.bytes = OwnedBytes::default();
        }
    }

    /// Takes the memory of a payload that was processed, and keeps it for the next one unless it has more than `max_bytes`.
    pub(crate) fn reuse(&mut self, bytes: OwnedBytes, max_bytes: usize) {
        if self.left.is_none() && bytes.capacity() <= max_bytes {
            self.bytes = bytes;
        }
    }
}

/// The result of looking for a block for the next piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Allocation {
    Block(Block),
    /// The arena is full until the receiver frees blocks.
    NoRoom,
    /// The arena has no memory at all, although no block is in use. Then no piece was ever sent.
    NoMemory,
}

/// The text of a task's error for [`Allocation::NoMemory`].
pub(crate) const NO_MEMORY: &str = "no memory to share for large payloads; free some, or raise the limit";

/// Whether the sender has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WakeupRequest {
    /// No: the receiver has freed enough blocks by now.
    Granted,
    /// Yes: the receiver will wake the sender.
    Open,
}

/// The sender's end.
#[derive(Debug)]
pub(crate) struct Outbound {
    writer: BlockWriter,
    /// The shared slot with the number of blocks that the receiver has freed.
    freed: Slots,
    /// The shared slot with the number of freed blocks that this end waits for.
    wanted: Slots,
    bytes_sent: u64,
}

impl Outbound {
    pub(crate) fn new(writer: BlockWriter, freed: Slots, wanted: Slots) -> Self {
        Self {
            writer,
            freed,
            wanted,
            bytes_sent: 0,
        }
    }

    /// Reclaims the blocks that the receiver has freed.
    pub(crate) fn collect(&mut self) -> Result<(), Broken> {
        let count = self.freed.slot(0).load_acquire();
        self.writer.mark_released(count).map_err(|_| Broken)
    }

    /// Returns the number of blocks that the receiver has not freed.
    pub(crate) fn under_way(&self) -> usize {
        self.writer.in_flight()
    }

    /// Returns the number of blocks that the receiver has freed.
    pub(crate) fn count_given_back(&self) -> u64 {
        self.writer.released()
    }

    /// Looks for a block for the next piece of a payload of which `rest` bytes are left.
    pub(crate) fn find(&mut self, rest: usize) -> Allocation {
        let next = rest.min(self.writer.max_block()) as u64;
        let in_flight = self.writer.in_flight_bytes();
        if self.writer.in_flight() > 1 && in_flight + next > MAX_IN_FLIGHT {
            return Allocation::NoRoom;
        }
        match self.writer.next_block(rest) {
            Some(block) => Allocation::Block(block),
            None if self.writer.in_flight() == 0 => Allocation::NoMemory,
            None => Allocation::NoRoom,
        }
    }

    /// Fills that block from `rest`. The caller must publish its frame only afterwards.
    pub(crate) fn fill(&mut self, block: Block, rest: &[u8]) -> Result<(), Broken> {
        self.bytes_sent += block.len;
        self.writer.write(block, rest).map_err(|_| Broken)
    }

    /// Returns the number of bytes in all blocks so far.
    pub(crate) fn bytes_sent(&self) -> u64 {
        self.bytes_sent
    }

    /// Returns the arena's pages to the system, unless blocks are in use.
    pub(crate) fn release_memory(&mut self) -> Result<(), Broken> {
        self.collect()?;
        self.writer.release_pages();
        Ok(())
    }

    /// Requests a wakeup for when the receiver has freed half of the blocks in use.
    pub(crate) fn request_wakeup(&mut self) -> WakeupRequest {
        let before = self.writer.released();
        let wanted = before + self.writer.in_flight().div_ceil(2) as u64;
        self.wanted.slot(0).set(wanted);
        // Pairs with the fence in `Inbound::must_wake_sender`.
        fence(Ordering::SeqCst);
        match self.freed.slot(0).load_acquire() >= wanted {
            true => WakeupRequest::Granted,
            false => WakeupRequest::Open,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shm_buffers::{Layout, Region};

    const ARENA: usize = 16 << 10;

    fn ends(max_bytes: u64) -> (Outbound, Inbound) {
        ends_of(ARENA, max_bytes)
    }

    /// Returns both ends of an arena of `bytes` bytes, for payloads of up to `max_bytes`.
    pub(super) fn ends_of(bytes: usize, max_bytes: u64) -> (Outbound, Inbound) {
        let mut layout = Layout::new();
        let (arena, slots) = (layout.arena(bytes), layout.slots(2));
        let region = Region::on_heap(layout.byte_len());
        let slots = Slots::new(&region, slots);
        let parts = || (slots.part(0..1), slots.part(1..2));
        let (freed, wanted) = parts();
        let outbound = Outbound::new(BlockWriter::new(&region, arena), freed, wanted);
        let (freed, wanted) = parts();
        let inbound = Inbound::new(BlockReader::new(&region, arena), freed, wanted, max_bytes);
        (outbound, inbound)
    }

    fn frame(offset: u64, len: u64, left: u64) -> [u8; FRAME] {
        let block = Block { offset, len };
        Piece { block, left }.frame()
    }

    #[test]
    fn payloads_of_any_size_arrive_whole() {
        let (mut outbound, mut inbound) = ends(u64::MAX);
        for len in [1, 1000, 1024, 1025, ARENA, 10 * ARENA + 3] {
            let sent: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let mut at = 0;
            let mut frames = std::collections::VecDeque::new();
            let received = loop {
                outbound.collect().expect("an honest count");
                while at < len
                    && let Allocation::Block(block) = outbound.find(len - at)
                {
                    outbound.fill(block, &sent[at..]).expect("the block was found");
                    frames.push_back(Piece::new(block, len - at).frame());
                    at += block.len as usize;
                }
                if at < len {
                    assert_eq!(outbound.request_wakeup(), WakeupRequest::Open);
                    assert!(!inbound.must_wake_sender());
                }
                let frame = frames.pop_front().expect("there is room for one");
                match inbound.take(&frame[1..], 1).expect("an honest piece") {
                    Arrived::Part => {}
                    Arrived::Whole(bytes) => break bytes,
                    Arrived::Lost(reason) => panic!("{reason}"),
                }
            };
            assert!(*received == sent[..] && !inbound.is_under_way(), "{len}");
        }
    }

    #[test]
    fn each_wakeup_request_wakes_once() {
        let (mut outbound, mut inbound) = ends(u64::MAX);
        for _ in 0..4 {
            let Allocation::Block(block) = outbound.find(100) else {
                panic!("there is room")
            };
            outbound.fill(block, &[0; 100]).expect("the block was found");
        }
        assert_eq!(outbound.request_wakeup(), WakeupRequest::Open);
        let mut wakeups = Vec::new();
        for _ in 0..4 {
            inbound.take(&frame(0, 100, 0)[1..], 1).expect("a whole payload");
            wakeups.push(inbound.must_wake_sender());
        }
        assert_eq!(wakeups, [false, true, false, false]);
        assert_eq!(outbound.request_wakeup(), WakeupRequest::Granted);
    }

    #[test]
    fn forged_pieces_are_violations_and_take_no_memory() {
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
            assert_eq!(inbound.take(&forged[1..], 4), Err(Broken), "{forged:?}");
            assert_eq!((inbound.count(), inbound.bytes.len()), (0, 0));
        }
        for len in (0..FRAME - 1).chain([FRAME, 100]) {
            let (_, mut inbound) = ends(1 << 20);
            assert_eq!(inbound.take(&vec![0; len], 1), Err(Broken), "{len}");
        }
        // For a number that is large but possible, no more than `AHEAD` is allocated.
        let (_, mut inbound) = ends(u64::MAX);
        assert_eq!(inbound.take(&frame(0, 8, 1 << 50)[1..], 8), Ok(Arrived::Part));
        assert!(inbound.bytes.capacity() as u64 <= 2 * AHEAD);
    }

    #[test]
    fn pieces_that_contradict_the_one_before_are_violations() {
        for (len, left) in [(8, 92), (8, 91), (100, 0), (92, 1)] {
            let (_, mut inbound) = ends(1 << 20);
            assert_eq!(inbound.take(&frame(0, 8, 92)[1..], 1), Ok(Arrived::Part));
            let second = inbound.take(&frame(0, len, left)[1..], 1);
            assert_eq!(second.is_err(), len + left != 92, "{len} {left}");
        }
    }
}
