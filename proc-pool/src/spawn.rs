//! Starting one worker process.

use std::io;
use std::process::{Child, ExitStatus};

use crate::error::PoolError;
use crate::launch::Launch;
use crate::os::Group;
use crate::os::introduction::{Connection, Invitation, Pending};

/// A process that was started.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) child: Child,
    /// The process, and what it starts.
    group: Group,
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
    let child = {
        let mut command = launch.command(stdin)?;
        Group::prepare(&mut command);
        command.spawn().map_err(|e| launch.refused(e))?
    };
    let mut spawned = Spawned {
        group: Group::of(&child),
        child,
        pending: None,
    };
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
    /// Kills the process and what it has started. Does nothing if it has ended by itself and was reaped.
    pub(crate) fn kill(&mut self) {
        self.group.kill(&mut self.child);
    }

    /// Reaps the process if it has ended; programs that it has started end with it.
    pub(crate) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.group.try_wait(&mut self.child)
    }

    /// Ends the process, which has no task yet.
    pub(crate) fn give_up(mut self) {
        self.kill();
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
