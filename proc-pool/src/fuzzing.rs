//! The functions that the fuzz targets call: each feeds arbitrary bytes to one end of a worker's connection.

use std::collections::BTreeMap;
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::message::{MAX_REASON, WorkerMessage};
use crate::os::introduction::ParentConnection;
use crate::os::{ConnectionEvent, MessageListener, MessageReceiver};
use crate::wire::entry::Entry;
use crate::wire::handshake::Welcome;
use crate::wire::native::{decode, encode};

/// Sends `bytes` to a leader as if they came from a worker. The bytes also determine the lengths of the pieces in which they
/// are sent, and which of the pieces have a descriptor attached.
///
/// # Panics
/// When the leader reports more than was sent, a message that is too long, or not exactly one end of the connection.
pub fn messages(bytes: &[u8]) {
    let (ours, theirs) = UnixStream::pair().expect("descriptors are left");
    let (mut listener, _waker) = MessageListener::new().expect("descriptors are left");
    let messages = MessageReceiver::new(Arc::new(OwnedFd::from(ours)));
    let key = listener.add(messages).expect("it can be added");
    let mut events = Vec::new();
    let mut rest = bytes;
    while let Some((&len, after)) = rest.split_first() {
        let (piece, after) = after.split_at(usize::from(len % 32).min(after.len()));
        rest = after;
        send(&theirs, piece, len & 0x80 != 0);
        let waited = listener.wait(Duration::ZERO, |of, event| events.push((of, event)));
        waited.expect("it can wait");
    }
    drop(theirs);
    // Each turn reads at least one byte, until none are left.
    for _ in 0..=bytes.len() {
        let waited = listener.wait(Duration::ZERO, |of, event| events.push((of, event)));
        waited.expect("it can wait");
    }
    let closed = events
        .iter()
        .filter(|(_, event)| *event == ConnectionEvent::Closed)
        .count();
    assert_eq!(closed, 1);
    assert!(events.len() <= bytes.len() + 2, "more events than bytes");
    for (of, event) in events {
        assert_eq!(of, key);
        if let ConnectionEvent::Message(WorkerMessage::Failed(reason)) = event {
            // Each byte may become a replacement character of three bytes.
            assert!(reason.len() <= 3 * MAX_REASON);
        }
    }
}

fn send(to: &UnixStream, piece: &[u8], with_descriptor: bool) {
    let flags = SendFlags::DONTWAIT;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [to.as_fd()];
    if with_descriptor {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    // A piece is skipped if the socket has no room for it.
    let _ = sendmsg(to, &[std::io::IoSlice::new(piece)], &mut control, flags);
}

/// Sends `bytes` to a worker as if they came from its leader, and closes the leader's end.
pub fn handshake(bytes: &[u8]) {
    let (mut ours, theirs) = UnixStream::pair().expect("descriptors are left");
    ours.set_nonblocking(true).expect("it can be set");
    let _ = ours.write(bytes);
    drop(ours);
    if let Ok(bytes) = ParentConnection::of(theirs).receive()
        && let Ok(welcome) = Welcome::decoded(&bytes)
    {
        // Whether the entry is refused or not, nothing is run.
        let _ = resolves(&welcome.entry);
    }
    let _ = Welcome::decoded(bytes).map(|welcome| resolves(&welcome.entry));
}

/// Decodes `bytes` as a worker's output, with the default codec.
///
/// # Panics
/// When the decoded value has a longer encoding than `bytes`, or does not come back from its encoding.
pub fn output(bytes: &[u8]) {
    type Output = (
        Vec<(String, Option<Vec<f32>>)>,
        BTreeMap<u32, Vec<()>>,
        Result<Box<[u16]>, char>,
        Vec<Vec<u64>>,
    );
    let Ok(value) = decode::<Output>(bytes) else {
        return;
    };
    let mut encoded = Vec::new();
    encode(&value, &mut encoded).expect("it can be encoded");
    assert!(encoded.len() <= bytes.len());
    let mut again = Vec::new();
    let back = decode::<Output>(&encoded).expect("it can be decoded");
    encode(&back, &mut again).expect("it can be encoded");
    assert_eq!(again, encoded);
}

/// Looks for the functions of a forged entry in this process, without running them.
fn resolves(entry: &Entry) -> bool {
    match entry {
        Entry::Own(own) => own.locate().is_ok(),
        Entry::Named(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A short, deterministic version of the fuzz targets, which run for hours.
    #[test]
    fn any_bytes_are_harmless_at_both_ends() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..500 {
            let len = random() as usize % 200;
            let likely = [b'!', b'R', b'F', 0, 1, 0xff];
            let bytes: Vec<u8> = (0..len)
                .map(|_| match random() % 3 {
                    0 => likely[random() as usize % likely.len()],
                    _ => random() as u8,
                })
                .collect();
            messages(&bytes);
            handshake(&bytes);
            let framed = [&(bytes.len() as u64).to_le_bytes()[..], &[0; 8], &bytes].concat();
            handshake(&framed);
            output(&bytes);
        }
    }
}
