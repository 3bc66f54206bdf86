//! Pieces: how a payload that is too large for a frame travels, through an arena that the leader made. [`Outbound`] is the
//! sender's end and [`Inbound`] the receiver's; each direction has one of both.
//!
//! A piece is a [block](shm_buffers::arena) in the arena, and a frame of fixed size in the ring that says where the block is.
//! The receiver copies the block into private memory and releases it. The first piece says how many bytes the payload has, and each
//! further piece must agree with that. The receiver allocates memory as pieces arrive, so a wrong number costs nothing.
//!
//! [`held`](self::held) has the blocks that the receiver does not copy, or not yet: buffers of tasks and outputs.

mod held;

use std::sync::atomic::{Ordering, fence};

use shm_buffers::arena::{Block, BlockError, BlockReader, BlockWriter};
use shm_buffers::slots::Slots;

pub(crate) use self::held::{BuffersApart, MIN_APART, PieceOf, announcement};

use crate::wire::owned_bytes::OwnedBytes;
use crate::wire::tags::Tag;

/// Length of a piece's frame in bytes: the tag, then offset, length and remaining bytes.
pub(crate) const FRAME: usize = 1 + 3 * size_of::<u64>();
/// Number of bytes up to which any number of blocks may not have been taken by the receiver. A processor's own cache holds this much beside
/// the payloads: blocks that are used again soon are still in it. With more, each block comes from memory.
const MAX_UNTAKEN: u64 = 1 << 20;
/// Number of larger blocks that the receiver may not have taken. With two, both sides wait for each other after each block.
const MAX_LARGE_UNTAKEN: usize = 6;
/// Maximum number of bytes in these blocks. Of still larger ones, two may not have been taken.
const MAX_LARGE_UNTAKEN_BYTES: u64 = 6 << 20;
/// Maximum number of bytes that are allocated for a payload before they arrive.
const AHEAD: u64 = 128 << 20;
/// Maximum number of times that the sender looks again for the same block instead of waiting. A correct receiver needs fewer.
const MAX_GRANTED: u32 = 100;

/// Slots that the sender writes.
pub(crate) mod sender {
    /// It waits until this number of blocks was taken.
    pub(crate) const WANTED_TAKEN: usize = 0;
    /// It waits until this number of blocks was released.
    pub(crate) const WANTED_RELEASED: usize = 1;
    pub(crate) const COUNT: usize = 2;
}

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
    /// Whether blocks are read in place.
    trust: Trust,
    /// The [`sender`]'s slots.
    wanted: Slots,
    /// The last number of taken blocks for which the sender was woken.
    woken_for_taken: u64,
    /// The last number of released blocks for which it was woken.
    woken_for: u64,
    /// The number that it waited for, and those of released and taken blocks, when it was last woken because all blocks stay until they
    /// are dropped. It may wait for the same number again.
    woken_in_vain: (u64, u64, u64),
    bytes_taken: u64,
    /// The buffers that have arrived of a task or an output whose other parts follow.
    apart: Option<BuffersApart>,
    /// Maximum size of a payload in bytes.
    max_bytes: u64,
    bytes: OwnedBytes,
    /// Bytes still to arrive of the payload in progress, if there is one.
    left: Option<u64>,
    /// Why the payload in progress is discarded.
    lost: Option<String>,
}

/// Whether the sender writes no block that the receiver has not released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Trust {
    /// It may, so each block is copied before its bytes are looked at.
    #[default]
    Nothing,
    /// It does not, so the bytes of buffers can be read where they are.
    Sender,
}

impl Inbound {
    pub(crate) fn new(reader: BlockReader, wanted: Slots, max_bytes: u64, trust: Trust) -> Self {
        Self {
            reader,
            trust,
            wanted,
            woken_for_taken: 0,
            woken_for: 0,
            woken_in_vain: (0, 0, 0),
            bytes_taken: 0,
            apart: None,
            max_bytes,
            bytes: OwnedBytes::default(),
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
        self.reader.count_released() + self.reader.count_held() as u64
    }

    /// Returns the number of bytes in these blocks.
    pub(crate) fn bytes_taken(&self) -> u64 {
        self.bytes_taken
    }

    /// Copies the piece that a frame describes, and releases its block. `payload` is the frame without its tag. The bytes of a new
    /// payload get memory of the given alignment, if the payload consists of whole elements. A buffer of a payload that follows is
    /// [`Arrived::Part`].
    pub(crate) fn take(&mut self, payload: &[u8], alignment: usize) -> Result<Arrived, Broken> {
        let alignment = self.alignment_or(alignment);
        Ok(match self.take_piece(payload, alignment)? {
            Arrived::Part => Arrived::Part,
            Arrived::Whole(bytes) => self.take_buffer(bytes)?.map_or(Arrived::Part, Arrived::Whole),
            Arrived::Lost(reason) => self.lose_buffer(reason).map_or(Arrived::Part, Arrived::Lost),
        })
    }

    fn take_piece(&mut self, payload: &[u8], alignment: usize) -> Result<Arrived, Broken> {
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
                shm_buffers::copy_into_new(block.len as usize, || bytes.append(reader, block))
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
        self.reader.release(block);
        self.bytes_taken += block.len;
        if left > 0 {
            return Ok(Arrived::Part);
        }
        self.left = None;
        Ok(match self.lost.take() {
            None => Arrived::Whole(std::mem::take(&mut self.bytes)),
            Some(reason) => Arrived::Lost(reason),
        })
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

    /// Returns whether the caller must wake the sender now: it waits for blocks that have been taken or released, or would wait in
    /// vain. Returns `true` once for each request.
    pub(crate) fn must_wake_sender(&mut self) -> bool {
        // Pairs with the fence in `Outbound::request_wakeup`: either this side sees the request, or the sender sees the blocks.
        fence(Ordering::SeqCst);
        let released = self.reader.count_released();
        let [wanted_taken, wanted] =
            [sender::WANTED_TAKEN, sender::WANTED_RELEASED].map(|slot| self.wanted.slot(slot).get());
        let mut must_wake = false;
        if wanted_taken > self.woken_for_taken && self.count() >= wanted_taken {
            self.woken_for_taken = wanted_taken;
            must_wake = true;
        }
        let in_place = self.reader.count_in_place();
        let waits_in_vain = in_place > 0 && in_place == self.reader.count_held();
        if wanted > self.woken_for && released >= wanted {
            self.woken_for = wanted;
            must_wake = true;
        } else if wanted > self.woken_for && waits_in_vain {
            let state = (wanted, released, self.count());
            must_wake |= std::mem::replace(&mut self.woken_in_vain, state) != state;
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
    /// The sender must wait until the receiver takes or releases blocks.
    NoRoom,
    /// The arena has no memory, although no block is in use but those that stay until the receiver's user drops them.
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
    /// The [`sender`]'s slots.
    wanted: Slots,
    /// The receiver has released what it cannot release.
    is_broken: bool,
    waits_for: WaitsFor,
    /// How often a request for a wakeup was granted immediately since the last block.
    granted_in_a_row: u32,
    bytes_sent: u64,
}

/// What [`Outbound::find`] has found missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WaitsFor {
    /// The receiver takes blocks.
    Taken,
    /// It releases them.
    Released,
}

impl Outbound {
    pub(crate) fn new(writer: BlockWriter, wanted: Slots) -> Self {
        Self {
            writer,
            wanted,
            is_broken: false,
            waits_for: WaitsFor::Taken,
            granted_in_a_row: 0,
            bytes_sent: 0,
        }
    }

    /// Reclaims the blocks that the receiver has released.
    pub(crate) fn collect(&mut self) -> Result<(), Broken> {
        self.is_broken |= self.writer.collect().is_err();
        match self.is_broken {
            true => Err(Broken),
            false => Ok(()),
        }
    }

    /// Returns the number of blocks that the receiver has not released.
    pub(crate) fn under_way(&self) -> usize {
        self.writer.in_flight()
    }

    /// As if the system had no memory for more blocks than were sent.
    #[cfg(test)]
    fn shrink_to_sent(&mut self) {
        self.writer.shrink_to_touched();
    }

    /// Returns a number that increases when the receiver takes or releases blocks.
    pub(crate) fn progress(&self) -> u64 {
        self.writer.taken() + self.writer.released()
    }

    /// Looks for a block for the next piece of `len` bytes of which `rest` are left. That is one block for all of a buffer, if there ever
    /// can be one.
    pub(crate) fn find(&mut self, of: PieceOf, rest: usize, len: usize) -> Allocation {
        if of == PieceOf::Buffer && rest == len && len <= self.writer.max_whole_block() {
            match self.find_with(len, |writer| writer.whole_block(len)) {
                Allocation::NoMemory => {}
                found => return found,
            }
        }
        let next = rest.min(self.writer.max_block());
        self.find_with(next, |writer| writer.next_block(rest))
    }

    fn find_with(&mut self, next: usize, find: impl FnOnce(&mut BlockWriter) -> Option<Block>) -> Allocation {
        if !is_room_for(next, self.writer.untaken(), self.writer.untaken_bytes()) {
            self.waits_for = WaitsFor::Taken;
            return Allocation::NoRoom;
        }
        match find(&mut self.writer) {
            Some(block) => Allocation::Block(block),
            None if self.all_in_place() => Allocation::NoMemory,
            None => {
                self.waits_for = WaitsFor::Released;
                Allocation::NoRoom
            }
        }
    }

    /// Returns whether all blocks in flight, if any, stay until the receiver's user drops them.
    fn all_in_place(&self) -> bool {
        self.writer.in_flight() as u64 == self.writer.count_in_place()
    }

    /// Fills that block from `rest`. The caller must publish its frame only afterwards.
    pub(crate) fn fill(&mut self, block: Block, rest: &[u8]) -> Result<(), Broken> {
        self.granted_in_a_row = 0;
        self.bytes_sent += block.len;
        self.writer.write(block, rest).map_err(|_| Broken)
    }

    /// Returns the number of bytes in all blocks so far.
    pub(crate) fn bytes_sent(&self) -> u64 {
        self.bytes_sent
    }

    /// Returns the arena's pages to the system, except for those of blocks in use.
    pub(crate) fn release_memory(&mut self) -> Result<(), Broken> {
        self.collect()?;
        self.writer.release_pages();
        Ok(())
    }

    /// Requests a wakeup for when the receiver has taken half of the blocks that it has not, or released half of those in use: what
    /// was found missing.
    pub(crate) fn request_wakeup(&mut self) -> WakeupRequest {
        let (slot, before, wait) = match self.waits_for {
            WaitsFor::Taken => (sender::WANTED_TAKEN, self.writer.taken(), self.writer.untaken()),
            WaitsFor::Released => (
                sender::WANTED_RELEASED,
                self.writer.released(),
                self.writer.in_flight(),
            ),
        };
        let wanted = before + wait.div_ceil(2) as u64;
        self.wanted.slot(slot).set(wanted);
        // Pairs with the fence in `Inbound::must_wake_sender`.
        fence(Ordering::SeqCst);
        // The caller's next call of `collect` reports an error.
        let is_met = self.collect().is_err()
            || match self.waits_for {
                WaitsFor::Taken => self.writer.taken() >= wanted,
                WaitsFor::Released => self.writer.released() >= wanted || self.all_in_place(),
            };
        // A receiver that changes its numbers all the time must not keep this end busy.
        self.granted_in_a_row += 1;
        let is_met = is_met && self.granted_in_a_row <= MAX_GRANTED;
        match is_met {
            true => WakeupRequest::Granted,
            false => WakeupRequest::Open,
        }
    }
}

/// Returns whether a block of `next` bytes may be sent although the receiver has not taken `untaken` blocks of `bytes` bytes together.
fn is_room_for(next: usize, untaken: usize, bytes: u64) -> bool {
    let bytes = bytes.saturating_add(next as u64);
    untaken < 2 || bytes <= MAX_UNTAKEN || (untaken < MAX_LARGE_UNTAKEN && bytes <= MAX_LARGE_UNTAKEN_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shm_buffers::{Layout, Region};

    const ARENA: usize = 16 << 10;

    fn ends(max_bytes: u64) -> (Outbound, Inbound) {
        ends_of(ARENA, max_bytes, Trust::Nothing)
    }

    /// Returns both ends of an arena of `bytes` bytes, for payloads of up to `max_bytes`.
    pub(super) fn ends_of(bytes: usize, max_bytes: u64, trust: Trust) -> (Outbound, Inbound) {
        let mut layout = Layout::new();
        let (arena, wanted) = (layout.arena(bytes), layout.slots(sender::COUNT));
        let region = Region::on_heap(layout.byte_len());
        let wanted = Slots::new(&region, wanted);
        let outbound = Outbound::new(BlockWriter::new(&region, arena), wanted.clone());
        let inbound = Inbound::new(BlockReader::new(&region, arena), wanted, max_bytes, trust);
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
                    && let Allocation::Block(block) = outbound.find(PieceOf::Payload, len - at, len)
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
    fn few_large_blocks_and_many_small_ones_are_under_way() {
        for (len, expected) in [
            (4 << 10, 256),
            (128 << 10, 8),
            (512 << 10, 6),
            (1 << 20, 6),
            (2 << 20, 3),
            (4 << 20, 2),
            (64 << 20, 2),
        ] {
            let sent = (0..).find(|&sent| !is_room_for(len, sent, (sent * len) as u64));
            assert_eq!(sent, Some(expected), "{len}");
        }
    }

    #[test]
    fn each_wakeup_request_wakes_once() {
        let (mut outbound, mut inbound) = ends(u64::MAX);
        for _ in 0..4 {
            let Allocation::Block(block) = outbound.find(PieceOf::Payload, 100, 100) else {
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
