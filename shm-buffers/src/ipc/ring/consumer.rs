//! [`Consumer`]: the reading end of a ring.

use super::frame::{MEDIUM, SMALL, frame_words, header, short_bytes, short_len, short_word_bytes};
use super::memory::{DATA_MARK, FRAMES, HEAD, RingMemory, SPACE_MARK, TAIL};
use super::{Arm, Armed, Corrupt, Wakeup};
use crate::ipc::layout::Span;
use crate::ipc::region::Region;
use crate::ipc::words::WORD;
use crate::sync::Ordering;

/// The most frames that are taken at a time.
const MAX_RUN: usize = 512;

/// The reading end of a ring.
///
/// `tail` separates the two counters that each frame changes: compilers load neighbours with one instruction, and a processor stalls if that
/// crosses a cache line.
#[derive(Debug)]
#[repr(C)]
pub struct Consumer {
    ring: RingMemory,
    head: u64,
    /// The producer's position when this end last loaded it.
    tail: u64,
    frames: u64,
    corrupt: Option<Corrupt>,
}

impl Consumer {
    /// Creates the reading end of the ring that `span` assigns in `region`, both fresh.
    ///
    /// # Panics
    /// If `span` is not a ring, or lies outside the region.
    pub fn new(region: &Region, span: Span) -> Self {
        Self {
            ring: RingMemory::new(region, span),
            head: 0,
            frames: 0,
            tail: 0,
            corrupt: None,
        }
    }

    /// Appends the next frame to `out` and returns its length, or `None` if the ring is empty.
    ///
    /// # Errors
    /// [`Corrupt`], which every later call returns as well. `out` is unchanged then.
    #[inline]
    pub fn pop(&mut self, out: &mut Vec<u8>) -> Result<Option<usize>, Corrupt> {
        if let Some(corrupt) = self.corrupt {
            return Err(corrupt);
        }
        if self.head == self.tail && !self.load_tail()? {
            return Ok(None);
        }
        let words = self.ring.words();
        let header = words[self.ring.index(self.head)].load(Ordering::Relaxed);
        if header >> 63 == 0 {
            let Some((len, bytes)) = short_bytes(header) else {
                return Err(self.fail("frame header", header));
            };
            // Appends all bytes and truncates: a constant length is one store, a variable one would be a call.
            let end = out.len() + len;
            out.extend_from_slice(&bytes);
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

    /// Appends up to `max` of the next frames to `out`, which costs less than a [`pop`](Self::pop) of each. It stops before a frame of another
    /// length than the first one, of more than 24 bytes, or whose first byte is not `first`. Returns their number and their length.
    ///
    /// It may take fewer than there are. If it takes none, `pop` returns what comes next.
    ///
    /// # Errors
    /// [`Corrupt`], as [`pop`](Self::pop).
    #[inline]
    pub fn pop_run(&mut self, first: u8, max: usize, out: &mut Vec<u8>) -> Result<(usize, usize), Corrupt> {
        if self.is_empty()? {
            return Ok((0, 0));
        }
        let words = self.ring.words();
        let word_at = |position| words[self.ring.index(position)].load(Ordering::Relaxed);
        let first_word = word_at(self.head);
        let (len, step) = match short_len(first_word) {
            Some(len) => (len, 1),
            // `pop` reports a header that is invalid.
            None => (
                first_word as u32 as usize,
                frame_words(first_word as u32 as usize),
            ),
        };
        if len == 0 || len > MEDIUM {
            return Ok((0, 0));
        }
        let max = max.min((self.tail - self.head) as usize / step).min(MAX_RUN);
        let start = out.len();
        // The last word of a frame is stored as a whole, and the next frame over its end.
        out.resize(start + max * len + WORD, 0);
        let mut store = |at: usize, bytes: [u8; WORD]| out[at..at + WORD].copy_from_slice(&bytes);
        let mut at = start;
        let mut count = 0;
        let mut position = self.head;
        if step == 1 {
            while count < max {
                let word = word_at(position);
                let bytes = short_word_bytes(word);
                if short_len(word) != Some(len) || bytes[0] != first {
                    break;
                }
                // The bytes of the frame that are not in the word are zero.
                store(at, bytes);
                position += 1;
                at += len;
                count += 1;
            }
        } else if first_word == header(len) {
            while count < max && word_at(position) == first_word {
                let bytes = word_at(position + 1).to_ne_bytes();
                if bytes[0] != first {
                    break;
                }
                store(at, bytes);
                for word in 1..step - 1 {
                    store(
                        at + word * WORD,
                        word_at(position + 1 + word as u64).to_ne_bytes(),
                    );
                }
                position += step as u64;
                at += len;
                count += 1;
            }
        }
        out.truncate(at);
        if count > 0 {
            self.head = position;
            self.frames += count as u64;
            words[HEAD].store(self.head, Ordering::Release);
        }
        Ok((count, len))
    }

    /// The part of [`pop`](Self::pop) for a frame of several words.
    fn pop_words(&mut self, header: u64, out: &mut Vec<u8>) -> Result<usize, Corrupt> {
        let len = header as u32;
        // No producer writes a small frame in this form.
        if (header >> 32) as u32 != !len || len as usize <= SMALL {
            return Err(self.fail("frame header", header));
        }
        let len = len as usize;
        let words = frame_words(len);
        if words as u64 > self.tail - self.head {
            return Err(self.fail("frame length", len as u64));
        }
        if len <= MEDIUM {
            let mut bytes = [0; MEDIUM];
            // Always this many, of which those behind the frame are cut off below: a loop of constant length costs less. The model has a ring
            // that is too small for that.
            let read = if cfg!(loom) { words - 1 } else { MEDIUM / WORD };
            for (position, chunk) in (self.head + 1..).zip(&mut bytes.as_chunks_mut().0[..read]) {
                let word = self.ring.word(self.ring.index(position));
                *chunk = word.load(Ordering::Relaxed).to_ne_bytes();
            }
            let end = out.len() + len;
            out.extend_from_slice(&bytes);
            out.truncate(end);
        } else {
            self.ring.data(self.head + 1, words - 1).append(len, out);
        }
        self.head += words as u64;
        Ok(len)
    }

    /// Returns whether the ring has no frame to pop.
    ///
    /// # Errors
    /// [`Corrupt`], as [`pop`](Self::pop).
    pub fn is_empty(&mut self) -> Result<bool, Corrupt> {
        match self.corrupt {
            Some(corrupt) => Err(corrupt),
            None => Ok(self.head == self.tail && !self.load_tail()?),
        }
    }

    /// Loads the producer's position, and returns whether there is a frame.
    fn load_tail(&mut self) -> Result<bool, Corrupt> {
        let tail = self.ring.word(TAIL).load(Ordering::Acquire);
        if tail < self.tail || tail - self.head > self.ring.capacity() {
            return Err(self.fail("producer position", tail));
        }
        self.tail = tail;
        Ok(tail != self.head)
    }

    /// Records that the ring is corrupt.
    fn fail(&mut self, what: &'static str, value: u64) -> Corrupt {
        *self.corrupt.insert(self.ring.corrupt(what, value, self.head))
    }

    /// Returns the number of frames that were popped since the ring was created.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Returns whether a producer waits for the space that was freed and has to be woken. Call it after popping.
    pub fn finish_read(&mut self) -> Wakeup {
        self.ring.wakeup(SPACE_MARK, self.head)
    }

    /// Declares that this end is about to sleep until `frames` more frames (1 at least) are published. Returns whether it may
    /// sleep, and whether the producer has to be woken before, as [`finish_read`](Self::finish_read) does.
    ///
    /// This end is [ready](Arm::Ready) with fewer frames if the producer sleeps until some of them are popped.
    pub fn arm(&mut self, frames: u64) -> Armed {
        let target = self.frames.saturating_add(frames.max(1));
        self.ring.declare(DATA_MARK, target);
        let published = self.ring.word(FRAMES).load(Ordering::Acquire);
        let peer = self.ring.clear_reached(SPACE_MARK, self.head);
        let is_awaited = published > self.frames && self.ring.is_declared(SPACE_MARK);
        Armed {
            own: match published < target && !is_awaited {
                true => Arm::Sleep,
                false => self.ring.disarm(DATA_MARK),
            },
            peer,
        }
    }

    /// Takes back the declaration of [`arm`](Self::arm). Returns [`Arm::WakeupPending`] if the producer has seen it.
    pub fn disarm(&mut self) -> Arm {
        self.ring.disarm(DATA_MARK)
    }
}
