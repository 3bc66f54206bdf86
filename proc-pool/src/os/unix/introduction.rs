//! How a worker finds its leader: a socket that the worker inherits as its standard input.
//!
//! The leader makes a pair of sockets and writes a fixed greeting into its own end before it starts the process, so a process
//! finds out without waiting whether it is a worker. The introduction follows, with the descriptors that it
//! mentions. Afterwards, only the worker writes: one byte a note (see [`listener`](super::listener)). The closing of the
//! leader's end reports the leader's death to the worker, and the other way round.
//!
//! Nothing has a name, so there is nothing to connect to, to swap, or to remove.
#![allow(unsafe_code)]

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
use super::listener::{self, Notes};
use crate::os::doorbell;
use crate::protocol::{Note, VERSION};

/// What every leader of every version writes first.
const MAGIC: [u8; 16] = *b"proc-pool worker";
/// Bytes of the leader's version, filled up with zeros.
const VERSION_BYTES: usize = 32;
/// Bytes of the greeting.
const GREETING: usize = MAGIC.len() + VERSION_BYTES;
/// Bytes of an introduction, at most.
const MAX_INTRODUCTION: usize = 1 << 20;
/// Descriptors in one message, at most: systems have limits of about 253.
const BATCH: usize = 128;

/// A pair of sockets for a process that is not started yet.
#[derive(Debug)]
pub(crate) struct Invitation(UnixStream);

impl Invitation {
    /// Makes the pair, and returns the standard input for the process with it.
    pub(crate) fn new() -> io::Result<(Self, Stdio)> {
        let (mut ours, theirs) = UnixStream::pair()?;
        let mut greeting = [0; GREETING];
        greeting[..MAGIC.len()].copy_from_slice(&MAGIC);
        greeting[MAGIC.len()..][..VERSION.len()].copy_from_slice(VERSION.as_bytes());
        // A new socket has room for it.
        ours.write_all(&greeting)?;
        // Whatever the process does, this side never waits for it.
        ours.set_nonblocking(true)?;
        Ok((Self(ours), Stdio::from(OwnedFd::from(theirs))))
    }

    /// The process was started: the connection to it exists already.
    pub(crate) fn started(
        self,
        _child: &Child,
        _introduced: impl FnOnce(Result<Connection, String>) + Send + 'static,
    ) -> io::Result<(Pending, Option<Connection>)> {
        Ok((Pending, Some(Connection(Arc::new(self.0.into())))))
    }
}

/// The part of a start that is still under way beside the process: none on this system.
#[derive(Debug)]
pub(crate) struct Pending;

impl Pending {
    /// The process has ended.
    pub(crate) fn finish(self, _connected: bool) {}
}

/// The leader's end.
#[derive(Debug)]
pub(crate) struct Connection(Arc<OwnedFd>);

/// Keeps the worker's socket open: its closing ends the worker, whatever the worker is doing.
#[derive(Debug)]
pub(crate) struct Liveness(#[expect(dead_code, reason = "held open")] Arc<OwnedFd>);

impl Connection {
    /// Sends the introduction, and returns the leader's ends of what the worker has now.
    ///
    /// A process that does not read it has ended, or gives up: then its notes, which can still be read, say why.
    ///
    /// # Errors
    /// When the socket has no room for it.
    pub(crate) fn welcome(
        self,
        introduction: &[u8],
        given: &[&Descriptors],
    ) -> io::Result<(Notes, doorbell::ToWorker, Liveness)> {
        let (ours, theirs) = doorbell::channel()?;
        match self.introduce(introduction, &theirs, given) {
            Err(e)
                if !matches!(
                    e.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) =>
            {
                Err(e)
            }
            _ => Ok((Notes::new(self.0.clone()), ours, Liveness(self.0))),
        }
    }

    fn introduce(
        &self,
        introduction: &[u8],
        theirs: &Option<OwnedFd>,
        given: &[&Descriptors],
    ) -> io::Result<()> {
        let mut fds: Vec<BorrowedFd<'_>> = theirs.iter().map(AsFd::as_fd).collect();
        fds.extend(given.iter().flat_map(|given| given.as_fds()));
        let mut header = Vec::with_capacity(16 + introduction.len());
        for count in [introduction.len(), fds.len()] {
            header.extend_from_slice(&(count as u64).to_le_bytes());
        }
        self.send(&header)?;
        for batch in fds.chunks(BATCH) {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            // The space is made for so many.
            let _ = control.push(SendAncillaryMessage::ScmRights(batch));
            // Descriptors travel with a byte at least.
            rustix::net::sendmsg(&self.0, &[IoSlice::new(&[0])], &mut control, send_flags())?;
        }
        self.send(introduction)
    }

    fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let sent = rustix::net::send(&self.0, bytes, send_flags())?;
            bytes = &bytes[sent..];
        }
        Ok(())
    }
}

/// A peer that has gone is an error of the call, not a signal; macOS has a setting of the socket for that, which
/// [`UnixStream::pair`] makes.
pub(super) fn send_flags() -> SendFlags {
    #[cfg(not(target_vendor = "apple"))]
    return SendFlags::NOSIGNAL;
    #[cfg(target_vendor = "apple")]
    SendFlags::empty()
}

/// The leader's end was closed, or says what no leader says.
#[derive(Debug)]
pub(crate) struct Gone;

/// A worker that has recognised itself and its parent, and not read anything yet but the greeting.
#[derive(Debug)]
pub(crate) struct Invited {
    socket: Arc<UnixStream>,
    leader: u32,
    version: String,
}

impl Invited {
    /// Whether this process is a worker, by what it has inherited: its standard input is a socket whose other end was made
    /// by this very process's parent, of the same user, and holds the greeting. With the greeting of another process of the
    /// same user, or of a parent that has ended, this process ends: it was not started to run the program's own course.
    ///
    /// A process with elevated privileges is never a worker: its parent may have fewer, and would choose what it runs. An
    /// ordinary program makes one system call more than it would otherwise. Nothing is consumed, opened or changed unless
    /// this process is a worker.
    pub(crate) fn recognise() -> Option<Self> {
        // SAFETY: it is borrowed for the calls below, which refuse a number that is not open; nothing closes it meanwhile,
        // because `init` comes before everything else in a worker, and no other process has an inherited greeting.
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
        // From here on, this process is a worker, and never runs the program's own course; nor does one whose leader has ended
        // meanwhile, or is not its parent.
        if !credentials::is_parent(leader) {
            crate::os::exit_now(crate::worker::ORPHANED);
        }
        let version = String::from_utf8_lossy(&seen[MAGIC.len()..]);
        let version = version.trim_end_matches('\0').to_owned();
        // Above the standard streams, whose numbers others rely on; closed by what this process executes.
        let socket = rustix::io::fcntl_dupfd_cloexec(stdin, 3).unwrap_or_else(|e| {
            // The number 3 itself may be beyond the limit.
            let reason = io::Error::from(match e {
                rustix::io::Errno::INVAL => rustix::io::Errno::MFILE,
                e => e,
            });
            let reason = format!("cannot keep its connection ({reason}); raise the limit of open files");
            let _ = send_note(stdin, &Note::Failed(reason));
            crate::os::exit_now(crate::worker::NOT_STARTED)
        });
        let socket = Arc::new(UnixStream::from(socket));
        // It is there: it was peeked at.
        let _ = (&*socket).read_exact(&mut seen);
        Some(Self {
            socket,
            leader,
            version,
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

    /// Puts an empty standard input where the socket was.
    ///
    /// # Errors
    /// When the process may have no more files.
    pub(crate) fn release_stdin(&self) -> io::Result<()> {
        let empty = match std::fs::File::open("/dev/null") {
            Ok(null) => OwnedFd::from(null),
            // A pipe without a writer is as empty.
            Err(_) => io::pipe()?.0.into(),
        };
        rustix::stdio::dup2_stdin(&empty)?;
        Ok(())
    }

    /// Waits for the introduction and returns it; the descriptors that came with it can be attached from now on.
    pub(crate) fn receive(&mut self) -> Result<Vec<u8>, ReceiveError> {
        let mut header = [[0; 8]; 2];
        (&*self.socket)
            .read_exact(header.as_flattened_mut())
            .map_err(lost)?;
        let [len, count] = header.map(|bytes| usize::try_from(u64::from_le_bytes(bytes)));
        let (Ok(len @ ..=MAX_INTRODUCTION), Ok(count)) = (len, count) else {
            return Err(ReceiveError::Gone);
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

    /// The way to the leader.
    pub(crate) fn to_leader(&self) -> ToLeader {
        ToLeader(self.socket.clone())
    }

    /// Has a thread end this process by `orphaned` when the leader ends. Returns what the leader wakes this worker by.
    ///
    /// # Errors
    /// When the process may have no more threads.
    pub(crate) fn live_with_leader(self, orphaned: fn() -> !) -> io::Result<doorbell::FromLeader> {
        let socket = self.socket;
        thread::Builder::new()
            .name("proc-pool liveness".into())
            .spawn(move || {
                let mut byte = [0];
                loop {
                    // Not by reading: each note that the leader takes makes room in the socket, which would wake a reader.
                    let mut polled = [PollFd::new(&*socket, PollFlags::IN)];
                    let _ = rustix::event::poll(&mut polled, None);
                    match (&*socket).read(&mut byte) {
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                        // Nothing is sent any more.
                        Ok(1) => {}
                        _ => orphaned(),
                    }
                }
            })?;
        Ok(doorbell::from_leader())
    }
}

/// Why a worker has no introduction.
#[derive(Debug)]
pub(crate) enum ReceiveError {
    /// There is no leader to report it to.
    Gone,
    /// Some descriptors were lost on the way.
    Descriptors {
        /// By the leader.
        sent: usize,
        /// By this process.
        received: usize,
    },
}

fn lost(_: io::Error) -> ReceiveError {
    ReceiveError::Gone
}

/// The worker's way to its leader.
#[derive(Debug)]
pub(crate) struct ToLeader(Arc<UnixStream>);

impl ToLeader {
    /// Sends a note. A [`Note::Bell`] never waits: a leader that has not read many earlier ones is going to look anyway.
    ///
    /// # Errors
    /// [`Gone`] when the leader has ended.
    pub(crate) fn send(&self, note: &Note) -> Result<(), Gone> {
        send_note(self.0.as_fd(), note)
    }
}

fn send_note(socket: BorrowedFd<'_>, note: &Note) -> Result<(), Gone> {
    let (tag, text) = listener::encode(note);
    let flags = match note {
        Note::Bell => send_flags() | SendFlags::DONTWAIT,
        _ => send_flags(),
    };
    for mut bytes in [&[tag][..], text] {
        while !bytes.is_empty() {
            match rustix::net::send(socket, bytes, flags) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) if *note == Note::Bell => return Ok(()),
                Err(_) => return Err(Gone),
            }
        }
    }
    Ok(())
}

/// Closes what this process has inherited beside its standard streams: descriptors that the leader, or a library in it,
/// opened without close-on-exec. What this process has opened itself since it started is close-on-exec, as
/// everything is that Rust opens, and stays.
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
        // SAFETY: it is borrowed for one call, which refuses a number that is not open.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        let inherited =
            rustix::io::fcntl_getfd(fd).is_ok_and(|flags| !flags.contains(rustix::io::FdFlags::CLOEXEC));
        if inherited {
            // SAFETY: the descriptor was open when this process was executed (it would be close-on-exec otherwise), and
            // `init` runs before anything of this program could have taken it over.
            drop(unsafe { OwnedFd::from_raw_fd(number) });
        }
    }
}

#[cfg(any(fuzzing, test))]
impl Invited {
    /// A worker whose leader is at the other end of `socket`, and has sent its greeting.
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
    fn an_ordinary_process_is_no_worker() {
        assert!(Invited::recognise().is_none());
    }

    #[test]
    fn an_introduction_arrives_with_its_descriptors() {
        let (invitation, _stdin) = Invitation::new().expect("a pair");
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        drop(invitation);
        let connection = Connection(Arc::new(ours.into()));
        let files =
            (0..300).map(|_| shm_buffers::Region::create(&shm_buffers::Backing::Auto, 8).expect("room"));
        let files: Vec<_> = files.collect();
        let (_, given) = descriptors::collect(|| {
            for file in &files {
                let handle = file.handle().expect("its owner");
                crate::service::encode(&handle, &mut Vec::new()).expect("it can be encoded");
            }
        });
        let sent = connection.welcome(b"welcome", &[&given, &Descriptors::default()]);
        let _ends = sent.expect("there is room");
        let mut invited = Invited::of(theirs);
        assert_eq!(invited.receive().expect("it was sent"), b"welcome");
    }

    #[test]
    fn what_a_worker_said_before_it_was_welcomed_is_heard_although_it_has_ended() {
        use crate::os::{Heard, Listener};
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        send_note(theirs.as_fd(), &Note::Failed("no memory".into())).expect("there is room");
        drop(theirs);
        let connection = Connection(Arc::new(ours.into()));
        let (notes, ..) = connection.welcome(b"welcome", &[]).expect("that is no error");
        let (mut listener, _waker) = Listener::new().expect("a listener");
        listener.add(notes).expect("it is there");
        let mut all = Vec::new();
        while all.last() != Some(&Heard::Closed) {
            let heard = listener.wait(std::time::Duration::from_secs(10), |_, heard| all.push(heard));
            assert!(heard.expect("it can wait"), "{all:?}");
        }
        assert_eq!(all[0], Heard::Note(Note::Failed("no memory".into())));
    }

    #[test]
    fn an_introduction_that_does_not_fit_is_an_error_and_never_waits() {
        let (ours, _theirs) = UnixStream::pair().expect("a pair");
        ours.set_nonblocking(true).expect("it can be set");
        let connection = Connection(Arc::new(ours.into()));
        assert!(connection.welcome(&vec![0; 64 << 20], &[]).is_err());
    }
}
