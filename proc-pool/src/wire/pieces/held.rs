//! Buffers of tasks and outputs that travel apart from them: each is a block of its own. The receiver holds it until the op, or the
//! caller, looks at the buffer or drops it.
//!
//! Blocks are released in the order in which they were sent, so a block that is held keeps later ones from being used again.
//! When the sender waits for space, the oldest blocks are copied into private memory and released, so that it never waits for the
//! caller, nor for an op that keeps buffers.

use std::collections::VecDeque;
use std::fmt;

use shm_buffers::arena::{BlockError, HeldBlock};
use shm_buffers::out_of_band::Received;

use super::{Broken, Inbound, Piece};
use crate::wire::owned_bytes::OwnedBytes;
use crate::wire::tags::Tag;

/// The least number of bytes of a buffer that travels apart. For a smaller one, a copy costs less than a block.
pub(crate) const MIN_APART: usize = 8 << 10;
/// Maximum number of bytes of the blocks that are held. No correct worker has more [in flight](super::MAX_IN_FLIGHT); another one could
/// name the same bytes again and again.
const MAX_HELD: u64 = 2 << 20;
/// The alignment of the memory into which a buffer is received that is too large for a block.
const ALIGN: usize = HeldBlock::ALIGN;

/// The blocks that have arrived and were not released, oldest first.
#[derive(Debug, Default)]
pub(super) struct Unreleased {
    blocks: VecDeque<Entry>,
    /// Bytes of those that are held.
    held_bytes: u64,
    released: u64,
}

/// One block that is held, or several that were copied.
#[derive(Debug)]
enum Entry {
    /// This number of blocks was copied.
    Copied(u64),
    Held(HeldBlock),
}

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

impl Unreleased {
    pub(super) fn count_released(&self) -> u64 {
        self.released
    }

    /// Adds a block that was copied.
    pub(super) fn push_copied(&mut self) {
        match self.blocks.back_mut() {
            None => self.released += 1,
            Some(Entry::Copied(count)) => *count += 1,
            Some(Entry::Held(_)) => self.blocks.push_back(Entry::Copied(1)),
        }
    }

    fn push_held(&mut self, block: HeldBlock) {
        self.held_bytes += block.len() as u64;
        self.blocks.push_back(Entry::Held(block));
    }

    /// Releases the blocks at the front that are not needed any more.
    fn release_front(&mut self) {
        while let Some(front) = self.blocks.front_mut() {
            match front {
                Entry::Copied(count) => self.released += *count,
                Entry::Held(block) => {
                    if !block.is_released() {
                        return;
                    }
                    self.held_bytes -= block.len() as u64;
                    self.released += 1;
                }
            }
            self.blocks.pop_front();
        }
    }

    /// Releases blocks, and copies the oldest ones until `wanted` blocks are released and no more than `max` bytes are held.
    fn release(&mut self, wanted: u64, max: u64) {
        self.release_front();
        while (self.released < wanted || self.held_bytes > max)
            && let Some(Entry::Held(block)) = self.blocks.front()
        {
            let _ = block.bytes();
            self.release_front();
        }
    }
}

/// Blocks that are still held are copied, so that buffers do not keep the memory of a connection that has ended.
impl Drop for Unreleased {
    fn drop(&mut self) {
        self.release(u64::MAX, 0);
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
        match self.reader.hold(block) {
            Ok(held) => {
                apart.received.push(Received::Block(held.clone()));
                self.unreleased.push_held(held);
            }
            Err(e @ BlockError::Memory { .. }) => {
                apart.lost = Some(e.to_string());
                self.unreleased.push_copied();
            }
            Err(_) => return Err(Broken),
        }
        self.count += 1;
        self.bytes_taken += block.len;
        Ok(())
    }

    /// Returns the alignment of the memory into which the next payload is received: `alignment`, or that of a buffer.
    pub(crate) fn alignment_or(&self, alignment: usize) -> usize {
        match &self.apart {
            Some(apart) if apart.left > 0 => ALIGN,
            _ => alignment,
        }
    }

    /// Takes a buffer that came in pieces. Returns it if no buffer is awaited: then it is a payload.
    pub(crate) fn take_buffer(&mut self, buffer: OwnedBytes) -> Result<Option<OwnedBytes>, Broken> {
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
    pub(crate) fn lose_buffer(&mut self, reason: String) -> Option<String> {
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
        !self.unreleased.blocks.is_empty()
    }

    /// Releases blocks whose buffers were dropped or looked at.
    pub(crate) fn release_blocks(&mut self) {
        self.unreleased.release(0, MAX_HELD);
        self.publish_freed();
    }

    /// Does the same, and copies the oldest blocks that are held until the sender has those that it waits for. For when all blocks have
    /// arrived that were sent: before that, the caller may still drop the buffers of those that have.
    pub(crate) fn release_wanted_blocks(&mut self) {
        let wanted = self.wanted.slot(0).get();
        self.unreleased.release(wanted, MAX_HELD);
        self.publish_freed();
    }

    /// Copies all blocks that are held, and releases them.
    pub(crate) fn release_all_blocks(&mut self) {
        self.unreleased.release(u64::MAX, 0);
        self.publish_freed();
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
        ends_of(ARENA, max_bytes)
    }

    fn bytes(number: u8) -> Vec<u8> {
        vec![number; LEN]
    }

    /// Sends an output that is one buffer. Returns the buffer that arrives, or `None` if there is no room for it.
    fn send(outbound: &mut Outbound, inbound: &mut Inbound, number: u8) -> Option<HeldBlock> {
        outbound.collect().expect("an honest count");
        let Allocation::Block(block) = outbound.find(LEN) else {
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
    fn blocks_whose_buffers_are_dropped_are_used_again_without_a_copy() {
        let (mut outbound, mut inbound) = ends(u64::MAX);
        for round in 0..100 {
            let held = send(&mut outbound, &mut inbound, round).expect("there is room");
            drop(held);
            inbound.release_blocks();
            assert_eq!(inbound.unreleased.count_released(), u64::from(round) + 1);
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
                    inbound.release_blocks();
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

    #[test]
    fn payloads_behind_a_held_block_are_released_with_it() {
        let (mut outbound, mut inbound) = ends(u64::MAX);
        let held = send(&mut outbound, &mut inbound, 1).expect("there is room");
        for _ in 0..3 {
            let Allocation::Block(block) = outbound.find(100) else {
                panic!("there is room")
            };
            outbound.fill(block, &[0; 100]).expect("the block was found");
            let frame = Piece::new(block, 100).frame();
            inbound.take(&frame[1..], 1).expect("an honest piece");
        }
        inbound.release_blocks();
        assert_eq!((inbound.unreleased.count_released(), inbound.count()), (0, 4));
        let _ = held.bytes();
        inbound.release_blocks();
        assert_eq!(inbound.unreleased.count_released(), 4);
    }

    #[test]
    fn what_is_held_is_copied_at_the_end_of_the_connection() {
        let (mut outbound, mut inbound) = ends(u64::MAX);
        let held = send(&mut outbound, &mut inbound, 7).expect("there is room");
        assert!(!held.clone().is_released());
        drop(inbound);
        assert!(held.clone().is_released());
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
