//! Receiving tasks that are not one frame: pieces, and buffers that come before their task.

use shm_buffers::out_of_band::Received;

use super::{BLOCK, INLINE, TaskLoop};
use crate::message::ORPHANED;
use crate::os;
use crate::os::doorbell::DoorbellClosed;
use crate::wire::owned_bytes::OwnedBytes;
use crate::wire::pieces::Arrived;
use crate::worker::service::TaskBytes;

impl TaskLoop {
    /// Takes the announcement of a task's buffers, or a buffer that is a block.
    pub(super) fn take_buffer(&mut self, frame: &[u8]) -> Result<(), DoorbellClosed> {
        self.keeps_memory = true;
        let (tag, payload) = (frame[0], &frame[1..]);
        let taken = match tag {
            BLOCK => self.pieces_in.hold(payload),
            _ => {
                // The claim that serves as the look for a sleeping leader comes only with the task itself.
                self.publish()?;
                self.pieces_in.announce(payload)
            }
        };
        if taken.is_err() {
            os::end_group(ORPHANED);
        }
        Ok(())
    }

    /// Returns the task whose buffers came before it, and are moved to `received`. Its encoding is `large`, or in `frame` if it is small.
    #[cold]
    pub(super) fn task_apart<'a>(
        &mut self,
        frame: &'a [u8],
        large: Option<&'a mut Result<OwnedBytes, String>>,
        received: &'a mut Vec<Received>,
    ) -> Result<TaskBytes<'a>, String> {
        let apart = self.pieces_in.take_apart().unwrap_or_default();
        let encoding = match large {
            None => inline(frame)?,
            Some(Ok(large)) => large,
            Some(Err(reason)) => return Err(std::mem::take(reason)),
        };
        if !apart.is_complete() {
            os::end_group(ORPHANED);
        }
        match apart.lost {
            None => {
                *received = apart.received;
                Ok(TaskBytes::Apart(encoding, received))
            }
            Some(reason) => Err(reason),
        }
    }

    /// Releases the blocks of buffers that are not needed any more. Copies others if the leader waits for their blocks, and wakes it.
    #[inline]
    pub(super) fn release_blocks(&mut self) -> Result<(), DoorbellClosed> {
        if self.pieces_in.has_unreleased() {
            self.pieces_in.release_wanted_blocks();
            self.wake_if_awaiting_blocks()?;
        }
        Ok(())
    }

    /// Wakes the leader if it waits for blocks.
    pub(super) fn wake_if_awaiting_blocks(&mut self) -> Result<(), DoorbellClosed> {
        match self.pieces_in.must_wake_sender() {
            true => self.wake_leader(),
            false => Ok(()),
        }
    }

    /// Takes a piece of a task, and wakes the leader if it waits for that.
    pub(super) fn take_piece(&mut self, payload: &[u8], alignment: usize) -> Result<Arrived, DoorbellClosed> {
        self.keeps_memory = true;
        // The claim that serves as the look for a sleeping leader comes only after the last piece.
        self.publish()?;
        let Ok(arrived) = self.pieces_in.take(payload, alignment) else {
            os::end_group(ORPHANED)
        };
        self.wake_if_awaiting_blocks()?;
        Ok(arrived)
    }

    /// Returns the memory of large payloads to the system.
    pub(super) fn release_memory(&mut self) -> Result<(), DoorbellClosed> {
        // An op may keep buffers for as long as this process lives.
        self.pieces_in.copy_held();
        self.wake_if_awaiting_blocks()?;
        self.pieces_in.release_memory();
        if self.pieces_out.release_memory().is_err() {
            os::end_group(ORPHANED);
        }
        // The leader holds buffers that its user keeps, but not for long.
        self.keeps_memory = self.pieces_out.under_way() > 0;
        shm_buffers::return_freed_memory();
        Ok(())
    }
}

/// Returns the payload of a task's frame.
#[inline]
pub(super) fn inline(frame: &[u8]) -> Result<&[u8], String> {
    match frame.split_first() {
        Some((&INLINE, bytes)) => Ok(bytes),
        Some((tag, _)) => Err(format!("unknown tag {tag}")),
        None => Err("empty frame".to_owned()),
    }
}
