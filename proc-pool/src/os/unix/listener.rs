//! Listens to workers: reads their notes, one byte each, and notices the closing of their sockets.
//!
//! Nothing here is parsed: a note is a byte, and the reason of a worker that could not start is text up to its end. Of each
//! worker, a bounded number of bytes is read a turn, without waiting and without taking descriptors in; a worker that
//! writes more fills its own socket and nothing else.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::RecvFlags;

use super::poller::{Poller, Waker};
use crate::os::Heard;
use crate::protocol::{MAX_REASON, Note};

/// Bytes of one worker that are read a turn, at most.
const TURN: usize = 256;

const BELL: u8 = b'!';
const READY: u8 = b'R';
const FAILED: u8 = b'F';

/// A note on its way: a byte, and text that ends with the connection.
pub(super) fn encode(note: &Note) -> (u8, &[u8]) {
    match note {
        Note::Bell => (BELL, &[]),
        Note::Ready => (READY, &[]),
        Note::Failed(reason) => (FAILED, reason.as_bytes()),
        Note::Nonsense => (0, &[]),
    }
}

/// The end of a worker's socket that its notes come from.
#[derive(Debug)]
pub(crate) struct Notes {
    socket: Arc<OwnedFd>,
    state: State,
}

/// How far a worker's start has come, by its notes.
#[derive(Debug)]
enum State {
    Starting,
    Ready,
    /// The beginning of the reason why it gives up.
    Failed(Vec<u8>),
}

impl Notes {
    pub(crate) fn new(socket: Arc<OwnedFd>) -> Self {
        let state = State::Starting;
        Self { socket, state }
    }

    /// Reads the notes that have arrived, up to a bound. Returns `false` once the socket is closed.
    fn read(&mut self, mut heard: impl FnMut(Note)) -> bool {
        let mut bytes = [0; TURN];
        // Descriptors that come along are dropped by the system.
        let read = match rustix::net::recv(&self.socket, &mut bytes, RecvFlags::DONTWAIT) {
            Ok((read, _)) => &bytes[..read],
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return true,
            Err(_) => &[],
        };
        for &byte in read {
            match (&mut self.state, byte) {
                (State::Failed(reason), _) if reason.len() < MAX_REASON => reason.push(byte),
                (State::Failed(_), _) => {}
                (_, BELL) => heard(Note::Bell),
                (State::Starting, READY) => {
                    self.state = State::Ready;
                    heard(Note::Ready);
                }
                (State::Starting, FAILED) => self.state = State::Failed(Vec::new()),
                _ => heard(Note::Nonsense),
            }
        }
        let open = !read.is_empty();
        if let State::Failed(reason) = &self.state
            && !open
        {
            heard(Note::Failed(String::from_utf8_lossy(reason).into_owned()));
        }
        open
    }
}

/// Waits for the notes of many workers.
#[derive(Debug)]
pub(crate) struct Listener {
    poller: Poller,
    open: HashMap<u64, Notes>,
    next: u64,
    /// Keys that are ready, kept to be used again.
    ready: Vec<u64>,
}

impl Listener {
    /// A listener without workers, and what ends its waits.
    pub(crate) fn new() -> io::Result<(Self, Waker)> {
        let (poller, waker) = Poller::new()?;
        let listener = Self {
            poller,
            open: HashMap::new(),
            next: 0,
            ready: Vec::new(),
        };
        Ok((listener, waker))
    }

    /// Listens to a worker; returns the key of what it says.
    pub(crate) fn add(&mut self, notes: Notes) -> io::Result<u64> {
        let key = self.next;
        self.poller.add(key, &notes.socket)?;
        self.next += 1;
        self.open.insert(key, notes);
        Ok(key)
    }

    /// Waits until a worker has said something, its socket has closed, the waker wakes, or `patience` is over. Returns
    /// whether anything was heard.
    pub(crate) fn wait(&mut self, patience: Duration, mut heard: impl FnMut(u64, Heard)) -> io::Result<bool> {
        self.ready.clear();
        let woken = self.poller.wait(patience, &mut self.ready)?;
        for &key in &self.ready {
            let Some(notes) = self.open.get_mut(&key) else {
                continue;
            };
            if !notes.read(|note| heard(key, Heard::Note(note))) {
                self.poller.remove(key, &notes.socket);
                self.open.remove(&key);
                heard(key, Heard::Closed);
            }
        }
        Ok(woken || !self.ready.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (Notes, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        (Notes::new(Arc::new(ours.into())), theirs)
    }

    fn hear(listener: &mut Listener) -> Vec<(u64, Heard)> {
        let mut all = Vec::new();
        listener
            .wait(Duration::ZERO, |key, heard| all.push((key, heard)))
            .expect("it can be waited");
        all
    }

    #[test]
    fn notes_come_with_their_workers_key_and_then_the_closing() {
        let (mut listener, waker) = Listener::new().expect("there are files");
        let ((one, mut worker), (other, silent)) = (pair(), pair());
        let key = listener.add(one).expect("it can be listened to");
        let other = listener.add(other).expect("it can be listened to");
        assert_eq!(hear(&mut listener), []);
        waker.wake();
        assert!(listener.wait(Duration::MAX, |_, _| {}).expect("it can be waited"));
        worker.write_all(b"R!!").expect("there is room");
        let notes = [Note::Ready, Note::Bell, Note::Bell].map(|note| (key, Heard::Note(note)));
        assert_eq!(hear(&mut listener), notes);
        drop(worker);
        assert_eq!(hear(&mut listener), [(key, Heard::Closed)]);
        drop(silent);
        assert_eq!(hear(&mut listener), [(other, Heard::Closed)]);
        assert_eq!(hear(&mut listener), []);
    }

    #[test]
    fn a_reason_comes_whole_and_bounded_when_the_worker_ends() {
        let (mut listener, _waker) = Listener::new().expect("there are files");
        let (notes, mut worker) = pair();
        let key = listener.add(notes).expect("it can be listened to");
        let reason = "no such model! ".repeat(1000);
        worker.write_all(b"F").expect("there is room");
        worker.write_all(reason.as_bytes()).expect("there is room");
        drop(worker);
        let mut all = Vec::new();
        while !matches!(all.last(), Some((_, Heard::Closed))) {
            all.extend(hear(&mut listener));
        }
        let failed = Note::Failed(reason[..MAX_REASON].to_owned());
        assert_eq!(all, [(key, Heard::Note(failed)), (key, Heard::Closed)]);
    }

    #[test]
    fn a_flood_is_read_in_bounded_turns_and_any_byte_is_harmless() {
        let (mut listener, _waker) = Listener::new().expect("there are files");
        let (notes, mut worker) = pair();
        listener.add(notes).expect("it can be listened to");
        worker.set_nonblocking(true).expect("it can be set");
        while worker.write(&[0, b'!', 0xff, b'R']).is_ok() {}
        assert_eq!(hear(&mut listener).len(), TURN);
        let (mut notes, mut worker) = pair();
        for byte in 0..=u8::MAX {
            worker.write_all(&[byte, byte]).expect("there is room");
        }
        drop(worker);
        while notes.read(|_| {}) {}
    }
}
