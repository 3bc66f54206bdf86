//! [`Bootstrap`]: the result of a worker's handshake, made by `startup` for `main_loop`.

use crate::message::{MAX_REASON, NOT_STARTED, REFUSED, WorkerMessage};
use crate::os;
use crate::os::doorbell::FromLeader;
use crate::os::introduction::LeaderSender;
use crate::wire::handshake::Welcome;
use crate::worker::op::ErasedOp;

/// A worker process that is connected to its leader and has received the handshake.
pub(crate) struct Bootstrap {
    pub(crate) welcome: Welcome,
    pub(crate) from_leader: FromLeader,
    pub(crate) to_leader: LeaderSender,
    pub(crate) op: ErasedOp,
    /// When this process entered `init`, by [`now_ns`](os::now_ns).
    pub(crate) init_ns: u64,
}

/// Sends the leader the reason why this worker can't start, cut to [`MAX_REASON`] bytes, and ends the process. The leader tries again.
pub(crate) fn fail_start(to_leader: &LeaderSender, reason: &str) -> ! {
    send_reason(to_leader, reason);
    os::exit_now(NOT_STARTED)
}

/// Does the same as [`fail_start`], for a reason that would be the same at another attempt. The leader does not try again, unless a
/// worker of its pool has been ready.
pub(crate) fn refuse_start(to_leader: &LeaderSender, reason: &str) -> ! {
    send_reason(to_leader, reason);
    os::exit_now(REFUSED)
}

fn send_reason(to_leader: &LeaderSender, reason: &str) {
    let end = (0..=reason.len().min(MAX_REASON))
        .rev()
        .find(|&i| reason.is_char_boundary(i))
        .unwrap_or(0);
    let _ = to_leader.send(&WorkerMessage::Failed(reason[..end].to_owned()));
}
