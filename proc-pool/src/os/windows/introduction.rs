//! How a worker finds its leader on Windows: through a greeting in an anonymous pipe. The worker inherits the pipe as its
//! standard input.
//!
//! The leader writes the greeting before it starts the process. It names a one-shot server of `ipc-channel`, a token, and the
//! leader itself, which must be the parent of the process that reads it. Then both sides check each other: the worker checks
//! its parent, and the leader checks the token and that the process is the one which it has started.
#![allow(unsafe_code, reason = "reads the inherited standard input, and the parent")]

use std::io::{self, Read, Write};
use std::os::windows::io::{FromRawHandle, IntoRawHandle, OwnedHandle};
use std::panic::{self, AssertUnwindSafe};
use std::process::{Child, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fs::File, ptr};

use ipc_channel::IpcError;
use ipc_channel::ipc::{self, IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcReceiver, IpcSender};
use serde::{Deserialize, Serialize};
use shm_buffers::descriptors::Descriptors;
use windows_sys::Wdk::System::Threading::{NtQueryInformationProcess, ProcessBasicInformation};
use windows_sys::Win32::Foundation::INVALID_HANDLE_VALUE;
use windows_sys::Win32::Storage::FileSystem::{FILE_TYPE_PIPE, GetFileType};
use windows_sys::Win32::System::Console::{GetStdHandle, STD_INPUT_HANDLE, SetStdHandle};
use windows_sys::Win32::System::Pipes::PeekNamedPipe;
use windows_sys::Win32::System::Threading::{GetCurrentProcess, PROCESS_BASIC_INFORMATION};

use super::listener::MessageReceiver;
use crate::message::{VERSION, WorkerMessage};
use crate::os::doorbell;

/// The first bytes that every leader of every version writes.
const MAGIC: &[u8; 17] = b"proc-pool worker\n";
/// Maximum length of a greeting in bytes. A new pipe has room for that.
const MAX_GREETING: usize = 2048;
/// The longest wait for the thread that accepts a connection to end, after the process has ended.
const ACCEPTING: Duration = Duration::from_millis(200);

/// The worker's first and only message of this type.
#[derive(Debug, Serialize, Deserialize)]
struct ConnectRequest {
    token: u128,
    pid: u32,
    /// For the handshake, and then for the doorbell.
    to_worker: IpcBytesSender,
    /// Nothing is ever sent here. When the leader ends the channel closes, and the worker notices that.
    liveness: IpcSender<()>,
}

/// A one-shot server for a process that was not started yet.
pub(crate) struct Rendezvous {
    server: IpcOneShotServer<ConnectRequest>,
    name: String,
    token: u128,
}

impl Rendezvous {
    /// Makes the server. Returns it together with the standard input of the process.
    pub(crate) fn new() -> io::Result<(Self, Stdio)> {
        // It panics if no server can be made.
        let (server, name) = panic::catch_unwind(IpcOneShotServer::<ConnectRequest>::new)
            .unwrap_or_else(|_| Err(io::Error::other("no channel can be made")))?;
        let mut token = [0; 16];
        getrandom::fill(&mut token).map_err(io::Error::other)?;
        let token = u128::from_ne_bytes(token);
        let leader = std::process::id();
        let mut greeting = MAGIC.to_vec();
        greeting.extend_from_slice(format!("{VERSION}\n{leader}\n{token:032x}\n{name}\n").as_bytes());
        let (theirs, mut ours) = io::pipe()?;
        ours.write_all(&greeting)?;
        let rendezvous = Self { server, name, token };
        Ok((rendezvous, Stdio::from(theirs)))
    }

    /// Waits in a new thread for the process after its start. That thread calls `introduced` when the process has
    /// connected, or has ended without.
    pub(crate) fn started(
        self,
        child: &Child,
        introduced: impl FnOnce(Result<Connection, String>) + Send + 'static,
    ) -> io::Result<(PendingAccept, Option<Connection>)> {
        let Self { server, name, token } = self;
        let pid = child.id();
        let accept = move || {
            // It panics if the handles of the message were lost.
            let accepted = panic::catch_unwind(AssertUnwindSafe(|| server.accept()));
            introduced(match accepted {
                Ok(Ok((_, request))) if request.token != token || request.pid != pid => {
                    Err("another process connected in its place".to_owned())
                }
                Ok(Ok((messages, request))) => Ok(Connection {
                    messages: messages.to_opaque().to(),
                    to_worker: request.to_worker,
                    liveness: request.liveness,
                }),
                Ok(Err(e)) => Err(e.to_string()),
                Err(_) => Err("its handles were lost".to_owned()),
            });
        };
        let accepting = thread::Builder::new()
            .name("proc-pool accept".into())
            .spawn(accept)?;
        Ok((PendingAccept { accepting, name }, None))
    }
}

/// The thread that waits for the connection of a process.
#[derive(Debug)]
pub(crate) struct PendingAccept {
    accepting: JoinHandle<()>,
    name: String,
}

impl PendingAccept {
    /// Cleans up after the process has ended.
    pub(crate) fn finish(self, connected: bool) {
        if !connected {
            // Any other message than a request makes `accept` fail.
            if let Ok(server) = IpcSender::<u8>::connect(self.name) {
                let _ = server.send(0);
            }
        }
        let start = Instant::now();
        while !self.accepting.is_finished() && start.elapsed() < ACCEPTING {
            thread::sleep(Duration::from_micros(100));
        }
        if self.accepting.is_finished() {
            // The thread catches its panics.
            let _ = self.accepting.join();
        }
    }
}

/// The leader's ends of the channels to a worker process.
#[derive(Debug)]
pub(crate) struct Connection {
    messages: IpcReceiver<WorkerMessage>,
    to_worker: IpcBytesSender,
    liveness: IpcSender<()>,
}

/// Keeps a channel to the worker open. When it is dropped the worker ends, whatever the worker is doing.
#[derive(Debug)]
pub(crate) struct Liveness(#[expect(dead_code, reason = "held open")] IpcSender<()>);

impl Connection {
    /// Sends the handshake. Returns the leader's ends of the channels that the worker has now. There are no descriptors on this
    /// system, where shared memory has names.
    ///
    /// # Errors
    /// When the worker has ended.
    pub(crate) fn welcome(
        self,
        handshake: &[u8],
        _descriptors: &[&Descriptors],
    ) -> io::Result<(MessageReceiver, doorbell::ToWorker, Liveness)> {
        self.to_worker.send(handshake)?;
        Ok((self.messages, self.to_worker, Liveness(self.liveness)))
    }
}

/// The leader has ended.
#[derive(Debug)]
pub(crate) struct LeaderGone;

/// A worker's connection to its parent, the leader.
#[derive(Debug)]
pub(crate) struct ParentConnection {
    leader: u32,
    version: String,
    from_leader: IpcBytesReceiver,
    leader_lives: IpcReceiver<()>,
    to_leader: IpcSender<WorkerMessage>,
}

/// The contents of the pipe: which process has started this one, and how to connect to it.
struct Greeting {
    version: String,
    leader: u32,
    token: u128,
    server: String,
}

impl Greeting {
    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text.strip_prefix(MAGIC)?).ok()?;
        let mut lines = text.split('\n');
        Some(Self {
            version: lines.next()?.to_owned(),
            leader: lines.next()?.parse().ok()?,
            token: u128::from_str_radix(lines.next()?, 16).ok()?,
            server: lines.next()?.to_owned(),
        })
    }
}

impl ParentConnection {
    /// Returns the connection if this process is a worker. It is a worker if its standard input is a pipe that contains the
    /// greeting of its own parent. This consumes, opens and changes nothing unless this process is a worker.
    ///
    /// A program that the user has elevated inherits no handles from the program that started it, so only a parent with the same
    /// privileges can have written the greeting.
    pub(crate) fn detect() -> Option<Self> {
        let greeting = inherited_greeting()?;
        // The server exists, unless the leader has ended.
        Some(Self::connect(greeting).unwrap_or_else(|_| super::exit_now(crate::message::ORPHANED)))
    }

    fn connect(greeting: Greeting) -> Result<Self, Box<dyn std::error::Error>> {
        let to_leader = IpcSender::<ConnectRequest>::connect(greeting.server)?;
        let (to_worker, from_leader) = ipc::bytes_channel()?;
        let (liveness, leader_lives) = ipc::channel::<()>()?;
        to_leader.send(ConnectRequest {
            token: greeting.token,
            pid: std::process::id(),
            to_worker,
            liveness,
        })?;
        Ok(Self {
            leader: greeting.leader,
            version: greeting.version,
            from_leader,
            leader_lives,
            to_leader: to_leader.to_opaque().to(),
        })
    }

    /// Returns the pid of the leader.
    pub(crate) fn leader(&self) -> u32 {
        self.leader
    }

    /// Returns the leader's version of this crate.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Replaces the standard input (the pipe) with an empty one.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn replace_stdin(&self) -> io::Result<()> {
        let empty = File::open("NUL")?;
        // SAFETY: the handle is open, and stays open as long as the process lives, because its ownership ends here.
        match unsafe { SetStdHandle(STD_INPUT_HANDLE, empty.into_raw_handle()) } {
            0 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    /// Waits for the handshake and returns it.
    pub(crate) fn receive(&mut self) -> Result<Vec<u8>, ReceiveError> {
        self.from_leader.recv().map_err(|_| ReceiveError::LeaderGone)
    }

    /// Returns the sender of messages to the leader.
    pub(crate) fn to_leader(&self) -> LeaderSender {
        LeaderSender(self.to_leader.clone())
    }

    /// Starts a thread that calls `orphaned` when the leader ends. Returns the worker's end of the doorbell.
    ///
    /// # Errors
    /// When the process may not start more threads.
    pub(crate) fn watch_leader(self, orphaned: fn() -> !) -> io::Result<doorbell::FromLeader> {
        let leader_lives = self.leader_lives;
        thread::Builder::new()
            .name("proc-pool liveness".into())
            .spawn(move || {
                loop {
                    match leader_lives.recv() {
                        Err(IpcError::Io(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                        // Nothing is ever sent.
                        Ok(()) => {}
                        Err(_) => orphaned(),
                    }
                }
            })?;
        Ok(self.from_leader)
    }
}

/// Why a worker has received no handshake.
#[derive(Debug)]
pub(crate) enum ReceiveError {
    /// The leader has ended, so there is no process to report it to.
    LeaderGone,
    /// Some descriptors were lost on the way. It does not happen on this system, which passes none.
    #[expect(dead_code, reason = "other systems pass descriptors")]
    Descriptors {
        /// Number that the leader has sent.
        sent: usize,
        /// Number that this process has received.
        received: usize,
    },
}

/// Sends messages from a worker to its leader.
#[derive(Debug)]
pub(crate) struct LeaderSender(IpcSender<WorkerMessage>);

impl LeaderSender {
    /// Sends a message.
    ///
    /// # Errors
    /// [`LeaderGone`] when the leader has ended.
    pub(crate) fn send(&self, message: &WorkerMessage) -> Result<(), LeaderGone> {
        loop {
            match self.0.send(message.clone()) {
                Ok(()) => return Ok(()),
                Err(IpcError::Io(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(LeaderGone),
            }
        }
    }
}

/// Closes nothing, because the system does not report which handles were inherited. A child inherits the handles that are
/// marked as inheritable, and nothing that Rust opens is.
pub(crate) fn close_inherited() {}

/// Returns the greeting in this process's standard input, if its parent wrote one. Then the greeting is consumed.
fn inherited_greeting() -> Option<Greeting> {
    // SAFETY: GetStdHandle has no preconditions.
    let stdin = unsafe { GetStdHandle(STD_INPUT_HANDLE) };
    if stdin.is_null() || stdin == INVALID_HANDLE_VALUE {
        return None;
    }
    // SAFETY: GetFileType accepts any handle.
    if unsafe { GetFileType(stdin) } != FILE_TYPE_PIPE {
        return None;
    }
    let mut seen = [0; MAX_GREETING];
    let mut len = 0;
    // SAFETY: `seen` is valid for writes of its length, and `len` for one write. The other outputs may be null.
    let peeked = unsafe {
        PeekNamedPipe(
            stdin,
            seen.as_mut_ptr().cast(),
            MAX_GREETING as u32,
            &raw mut len,
            ptr::null_mut(),
            ptr::null_mut(),
        )
    };
    let greeting = Greeting::parse(seen.get(..len as usize).filter(|_| peeked != 0)?)?;
    if parent() != Some(greeting.leader) {
        return None;
    }
    // SAFETY: the handle is this process's standard input. `File` does not close it (see `into_raw_handle` below), and it is
    // replaced before any other code could use or close it.
    let mut pipe = File::from(unsafe { OwnedHandle::from_raw_handle(stdin) });
    let consumed = pipe.read_exact(&mut seen[..len as usize]);
    // `replace_stdin` replaces it. It stays open until the process ends.
    let _ = pipe.into_raw_handle();
    consumed.ok().map(|()| greeting)
}

/// Returns the pid of the process that started this one. The pid may be that of another process by now; but then this process
/// has no greeting from that one.
fn parent() -> Option<u32> {
    let mut info = PROCESS_BASIC_INFORMATION::default();
    // SAFETY: GetCurrentProcess has no preconditions.
    let own = unsafe { GetCurrentProcess() };
    // SAFETY: `info` is the structure of that class, and valid for writes of its size. The pointer to a length may be null.
    let status = unsafe {
        NtQueryInformationProcess(
            own,
            ProcessBasicInformation,
            (&raw mut info).cast(),
            size_of_val(&info) as u32,
            ptr::null_mut(),
        )
    };
    (status >= 0).then_some(info.InheritedFromUniqueProcessId as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_process_is_not_a_worker() {
        assert!(inherited_greeting().is_none());
        assert!(parent().is_some());
    }

    #[test]
    fn only_complete_greetings_are_parsed() {
        let text = b"proc-pool worker\n1.2.3\n7\nff\n\\\\.\\pipe\\name\n";
        let greeting = Greeting::parse(text).expect("it is complete");
        assert_eq!(
            (greeting.leader, greeting.token, &*greeting.version),
            (7, 255, "1.2.3")
        );
        assert_eq!(greeting.server, r"\\.\pipe\name");
        for bad in [
            "",
            "proc-pool worker\n",
            "proc-pool worker\n1\n-\nff\nx\n",
            "proc-pool worker\n1\n7\nzz\nx\n",
        ] {
            assert!(Greeting::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
