//! How a worker finds its leader: an anonymous pipe that the worker inherits as its standard input holds a ticket.
//!
//! The leader writes the ticket before it starts the process. It names a one-shot server of `ipc-channel`, a token, and the
//! leader itself, which has to be the parent of the process that reads it. Both sides then check one another: the worker
//! its parent, the leader the token and the process that it has started.
#![allow(unsafe_code)]

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

use super::listener::Notes;
use crate::os::doorbell;
use crate::protocol::{Note, VERSION};

/// What every leader of every version writes first.
const MAGIC: &[u8; 17] = b"proc-pool worker\n";
/// Bytes of a ticket, at most: so many fit into a new pipe.
const MAX_TICKET: usize = 2048;
/// How long the thread that accepts a process that is dead and given up may take to end.
const ACCEPTING: Duration = Duration::from_millis(200);

/// The worker's first and only message of this type.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    token: u128,
    pid: u32,
    /// For the introduction.
    to_worker: IpcBytesSender,
    /// Nothing is ever sent here: its closing reports the leader's end.
    liveness: IpcSender<()>,
}

/// A one-shot server for a process that is not started yet.
pub(crate) struct Invitation {
    server: IpcOneShotServer<Hello>,
    name: String,
    token: u128,
}

impl Invitation {
    /// Makes the server, and returns the standard input for the process with it.
    pub(crate) fn new() -> io::Result<(Self, Stdio)> {
        // It panics where there can be none.
        let (server, name) = panic::catch_unwind(IpcOneShotServer::<Hello>::new)
            .unwrap_or_else(|_| Err(io::Error::other("no channel can be made")))?;
        let mut token = [0; 16];
        getrandom::fill(&mut token).map_err(io::Error::other)?;
        let token = u128::from_ne_bytes(token);
        let leader = std::process::id();
        let mut ticket = MAGIC.to_vec();
        ticket.extend_from_slice(format!("{VERSION}\n{leader}\n{token:032x}\n{name}\n").as_bytes());
        let (theirs, mut ours) = io::pipe()?;
        ours.write_all(&ticket)?;
        let invitation = Self { server, name, token };
        Ok((invitation, Stdio::from(theirs)))
    }

    /// The process was started. `introduced` is called, from a thread of its own, when it has connected or ended without.
    pub(crate) fn started(
        self,
        child: &Child,
        introduced: impl FnOnce(Result<Connection, String>) + Send + 'static,
    ) -> io::Result<(Pending, Option<Connection>)> {
        let Self { server, name, token } = self;
        let pid = child.id();
        let accept = move || {
            // It panics when a message has lost its handles.
            let accepted = panic::catch_unwind(AssertUnwindSafe(|| server.accept()));
            introduced(match accepted {
                Ok(Ok((_, hello))) if hello.token != token || hello.pid != pid => {
                    Err("a stranger connected in its place".to_owned())
                }
                Ok(Ok((notes, hello))) => Ok(Connection {
                    notes: notes.to_opaque().to(),
                    to_worker: hello.to_worker,
                    liveness: hello.liveness,
                }),
                Ok(Err(e)) => Err(e.to_string()),
                Err(_) => Err("its handles were lost".to_owned()),
            });
        };
        let accepting = thread::Builder::new()
            .name("proc-pool accept".into())
            .spawn(accept)?;
        Ok((Pending { accepting, name }, None))
    }
}

/// The thread that waits for a process to connect.
#[derive(Debug)]
pub(crate) struct Pending {
    accepting: JoinHandle<()>,
    name: String,
}

impl Pending {
    /// The process has ended.
    pub(crate) fn finish(self, connected: bool) {
        if !connected {
            // Something else than a greeting makes `accept` fail.
            if let Ok(server) = IpcSender::<u8>::connect(self.name) {
                let _ = server.send(0);
            }
        }
        let start = Instant::now();
        while !self.accepting.is_finished() && start.elapsed() < ACCEPTING {
            thread::sleep(Duration::from_micros(100));
        }
        if self.accepting.is_finished() {
            // Its panics are caught.
            let _ = self.accepting.join();
        }
    }
}

/// The leader's ends of a worker's channels.
#[derive(Debug)]
pub(crate) struct Connection {
    notes: IpcReceiver<Note>,
    to_worker: IpcBytesSender,
    liveness: IpcSender<()>,
}

/// Keeps a channel of the worker's open: its closing ends the worker, whatever the worker is doing.
#[derive(Debug)]
pub(crate) struct Liveness(#[expect(dead_code, reason = "held open")] IpcSender<()>);

impl Connection {
    /// Sends the introduction, and returns the leader's ends of what the worker has now. Shared memory has names here, so
    /// there are no descriptors.
    ///
    /// # Errors
    /// When the worker has ended.
    pub(crate) fn welcome(
        self,
        introduction: &[u8],
        _given: &[&Descriptors],
    ) -> io::Result<(Notes, doorbell::ToWorker, Liveness)> {
        self.to_worker.send(introduction)?;
        Ok((self.notes, self.to_worker, Liveness(self.liveness)))
    }
}

/// The leader has ended.
#[derive(Debug)]
pub(crate) struct Gone;

/// A worker that has recognised itself and its parent, and connected to it.
#[derive(Debug)]
pub(crate) struct Invited {
    leader: u32,
    version: String,
    from_leader: IpcBytesReceiver,
    leader_lives: IpcReceiver<()>,
    to_leader: IpcSender<Note>,
}

/// Who started this process, for what.
struct Ticket {
    version: String,
    leader: u32,
    token: u128,
    server: String,
}

impl Ticket {
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

impl Invited {
    /// Whether this process is a worker, by what it has inherited: its standard input is a pipe that holds the ticket of this
    /// process's parent. Nothing is consumed, opened or changed unless this process is a worker.
    ///
    /// A program that is elevated by the user's consent inherits no handle of the program that asked for it, so that only a
    /// parent with the same privileges can have written the ticket.
    pub(crate) fn recognise() -> Option<Self> {
        let ticket = inherited_ticket()?;
        // What it waits for next is there, or its leader has ended.
        Some(Self::connect(ticket).unwrap_or_else(|_| super::exit_now(crate::worker::ORPHANED)))
    }

    fn connect(ticket: Ticket) -> Result<Self, Box<dyn std::error::Error>> {
        let to_leader = IpcSender::<Hello>::connect(ticket.server)?;
        let (to_worker, from_leader) = ipc::bytes_channel()?;
        let (liveness, leader_lives) = ipc::channel::<()>()?;
        to_leader.send(Hello {
            token: ticket.token,
            pid: std::process::id(),
            to_worker,
            liveness,
        })?;
        Ok(Self {
            leader: ticket.leader,
            version: ticket.version,
            from_leader,
            leader_lives,
            to_leader: to_leader.to_opaque().to(),
        })
    }

    /// The process that started this one.
    pub(crate) fn leader(&self) -> u32 {
        self.leader
    }

    /// The leader's version of this crate.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Puts an empty standard input where the pipe was.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn release_stdin(&self) -> io::Result<()> {
        let empty = File::open("NUL")?;
        // SAFETY: the handle is open, and stays open for as long as the process lives: it is given away here.
        match unsafe { SetStdHandle(STD_INPUT_HANDLE, empty.into_raw_handle()) } {
            0 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    /// Waits for the introduction and returns it.
    pub(crate) fn receive(&mut self) -> Result<Vec<u8>, ReceiveError> {
        self.from_leader.recv().map_err(|_| ReceiveError::Gone)
    }

    /// The way to the leader.
    pub(crate) fn to_leader(&self) -> ToLeader {
        ToLeader(self.to_leader.clone())
    }

    /// Has a thread end this process by `orphaned` when the leader ends. Returns what the leader wakes this worker by.
    ///
    /// # Errors
    /// When the process may have no more threads.
    pub(crate) fn live_with_leader(self, orphaned: fn() -> !) -> io::Result<doorbell::FromLeader> {
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

/// Why a worker has no introduction.
#[derive(Debug)]
pub(crate) enum ReceiveError {
    /// There is no leader to report it to.
    Gone,
    /// Some descriptors were lost on the way: not on this system, which passes none.
    #[expect(dead_code, reason = "other systems pass descriptors")]
    Descriptors {
        /// By the leader.
        sent: usize,
        /// By this process.
        received: usize,
    },
}

/// The worker's way to its leader.
#[derive(Debug)]
pub(crate) struct ToLeader(IpcSender<Note>);

impl ToLeader {
    /// Sends a note.
    ///
    /// # Errors
    /// [`Gone`] when the leader has ended.
    pub(crate) fn send(&self, note: &Note) -> Result<(), Gone> {
        loop {
            match self.0.send(note.clone()) {
                Ok(()) => return Ok(()),
                Err(IpcError::Io(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Gone),
            }
        }
    }
}

/// Closes nothing: which handles were inherited can't be told here. `std` passes on those that are marked as inheritable,
/// which nothing is that Rust opens.
pub(crate) fn close_inherited() {}

/// The ticket in this process's standard input, if its parent wrote one; it is consumed then.
fn inherited_ticket() -> Option<Ticket> {
    // SAFETY: it has no preconditions.
    let stdin = unsafe { GetStdHandle(STD_INPUT_HANDLE) };
    if stdin.is_null() || stdin == INVALID_HANDLE_VALUE {
        return None;
    }
    // SAFETY: any handle may be asked about.
    if unsafe { GetFileType(stdin) } != FILE_TYPE_PIPE {
        return None;
    }
    let mut seen = [0; MAX_TICKET];
    let mut len = 0;
    // SAFETY: `seen` is valid for writes of its length, `len` for one; the other results are not asked for.
    let peeked = unsafe {
        PeekNamedPipe(
            stdin,
            seen.as_mut_ptr().cast(),
            MAX_TICKET as u32,
            &raw mut len,
            ptr::null_mut(),
            ptr::null_mut(),
        )
    };
    let ticket = Ticket::parse(seen.get(..len as usize).filter(|_| peeked != 0)?)?;
    if parent() != Some(ticket.leader) {
        return None;
    }
    // SAFETY: the handle is this process's standard input, and is replaced before anything else could use or close it.
    let mut pipe = File::from(unsafe { OwnedHandle::from_raw_handle(stdin) });
    let consumed = pipe.read_exact(&mut seen[..len as usize]);
    // It is replaced by `release_stdin`, and closed with the process.
    let _ = pipe.into_raw_handle();
    consumed.ok().map(|()| ticket)
}

/// The process that started this one. Its number may be another process's by now; then that one's ticket is not here.
fn parent() -> Option<u32> {
    let mut info = PROCESS_BASIC_INFORMATION::default();
    // SAFETY: it has no preconditions.
    let own = unsafe { GetCurrentProcess() };
    // SAFETY: `info` is the structure of that class, valid for writes of its size; no length is asked for.
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
    fn an_ordinary_process_is_no_worker() {
        assert!(inherited_ticket().is_none());
        assert!(parent().is_some());
    }

    #[test]
    fn tickets_are_read_as_they_are_written_and_nothing_else_is() {
        let text = b"proc-pool worker\n1.2.3\n7\nff\n\\\\.\\pipe\\name\n";
        let ticket = Ticket::parse(text).expect("it is one");
        assert_eq!((ticket.leader, ticket.token, &*ticket.version), (7, 255, "1.2.3"));
        assert_eq!(ticket.server, r"\\.\pipe\name");
        for bad in [
            "",
            "proc-pool worker\n",
            "proc-pool worker\n1\n-\nff\nx\n",
            "proc-pool worker\n1\n7\nzz\nx\n",
        ] {
            assert!(Ticket::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
