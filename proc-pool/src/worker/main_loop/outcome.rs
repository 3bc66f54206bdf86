//! Sending the outcome of a task: in one frame, or in blocks of the arena.

use shm_buffers::out_of_band;
use shm_buffers::ring::PushError;

use super::{INLINE, TaskLoop};
use crate::message::ORPHANED;
use crate::os;
use crate::os::doorbell::DoorbellClosed;
use crate::wire::bytes::OutputBuf;
use crate::wire::payload::{MAX_INLINE, MAX_TEXT};
use crate::wire::pieces::{Allocation, NO_MEMORY, Piece, PieceOf, WakeupRequest, announcement};
use crate::wire::tags::Tag;
use crate::worker::service::Runner;

/// The most bytes of a small output. Others take longer than what their sending costs besides.
const SMALL_OUTPUT: usize = 64;

/// Whether bytes were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    All,
    /// There is no memory to share. The task's error was sent instead.
    NoMemory,
}

impl TaskLoop {
    /// Sends the outcome of a task. The caller looks soon whether the leader sleeps until there is one
    /// ([`Producer::wakeup_after_fence`](shm_buffers::ring::Producer::wakeup_after_fence)).
    #[inline]
    pub(super) fn send<R: Runner>(&mut self, tag: Tag, output: &mut OutputBuf) -> Result<(), DoorbellClosed> {
        // The usual case.
        if tag == Tag::Inline
            && let Some(bytes) = output.small(SMALL_OUTPUT)
            && bytes.len() as u64 <= self.max_output
        {
            match self.outcomes.stage_tagged(INLINE, bytes) {
                Ok(()) => {}
                Err(PushError::Full) => self.stage::<R>(&[&[INLINE], bytes])?,
                Err(_) => os::end_group(ORPHANED),
            }
            self.outcomes.publish_quietly();
            return Ok(());
        }
        self.send_other::<R>(tag, output)
    }

    /// Sends the outcome of a task that is not a small output.
    fn send_other<R: Runner>(&mut self, mut tag: Tag, output: &mut OutputBuf) -> Result<(), DoorbellClosed> {
        let len = output.total_len();
        if tag == Tag::Inline && len as u64 > self.max_output {
            tag = Tag::BadOutput;
            let max = self.max_output;
            let reason = format!(
                "output of {len} bytes exceeds the limit of {max} bytes; raise `Builder::max_output`"
            );
            output.put(reason.as_bytes());
        }
        if tag == Tag::Inline
            && let Some(buffers) = output.take_apart()
            && self.send_apart::<R>(buffers)? == Sent::NoMemory
        {
            return Ok(());
        }
        let output = output.output();
        if tag == Tag::Inline && output.len() > MAX_INLINE {
            return self.send_pieces::<R>(output, PieceOf::Payload).map(drop);
        }
        // The beginning of a long text is enough.
        let output = &output[..output.len().min(MAX_TEXT)];
        self.stage::<R>(&[&[tag as u8], output])?;
        self.outcomes.publish_quietly();
        Ok(())
    }

    /// Sends the buffers of an output that travel apart from it, before it.
    fn send_apart<R: Runner>(&mut self, buffers: Vec<out_of_band::Sent>) -> Result<Sent, DoorbellClosed> {
        self.stage::<R>(&[&announcement(buffers.len())])?;
        self.publish()?;
        for buffer in buffers {
            if self.send_pieces::<R>(&buffer, PieceOf::Buffer)? == Sent::NoMemory {
                return Ok(Sent::NoMemory);
            }
        }
        Ok(Sent::All)
    }

    /// Sends bytes in pieces. The leader has each piece as soon as its frame is published, whatever happens to this
    /// process afterwards.
    fn send_pieces<R: Runner>(&mut self, bytes: &[u8], of: PieceOf) -> Result<Sent, DoorbellClosed> {
        self.keeps_memory = true;
        // The op allocates and frees such outputs.
        shm_buffers::expect_blocks(bytes.len());
        let mut rest = bytes;
        while !rest.is_empty() {
            // Before each piece, so that blocks are reused early: low in the arena, in memory that is in the cache.
            if self.pieces_out.collect().is_err() {
                os::end_group(ORPHANED);
            }
            let block = match self.pieces_out.find(of, rest.len(), bytes.len()) {
                Allocation::Block(block) => block,
                Allocation::NoRoom => {
                    self.wait_for_blocks::<R>()?;
                    continue;
                }
                Allocation::NoMemory => {
                    self.stage::<R>(&[&[Tag::BadOutput as u8], NO_MEMORY.as_bytes()])?;
                    self.publish()?;
                    return Ok(Sent::NoMemory);
                }
            };
            if self.pieces_out.fill(block, rest).is_err() {
                os::end_group(ORPHANED);
            }
            let piece = Piece::new(block, rest.len());
            let is_whole = block.len as usize == bytes.len();
            self.stage::<R>(&[&piece.frame_in(of, is_whole)])?;
            self.publish()?;
            rest = &rest[block.len as usize..];
        }
        Ok(Sent::All)
    }

    /// Waits until the leader has taken or released pieces.
    fn wait_for_blocks<R: Runner>(&mut self) -> Result<(), DoorbellClosed> {
        if self.pieces_out.request_wakeup() == WakeupRequest::Granted {
            return Ok(());
        }
        // The leader may have asked to be woken only for more frames than the ring has room for.
        self.wake_leader()?;
        self.park_behind_leader::<R>()
    }
}
