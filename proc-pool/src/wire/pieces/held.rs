//! Buffers of tasks and outputs that travel apart from them: each is a block of its own. The receiver holds it until the op, or the
//! caller, looks at the buffer or drops it.
//!
//! At most half of the arena is held, then new blocks are copied into private memory and released. So are the oldest ones, if the sender
//! waits for them: it never waits for the caller, nor for an op that keeps buffers. The exception are blocks of a sender that is trusted:
//! they are read in place, and the other half of the arena is enough to go on.

use std::fmt;

use shm_buffers::arena::{BlockError, HeldBlock};
use shm_buffers::out_of_band::Received;

use super::{Broken, Inbound, Piece, Trust, sender};
use crate::wire::owned_bytes::OwnedBytes;
use crate::wire::tags::Tag;

/// The least number of bytes of a buffer that travels apart. For a smaller one, a copy costs less than a block.
pub(crate) const MIN_APART: usize = 8 << 10;
/// The alignment of the memory into which a buffer is received that is too large for a block.
const ALIGN: usize = HeldBlock::ALIGN;

/// The buffers of a task or an output that travel apart from it.
#[derive(Default)]
pub(crate) struct BuffersApart {
    /// Number of buffers that have not arrived.
    left: u64,
    /// Bytes of those that have.
    bytes: u64,
    pub(crate) received: Vec<Received>,
    /// Why the task or output is lost.
    pub(crate) lost: Option<String>,
}

impl fmt::Debug for BuffersApart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrived = self.received.len();
        write!(f, "BuffersApart({arrived} arrived, {} left)", self.left)
    }
}

impl BuffersApart {
    /// Returns whether all buffers have arrived.
    pub(crate) fn is_complete(&self) -> bool {
        self.left == 0
    }

    /// Counts a buffer that has arrived. No correct worker sends a smaller one than [`MIN_APART`], or more than `max_bytes` in all.
    fn count(&mut self, bytes: u64, max_bytes: u64) -> Result<(), Broken> {
        self.bytes = self.bytes.saturating_add(bytes);
        if bytes < MIN_APART as u64 || self.bytes > max_bytes {
            return Err(Broken);
        }
        self.left -= 1;
        Ok(())
    }
}

/// Blocks that are still held are copied, so that buffers do not keep the memory of a connection that has ended. Those that are read in
/// place keep it.
impl Drop for Inbound {
    fn drop(&mut self) {
        self.copy_held();
    }
}

impl Inbound {
    /// Returns whether buffers have come, or are announced, and the task or output itself has not.
    #[inline]
    pub(crate) fn awaits_payload(&self) -> bool {
        self.apart.is_some()
    }

    /// Takes the announcement of the buffers of a task or an output. `payload` is its frame without the tag.
    pub(crate) fn announce(&mut self, payload: &[u8]) -> Result<(), Broken> {
        let left = payload.try_into().map(u64::from_le_bytes).map_err(|_| Broken)?;
        if self.apart.is_some() || self.left.is_some() {
            return Err(Broken);
        }
        self.apart = Some(BuffersApart {
            left,
            ..BuffersApart::default()
        });
        Ok(())
    }

    /// Takes a buffer that is a block, without copying it. `payload` is its frame without the tag.
    pub(crate) fn hold(&mut self, payload: &[u8]) -> Result<(), Broken> {
        let Piece { block, left: 0 } = Piece::of(payload).ok_or(Broken)? else {
            return Err(Broken);
        };
        let apart = self.apart.as_mut().filter(|apart| apart.left > 0).ok_or(Broken)?;
        if self.left.is_some() {
            return Err(Broken);
        }
        apart.count(block.len, self.max_bytes)?;
        let held = match self.trust {
            Trust::Sender if !self.reader.holds_half_with(block.len) => {
                #[expect(unsafe_code, reason = "the sender is trusted")]
                // SAFETY: the creator of this end has promised that the sender writes no block that was not released.
                unsafe {
                    self.reader.hold_in_place(block)
                }
            }
            _ => self.reader.hold(block),
        };
        match held {
            Ok(held) => apart.received.push(Received::Block(held)),
            Err(e @ BlockError::Memory { .. }) => {
                apart.lost = Some(e.to_string());
                self.reader.release(block);
            }
            Err(_) => return Err(Broken),
        }
        self.bytes_taken += block.len;
        Ok(())
    }

    /// Returns the alignment of the memory into which the next payload is received: `alignment`, or that of a buffer.
    pub(super) fn alignment_or(&self, alignment: usize) -> usize {
        match &self.apart {
            Some(apart) if apart.left > 0 => ALIGN,
            _ => alignment,
        }
    }

    /// Takes a buffer that came in pieces. Returns it if no buffer is awaited: then it is a payload.
    pub(super) fn take_buffer(&mut self, buffer: OwnedBytes) -> Result<Option<OwnedBytes>, Broken> {
        match self.apart.as_mut().filter(|apart| apart.left > 0) {
            None => Ok(Some(buffer)),
            Some(apart) => {
                apart.count(buffer.len() as u64, self.max_bytes)?;
                apart.received.push(Received::Bytes(Box::new(buffer)));
                Ok(None)
            }
        }
    }

    /// Notes that a buffer is lost, for which there was no memory. Returns the reason if no buffer is awaited.
    pub(super) fn lose_buffer(&mut self, reason: String) -> Option<String> {
        match self.apart.as_mut().filter(|apart| apart.left > 0) {
            None => Some(reason),
            Some(apart) => {
                apart.left -= 1;
                apart.lost = Some(reason);
                None
            }
        }
    }

    /// Takes the buffers of the task or output that has arrived.
    pub(crate) fn take_apart(&mut self) -> Option<BuffersApart> {
        self.apart.take()
    }

    /// Returns whether there are blocks that were not released.
    #[inline]
    pub(crate) fn has_unreleased(&self) -> bool {
        self.reader.count_held() > 0
    }

    /// Releases blocks whose buffers were dropped or looked at, and copies the newest ones if more than half of the arena is held: those
    /// are still in a cache, and so is their memory when it is used again.
    pub(crate) fn release_blocks(&mut self) {
        self.reader.release_held();
        while self.reader.holds_half_with(0) && self.reader.copy_newest_held() {
            self.reader.release_held();
        }
    }

    /// Does the same, and copies the oldest blocks that are held until the sender has those that it waits for. For when all blocks have
    /// arrived that were sent: before that, the caller may still drop the buffers of those that have.
    pub(crate) fn release_wanted_blocks(&mut self) {
        let wanted = self.wanted.slot(sender::WANTED_RELEASED).get();
        self.reader.release_held();
        while self.reader.count_released() < wanted && self.reader.copy_oldest_held() {
            self.reader.release_held();
        }
        self.release_blocks();
    }

    /// Copies all blocks that are held, and releases them.
    pub(crate) fn copy_held(&mut self) {
        while self.reader.copy_oldest_held() {}
        self.release_blocks();
    }
}

/// Returns the frame that announces this number of buffers.
pub(crate) fn announcement(buffers: usize) -> [u8; 9] {
    let mut frame = [Tag::Buffers as u8; 9];
    frame[1..].copy_from_slice(&(buffers as u64).to_le_bytes());
    frame
}

/// The kind of bytes that are sent in blocks of the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PieceOf {
    /// A buffer. The receiver need not copy it if it is one block.
    Buffer,
    /// A task or an output.
    Payload,
}

impl Piece {
    /// Returns the frame of a piece that is the whole of what is sent, or a part of it.
    pub(crate) fn frame_in(self, of: PieceOf, is_whole: bool) -> [u8; super::FRAME] {
        match (of, is_whole) {
            (PieceOf::Buffer, true) => self.block_frame(),
            _ => self.frame(),
        }
    }

    /// Returns the frame of a buffer that is this whole block.
    fn block_frame(self) -> [u8; super::FRAME] {
        self.frame_of(Tag::Block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::pieces::tests::ends_of;
    use crate::wire::pieces::{Allocation, Outbound, WakeupRequest};
    use shm_buffers::arena::Block;

    const ARENA: usize = 1 << 20;
    const LEN: usize = 100_000;

    fn ends(max_bytes: u64) -> (Outbound, Inbound) {
        ends_of(ARENA, max_bytes, Trust::Nothing)
    }

    fn bytes(number: u8) -> Vec<u8> {
        vec![number; LEN]
    }

    /// Sends an output that is one buffer. Returns the buffer that arrives, or `None` if there is no room for it.
    fn send(outbound: &mut Outbound, inbound: &mut Inbound, number: u8) -> Option<HeldBlock> {
        outbound.collect().expect("an honest count");
        let Allocation::Block(block) = outbound.find(PieceOf::Buffer, LEN, LEN) else {
            return None;
        };
        outbound.fill(block, &bytes(number)).expect("the block was found");
        inbound
            .announce(&announcement(1)[1..])
            .expect("no output is under way");
        let frame = Piece::new(block, LEN).block_frame();
        inbound.hold(&frame[1..]).expect("an honest block");
        let mut apart = inbound.take_apart().expect("it was announced");
        assert!(apart.is_complete());
        match apart.received.pop() {
            Some(Received::Block(held)) => Some(held),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_buffer_is_one_block_up_to_a_quarter_of_the_arena() {
        let (mut outbound, _) = ends_of(8 << 20, u64::MAX, Trust::Nothing);
        for (of, len, expected) in [
            (PieceOf::Buffer, 2 << 20, 2 << 20),
            (PieceOf::Buffer, (2 << 20) + 1, 1 << 20),
            (PieceOf::Payload, 2 << 20, 1 << 20),
        ] {
            let found = outbound.find(of, len, len);
            assert!(
                matches!(found, Allocation::Block(block) if block.len == expected),
                "{found:?}"
            );
        }
        // The rest of a buffer of which a part was sent.
        let found = outbound.find(PieceOf::Buffer, 1 << 20, 2 << 20);
        assert!(
            matches!(found, Allocation::Block(block) if block.len == 1 << 20),
            "{found:?}"
        );
    }

    #[test]
    fn blocks_whose_buffers_are_dropped_are_used_again_without_a_copy() {
        let (mut outbound, mut inbound) = ends(u64::MAX);
        for round in 0..100 {
            let held = send(&mut outbound, &mut inbound, round).expect("there is room");
            drop(held);
            inbound.release_blocks();
            assert_eq!(inbound.reader.count_released(), u64::from(round) + 1);
        }
        assert_eq!(inbound.count(), 100);
    }

    #[test]
    fn a_sender_that_waits_gets_the_oldest_blocks_and_buffers_keep_their_bytes() {
        let (mut outbound, mut inbound) = ends(u64::MAX);
        let mut kept = Vec::new();
        while kept.len() < 50 {
            match send(&mut outbound, &mut inbound, kept.len() as u8) {
                Some(held) => kept.push(held),
                None => {
                    assert_eq!(outbound.request_wakeup(), WakeupRequest::Open, "none was dropped");
                    inbound.release_wanted_blocks();
                    assert!(inbound.must_wake_sender());
                    assert_eq!(outbound.request_wakeup(), WakeupRequest::Granted);
                }
            }
        }
        for (number, held) in (0..).zip(&kept) {
            assert!(held.bytes() == bytes(number), "{number}");
        }
    }

    /// Half of the memory is never released. The other half carries further buffers, and a payload that is larger than all of it.
    #[test]
    fn blocks_in_place_do_not_stop_the_sender() {
        let (mut outbound, mut inbound) = ends_of(ARENA, u64::MAX, Trust::Sender);
        let mut kept = Vec::new();
        for number in 0..50 {
            let held = match send(&mut outbound, &mut inbound, number) {
                Some(held) => held,
                None => {
                    assert_eq!(outbound.request_wakeup(), WakeupRequest::Open);
                    inbound.release_wanted_blocks();
                    assert!(inbound.must_wake_sender());
                    send(&mut outbound, &mut inbound, number).expect("blocks were released")
                }
            };
            inbound.release_blocks();
            kept.push(held);
        }
        let in_place = inbound.reader.count_in_place();
        assert_eq!(in_place, ARENA / 2 / LEN);
        let mut rest = 3 * ARENA;
        while rest > 0 {
            outbound.collect().expect("an honest count");
            let Allocation::Block(block) = outbound.find(PieceOf::Payload, rest, 3 * ARENA) else {
                panic!("half of the arena is free")
            };
            outbound.fill(block, &vec![7; rest]).expect("the block was found");
            let frame = Piece::new(block, rest).frame();
            inbound.take(&frame[1..], 1).expect("an honest piece");
            rest -= block.len as usize;
        }
        for (number, held) in (0..).zip(&kept) {
            assert!(held.bytes() == bytes(number), "{number}");
        }
        drop(kept);
        inbound.release_blocks();
        outbound.collect().expect("an honest count");
        assert_eq!((outbound.under_way(), inbound.reader.held_bytes()), (0, 0));
    }

    /// Where all blocks in flight stay, there is no memory for more, and the sender that waits is woken to see that.
    #[test]
    fn a_sender_does_not_wait_for_blocks_in_place() {
        let (mut outbound, mut inbound) = ends_of(8 * LEN, u64::MAX, Trust::Sender);
        let held = send(&mut outbound, &mut inbound, 1).expect("there is room");
        let Allocation::Block(block) = outbound.find(PieceOf::Buffer, LEN, LEN) else {
            panic!("there is room")
        };
        outbound.fill(block, &bytes(2)).expect("the block was found");
        outbound.shrink_to_sent();
        assert_eq!(
            outbound.find(PieceOf::Payload, LEN, LEN),
            Allocation::NoRoom,
            "the second block is not taken"
        );
        assert_eq!(outbound.request_wakeup(), WakeupRequest::Open);
        assert!(inbound.must_wake_sender(), "all that it has stays");
        assert_eq!(outbound.request_wakeup(), WakeupRequest::Open);
        assert!(!inbound.must_wake_sender(), "once");
        inbound
            .announce(&announcement(1)[1..])
            .expect("no output is under way");
        inbound
            .hold(&Piece::new(block, LEN).block_frame()[1..])
            .expect("an honest block");
        assert!(inbound.must_wake_sender());
        outbound.collect().expect("an honest count");
        assert_eq!(outbound.find(PieceOf::Payload, LEN, LEN), Allocation::NoMemory);
        assert_eq!(outbound.request_wakeup(), WakeupRequest::Granted);
        assert!(held.bytes() == bytes(1));
    }

    #[test]
    fn payloads_behind_a_held_block_are_released_before_it() {
        let (mut outbound, mut inbound) = ends(u64::MAX);
        let held = send(&mut outbound, &mut inbound, 1).expect("there is room");
        for _ in 0..3 {
            let Allocation::Block(block) = outbound.find(PieceOf::Payload, 100, 100) else {
                panic!("there is room")
            };
            outbound.fill(block, &[0; 100]).expect("the block was found");
            let frame = Piece::new(block, 100).frame();
            inbound.take(&frame[1..], 1).expect("an honest piece");
        }
        inbound.release_blocks();
        assert_eq!((inbound.reader.count_released(), inbound.count()), (3, 4));
        let _ = held.bytes();
        inbound.release_blocks();
        assert_eq!(inbound.reader.count_released(), 4);
    }

    #[test]
    fn what_is_held_is_copied_at_the_end_of_the_connection() {
        let (mut outbound, mut inbound) = ends(u64::MAX);
        let held = send(&mut outbound, &mut inbound, 7).expect("there is room");
        let before = inbound.reader.count_released();
        drop(inbound);
        outbound.collect().expect("an honest count");
        assert_eq!((before, outbound.under_way()), (0, 0));
        assert!(held.bytes() == bytes(7));
    }

    #[test]
    fn forged_buffers_are_violations() {
        let block_frame = |offset, len, left| {
            let block = Block { offset, len };
            Piece { block, left }.block_frame()
        };
        let len = MIN_APART as u64;
        for forged in [
            block_frame(0, len - 1, 0),
            block_frame(1, len, 0),
            block_frame(0, len, 1),
            block_frame(ARENA as u64, len, 0),
            block_frame(0, 0, 0),
            block_frame(0, u64::MAX, 0),
        ] {
            let (_, mut inbound) = ends(u64::MAX);
            inbound
                .announce(&announcement(1)[1..])
                .expect("no output is under way");
            assert_eq!(inbound.hold(&forged[1..]), Err(Broken), "{forged:?}");
        }
        // A block that was not announced; an announcement in an announced output, or of another length.
        let (_, mut inbound) = ends(3 * len);
        assert_eq!(inbound.hold(&block_frame(0, len, 0)[1..]), Err(Broken));
        assert_eq!(inbound.announce(&[0; 7]), Err(Broken));
        inbound
            .announce(&announcement(usize::MAX)[1..])
            .expect("no output is under way");
        assert_eq!(inbound.announce(&announcement(1)[1..]), Err(Broken));
        // More bytes than an output may have, in blocks that overlap.
        for _ in 0..3 {
            assert_eq!(inbound.hold(&block_frame(0, len, 0)[1..]), Ok(()));
        }
        assert_eq!(inbound.hold(&block_frame(0, len, 0)[1..]), Err(Broken));
        assert_eq!(inbound.take_buffer(vec![0; 10].into()), Err(Broken));
    }
}
