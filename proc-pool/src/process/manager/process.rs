//! [`ManagedProcess`]: the manager's record of one process.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use shm_buffers::Region;

use super::pending_stack::PendingStack;
use crate::error::KillReason;
use crate::error::ProcessId;
use crate::process::spawn::Spawned;
use crate::process::worker_hooks::ProcessValues;
use crate::wire::layout::RegionSizes;

/// Poll interval for a process that has not connected: no closed connection would report its end.
const STARTING_POLL: Duration = Duration::from_millis(5);
/// Poll interval for a process that is about to end: its connection is closed, or it was killed.
const ENDING_POLL: Duration = Duration::from_millis(1);
/// Poll interval for all other processes: a child of a dead process may hold its connection open.
pub(super) const IDLE_POLL: Duration = Duration::from_secs(1);

/// A process from its spawn until its end was reported to the scheduler.
pub(super) struct ManagedProcess {
    pub(super) process_id: ProcessId,
    pub(super) spawned: Spawned,
    pub(super) pid: u32,
    pub(super) region: Region,
    /// The sizes of the parts of `region`.
    pub(super) sizes: RegionSizes,
    /// The values that the user's hooks have made for this process. They are dropped after its end.
    pub(super) values: ProcessValues,
    pub(super) connected: bool,
    pub(super) killed: Option<KillReason>,
    /// The stack of its overdue task, captured before the process is killed.
    pub(super) stack: PendingStack,
    /// When its connection closed.
    pub(super) disconnected_at: Option<Instant>,
    /// When it was reaped, and its status unless other code has reaped it. Its last messages may still be unread until its
    /// connection closes.
    pub(super) ended: Option<(Instant, Option<ExitStatus>)>,
}

impl ManagedProcess {
    /// Returns how often to poll whether the process has ended.
    pub(super) fn poll_interval(&self) -> Duration {
        match self {
            Self {
                disconnected_at: Some(_),
                ..
            }
            | Self { killed: Some(_), .. }
            | Self { ended: Some(_), .. } => ENDING_POLL,
            Self { connected: false, .. } => STARTING_POLL,
            _ => IDLE_POLL,
        }
    }
}
