//! Reading what a worker answers: nothing of it is trusted.

use shm_buffers::{AttachError, Segment, SegmentHandle};

use crate::error::{Fault, WorkerId};
use crate::jobs::Outcome;
use crate::panics::Panic;
use crate::payload::chain;
use crate::protocol::Tag;
use crate::service::decode;

/// A frame that was read.
#[derive(Debug)]
pub(super) enum Read {
    Small(Outcome),
    /// It came in a segment.
    Large(Outcome),
    /// It was in a segment that can't be reached any more.
    Lost,
    /// The task was not begun, because it was taken back.
    Recalled,
}

/// Reads the frame that starts at `start` of `bytes`, which keep only what the outcome refers to.
#[inline]
pub(super) fn read(worker: WorkerId, bytes: &mut Vec<u8>, start: usize) -> Read {
    let end = bytes.len();
    let tag = bytes.get(start).copied().and_then(Tag::of);
    if tag == Some(Tag::Inline) {
        let start = start + 1;
        return Read::Small(Outcome::Bytes { start, end });
    }
    read_other(worker, tag, bytes, start)
}

#[cold]
fn read_other(worker: WorkerId, tag: Option<Tag>, bytes: &mut Vec<u8>, start: usize) -> Read {
    let fault = |fault| Outcome::Fault(Box::new(fault));
    let payload = bytes.get(start + 1..).unwrap_or_default();
    let text = || String::from_utf8_lossy(payload).into_owned();
    let read = match tag {
        Some(Tag::Segment) => match decode::<SegmentHandle>(payload) {
            Ok(handle) => match Segment::attach(&handle) {
                Ok(segment) => Read::Large(Outcome::Segment(segment)),
                Err(AttachError::Unreachable { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound =>
                {
                    Read::Lost
                }
                Err(e) => Read::Large(fault(Fault::Output(chain(&e)))),
            },
            Err(e) => Read::Large(fault(Fault::Output(e.to_string()))),
        },
        Some(Tag::Panicked) => {
            let Panic {
                message,
                location,
                backtrace,
            } = decode(payload).unwrap_or_default();
            Read::Small(fault(Fault::Panicked {
                worker,
                message,
                location,
                backtrace,
            }))
        }
        Some(Tag::Recalled) => Read::Recalled,
        Some(Tag::BadTask) => Read::Small(fault(Fault::Task(text()))),
        Some(Tag::BadOutput) => Read::Small(fault(Fault::Output(text()))),
        Some(Tag::Inline) | None => {
            let unknown = "the worker sent an unknown frame".to_owned();
            Read::Small(fault(Fault::Output(unknown)))
        }
    };
    bytes.truncate(start);
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_frame(frame: &[u8]) -> (Read, Vec<u8>) {
        let mut bytes = b"before".to_vec();
        bytes.extend_from_slice(frame);
        let read = read(WorkerId(3), &mut bytes, 6);
        (read, bytes)
    }

    #[test]
    fn an_output_stays_where_it_is() {
        for output in [&b""[..], b"output"] {
            let (read, bytes) = read_frame(&[&[Tag::Inline as u8], output].concat());
            let Read::Small(Outcome::Bytes { start, end }) = read else {
                panic!("{read:?}")
            };
            assert_eq!(&bytes[start..end], output);
        }
    }

    #[test]
    fn hostile_frames_are_faults_and_leave_nothing() {
        let garbage = [0xff; 40];
        let mut frames: Vec<Vec<u8>> = vec![vec![], vec![99], vec![0xff; 9]];
        for tag in [Tag::Segment, Tag::Panicked, Tag::BadTask, Tag::BadOutput] {
            for len in 0..garbage.len() {
                frames.push([&[tag as u8], &garbage[..len]].concat());
            }
        }
        for frame in frames {
            let (read, bytes) = read_frame(&frame);
            assert_eq!(bytes, b"before", "{frame:?}");
            assert!(
                matches!(
                    read,
                    Read::Small(Outcome::Fault(_)) | Read::Large(Outcome::Fault(_))
                ),
                "{frame:?}: {read:?}"
            );
        }
    }

    #[test]
    fn a_segment_of_nobody_is_lost() {
        let (segment, handle) = crate::payload::to_segment(&[7; 100]).unwrap();
        let mut frame = vec![Tag::Segment as u8];
        crate::service::encode(&handle, &mut frame).unwrap();
        let (read, _) = read_frame(&frame);
        assert!(matches!(read, Read::Large(Outcome::Segment(it)) if it[..] == [7; 100]));
        drop(segment);
        let (read, _) = read_frame(&frame);
        // Another test's descriptor may have its number now.
        assert!(!matches!(read, Read::Large(Outcome::Segment(_))), "{read:?}");
    }
}
