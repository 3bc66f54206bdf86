//! Starting one worker process.

use std::process::Child;

use crate::error::PoolError;
use crate::launch::Launch;
use crate::os;
use crate::os::introduction::{Connection, Invitation, Pending};

/// A process that was started.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) child: Child,
    pending: Option<Pending>,
}

/// What came of an introduction.
pub(crate) type Introduction = Result<Connection, String>;

/// Starts a worker process. Returns the connection to it where there is one already; otherwise `introduced` is called,
/// from a thread of its own, when the process has connected or ended without.
pub(crate) fn spawn(
    launch: &Launch,
    introduced: impl FnOnce(Introduction) + Send + 'static,
) -> Result<(Spawned, Option<Connection>), PoolError> {
    let (invitation, stdin) = Invitation::new().map_err(PoolError::io("make a connection for a worker"))?;
    // With the command, this process's copy of the worker's end is closed.
    let child = launch.command(stdin)?.spawn().map_err(|e| launch.refused(e))?;
    os::end_with_us(&child);
    let mut spawned = Spawned { child, pending: None };
    match invitation.started(&spawned.child, introduced) {
        Ok((pending, connection)) => {
            spawned.pending = Some(pending);
            Ok((spawned, connection))
        }
        Err(e) => {
            spawned.give_up();
            Err(PoolError::os("start a thread", e))
        }
    }
}

impl Spawned {
    /// Ends the process, which has no task yet.
    pub(crate) fn give_up(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.finish(false);
    }

    /// The process has ended: ends what was made for its start.
    pub(crate) fn finish(self, connected: bool) {
        if let Some(pending) = self.pending {
            pending.finish(connected);
        }
    }
}
