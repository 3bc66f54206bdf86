//! [`Command`]: a request of the scheduler to the process manager.

use crate::error::{KillReason, ProcessId, WorkerId};
use crate::os::introduction::Connection;

/// The connection to a process, or the reason why it did not connect.
pub(crate) type ConnectResult = Result<Connection, String>;

/// A command to the process manager.
#[derive(Debug)]
pub(crate) enum Command {
    Spawn(WorkerId),
    Kill(WorkerId, KillReason),
    KillAll(KillReason),
    /// A process has connected, or has ended without connecting.
    Connected(ProcessId, ConnectResult),
    /// The connection to a process has closed.
    Disconnected(ProcessId),
    /// Tasks were sent: check deadlines and memory limits from now on.
    CheckLimits,
    /// Kill the remaining processes and end.
    Stop,
}
