//! Spawning one worker process and being introduced to it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::process::{Child, Command, Stdio};
use std::thread;

use ipc_channel::ipc::{IpcOneShotServer, IpcReceiver, IpcSender};

use crate::error::PoolError;
use crate::init::{Ticket, VARIABLE};
use crate::os;
use crate::protocol::Hello;

/// A process that was started and has not connected yet.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) child: Child,
    pub(crate) token: u128,
    server: String,
}

/// What came of an introduction.
pub(crate) type Introduction = Result<(IpcReceiver<Hello>, Hello), String>;

/// Starts this program again as a worker. `introduced` is called, from a thread of its own, when the process has
/// connected or it was [given up](Spawned::give_up).
pub(crate) fn spawn(
    environment: &BTreeMap<OsString, OsString>,
    introduced: impl FnOnce(Introduction) + Send + 'static,
) -> Result<Spawned, PoolError> {
    let token = token().map_err(PoolError::io("make a token"))?;
    let (server, name) = IpcOneShotServer::<Hello>::new().map_err(PoolError::io(
        "create a socket in the temporary directory; set TMPDIR to a short, writable one",
    ))?;
    let mut arguments = std::env::args_os();
    let mut command = Command::new(os::program().map_err(PoolError::io("find the program's executable"))?);
    #[cfg(unix)]
    if let Some(name) = arguments.next() {
        use std::os::unix::process::CommandExt;
        command.arg0(name);
    }
    #[cfg(not(unix))]
    arguments.next();
    let ticket = Ticket {
        leader: std::process::id(),
        token,
        server: name.clone(),
    };
    let child = command
        .args(arguments)
        .envs(environment)
        .env(VARIABLE, ticket.to_value())
        // Several readers of one terminal would steal one another's input.
        .stdin(Stdio::null())
        .spawn()
        .map_err(PoolError::io("start a worker process"))?;
    let mut spawned = Spawned {
        child,
        token,
        server: name,
    };
    let accept = move || introduced(server.accept().map_err(|e| e.to_string()));
    if let Err(e) = thread::Builder::new()
        .name("proc-pool accept".into())
        .spawn(accept)
    {
        // `server` went with the thread that was not made.
        let _ = spawned.child.kill();
        let _ = spawned.child.wait();
        return Err(PoolError::os("start a thread", e));
    }
    Ok(spawned)
}

impl Spawned {
    /// Ends the wait for a process that won't connect any more: its accepting thread hears from us instead.
    pub(crate) fn give_up(&self) {
        // Connecting and leaving without a word is what makes `accept` fail.
        drop(IpcSender::<Hello>::connect(self.server.clone()));
    }
}

fn token() -> io::Result<u128> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(u128::from_ne_bytes(bytes))
}
