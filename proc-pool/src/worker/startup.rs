//! The start of a worker process: from `init`, through the handshake, to its main loop.

use crate::message::ORPHANED;
use crate::message::{VERSION, WorkerMessage};
use crate::os;
use crate::os::introduction::{ParentConnection, ReceiveError};
use crate::wire::entry::{Entry, Refusal};
use crate::wire::handshake::{Inherited, Welcome};
use crate::worker::bootstrap::{Bootstrap, fail_start, refuse_start};
use crate::worker::routine::Routine;

/// Runs a worker process until it ends. `resolve` finds the functions that the leader asks for.
pub(crate) fn main(
    mut parent: ParentConnection,
    resolve: impl FnOnce(&Entry) -> Result<Routine, Refusal>,
) -> ! {
    let init_ns = os::now_ns();
    // Every Rust program ignores SIGPIPE, but `init` may run before Rust's own start.
    os::ignore_broken_pipes();
    os::leave_signals_to_leader();
    // The leader may have ended after this process checked that it is the parent, and before this request to end with it.
    if !os::die_with_parent(parent.leader()) {
        os::end_group(ORPHANED);
    }
    let to_leader = parent.to_leader();
    if parent.version() != VERSION {
        let leaders = parent.version();
        let reason =
            format!("has proc-pool {VERSION} and its leader {leaders}; build both with the same version");
        refuse_start(&to_leader, &reason);
    }
    // Only a leader of this version understands it.
    if to_leader.send(&WorkerMessage::Introduced).is_err() {
        os::end_group(ORPHANED);
    }
    if let Err(e) = parent.replace_stdin() {
        fail_start(
            &to_leader,
            &format!("cannot have an empty standard input ({e}); raise the limit of open files"),
        );
    }
    let welcome = match parent.receive() {
        Ok(bytes) => Welcome::decoded(&bytes).unwrap_or_else(|reason| refuse_start(&to_leader, &reason)),
        Err(ReceiveError::LeaderGone) => os::end_group(ORPHANED),
        Err(ReceiveError::Descriptors { sent, received }) => fail_start(
            &to_leader,
            &format!("received {received} of {sent} descriptors; raise the limit of open files"),
        ),
    };
    if welcome.inherited == Inherited::Nothing {
        os::introduction::close_inherited();
    }
    let from_leader = parent.watch_leader(|| os::end_group(ORPHANED));
    let from_leader =
        from_leader.unwrap_or_else(|e| fail_start(&to_leader, &format!("cannot start a thread: {e}")));
    match resolve(&welcome.entry) {
        Ok(Routine { main, op }) => main(Bootstrap {
            welcome,
            from_leader,
            to_leader,
            op,
            init_ns,
        }),
        // The system failed, which may pass.
        Err(refusal @ Refusal::Unidentified(_)) => fail_start(&to_leader, &refusal.to_string()),
        Err(refusal) => refuse_start(&to_leader, &refusal.to_string()),
    }
}
