//! What fuzz targets call: the two ends of a worker's connection, with any bytes from the other end.

use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::os::introduction::Invited;
use crate::os::{Heard, Listener, Notes};
use crate::protocol::{MAX_REASON, Note, Welcome};

/// A leader hears `bytes` from a worker, in pieces whose lengths are among them, some with a descriptor.
///
/// # Panics
/// When the leader hears more than was said, something without a bound, or no end.
pub fn notes(bytes: &[u8]) {
    let (ours, theirs) = UnixStream::pair().expect("there are files left");
    let (mut listener, _waker) = Listener::new().expect("there are files left");
    let notes = Notes::new(Arc::new(OwnedFd::from(ours)));
    let key = listener.add(notes).expect("it can be listened to");
    let mut heard = Vec::new();
    let mut rest = bytes;
    while let Some((&len, after)) = rest.split_first() {
        let (piece, after) = after.split_at(usize::from(len % 32).min(after.len()));
        rest = after;
        send(&theirs, piece, len & 0x80 != 0);
        let waited = listener.wait(Duration::ZERO, |of, it| heard.push((of, it)));
        waited.expect("it can be waited");
    }
    drop(theirs);
    // Each turn takes something, until nothing is left.
    for _ in 0..=bytes.len() {
        let waited = listener.wait(Duration::ZERO, |of, it| heard.push((of, it)));
        waited.expect("it can be waited");
    }
    let closings = heard.iter().filter(|(_, it)| *it == Heard::Closed).count();
    assert_eq!(closings, 1);
    assert!(heard.len() <= bytes.len() + 2, "more was heard than said");
    for (of, it) in heard {
        assert_eq!(of, key);
        if let Heard::Note(Note::Failed(reason)) = it {
            // Each byte may become a replacement character of three.
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
    // A piece without room in the socket is left out.
    let _ = sendmsg(to, &[std::io::IoSlice::new(piece)], &mut control, flags);
}

/// A worker receives `bytes` from its leader, and no more.
pub fn introduction(bytes: &[u8]) {
    let (mut ours, theirs) = UnixStream::pair().expect("there are files left");
    ours.set_nonblocking(true).expect("it can be set");
    let _ = ours.write(bytes);
    drop(ours);
    if let Ok(bytes) = Invited::of(theirs).receive()
        && let Ok(welcome) = Welcome::decoded(&bytes)
    {
        // Refused or not, nothing is run.
        let _ = welcome.entry.resolve(None);
    }
    let _ = Welcome::decoded(bytes).map(|welcome| welcome.entry.resolve(None).is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A short, deterministic run of what the fuzz targets run for long.
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
            notes(&bytes);
            introduction(&bytes);
            let framed = [&(bytes.len() as u64).to_le_bytes()[..], &[0; 8], &bytes].concat();
            introduction(&framed);
        }
    }
}
