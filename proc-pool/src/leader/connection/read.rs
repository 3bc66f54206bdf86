//! Parsing what a worker answers. None of it is trusted.

use crate::error::{Fault, WorkerId};
use crate::leader::tasks::jobs::Outcome;
use crate::panics::Panic;
use crate::wire::encoding::decode;
use crate::wire::pieces::{Arrived, Inbound};
use crate::wire::tags::Tag;

/// A parsed frame.
#[derive(Debug)]
pub(super) enum Read {
    /// The task is done.
    Done(Outcome),
    /// A piece of a large output; more are to come.
    Part,
    /// Data that no correct worker writes.
    Corrupt,
    /// The worker did not start the task, because it was taken back.
    Recalled,
}

/// Parses the frame that starts at `start` in `bytes`, and removes it unless the outcome refers to it. A large output is received into
/// memory of the given alignment.
#[inline]
pub(super) fn read(
    worker: WorkerId,
    bytes: &mut Vec<u8>,
    start: usize,
    pieces: &mut Inbound,
    alignment: usize,
) -> Read {
    let end = bytes.len();
    let tag = bytes.get(start).copied().and_then(Tag::of);
    if tag == Some(Tag::Inline) {
        let start = start + 1;
        return Read::Done(Outcome::Bytes { start, end });
    }
    read_other(worker, tag, bytes, start, pieces, alignment)
}

#[cold]
fn read_other(
    worker: WorkerId,
    tag: Option<Tag>,
    bytes: &mut Vec<u8>,
    start: usize,
    pieces: &mut Inbound,
    alignment: usize,
) -> Read {
    let fault = |fault| Outcome::Fault(Box::new(fault));
    let payload = bytes.get(start + 1..).unwrap_or_default();
    let text = || String::from_utf8_lossy(payload).into_owned();
    let read = match tag {
        Some(Tag::Piece) => match pieces.take(payload, alignment) {
            Ok(Arrived::Part) => Read::Part,
            Ok(Arrived::Whole(bytes)) => Read::Done(Outcome::Large(bytes)),
            Ok(Arrived::Lost(reason)) => Read::Done(fault(Fault::Output(reason))),
            Err(_) => Read::Corrupt,
        },
        Some(Tag::Buffers) => match pieces.announce(payload) {
            Ok(()) => Read::Part,
            Err(_) => Read::Corrupt,
        },
        Some(Tag::Block) => match pieces.hold(payload) {
            Ok(()) => Read::Part,
            Err(_) => Read::Corrupt,
        },
        Some(Tag::Panicked) => {
            let Panic {
                message,
                location,
                backtrace,
            } = decode(payload).unwrap_or_default();
            Read::Done(fault(Fault::Panicked {
                worker,
                message,
                location,
                backtrace,
            }))
        }
        Some(Tag::Recalled) => Read::Recalled,
        Some(Tag::BadTask) => Read::Done(fault(Fault::Task(text()))),
        Some(Tag::BadOutput) => Read::Done(fault(Fault::Output(text()))),
        Some(Tag::Inline | Tag::Withdrawn) | None => {
            let unknown = "the worker sent an unknown frame".to_owned();
            Read::Done(fault(Fault::Output(unknown)))
        }
    };
    bytes.truncate(start);
    read
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::pieces::Trust;
    use shm_buffers::arena::BlockReader;
    use shm_buffers::slots::Slots;
    use shm_buffers::{Layout, Region};

    fn read_frame(frame: &[u8]) -> (Read, Vec<u8>) {
        let mut layout = Layout::new();
        let arena = layout.arena(1 << 10);
        let region = Region::on_heap(layout.byte_len());
        let mut pieces = Inbound::new(
            BlockReader::new(&region, arena),
            Slots::in_process(2),
            1 << 20,
            Trust::Nothing,
        );
        let mut bytes = b"before".to_vec();
        bytes.extend_from_slice(frame);
        let read = read(WorkerId(3), &mut bytes, 6, &mut pieces, 1);
        (read, bytes)
    }

    #[test]
    fn small_output_stays_in_the_buffer() {
        for output in [&b""[..], b"output"] {
            let (read, bytes) = read_frame(&[&[Tag::Inline as u8], output].concat());
            let Read::Done(Outcome::Bytes { start, end }) = read else {
                panic!("{read:?}")
            };
            assert_eq!(&bytes[start..end], output);
        }
    }

    #[test]
    fn invalid_frames_are_faults_and_are_removed() {
        let garbage = [0xff; 40];
        let mut frames: Vec<Vec<u8>> = vec![vec![], vec![99], vec![0xff; 9]];
        for tag in [Tag::Panicked, Tag::BadTask, Tag::BadOutput, Tag::Withdrawn] {
            for len in 0..garbage.len() {
                frames.push([&[tag as u8], &garbage[..len]].concat());
            }
        }
        for frame in frames {
            let (read, bytes) = read_frame(&frame);
            assert_eq!(bytes, b"before", "{frame:?}");
            assert!(
                matches!(read, Read::Done(Outcome::Fault(_))),
                "{frame:?}: {read:?}"
            );
        }
    }

    #[test]
    fn forged_pieces_are_corrupt_and_are_removed() {
        for len in 0..40 {
            let (read, bytes) = read_frame(&[&[Tag::Piece as u8], &[0xff; 40][..len]].concat());
            assert_eq!(bytes, b"before");
            assert!(matches!(read, Read::Corrupt), "{len}: {read:?}");
        }
    }
}
