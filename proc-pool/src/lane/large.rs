//! A lane's large task on its way: the pieces that find room are sent, and the others when there is room again.

use shm_buffers::ring::PushError;

use super::{Lane, Refused};
use crate::error::KillReason;
use crate::jobs::JobKey;
use crate::payload::Large;
use crate::pieces::{Found, NO_MEMORY, Piece, Wish};
use crate::protocol::Tag;

/// A task of which pieces are still to be sent. It is the last one in the ledger, and no other is sent before its end.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Otherwise what is left to send is word that it is not.
    large: Result<Large, Unsent>,
    sent: usize,
}

/// Why a task is not sent to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unsent {
    /// It was taken back.
    Withdrawn,
    NoMemory,
}

/// Why no more is sent now.
enum Pause {
    Room,
    Blocks,
    Memory,
}

impl Lane {
    /// Whether a task is being sent.
    pub(crate) fn is_sending(&self) -> bool {
        self.outgoing.is_some()
    }

    /// Whether the worker's next task is a large one that it has not begun.
    pub(crate) fn takes_large(&self) -> bool {
        self.claims.begun() <= self.ledger.count_answered() && self.ledger.starts_with_large()
    }

    /// Sends a large task, or its first pieces.
    pub(super) fn send_large(&mut self, job: JobKey, index: u64, large: &Large) -> Result<(), Refused> {
        self.ledger.sent_large(job, index, large.clone());
        self.large += large.len();
        self.left = self.left.saturating_sub(1);
        self.outgoing = Some(Outgoing {
            large: Ok(large.clone()),
            sent: 0,
        });
        self.feed();
        Ok(())
    }

    /// The task that is being sent was taken back.
    pub(super) fn withdraw_outgoing(&mut self) {
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.large = Err(Unsent::Withdrawn);
        }
        self.feed();
    }

    /// Sends no more of the task that is being sent: its worker is gone.
    pub(super) fn forget_outgoing(&mut self) {
        self.outgoing = None;
    }

    /// Sends as many pieces as find room.
    pub(super) fn feed(&mut self) {
        let Some(mut outgoing) = self.outgoing.take() else {
            return;
        };
        while self.broken.is_none() {
            if self.pieces_out.collect().is_err() {
                self.broken = Some(KillReason::Corrupt);
                break;
            }
            match self.feed_some(&mut outgoing) {
                Ok(None) => {
                    self.publish();
                    return;
                }
                Ok(Some(Pause::Blocks)) => {
                    self.publish();
                    if self.pieces_out.wish() == Wish::Granted {
                        continue;
                    }
                }
                Ok(Some(Pause::Memory)) => {
                    outgoing.large = Err(Unsent::NoMemory);
                    continue;
                }
                // It goes on when tasks before it are answered.
                Ok(Some(Pause::Room)) => self.publish(),
                Err(()) => self.broken = Some(KillReason::Corrupt),
            }
            break;
        }
        self.outgoing = Some(outgoing);
    }

    fn feed_some(&mut self, outgoing: &mut Outgoing) -> Result<Option<Pause>, ()> {
        let large = match &outgoing.large {
            Ok(large) => large,
            Err(why) => {
                let reason = match why {
                    Unsent::Withdrawn => "",
                    Unsent::NoMemory => NO_MEMORY,
                };
                return match self
                    .tasks
                    .stage_parts(&[&[Tag::Withdrawn as u8], reason.as_bytes()])
                {
                    Ok(()) => Ok(None),
                    Err(PushError::Full) => Ok(Some(Pause::Room)),
                    Err(_) => Err(()),
                };
            }
        };
        loop {
            let rest = &large.bytes()[outgoing.sent..];
            if rest.is_empty() {
                return Ok(None);
            }
            let block = match self.pieces_out.find(rest.len()) {
                Found::Block(block) => block,
                Found::NoRoom => return Ok(Some(Pause::Blocks)),
                Found::NoMemory => return Ok(Some(Pause::Memory)),
            };
            match self.tasks.stage(&Piece::new(block, rest.len()).frame()) {
                Ok(()) => {}
                Err(PushError::Full) => return Ok(Some(Pause::Room)),
                Err(_) => return Err(()),
            }
            // Its frame is shown afterwards.
            self.pieces_out.fill(block, rest).map_err(|_| ())?;
            outgoing.sent += block.len as usize;
        }
    }
}
