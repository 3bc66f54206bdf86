//! What the keeper knows of one process.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use shm_buffers::Region;

use super::inquiry::Inquiry;
use crate::core::Incarnation;
use crate::error::KillReason;
use crate::protocol::Sizes;
use crate::spawn::Spawned;

/// While a process that has not connected may die unheard.
const STARTING_POLL: Duration = Duration::from_millis(5);
/// While a process whose connection closed has not ended yet.
const ENDING_POLL: Duration = Duration::from_millis(1);
/// A process may die with its connection held open by a child of its own.
pub(super) const IDLE_POLL: Duration = Duration::from_secs(1);

/// A process that was started and is not done with.
pub(super) struct Process {
    pub(super) incarnation: Incarnation,
    pub(super) spawned: Spawned,
    pub(super) pid: u32,
    pub(super) region: Region,
    /// Of the parts of that.
    pub(super) sizes: Sizes,
    pub(super) connected: bool,
    pub(super) killed: Option<KillReason>,
    /// For its stack, before it is killed.
    pub(super) inquiry: Inquiry,
    /// Its connection closed then.
    pub(super) closed: Option<Instant>,
    /// It was reaped then, with this status if nobody else had taken it. What it had said before is still to be
    /// heard, until its connection closes.
    pub(super) ended: Option<(Instant, Option<ExitStatus>)>,
}

impl Process {
    /// How often to ask whether it has ended.
    pub(super) fn poll(&self) -> Duration {
        match self {
            Self { closed: Some(_), .. } | Self { killed: Some(_), .. } | Self { ended: Some(_), .. } => {
                ENDING_POLL
            }
            Self { connected: false, .. } => STARTING_POLL,
            _ => IDLE_POLL,
        }
    }
}
