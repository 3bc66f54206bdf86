//! Single-producer single-consumer rings of byte frames in shared memory.
//!
//! The ground of task transport, logs and everything else that flows between a leader and a worker.
//!
//! - *Nothing blocks*: a full ring is an error value. Who wants to wait asks for a bell ([`Consumer::arm`],
//!   [`Producer::arm`]) and waits for it by means of his own; the other side is told by
//!   [`Producer::publish`] and [`Consumer::settle`] when a bell is due, so that nobody makes a system call for
//!   a peer that is awake.
//! - *Nothing is lost by a death*: frames are visible from the moment they are published and stay readable after
//!   the producer died; a frame under construction is never visible.
//! - *Nothing is trusted*: the peer may write anything at any time. Every position and length is checked against
//!   the capacity, and payloads are copied out before anybody looks at them. A lie is [`Corrupt`].
//!
//! Memory is only ever touched as relaxed atomic words, so a racing or hostile peer can at worst cause a wrong
//! value, never undefined behaviour.
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
//! The layout, in 8-byte words: a cache line pair each for the producer's position and frame count, the
//! consumer's position, the consumer's wake mark, the producer's wake mark; then the data. A frame is one header
//! word (length in the low half, its complement in the high half) and the payload padded to words; one of up to 7 bytes
//! is a single word, with 64 plus its length in the highest byte and the payload below. (Half of what is transported is
//! that small, and what transport costs is cache lines.)
//! Positions count words from the beginning of time; the data index is the position modulo the capacity.

mod frame;
mod shared;
pub(crate) mod words;

pub(crate) use shared::words_for;

use frame::{MAX_LEN, SMALL, SMALL_MARK, frame_words, small_frame};

use shared::{DATA_MARK, FRAMES, HEAD, SPACE_MARK, Shared, TAIL, WORD};

use crate::layout::{Layout, Span};
use crate::region::Region;
use crate::sync::Ordering;

/// The peer wrote something that no correct peer writes; the ring is of no further use.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "ring corrupted by its peer: {what} {value} is impossible at position {position} of {capacity} words"
)]
pub struct Corrupt {
    what: &'static str,
    value: u64,
    position: u64,
    capacity: u64,
}

/// Why a frame was not written.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// There is no room now; there will be when the consumer went on.
    #[error("ring is full")]
    Full,
    /// The frame is larger than the ring will ever hold.
    #[error("frame of {len} bytes exceeds the ring's largest of {max} bytes")]
    TooLarge {
        /// Bytes of the frame.
        len: usize,
        /// [`Producer::max_frame`].
        max: usize,
    },
    /// The consumer wrote nonsense.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

/// Whether the other side sleeps and has to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a sleeping peer that is not woken sleeps for ever"]
pub enum Bell {
    /// The other side is awake, or waits for more than there is.
    Silent,
    /// The other side declared itself asleep and what it waits for is there: ring once.
    Ring,
}

/// The answer to a wish to sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Arm {
    /// Not there yet: the other side will ring.
    Sleep,
    /// Already there, and nobody will ring.
    Ready,
    /// Already there, and the other side has seen the wish: exactly one bell is on its way.
    BellComing,
}

/// A ring within this process, of at least `capacity` bytes.
pub fn in_process(capacity: usize) -> (Producer, Consumer) {
    let mut layout = Layout::new();
    let span = layout.ring(capacity);
    let region = Region::on_heap(layout.bytes());
    (Producer::new(&region, span), Consumer::new(&region, span))
}

/// The writing end.
#[derive(Debug)]
pub struct Producer {
    ring: Shared,
    /// Where the next frame goes; what lies before `published` is visible.
    tail: u64,
    published: u64,
    frames: u64,
    /// The consumer's position when we last looked.
    head: u64,
}

impl Producer {
    /// The writing end of the ring that `span` assigns in `region`, both fresh.
    ///
    /// # Panics
    /// If `span` is not a ring, or lies outside the region.
    pub fn new(region: &Region, span: Span) -> Self {
        Self {
            ring: Shared::new(region, span),
            tail: 0,
            published: 0,
            frames: 0,
            head: 0,
        }
    }

    /// Bytes of data that the ring holds, headers and padding included.
    pub fn capacity(&self) -> usize {
        self.ring.capacity() as usize * WORD
    }

    /// The largest frame that the ring can ever hold, in bytes.
    #[inline]
    pub fn max_frame(&self) -> usize {
        (self.ring.mask as usize * WORD).min(MAX_LEN)
    }

    /// Bytes of data that are taken now, as far as the consumer has told.
    ///
    /// # Errors
    /// [`Corrupt`] if the consumer's position is impossible.
    pub fn used(&mut self) -> Result<usize, Corrupt> {
        let head = self.ring.word(HEAD).load(Ordering::Acquire);
        if head < self.head || head > self.published {
            return Err(self.ring.corrupt("consumer position", head, self.tail));
        }
        self.head = head;
        Ok((self.tail - head) as usize * WORD)
    }

    /// Writes one frame without showing it; [`publish`](Self::publish) shows all that were staged.
    ///
    /// # Errors
    /// Nothing was written then.
    #[inline]
    pub fn stage(&mut self, frame: &[u8]) -> Result<(), PushError> {
        self.stage_parts(&[frame])
    }

    /// Like [`stage`](Self::stage) for a frame given in parts.
    ///
    /// # Errors
    /// Nothing was written then.
    #[inline]
    pub fn stage_parts(&mut self, parts: &[&[u8]]) -> Result<(), PushError> {
        let len: usize = parts.iter().map(|p| p.len()).sum();
        if len > self.max_frame() {
            return Err(PushError::TooLarge {
                len,
                max: self.max_frame(),
            });
        }
        let words = frame_words(len);
        let capacity = self.ring.capacity();
        if self.tail + words as u64 - self.head > capacity {
            self.used()?;
            if self.tail + words as u64 - self.head > capacity {
                return Err(PushError::Full);
            }
        }
        if len <= SMALL {
            self.ring
                .word(self.ring.index(self.tail))
                .store(small_frame(parts, len), Ordering::Relaxed);
        } else {
            let header = len as u64 | u64::from(!(len as u32)) << 32;
            self.ring.data(self.tail, words).write(header, parts);
        }
        self.tail += words as u64;
        self.frames += 1;
        Ok(())
    }

    /// Stages frames one after the other, which costs less than staging each; gives how many, and why the next one was not.
    #[inline]
    pub fn stage_all<'f>(
        &mut self,
        mut frames: impl Iterator<Item = &'f [u8]>,
    ) -> (usize, Result<(), PushError>) {
        let mut staged = 0;
        loop {
            let words = self.ring.words();
            let end = self.head + self.ring.capacity();
            let other = frames.by_ref().find(|frame| {
                let len = frame.len();
                if len > SMALL || self.tail == end {
                    return true;
                }
                words[self.ring.index(self.tail)].store(small_frame(&[frame], len), Ordering::Relaxed);
                self.tail += 1;
                self.frames += 1;
                staged += 1;
                false
            });
            let Some(frame) = other else {
                return (staged, Ok(()));
            };
            match self.stage(frame) {
                Ok(()) => staged += 1,
                Err(e) => return (staged, Err(e)),
            }
        }
    }

    /// Shows every staged frame to the consumer and tells whether it has to be woken.
    #[inline]
    pub fn publish(&mut self) -> Bell {
        self.publish_quietly();
        self.ring.bell(DATA_MARK, self.frames)
    }

    /// Shows every staged frame to a consumer that never sleeps on this ring.
    #[inline]
    pub fn publish_quietly(&mut self) {
        if self.published != self.tail {
            self.ring.word(TAIL).store(self.tail, Ordering::Release);
            // Behind the position: who sees the count finds the frames.
            self.ring.word(FRAMES).store(self.frames, Ordering::Release);
            self.published = self.tail;
        }
    }

    /// Writes and shows one frame to a consumer that never sleeps on this ring.
    ///
    /// # Errors
    /// Nothing was written then.
    pub fn push(&mut self, frame: &[u8]) -> Result<(), PushError> {
        self.stage(frame)?;
        self.publish_quietly();
        Ok(())
    }

    /// Frames staged or published since the ring was made.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Asks to be woken when `len` bytes fit. Publishes what is staged: nobody frees room for what he can't see.
    ///
    /// # Errors
    /// [`PushError::TooLarge`] if they never will.
    pub fn arm(&mut self, len: usize) -> Result<Arm, PushError> {
        if len > self.max_frame() {
            return Err(PushError::TooLarge {
                len,
                max: self.max_frame(),
            });
        }
        debug_assert_eq!(self.published, self.tail, "publish before you sleep");
        let end = self.tail + frame_words(len) as u64;
        Ok(self
            .ring
            .arm(SPACE_MARK, end.saturating_sub(self.ring.capacity()), HEAD))
    }

    /// Takes the wish of [`arm`](Self::arm) back: [`Arm::BellComing`] if it was already granted.
    pub fn disarm(&mut self) -> Arm {
        self.ring.disarm(SPACE_MARK)
    }
}

/// The reading end.
#[derive(Debug)]
pub struct Consumer {
    ring: Shared,
    head: u64,
    frames: u64,
    /// The producer's position when we last looked.
    tail: u64,
    broken: Option<Corrupt>,
}

impl Consumer {
    /// The reading end of the ring that `span` assigns in `region`, both fresh.
    ///
    /// # Panics
    /// If `span` is not a ring, or lies outside the region.
    pub fn new(region: &Region, span: Span) -> Self {
        Self {
            ring: Shared::new(region, span),
            head: 0,
            frames: 0,
            tail: 0,
            broken: None,
        }
    }

    /// Appends the next frame to `out` and gives its length, or `None` when there is none now.
    ///
    /// # Errors
    /// [`Corrupt`], and the same ever after. `out` is as it was.
    #[inline]
    pub fn pop(&mut self, out: &mut Vec<u8>) -> Result<Option<usize>, Corrupt> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        if self.head == self.tail && !self.look()? {
            return Ok(None);
        }
        let words = self.ring.words();
        let header = words[self.ring.index(self.head)].load(Ordering::Relaxed);
        if header >> 63 == 0 {
            let word = header.to_le_bytes();
            let len = usize::from(word[SMALL] ^ SMALL_MARK);
            if len > SMALL {
                return Err(self.broken("frame header", header));
            }
            // All of it: that many bytes are one store, and a number that is not known would be a call.
            let end = out.len() + len;
            out.extend_from_slice(&word);
            out.truncate(end);
            self.head += 1;
            self.frames += 1;
            words[HEAD].store(self.head, Ordering::Release);
            return Ok(Some(len));
        }
        let len = self.pop_words(header, out)?;
        self.frames += 1;
        self.ring.word(HEAD).store(self.head, Ordering::Release);
        Ok(Some(len))
    }

    /// The rest of [`pop`](Self::pop), for a frame of several words.
    fn pop_words(&mut self, header: u64, out: &mut Vec<u8>) -> Result<usize, Corrupt> {
        let len = header as u32;
        if (header >> 32) as u32 != !len {
            return Err(self.broken("frame header", header));
        }
        let len = len as usize;
        let words = frame_words(len);
        if words as u64 > self.tail - self.head {
            return Err(self.broken("frame length", len as u64));
        }
        let start = out.len();
        out.resize(start + len, 0);
        self.ring.data(self.head + 1, words - 1).read(&mut out[start..]);
        self.head += words as u64;
        Ok(len)
    }

    /// Whether a frame is there now.
    ///
    /// # Errors
    /// [`Corrupt`].
    pub fn is_empty(&mut self) -> Result<bool, Corrupt> {
        match self.broken {
            Some(broken) => Err(broken),
            None => Ok(self.head == self.tail && !self.look()?),
        }
    }

    fn look(&mut self) -> Result<bool, Corrupt> {
        let tail = self.ring.word(TAIL).load(Ordering::Acquire);
        if tail < self.tail || tail - self.head > self.ring.capacity() {
            return Err(self.broken("producer position", tail));
        }
        self.tail = tail;
        Ok(tail != self.head)
    }

    fn broken(&mut self, what: &'static str, value: u64) -> Corrupt {
        *self.broken.insert(self.ring.corrupt(what, value, self.head))
    }

    /// Frames popped since the ring was made.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// To be called after popping: tells whether the producer waits for the room that was made.
    pub fn settle(&mut self) -> Bell {
        self.ring.bell(SPACE_MARK, self.head)
    }

    /// Asks to be woken when `frames` more frames (1 at least) are there.
    pub fn arm(&mut self, frames: u64) -> Arm {
        self.ring
            .arm(DATA_MARK, self.frames.saturating_add(frames.max(1)), FRAMES)
    }

    /// Takes the wish of [`arm`](Self::arm) back: [`Arm::BellComing`] if it was already granted.
    pub fn disarm(&mut self) -> Arm {
        self.ring.disarm(DATA_MARK)
    }
}

crate::debug_with_causes!(Corrupt, PushError);

#[cfg(all(test, not(loom)))]
mod runs {
    //! Many frames at once are the same as one after the other.

    use super::*;

    #[test]
    fn frames_of_all_sizes_until_it_is_full_and_again() {
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
mod hostile {
    //! A peer that writes nonsense: every word of the ring, at random, at every step.

    use super::shared::DATA;
    use super::*;

    fn pair(capacity: usize) -> (Region, Span, Producer, Consumer) {
        let mut layout = Layout::new();
        let span = layout.ring(capacity);
        let region = Region::on_heap(layout.bytes());
        let (producer, consumer) = (Producer::new(&region, span), Consumer::new(&region, span));
        (region, span, producer, consumer)
    }

    #[test]
    fn a_lie_about_the_position_is_found() {
        for lie in [1 << 40, u64::MAX, 65] {
            let (region, span, mut tx, mut rx) = pair(512);
            tx.push(b"x").unwrap();
            region.span(span)[TAIL].store(lie, Ordering::Relaxed);
            let error = rx.pop(&mut Vec::new()).unwrap_err();
            assert_eq!(rx.pop(&mut Vec::new()), Err(error), "and stays found");
        }
        let (region, span, mut tx, _rx) = pair(512);
        region.span(span)[HEAD].store(1 << 40, Ordering::Relaxed);
        assert!(tx.used().is_err());
    }

    #[test]
    fn a_lie_about_the_length_is_found() {
        for lie in [u64::MAX, 1 << 30, 0, u64::from(!20u32) << 32 | 20] {
            let (region, span, mut tx, mut rx) = pair(512);
            tx.push(b"x").unwrap();
            region.span(span)[DATA].store(lie, Ordering::Relaxed);
            let mut out = vec![9];
            assert!(rx.pop(&mut out).is_err());
            assert_eq!(out, [9]);
        }
    }

    #[test]
    fn random_words_never_panic_nor_grow() {
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
                assert!(out.capacity() <= 4096);
                let _ = tx.push(&[0; 40]);
                let _ = (rx.settle(), rx.arm(random() % 4), tx.publish(), rx.disarm());
            }
        }
    }
}

#[cfg(all(test, loom))]
mod model {
    //! Every interleaving, by loom. `RUSTFLAGS="--cfg loom" cargo test -p shm-buffers --release --lib`

    use super::*;
    use loom::thread;

    #[test]
    fn loom_frames_arrive_in_order_and_whole() {
        loom::model(|| {
            let (mut tx, mut rx) = in_process(16);
            let producer = thread::spawn(move || {
                let mut sent = 0;
                for i in 1..=2u8 {
                    if tx.push(&[i]).is_ok() {
                        sent += 1;
                    }
                }
                sent
            });
            let mut got = Vec::new();
            while rx.pop(&mut got).unwrap().is_some() {}
            let sent = producer.join().unwrap();
            while rx.pop(&mut got).unwrap().is_some() {}
            assert_eq!(got.len(), sent);
            assert!(got.is_sorted());
        });
    }

    /// No lost wake-up: if the consumer goes to sleep, the producer rings.
    #[test]
    fn loom_a_sleeping_consumer_is_woken() {
        loom::model(|| {
            let (mut tx, mut rx) = in_process(16);
            let producer = thread::spawn(move || {
                tx.stage(b"x").unwrap();
                tx.publish()
            });
            let armed = rx.arm(1);
            let bell = producer.join().unwrap();
            match armed {
                Arm::Sleep | Arm::BellComing => assert_eq!(bell, Bell::Ring),
                Arm::Ready => assert_eq!(bell, Bell::Silent),
            }
            if armed != Arm::Sleep {
                assert!(!rx.is_empty().unwrap());
            }
        });
    }

    /// The same for a producer that waits for room.
    #[test]
    fn loom_a_sleeping_producer_is_woken() {
        loom::model(|| {
            let (mut tx, mut rx) = in_process(16);
            tx.push(&[1; 8]).unwrap();
            let consumer = thread::spawn(move || {
                let mut out = Vec::new();
                rx.pop(&mut out).unwrap().unwrap();
                rx.settle()
            });
            let armed = tx.arm(8).unwrap();
            let bell = consumer.join().unwrap();
            match armed {
                Arm::Sleep | Arm::BellComing => assert_eq!(bell, Bell::Ring),
                Arm::Ready => assert_eq!(bell, Bell::Silent),
            }
            tx.push(&[2; 8]).unwrap();
        });
    }
}
