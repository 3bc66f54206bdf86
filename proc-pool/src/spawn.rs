//! Spawning one worker process and being introduced to it.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::Child;
use std::sync::Once;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ipc_channel::ipc::{self, IpcOneShotServer, IpcReceiver, IpcSender};

use crate::error::PoolError;
use crate::init::{Ticket, VARIABLE};
use crate::launch::Launch;
use crate::os;
use crate::os::servers::{self, Mark};
use crate::protocol::{Hello, VERSION};

/// A process that was started and has not connected yet.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) child: Child,
    pub(crate) token: u128,
    server: String,
    accepting: Option<JoinHandle<()>>,
}

/// How long the thread that accepts a process that is dead and given up may take to end.
const ACCEPTING: Duration = Duration::from_millis(200);

/// What came of an introduction.
pub(crate) type Introduction = Result<(IpcReceiver<Hello>, Hello), String>;

/// Starts a worker process. `introduced` is called, from a thread of its own, when the process has
/// connected or ended without.
pub(crate) fn spawn(
    launch: &Launch,
    introduced: impl FnOnce(Introduction) + Send + 'static,
) -> Result<Spawned, PoolError> {
    let token = token().map_err(PoolError::io("make a token"))?;
    let (server, name) = server()?;
    let mark = Mark::new(Path::new(&name))
        .map_err(PoolError::io("mark a socket as in use"))
        .inspect_err(|_| remove(&name))?;
    let ticket = Ticket {
        version: VERSION.to_owned(),
        leader: std::process::id(),
        token,
        server: name.clone(),
    };
    let child = launch
        .command()
        .and_then(|mut command| {
            command.env(VARIABLE, ticket.to_value());
            command.spawn().map_err(|e| launch.refused(e))
        })
        .inspect(os::end_with_us)
        .inspect_err(|_| remove(&name))?;
    let mut spawned = Spawned {
        child,
        token,
        server: name,
        accepting: None,
    };
    let accept = move || {
        // While the worker starts. Once is enough: leaders die seldom.
        static SWEPT: Once = Once::new();
        SWEPT.call_once(|| servers::sweep(&std::env::temp_dir()));
        // It panics when a message lost its handles because this process may open no more files.
        let accepted = panic::catch_unwind(AssertUnwindSafe(|| server.accept()));
        drop(mark);
        introduced(match accepted {
            Ok(accepted) => accepted.map_err(|e| e.to_string()),
            Err(_) => Err("its handles were lost; raise the limit of open files".to_owned()),
        });
    };
    let accepting = thread::Builder::new()
        .name("proc-pool accept".into())
        .spawn(accept);
    match accepting {
        Ok(accepting) => spawned.accepting = Some(accepting),
        Err(e) => {
            // `server` went with the thread that was not made.
            let _ = spawned.child.kill();
            let _ = spawned.child.wait();
            remove(&spawned.server);
            return Err(PoolError::os("start a thread", e));
        }
    }
    Ok(spawned)
}

/// Removes the server's socket and directory. It does so itself when it is dropped, but not while no more files
/// may be opened, nor when its process has died.
pub(crate) fn remove(server: &str) {
    servers::remove_server(Path::new(server));
}

/// Bytes that a server's socket adds to its directory's path: `/.tmpXXXXXX/socket`.
const SOCKET: usize = 18;

/// A server for one process to connect to, and its name.
fn server() -> Result<(IpcOneShotServer<Hello>, String), PoolError> {
    let dir = std::env::temp_dir();
    let refuse = |reason| refused(&dir, reason);
    check_temp_dir(&dir).map_err(refuse)?;
    // It would leave its directory behind if no more files may be opened, and panic if there can be none.
    drop(ipc::channel::<()>().map_err(PoolError::io("open a socket"))?);
    let made = panic::catch_unwind(IpcOneShotServer::<Hello>::new);
    let (server, name) = made.unwrap_or_else(|_| Err(reason(&dir))).map_err(refuse)?;
    if servers::MAX_SOCKET_PATH.is_some_and(|max| name.len() > max) {
        return Err(refuse(io::Error::other(format!(
            "the socket's path {name} is too long"
        ))));
    }
    Ok((server, name))
}

fn refused(dir: &Path, reason: io::Error) -> PoolError {
    PoolError::TempDir {
        dir: dir.to_owned(),
        source: std::sync::Arc::new(reason),
    }
}

/// Whether sockets can be made in that directory, if servers are sockets.
pub(crate) fn check_temp_dir(dir: &Path) -> io::Result<()> {
    let Some(max) = servers::MAX_SOCKET_PATH else {
        return Ok(());
    };
    let bytes = match dir.to_str() {
        Some(dir) => dir.len(),
        None => return Err(io::Error::other("its path is not UTF-8")),
    };
    // A longer path would be cut off without a word.
    if bytes + SOCKET > max {
        let most = max - SOCKET;
        let reason = format!("its path has {bytes} bytes, a socket's directory {most} at most");
        return Err(io::Error::other(reason));
    }
    // Making a server would then leave a file open.
    os::check_writable(dir)
}

/// Why no directory could be made there; asked when none was, because asking takes as long as making one.
fn reason(dir: &Path) -> io::Error {
    let tried = token().and_then(|token| {
        let probe = dir.join(format!(".tmp{token:x}"));
        std::fs::create_dir(&probe)?;
        std::fs::remove_dir(probe)
    });
    tried.err().unwrap_or_else(|| io::Error::other("it went away"))
}

impl Spawned {
    /// Ends the process, that nobody knows of yet.
    pub(crate) fn give_up(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.finish(false);
    }

    /// To be called when the process has ended: ends what was made for its start.
    pub(crate) fn finish(mut self, connected: bool) {
        let Some(accepting) = self.accepting.take() else {
            return;
        };
        if !connected && servers::is_open(Path::new(&self.server)) {
            // Something else than a greeting makes `accept` fail. Connecting and leaving without a word does so, too, but
            // not where the system itself keeps a way to the server (Mach ports).
            if let Ok(server) = IpcSender::<u8>::connect(self.server.clone()) {
                let _ = os::without_sigpipe(|| server.send(0));
            }
        }
        let began = Instant::now();
        while !accepting.is_finished() && began.elapsed() < ACCEPTING {
            thread::sleep(Duration::from_micros(100));
        }
        remove(&self.server);
        if accepting.is_finished() {
            // Its panics are caught.
            let _ = accepting.join();
        }
    }
}

fn token() -> io::Result<u128> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(u128::from_ne_bytes(bytes))
}
