//! [`MessageListener`]: waits for messages of all workers of a pool on Unix, and for the closing of their sockets.
//!
//! There is nothing to parse: a message is one byte, and the reason of a worker that could not start is text up to the end of
//! the connection. In each turn, a bounded number of bytes of each worker is read, without waiting and without accepting
//! descriptors. A worker that writes more fills only its own socket.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::RecvFlags;

use super::poller::{ListenerWaker, Poller};
use crate::message::{MAX_REASON, WorkerMessage};
use crate::os::ConnectionEvent;

/// Maximum number of bytes that are read from one worker in a turn.
const TURN: usize = 256;

const WAKEUP: u8 = b'!';
const READY: u8 = b'R';
const FAILED: u8 = b'F';
const INTRODUCED: u8 = b'I';

/// Encodes a message as one byte, and text that ends with the connection.
pub(super) fn encode(message: &WorkerMessage) -> (u8, &[u8]) {
    match message {
        WorkerMessage::Wakeup => (WAKEUP, &[]),
        WorkerMessage::Ready => (READY, &[]),
        WorkerMessage::Failed(reason) => (FAILED, reason.as_bytes()),
        WorkerMessage::Invalid => (0, &[]),
        WorkerMessage::Introduced => (INTRODUCED, &[]),
    }
}

/// The leader's end of a worker's socket, which receives its messages.
#[derive(Debug)]
pub(crate) struct MessageReceiver {
    socket: Arc<OwnedFd>,
    state: State,
}

/// The progress of a worker's start, as far as its messages show.
#[derive(Debug)]
enum State {
    Starting,
    Ready,
    /// The worker can't start. The bytes are the beginning of the reason.
    Failed(Vec<u8>),
}

impl MessageReceiver {
    pub(crate) fn new(socket: Arc<OwnedFd>) -> Self {
        let state = State::Starting;
        Self { socket, state }
    }

    /// Reads the messages that have arrived, up to a bound, and passes them to `on_message`. Returns `false` if the socket is
    /// closed.
    fn read(&mut self, mut on_message: impl FnMut(WorkerMessage)) -> bool {
        let mut bytes = [0; TURN];
        // The system drops descriptors that come along.
        let read = match rustix::net::recv(&self.socket, &mut bytes, RecvFlags::DONTWAIT) {
            Ok((read, _)) => &bytes[..read],
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return true,
            Err(_) => &[],
        };
        for &byte in read {
            match (&mut self.state, byte) {
                (State::Failed(reason), _) if reason.len() < MAX_REASON => reason.push(byte),
                (State::Failed(_), _) => {}
                (_, WAKEUP) => on_message(WorkerMessage::Wakeup),
                (State::Starting, READY) => {
                    self.state = State::Ready;
                    on_message(WorkerMessage::Ready);
                }
                (State::Starting, INTRODUCED) => on_message(WorkerMessage::Introduced),
                (State::Starting, FAILED) => self.state = State::Failed(Vec::new()),
                _ => on_message(WorkerMessage::Invalid),
            }
        }
        let open = !read.is_empty();
        if let State::Failed(reason) = &self.state
            && !open
        {
            on_message(WorkerMessage::Failed(
                String::from_utf8_lossy(reason).into_owned(),
            ));
        }
        open
    }
}

/// Waits for the messages of many workers.
#[derive(Debug)]
pub(crate) struct MessageListener {
    poller: Poller,
    open: HashMap<u64, MessageReceiver>,
    next: u64,
    /// Keys of the sockets that are ready. It is a field so that its memory is reused.
    ready: Vec<u64>,
}

impl MessageListener {
    /// Makes a listener without workers, and the waker that ends its waits.
    pub(crate) fn new() -> io::Result<(Self, ListenerWaker)> {
        let (poller, waker) = Poller::new()?;
        let listener = Self {
            poller,
            open: HashMap::new(),
            next: 0,
            ready: Vec::new(),
        };
        Ok((listener, waker))
    }

    /// Adds a worker. Returns the key of its events.
    pub(crate) fn add(&mut self, messages: MessageReceiver) -> io::Result<u64> {
        let key = self.next;
        self.poller.add(key, &messages.socket)?;
        self.next += 1;
        self.open.insert(key, messages);
        Ok(key)
    }

    /// Waits for an event of a worker, for the waker, or for `timeout`. Passes events with their keys to `on_event`. Returns
    /// `false` if the timeout has ended the wait.
    pub(crate) fn wait(
        &mut self,
        timeout: Duration,
        mut on_event: impl FnMut(u64, ConnectionEvent),
    ) -> io::Result<bool> {
        self.ready.clear();
        let woken = self.poller.wait(timeout, &mut self.ready)?;
        for &key in &self.ready {
            let Some(messages) = self.open.get_mut(&key) else {
                continue;
            };
            if !messages.read(|message| on_event(key, ConnectionEvent::Message(message))) {
                self.poller.remove(key, &messages.socket);
                self.open.remove(&key);
                on_event(key, ConnectionEvent::Closed);
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

    fn pair() -> (MessageReceiver, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        (MessageReceiver::new(Arc::new(ours.into())), theirs)
    }

    fn poll(listener: &mut MessageListener) -> Vec<(u64, ConnectionEvent)> {
        let mut events = Vec::new();
        listener
            .wait(Duration::ZERO, |key, event| events.push((key, event)))
            .expect("it can wait");
        events
    }

    #[test]
    fn messages_come_with_their_workers_key_and_then_the_closing() {
        let (mut listener, waker) = MessageListener::new().expect("there are files");
        let ((one, mut worker), (other, silent)) = (pair(), pair());
        let key = listener.add(one).expect("it can be added");
        let other = listener.add(other).expect("it can be added");
        assert_eq!(poll(&mut listener), []);
        waker.wake();
        assert!(listener.wait(Duration::MAX, |_, _| {}).expect("it can wait"));
        worker.write_all(b"R!!").expect("there is room");
        let messages = [WorkerMessage::Ready, WorkerMessage::Wakeup, WorkerMessage::Wakeup]
            .map(|message| (key, ConnectionEvent::Message(message)));
        assert_eq!(poll(&mut listener), messages);
        drop(worker);
        assert_eq!(poll(&mut listener), [(key, ConnectionEvent::Closed)]);
        drop(silent);
        assert_eq!(poll(&mut listener), [(other, ConnectionEvent::Closed)]);
        assert_eq!(poll(&mut listener), []);
    }

    #[test]
    fn a_failure_reason_is_bounded_and_complete_when_the_worker_ends() {
        let (mut listener, _waker) = MessageListener::new().expect("there are files");
        let (messages, mut worker) = pair();
        let key = listener.add(messages).expect("it can be added");
        let reason = "no such model! ".repeat(1000);
        worker.write_all(b"F").expect("there is room");
        worker.write_all(reason.as_bytes()).expect("there is room");
        drop(worker);
        let mut all = Vec::new();
        while !matches!(all.last(), Some((_, ConnectionEvent::Closed))) {
            all.extend(poll(&mut listener));
        }
        let failed = WorkerMessage::Failed(reason[..MAX_REASON].to_owned());
        assert_eq!(
            all,
            [
                (key, ConnectionEvent::Message(failed)),
                (key, ConnectionEvent::Closed)
            ]
        );
    }

    #[test]
    fn a_flood_of_messages_is_read_in_bounded_turns_and_any_byte_is_harmless() {
        let (mut listener, _waker) = MessageListener::new().expect("there are files");
        let (messages, mut worker) = pair();
        listener.add(messages).expect("it can be added");
        worker.set_nonblocking(true).expect("it can be set");
        while worker.write(&[0, b'!', 0xff, b'R']).is_ok() {}
        assert_eq!(poll(&mut listener).len(), TURN);
        let (mut messages, mut worker) = pair();
        for byte in 0..=u8::MAX {
            worker.write_all(&[byte, byte]).expect("there is room");
        }
        drop(worker);
        while messages.read(|_| {}) {}
    }
}
