//! Spawning one worker process. The connection to it is made in `os::introduction`.

use std::ffi::OsString;
use std::io;
use std::process::{Child, ExitStatus};

use crate::error::PoolError;
use crate::leader::command::ConnectResult;
use crate::os::ProcessGroup;
use crate::os::introduction::{Connection, PendingAccept, Rendezvous};
use crate::process::launch::Launch;

/// A process that was spawned.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) child: Child,
    /// The process and its descendants.
    group: ProcessGroup,
    pending: Option<PendingAccept>,
}

/// Spawns a worker process, with additional environment `variables`. Returns the connection to it if it is already there; otherwise `connected` is called from another
/// thread when the process has connected, or has ended without.
pub(crate) fn spawn(
    launch: &Launch,
    variables: &[(OsString, OsString)],
    connected: impl FnOnce(ConnectResult) + Send + 'static,
) -> Result<(Spawned, Option<Connection>), PoolError> {
    let (rendezvous, stdin) = Rendezvous::new().map_err(PoolError::io("make a connection for a worker"))?;
    // Dropping the command closes this process's copy of the worker's end.
    let child = {
        let mut command = launch.command(stdin, variables)?;
        ProcessGroup::prepare(&mut command);
        command.spawn().map_err(|e| launch.spawn_error(e))?
    };
    let mut spawned = Spawned {
        group: ProcessGroup::of(&child),
        child,
        pending: None,
    };
    match rendezvous.started(&spawned.child, connected) {
        Ok((pending, connection)) => {
            spawned.pending = Some(pending);
            Ok((spawned, connection))
        }
        Err(e) => {
            spawned.abort();
            Err(PoolError::os("start a thread", e))
        }
    }
}

impl Spawned {
    /// Kills the process and its descendants. Does nothing if the process has ended by itself and was reaped.
    pub(crate) fn kill(&mut self) {
        self.group.kill(&mut self.child);
    }

    /// Reaps the process if it has ended. Its descendants are killed then.
    pub(crate) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.group.try_wait(&mut self.child)
    }

    /// Kills and reaps a process that has no task yet.
    pub(crate) fn abort(mut self) {
        self.kill();
        let _ = self.child.wait();
        self.finish(false);
    }

    /// Releases the resources of the process's start, after its end.
    pub(crate) fn finish(self, connected: bool) {
        if let Some(pending) = self.pending {
            pending.finish(connected);
        }
    }
}
