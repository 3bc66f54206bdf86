//! Messages of fixed size that a worker sends on the socket or pipe that it inherited, and its exit codes. Tasks and outputs
//! travel through rings in shared memory instead (see `wire`).

use serde::{Deserialize, Serialize};

/// The version that leader and worker must have in common, because a worker program may have been built at another time. The
/// handshake, which carries the leader's version, and [`WorkerMessage::Failed`] are the same in all versions.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A message from a worker to its leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum WorkerMessage {
    /// A wakeup: the worker has written something for the leader.
    Wakeup,
    /// The worker is ready for tasks.
    Ready,
    /// The worker could not start, for this reason.
    Failed(String),
    /// Data that no correct worker sends.
    Invalid,
    /// The process is a worker of its leader's version. Sent first, by programs that have called `init` or `Registry::serve`.
    Introduced,
}

/// Maximum length of the reason in [`WorkerMessage::Failed`], in bytes.
pub(crate) const MAX_REASON: usize = 4096;

/// Exit code of a worker that lost its leader, or never found it.
pub(crate) const ORPHANED: i32 = 70;
/// Exit code of a worker that could not start; it has sent the reason to the leader.
pub(crate) const NOT_STARTED: i32 = 71;
/// Exit code of a worker that cannot run what its leader asks for, and would not at another attempt either; it has sent the reason to the
/// leader. This is a code rather than a message, so that leaders of all versions understand the reason.
pub(crate) const REFUSED: i32 = 72;
