//! How a worker finds its leader on Unix: through a socket that the worker inherits as its standard input.
//!
//! The leader makes a pair of sockets, and writes a fixed greeting into its own end before it starts the process. So a process
//! finds out without waiting whether it is a worker. The handshake ([`Welcome`](crate::wire::handshake::Welcome)) follows,
//! with the descriptors that it refers to. Afterwards, only the worker writes: one byte for each message (see
//! [`listener`](super::listener)). When the leader dies, its end closes, and the worker notices that; likewise the other way
//! round.
//!
//! Nothing has a name, so there is nothing that another process could connect to or replace, and nothing to remove.
#![allow(unsafe_code, reason = "takes over inherited descriptors")]

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::thread;

use rustix::event::{PollFd, PollFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use shm_buffers::descriptors::{self, Descriptors};

use super::credentials;
use super::listener::{self, MessageReceiver};
use crate::message::{VERSION, WorkerMessage};
use crate::os::doorbell;

/// The first bytes that every leader of every version writes.
const MAGIC: [u8; 16] = *b"proc-pool worker";
/// Length of the leader's version in the greeting, in bytes. It is filled up with zeros.
const VERSION_BYTES: usize = 32;
/// Length of the greeting in bytes.
const GREETING: usize = MAGIC.len() + VERSION_BYTES;
/// Maximum length of the handshake in bytes.
const MAX_HANDSHAKE: usize = 1 << 20;
/// Maximum number of descriptors in one message. Systems have limits of about 253.
const BATCH: usize = 128;

/// The leader's end of a pair of sockets, for a process that was not started yet.
#[derive(Debug)]
pub(crate) struct Rendezvous(UnixStream);

impl Rendezvous {
    /// Makes the pair. Returns the leader's end, and the other end as the standard input of the process.
    pub(crate) fn new() -> io::Result<(Self, Stdio)> {
        let (mut ours, theirs) = UnixStream::pair()?;
        let mut greeting = [0; GREETING];
        greeting[..MAGIC.len()].copy_from_slice(&MAGIC);
        greeting[MAGIC.len()..][..VERSION.len()].copy_from_slice(VERSION.as_bytes());
        // A new socket has room for the greeting.
        ours.write_all(&greeting)?;
        // The leader never waits for the process, whatever the process does.
        ours.set_nonblocking(true)?;
        Ok((Self(ours), Stdio::from(OwnedFd::from(theirs))))
    }

    /// Returns the connection to the process after its start. On this system it exists already, and `_introduced` is never
    /// called.
    pub(crate) fn started(
        self,
        _child: &Child,
        _introduced: impl FnOnce(Result<Connection, String>) + Send + 'static,
    ) -> io::Result<(PendingAccept, Option<Connection>)> {
        Ok((PendingAccept, Some(Connection(Arc::new(self.0.into())))))
    }
}

/// What accepts the connection of a process: nothing on this system, where the connection exists from the beginning.
#[derive(Debug)]
pub(crate) struct PendingAccept;

impl PendingAccept {
    /// Cleans up after the process has ended.
    pub(crate) fn finish(self, _connected: bool) {}
}

/// The leader's end of the connection to a worker process.
#[derive(Debug)]
pub(crate) struct Connection(Arc<OwnedFd>);

/// Keeps the worker's socket open. When it is dropped the worker ends, whatever the worker is doing.
#[derive(Debug)]
pub(crate) struct Liveness(#[expect(dead_code, reason = "held open")] Arc<OwnedFd>);

impl Connection {
    /// Sends the handshake. Returns the leader's ends of the channels that the worker has now.
    ///
    /// It is not an error if the process does not read the handshake: then it has ended or is about to, and its messages, which
    /// can still be read, contain the reason.
    ///
    /// # Errors
    /// When the socket has no room for the handshake.
    pub(crate) fn welcome(
        self,
        handshake: &[u8],
        descriptors: &[&Descriptors],
    ) -> io::Result<(MessageReceiver, doorbell::ToWorker, Liveness)> {
        let (ours, theirs) = doorbell::channel()?;
        match self.send_handshake(handshake, &theirs, descriptors) {
            Err(e)
                if !matches!(
                    e.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) =>
            {
                Err(e)
            }
            _ => Ok((MessageReceiver::new(self.0.clone()), ours, Liveness(self.0))),
        }
    }

    fn send_handshake(
        &self,
        handshake: &[u8],
        theirs: &Option<OwnedFd>,
        descriptors: &[&Descriptors],
    ) -> io::Result<()> {
        let mut fds: Vec<BorrowedFd<'_>> = theirs.iter().map(AsFd::as_fd).collect();
        fds.extend(descriptors.iter().flat_map(|descriptors| descriptors.as_fds()));
        let mut header = Vec::with_capacity(16 + handshake.len());
        for count in [handshake.len(), fds.len()] {
            header.extend_from_slice(&(count as u64).to_le_bytes());
        }
        self.send(&header)?;
        for batch in fds.chunks(BATCH) {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            // It can't fail: the space is large enough for a batch.
            let _ = control.push(SendAncillaryMessage::ScmRights(batch));
            // Descriptors need at least one byte to travel with.
            rustix::net::sendmsg(&self.0, &[IoSlice::new(&[0])], &mut control, send_flags())?;
        }
        self.send(handshake)
    }

    fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let sent = rustix::net::send(&self.0, bytes, send_flags())?;
            bytes = &bytes[sent..];
        }
        Ok(())
    }
}

/// Returns flags that make a closed peer an error of the call instead of a signal. On macOS that is a setting of the socket,
/// which [`UnixStream::pair`] makes.
pub(crate) fn send_flags() -> SendFlags {
    #[cfg(not(target_vendor = "apple"))]
    return SendFlags::NOSIGNAL;
    #[cfg(target_vendor = "apple")]
    SendFlags::empty()
}

/// The leader has closed its end, or has sent data that no leader sends.
#[derive(Debug)]
pub(crate) struct LeaderGone;

/// A worker's connection to its parent, the leader. The worker has read nothing but the greeting yet.
#[derive(Debug)]
pub(crate) struct ParentConnection {
    socket: Arc<UnixStream>,
    leader: u32,
    version: String,
}

impl ParentConnection {
    /// Returns the connection if this process is a worker. It is a worker if its standard input is a socket whose other end was
    /// made by its own parent, with the same user, and if the socket contains the greeting. With the greeting of another
    /// process of the same user, or of a parent that has ended, this process ends: it was not started to run the program.
    ///
    /// A process with elevated privileges is never a worker, because its parent may have fewer privileges and would choose the
    /// code that it runs. In an ordinary program, this costs one system call. It consumes, opens and changes nothing unless
    /// this process is a worker.
    pub(crate) fn detect() -> Option<Self> {
        // SAFETY: the descriptor is borrowed for the calls below, which fail for a number that is not open. Nothing closes it
        // during these calls: `init` comes before everything else in a worker, and a process that is not a worker has no greeting, so
        // nothing is done with its descriptor after these calls.
        let stdin = unsafe { BorrowedFd::borrow_raw(libc::STDIN_FILENO) };
        let stream = rustix::net::sockopt::socket_type(stdin) == Ok(rustix::net::SocketType::STREAM);
        if !stream || credentials::is_privileged() {
            return None;
        }
        let leader = credentials::peer_of_our_user(stdin)?;
        let mut seen = [0; GREETING];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let peeked = rustix::net::recv(stdin, &mut seen, flags).ok()?;
        if peeked.1 != GREETING || seen[..MAGIC.len()] != MAGIC {
            return None;
        }
        // From here on this process is a worker, and never runs the rest of the program; also if its leader has ended
        // since then, or is not its parent.
        if !credentials::is_parent(leader) {
            crate::os::exit_now(crate::message::ORPHANED);
        }
        let version = String::from_utf8_lossy(&seen[MAGIC.len()..]);
        let version = version.trim_end_matches('\0').to_owned();
        // The new number is above those of the standard streams, which other code relies on. It is closed on exec.
        let socket = rustix::io::fcntl_dupfd_cloexec(stdin, 3).unwrap_or_else(|e| {
            // The number 3 itself may exceed the limit.
            let reason = io::Error::from(match e {
                rustix::io::Errno::INVAL => rustix::io::Errno::MFILE,
                e => e,
            });
            let reason = format!("cannot keep its connection ({reason}); raise the limit of open files");
            let _ = send_message(stdin, &WorkerMessage::Failed(reason));
            crate::os::exit_now(crate::message::NOT_STARTED)
        });
        let socket = Arc::new(UnixStream::from(socket));
        // The greeting can be read without waiting: the peek has seen it.
        let _ = (&*socket).read_exact(&mut seen);
        Some(Self {
            socket,
            leader,
            version,
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

    /// Replaces the standard input (the socket) with an empty one.
    ///
    /// # Errors
    /// When the process may not open more files.
    pub(crate) fn replace_stdin(&self) -> io::Result<()> {
        let empty = match std::fs::File::open("/dev/null") {
            Ok(null) => OwnedFd::from(null),
            // A pipe without a writer is empty as well.
            Err(_) => io::pipe()?.0.into(),
        };
        rustix::stdio::dup2_stdin(&empty)?;
        Ok(())
    }

    /// Waits for the handshake and returns it. The descriptors that came with it can be attached from now on.
    pub(crate) fn receive(&mut self) -> Result<Vec<u8>, ReceiveError> {
        let mut header = [[0; 8]; 2];
        (&*self.socket)
            .read_exact(header.as_flattened_mut())
            .map_err(lost)?;
        let [len, count] = header.map(|bytes| usize::try_from(u64::from_le_bytes(bytes)));
        let (Ok(len @ ..=MAX_HANDSHAKE), Ok(count)) = (len, count) else {
            return Err(ReceiveError::LeaderGone);
        };
        let mut fds = Vec::new();
        for _ in 0..count.div_ceil(BATCH) {
            self.receive_batch(&mut fds).map_err(lost)?;
        }
        let mut bytes = vec![0; len];
        (&*self.socket).read_exact(&mut bytes).map_err(lost)?;
        if fds.len() != count {
            return Err(ReceiveError::Descriptors {
                sent: count,
                received: fds.len(),
            });
        }
        let mut fds = fds.into_iter();
        doorbell::adopt(&mut fds);
        for fd in fds {
            descriptors::adopt(fd).map_err(lost)?;
        }
        Ok(bytes)
    }

    fn receive_batch(&self, fds: &mut Vec<OwnedFd>) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        #[cfg(not(target_vendor = "apple"))]
        let flags = RecvFlags::CMSG_CLOEXEC;
        #[cfg(target_vendor = "apple")]
        let flags = RecvFlags::empty();
        let received = loop {
            match rustix::net::recvmsg(
                &*self.socket,
                &mut [IoSliceMut::new(&mut byte)],
                &mut control,
                flags,
            ) {
                Err(rustix::io::Errno::INTR) => {}
                received => break received?,
            }
        };
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        #[cfg(target_vendor = "apple")]
        for fd in fds {
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?;
        }
        Ok(())
    }

    /// Returns the sender of messages to the leader.
    pub(crate) fn to_leader(&self) -> LeaderSender {
        LeaderSender(self.socket.clone())
    }

    /// Starts a thread that calls `orphaned` when the leader ends. Returns the worker's end of the doorbell.
    ///
    /// # Errors
    /// When the process may not start more threads.
    pub(crate) fn watch_leader(self, orphaned: fn() -> !) -> io::Result<doorbell::FromLeader> {
        let socket = self.socket;
        thread::Builder::new()
            .name("proc-pool liveness".into())
            .spawn(move || {
                let mut byte = [0];
                loop {
                    // It polls, because a blocking read would wake for each message that the leader takes: that makes room in
                    // the socket.
                    let mut polled = [PollFd::new(&*socket, PollFlags::IN)];
                    let _ = rustix::event::poll(&mut polled, None);
                    match (&*socket).read(&mut byte) {
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                        // The leader sends nothing more, so the byte is ignored.
                        Ok(1) => {}
                        _ => orphaned(),
                    }
                }
            })?;
        Ok(doorbell::from_leader())
    }
}

/// Why a worker has received no handshake.
#[derive(Debug)]
pub(crate) enum ReceiveError {
    /// The leader has ended, so there is no process to report it to.
    LeaderGone,
    /// Some descriptors were lost on the way.
    Descriptors {
        /// Number that the leader has sent.
        sent: usize,
        /// Number that this process has received.
        received: usize,
    },
}

fn lost(_: io::Error) -> ReceiveError {
    ReceiveError::LeaderGone
}

/// Sends messages from a worker to its leader.
#[derive(Debug)]
pub(crate) struct LeaderSender(Arc<UnixStream>);

impl LeaderSender {
    /// Sends a message. A [`WorkerMessage::Wakeup`] never waits for room: a leader that has many unread messages will look at this
    /// worker anyway.
    ///
    /// # Errors
    /// [`LeaderGone`] when the leader has ended.
    pub(crate) fn send(&self, message: &WorkerMessage) -> Result<(), LeaderGone> {
        send_message(self.0.as_fd(), message)
    }
}

fn send_message(socket: BorrowedFd<'_>, message: &WorkerMessage) -> Result<(), LeaderGone> {
    let (tag, text) = listener::encode(message);
    let flags = match message {
        WorkerMessage::Wakeup => send_flags() | SendFlags::DONTWAIT,
        _ => send_flags(),
    };
    for mut bytes in [&[tag][..], text] {
        while !bytes.is_empty() {
            match rustix::net::send(socket, bytes, flags) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) if *message == WorkerMessage::Wakeup => return Ok(()),
                Err(_) => return Err(LeaderGone),
            }
        }
    }
    Ok(())
}

/// Closes the descriptors that this process has inherited, except the standard streams. Those are descriptors that the leader,
/// or a library in it, opened without close-on-exec. Descriptors that this process has opened itself stay open: they are
/// close-on-exec, as is everything that Rust opens.
pub(crate) fn close_inherited() {
    let directory = if cfg!(target_os = "linux") {
        "/proc/self/fd"
    } else {
        "/dev/fd"
    };
    let listed: Option<Vec<i32>> = std::fs::read_dir(directory).ok().map(|entries| {
        let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        numbers.collect()
    });
    let numbers = listed.unwrap_or_else(|| {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        (0..limit.map_or(i32::from(u16::MAX), |limit| limit.min(u64::from(u16::MAX)) as i32)).collect()
    });
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // SAFETY: the descriptor is borrowed for one call, which fails for a number that is not open.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        let inherited =
            rustix::io::fcntl_getfd(fd).is_ok_and(|flags| !flags.contains(rustix::io::FdFlags::CLOEXEC));
        if inherited {
            // SAFETY: the descriptor is not close-on-exec, so neither Rust's standard library nor an async runtime that was
            // started before `init` has opened it: it was open when this process was executed. No other value owns it:
            // `init` is the first call of `main` by its contract, and to take over a descriptor by its number is `unsafe`.
            drop(unsafe { OwnedFd::from_raw_fd(number) });
        }
    }
}

#[cfg(any(fuzzing, test))]
impl ParentConnection {
    /// Makes the connection of a worker whose leader is at the other end of `socket`, and has sent its greeting.
    pub(crate) fn of(socket: UnixStream) -> Self {
        Self {
            socket: Arc::new(socket),
            leader: 0,
            version: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_process_is_not_a_worker() {
        assert!(ParentConnection::detect().is_none());
    }

    #[test]
    fn a_handshake_arrives_with_its_descriptors() {
        let (rendezvous, _stdin) = Rendezvous::new().expect("a pair");
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        drop(rendezvous);
        let connection = Connection(Arc::new(ours.into()));
        let files =
            (0..300).map(|_| shm_buffers::Region::create(&shm_buffers::Backing::Auto, 8).expect("room"));
        let files: Vec<_> = files.collect();
        let (_, descriptors) = descriptors::collect(|| {
            for file in &files {
                let handle = file.handle().expect("it was created here");
                crate::wire::encoding::encode(&handle, &mut Vec::new()).expect("a handle can be encoded");
            }
        });
        let sent = connection.welcome(b"welcome", &[&descriptors, &Descriptors::default()]);
        let _ends = sent.expect("there is room");
        let mut parent = ParentConnection::of(theirs);
        assert_eq!(parent.receive().expect("the handshake was sent"), b"welcome");
    }

    #[test]
    fn messages_sent_before_the_handshake_are_received_after_the_worker_has_ended() {
        use crate::os::{ConnectionEvent, MessageListener};
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        send_message(theirs.as_fd(), &WorkerMessage::Failed("no memory".into())).expect("there is room");
        drop(theirs);
        let connection = Connection(Arc::new(ours.into()));
        let (messages, ..) = connection
            .welcome(b"welcome", &[])
            .expect("a closed peer is no error");
        let (mut listener, _waker) = MessageListener::new().expect("a listener");
        listener.add(messages).expect("it can be polled");
        let mut events = Vec::new();
        while events.last() != Some(&ConnectionEvent::Closed) {
            let waited = listener.wait(std::time::Duration::from_secs(10), |_, event| events.push(event));
            assert!(waited.expect("it can wait"), "{events:?}");
        }
        assert_eq!(
            events[0],
            ConnectionEvent::Message(WorkerMessage::Failed("no memory".into()))
        );
    }

    #[test]
    fn a_handshake_that_does_not_fit_is_an_error_and_never_waits() {
        let (ours, _theirs) = UnixStream::pair().expect("a pair");
        ours.set_nonblocking(true).expect("it can be set");
        let connection = Connection(Arc::new(ours.into()));
        assert!(connection.welcome(&vec![0; 64 << 20], &[]).is_err());
    }
}
