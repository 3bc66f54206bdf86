//! Single-producer single-consumer rings of byte frames in shared memory.
//!
//! Tasks, outcomes, log records and everything else that flows between a leader and a worker goes through rings.
//!
//! - *Nothing blocks.* A full ring is an error value. An end that wants to sleep declares it ([`Consumer::arm`],
//!   [`Producer::arm`]) and then sleeps by its own means. These two, [`Producer::publish`] and [`Consumer::finish_read`] return
//!   whether the peer has to be woken, so that no system call is made while the peer is awake. If all wakeups that are
//!   [needed](Wakeup::Needed) are sent, the two ends never sleep at the same time while the ring has a frame.
//! - *A death loses nothing.* A frame is visible from the moment it is published, and stays readable after the producer
//!   has died. A frame under construction is never visible.
//! - *Nothing is trusted.* The peer may write anything at any time. Every position and length is checked against the
//!   capacity, and payloads are copied out before they are interpreted. An impossible value is [`Corrupt`].
//!
//! Memory is accessed as relaxed atomic words only, so a racing or hostile peer can cause a wrong value at worst, never
//! undefined behaviour. Ring crates such as `rtrb` hold typed values in one process and trust both ends, so this one is
//! written by hand.
//!
//! ```
//! let (mut tx, mut rx) = shm_buffers::ring::in_process(1024);
//! tx.push(b"hello").unwrap();
//! let mut frame = Vec::new();
//! assert_eq!(rx.pop(&mut frame).unwrap(), Some(5));
//! assert_eq!(frame, b"hello");
//! assert_eq!(rx.pop(&mut frame).unwrap(), None);
//! ```
//!
//! The layout, in 8-byte words: one pair of cache lines each for the producer's position and frame count, the
//! consumer's position, the consumer's wake mark, and the producer's wake mark; then the data. A frame is a header word
//! (length in the low half, its complement in the high half) and the payload, padded to whole words. A frame of up to 7
//! bytes is a single word, with 64 plus its length in the highest byte and the payload below: half of all frames are that
//! small, and cache lines are the cost of transport. Positions count words since the ring was created; the index of a
//! data word is its position modulo the capacity.

mod consumer;
mod frame;
mod memory;
mod producer;

use std::error::Error;
use std::fmt;

pub use consumer::Consumer;
pub use producer::Producer;

use super::layout::Layout;
use super::region::Region;

/// The peer wrote something that no correct peer writes. The ring is of no further use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Corrupt {
    what: &'static str,
    value: u64,
    position: u64,
    capacity: u64,
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            value,
            position,
            capacity,
        } = self;
        write!(
            f,
            "ring corrupted by its peer: {what} {value} is impossible at position {position} of {capacity} words"
        )
    }
}

impl Error for Corrupt {}

/// Why a frame was not written.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PushError {
    /// The ring has no space for the frame until the consumer pops others.
    Full,
    /// The frame is larger than the ring can ever hold.
    TooLarge {
        /// Bytes of the frame.
        len: usize,
        /// [`Producer::max_frame`].
        max: usize,
    },
    /// The consumer wrote an impossible position.
    Corrupt(Corrupt),
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("ring is full"),
            Self::TooLarge { len, max } => {
                write!(
                    f,
                    "frame of {len} bytes exceeds the ring's largest of {max} bytes"
                )
            }
            Self::Corrupt(corrupt) => corrupt.fmt(f),
        }
    }
}

/// The message of [`PushError::Corrupt`] is that of its [`Corrupt`], which is not a source, so that it is printed once.
impl Error for PushError {}

impl From<Corrupt> for PushError {
    fn from(corrupt: Corrupt) -> Self {
        Self::Corrupt(corrupt)
    }
}

/// Whether the peer sleeps and has to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a sleeping peer that is not woken never runs again"]
pub enum Wakeup {
    /// The peer is awake, or waits for more than the ring has.
    NotNeeded,
    /// The peer has declared that it sleeps, and the ring has what it waits for: send one wakeup.
    Needed,
}

/// The result of [`Producer::arm`] and [`Consumer::arm`]: what to do before this end sleeps, and whether it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a sleeping peer that is not woken never runs again"]
pub struct Armed {
    /// Whether this end may sleep.
    pub own: Arm,
    /// Whether the peer has to be woken, whatever this end does next.
    pub peer: Wakeup,
}

/// Whether an end that wants to sleep may do so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Arm {
    /// There are not enough frames, or is not enough space: sleep. The peer sends a wakeup.
    Sleep,
    /// There are enough frames, or is enough space; or the producer waits until this consumer pops frames. The peer sends no
    /// wakeup.
    Ready,
    /// As [`Ready`](Self::Ready), but the peer has seen the declaration: it sends exactly one wakeup.
    WakeupPending,
}

/// Creates a ring of at least `bytes` bytes within this process.
pub fn in_process(bytes: usize) -> (Producer, Consumer) {
    let mut layout = Layout::new();
    let span = layout.ring(bytes);
    let region = Region::on_heap(layout.byte_len());
    (Producer::new(&region, span), Consumer::new(&region, span))
}

crate::debug_with_causes!(Corrupt, PushError);

#[cfg(all(test, not(loom)))]
mod batches {
    //! A batch of frames has the same effect as the frames one by one.

    use super::*;

    #[test]
    fn stage_all_stages_as_many_frames_as_single_calls() {
        let frames: Vec<Vec<u8>> = (0..40).map(|i| vec![i as u8; i % 13]).collect();
        let (mut one, mut from_one) = in_process(256);
        let (mut all, mut from_all) = in_process(256);
        let mut next = 0;
        while next < frames.len() {
            let each = frames[next..].iter().take_while(|frame| one.stage(frame).is_ok());
            let each = each.count();
            let (staged, refused) = all.stage_all(frames[next..].iter().map(Vec::as_slice));
            assert_eq!(staged, each);
            assert_eq!(refused.is_err(), next + staged < frames.len());
            assert!(matches!(refused, Ok(()) | Err(PushError::Full)));
            one.publish_quietly();
            all.publish_quietly();
            for frame in &frames[next..next + staged] {
                let (mut got, mut other) = (Vec::new(), Vec::new());
                from_one.pop(&mut got).expect("it is whole");
                from_all.pop(&mut other).expect("it is whole");
                assert_eq!((&got, &other), (frame, frame));
            }
            assert!(staged > 0);
            next += staged;
        }
        let too_large = vec![0; 1000];
        let (staged, refused) = all.stage_all([&[1][..], &too_large].into_iter());
        assert!(matches!((staged, refused), (1, Err(PushError::TooLarge { .. }))));
    }
}

#[cfg(all(test, not(loom)))]
mod runs {
    //! A run of frames is the same as its frames one by one.

    use super::*;

    /// Frames of a few lengths, some of which fit into one word, with runs of each.
    fn frames() -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        for (len, used) in [
            (1, 1),
            (7, 7),
            (9, 7),
            (9, 9),
            (16, 3),
            (17, 17),
            (24, 24),
            (25, 25),
            (0, 0),
        ] {
            for count in [1, 2, 5] {
                for frame in 0..count {
                    let mut bytes = vec![0; len];
                    bytes[..used].fill(frame as u8 + 1);
                    // The last run of each length has another first byte.
                    if let Some(first) = bytes.first_mut() {
                        *first = 7 + u8::from(count == 5);
                    }
                    frames.push(bytes);
                }
            }
        }
        frames
    }

    #[test]
    fn frames_that_are_alike_are_popped_together() {
        let frames = frames();
        for max in [1, 3, 1000] {
            let (mut tx, mut rx) = in_process(4096);
            let (staged, _) = tx.stage_all(frames.iter().map(Vec::as_slice));
            tx.publish_quietly();
            assert_eq!(staged, frames.len());
            let (mut next, mut longest) = (0, 0);
            while next < frames.len() {
                let mut out = vec![9];
                let (count, len) = rx.pop_run(7, max, &mut out).expect("it is whole");
                let run = &frames[next..next + count];
                assert_eq!(out[1..], run.concat());
                assert!(run.iter().all(|frame| frame.len() == len && frame[0] == 7));
                assert!(count <= max);
                next += count;
                longest = longest.max(count);
                if count == 0 {
                    let frame = &frames[next];
                    assert!(frame.len() > 24 || frame.first() != Some(&7), "{frame:?}");
                    rx.pop(&mut out).expect("it is whole");
                    assert_eq!(out[1..], *frame);
                    next += 1;
                }
            }
            assert_eq!(longest, max.min(3));
            assert_eq!(rx.pop_run(7, max, &mut Vec::new()), Ok((0, 0)));
            assert_eq!(rx.frames(), frames.len() as u64);
            assert_eq!(tx.used(), Ok(0));
        }
    }
}

#[cfg(all(test, not(loom)))]
mod hostile {
    //! A peer that writes random values into every word of the ring, at every step.

    use super::memory::{DATA, HEAD, TAIL};
    use super::*;
    use crate::ipc::layout::Span;
    use crate::sync::Ordering;

    fn pair(capacity: usize) -> (Region, Span, Producer, Consumer) {
        let mut layout = Layout::new();
        let span = layout.ring(capacity);
        let region = Region::on_heap(layout.byte_len());
        let (producer, consumer) = (Producer::new(&region, span), Consumer::new(&region, span));
        (region, span, producer, consumer)
    }

    #[test]
    fn an_impossible_position_is_corrupt() {
        for value in [1 << 40, u64::MAX, 65] {
            let (region, span, mut tx, mut rx) = pair(512);
            tx.push(b"x").unwrap();
            region.span(span)[TAIL].store(value, Ordering::Relaxed);
            let error = rx.pop(&mut Vec::new()).unwrap_err();
            assert_eq!(rx.pop(&mut Vec::new()), Err(error), "it stays corrupt");
        }
        let (region, span, mut tx, _rx) = pair(512);
        region.span(span)[HEAD].store(1 << 40, Ordering::Relaxed);
        assert!(tx.used().is_err());
    }

    #[test]
    fn an_impossible_length_is_corrupt_and_leaves_the_output_unchanged() {
        for value in [u64::MAX, 1 << 30, 0, u64::from(!20u32) << 32 | 20] {
            let (region, span, mut tx, mut rx) = pair(512);
            tx.push(b"x").unwrap();
            region.span(span)[DATA].store(value, Ordering::Relaxed);
            let mut out = vec![9];
            assert!(rx.pop(&mut out).is_err());
            assert_eq!(out, [9]);
        }
    }

    #[test]
    fn random_words_cause_no_panic_and_no_large_output() {
        let mut state = 1u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..2000 {
            let (region, span, mut tx, mut rx) = pair(256);
            let words = region.span(span);
            for _ in 0..20 {
                let value = random() >> (random() % 64);
                words[random() as usize % words.len()].store(value, Ordering::Relaxed);
                let mut out = Vec::new();
                let _ = rx.pop(&mut out);
                let _ = rx.pop_run(random() as u8, random() as usize, &mut out);
                assert!(out.capacity() <= 16384);
                let _ = tx.push(&[0; 40]);
                let _ = (rx.finish_read(), rx.arm(random() % 4), tx.publish(), rx.disarm());
            }
        }
    }
}

#[cfg(all(test, loom))]
mod model;
