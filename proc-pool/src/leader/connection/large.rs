//! Sending a large task: its buffers that travel apart, then its encoding. Those pieces that find room now, and the others when there
//! is room again.

use shm_buffers::ring::PushError;

use super::{SendError, WorkerConnection};
use crate::error::KillReason;
use crate::leader::tasks::jobs::JobKey;
use crate::wire::payload::{Large, MAX_INLINE};
use crate::wire::pieces::{Allocation, NO_MEMORY, Piece, PieceOf, WakeupRequest, announcement};
use crate::wire::tags::Tag;

/// A task of which pieces are still to be sent. It is the last one in `in_flight`, and no other task is sent before its end.
#[derive(Debug)]
pub(super) struct OutgoingTask {
    /// The payload, or why the worker gets a notice instead of the rest.
    payload: Result<Large, Unsent>,
    position: Position,
}

/// How much of a task was sent.
#[derive(Debug, Default)]
struct Position {
    /// The number of buffers was.
    announced: bool,
    /// Number of buffers.
    buffers: usize,
    /// Bytes of the next buffer, or of the encoding if all buffers were sent.
    bytes: usize,
}

/// Why a task is not sent to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unsent {
    /// It was taken back.
    Withdrawn,
    NoMemory,
}

/// What sending waits for.
enum Blocked {
    /// Room in the ring.
    Ring,
    /// Blocks of the arena.
    Blocks,
    /// Memory for blocks, which will not come.
    Memory,
}

impl WorkerConnection {
    /// Returns whether a large task is being sent.
    pub(crate) fn is_sending(&self) -> bool {
        self.outgoing.is_some()
    }

    /// Returns whether the worker's next task is a large one that it has not started.
    pub(crate) fn next_is_large(&self) -> bool {
        self.claims.claimed() <= self.in_flight.count_answered() && self.in_flight.next_is_large()
    }

    /// Starts to send a large task.
    pub(super) fn send_large(&mut self, job: JobKey, index: u64, large: &Large) -> Result<(), SendError> {
        self.in_flight.push_large(job, index, large.clone());
        self.large_bytes += large.len();
        self.task_budget = self.task_budget.saturating_sub(1);
        self.outgoing = Some(OutgoingTask {
            payload: Ok(large.clone()),
            position: Position::default(),
        });
        self.send_pieces();
        Ok(())
    }

    /// Ends the sending of a task that was taken back.
    pub(super) fn withdraw_outgoing(&mut self) {
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.payload = Err(Unsent::Withdrawn);
        }
        self.send_pieces();
    }

    /// Drops the task that is being sent, because its worker is dead.
    pub(super) fn forget_outgoing(&mut self) {
        self.outgoing = None;
    }

    /// Sends pieces while there is room.
    pub(super) fn send_pieces(&mut self) {
        let Some(mut outgoing) = self.outgoing.take() else {
            return;
        };
        while self.broken.is_none() {
            if self.pieces_out.collect().is_err() {
                self.broken = Some(KillReason::Corrupt);
                break;
            }
            self.buffers_under_way &= self.pieces_out.under_way() > 0;
            match self.stage_pieces(&mut outgoing) {
                Ok(None) => {
                    self.publish();
                    return;
                }
                Ok(Some(Blocked::Blocks)) => {
                    self.publish();
                    if self.pieces_out.request_wakeup() == WakeupRequest::Granted {
                        continue;
                    }
                    if self.buffers_under_way {
                        // The worker may sleep and hold their blocks: it releases them when it sees that they are wanted.
                        self.wake_worker();
                    }
                }
                Ok(Some(Blocked::Memory)) => {
                    outgoing.payload = Err(Unsent::NoMemory);
                    continue;
                }
                // It goes on when tasks before it are answered.
                Ok(Some(Blocked::Ring)) => self.publish(),
                Err(()) => self.broken = Some(KillReason::Corrupt),
            }
            break;
        }
        self.outgoing = Some(outgoing);
    }

    /// Stages pieces until all are staged (`None`), or something is missing. Fails if the worker has broken its memory.
    fn stage_pieces(&mut self, outgoing: &mut OutgoingTask) -> Result<Option<Blocked>, ()> {
        let OutgoingTask { payload, position } = outgoing;
        let large = match payload {
            Ok(large) => large,
            Err(why) => {
                let reason = match why {
                    Unsent::Withdrawn => "",
                    Unsent::NoMemory => NO_MEMORY,
                };
                return self.stage_frame(&[&[Tag::Withdrawn as u8], reason.as_bytes()]);
            }
        };
        if let Some(buffers) = large.buffers() {
            if !position.announced {
                if let Some(blocked) = self.stage_frame(&[&announcement(buffers.len())])? {
                    return Ok(Some(blocked));
                }
                position.announced = true;
            }
            while let Some(buffer) = buffers.get(position.buffers) {
                if let Some(blocked) = self.stage_rest(buffer, &mut position.bytes, PieceOf::Buffer)? {
                    return Ok(Some(blocked));
                }
                position.buffers += 1;
                position.bytes = 0;
            }
            if large.encoding().len() <= MAX_INLINE {
                return self.stage_frame(&[&[Tag::Inline as u8], large.encoding()]);
            }
        }
        self.stage_rest(large.encoding(), &mut position.bytes, PieceOf::Payload)
    }

    /// Stages a frame, if there is room for it.
    fn stage_frame(&mut self, parts: &[&[u8]]) -> Result<Option<Blocked>, ()> {
        match self.tasks.stage_parts(parts) {
            Ok(()) => Ok(None),
            Err(PushError::Full) => Ok(Some(Blocked::Ring)),
            Err(_) => Err(()),
        }
    }

    /// Stages what follows the first `sent` bytes, and increases `sent`.
    fn stage_rest(&mut self, bytes: &[u8], sent: &mut usize, of: PieceOf) -> Result<Option<Blocked>, ()> {
        loop {
            let rest = &bytes[*sent..];
            if rest.is_empty() {
                return Ok(None);
            }
            let block = match self.pieces_out.find(of, rest.len(), bytes.len()) {
                Allocation::Block(block) => block,
                Allocation::NoRoom => return Ok(Some(Blocked::Blocks)),
                Allocation::NoMemory => return Ok(Some(Blocked::Memory)),
            };
            let is_whole = block.len as usize == bytes.len();
            let frame = Piece::new(block, rest.len()).frame_in(of, is_whole);
            if let Some(blocked) = self.stage_frame(&[&frame])? {
                return Ok(Some(blocked));
            }
            // The worker sees the frame only after `publish`.
            self.pieces_out.fill(block, rest).map_err(|_| ())?;
            self.buffers_under_way |= of == PieceOf::Buffer && is_whole;
            *sent += block.len as usize;
        }
    }
}
