//! [`Producer`]: the writing end of a ring.

use super::frame::{
    MAX_LEN, MEDIUM, SHORT, frame_words, header, join, medium_words, short_frame, split, tagged,
};
use super::memory::{DATA_MARK, FRAMES, HEAD, RingMemory, SPACE_MARK, TAIL};
use super::{Arm, Armed, Corrupt, PushError, Wakeup};
use crate::ipc::layout::Span;
use crate::ipc::region::Region;
use crate::ipc::words::WORD;
use crate::sync::Ordering;

/// The writing end of a ring.
#[derive(Debug)]
pub struct Producer {
    ring: RingMemory,
    /// The position of the next frame. Everything before `published` is visible to the consumer.
    tail: u64,
    published: u64,
    frames: u64,
    /// The consumer's position when this end last loaded it.
    head: u64,
}

impl Producer {
    /// Creates the writing end of the ring that `span` assigns in `region`, both fresh.
    ///
    /// # Panics
    /// If `span` is not a ring, or lies outside the region.
    pub fn new(region: &Region, span: Span) -> Self {
        Self {
            ring: RingMemory::new(region, span),
            tail: 0,
            published: 0,
            frames: 0,
            head: 0,
        }
    }

    /// Returns the bytes of data that the ring holds, headers and padding included.
    pub fn capacity(&self) -> usize {
        self.ring.capacity() as usize * WORD
    }

    /// Returns the largest frame that the ring can ever hold, in bytes.
    #[inline]
    pub fn max_frame(&self) -> usize {
        (self.ring.mask as usize * WORD).min(MAX_LEN)
    }

    /// Returns the bytes of data that are in use, as far as the consumer has reported its position.
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

    /// Writes one frame that stays invisible to the consumer until [`publish`](Self::publish).
    ///
    /// # Errors
    /// If the frame does not fit, or the consumer's position is impossible. Nothing is written then.
    #[inline]
    pub fn stage(&mut self, frame: &[u8]) -> Result<(), PushError> {
        self.stage_parts(&[frame])
    }

    /// Like [`stage`](Self::stage), for a frame that is given in parts.
    ///
    /// # Errors
    /// As [`stage`](Self::stage).
    #[inline]
    pub fn stage_parts(&mut self, parts: &[&[u8]]) -> Result<(), PushError> {
        let len: usize = parts.iter().map(|p| p.len()).sum();
        if len > self.max_frame() {
            return Err(PushError::TooLarge {
                len,
                max: self.max_frame(),
            });
        }
        let joined = (len <= SHORT).then(|| join(parts));
        let short = joined.and_then(|bytes| short_frame(bytes, len));
        let words = match short {
            Some(_) => 1,
            None => frame_words(len),
        };
        let capacity = self.ring.capacity();
        if self.tail + words as u64 - self.head > capacity {
            self.used()?;
            if self.tail + words as u64 - self.head > capacity {
                return Err(PushError::Full);
            }
        }
        if let Some(word) = short {
            self.ring
                .word(self.ring.index(self.tail))
                .store(word, Ordering::Relaxed);
        } else if let Some(bytes) = joined {
            let all = std::iter::once(header(len)).chain(split(bytes));
            for (position, word) in (self.tail..self.tail + words as u64).zip(all) {
                self.ring
                    .word(self.ring.index(position))
                    .store(word, Ordering::Relaxed);
            }
        } else if len <= MEDIUM {
            let mut bytes = [0; MEDIUM];
            let mut rest = &mut bytes[..];
            for part in parts {
                let (to, behind) = rest.split_at_mut(part.len());
                to.copy_from_slice(part);
                rest = behind;
            }
            let data = bytes.as_chunks().0.iter().map(|chunk| u64::from_ne_bytes(*chunk));
            let all = std::iter::once(header(len)).chain(data.take(words - 1));
            for (position, word) in (self.tail..).zip(all) {
                self.ring
                    .word(self.ring.index(position))
                    .store(word, Ordering::Relaxed);
            }
        } else {
            self.ring.data(self.tail, words).write(header(len), parts);
        }
        self.tail += words as u64;
        self.frames += 1;
        Ok(())
    }

    /// Like [`stage`](Self::stage), for a frame that is the byte `first` and `rest`. It costs less than the same in two parts, if the frame
    /// is one word.
    ///
    /// # Errors
    /// As [`stage`](Self::stage).
    #[inline]
    pub fn stage_tagged(&mut self, first: u8, rest: &[u8]) -> Result<(), PushError> {
        let len = 1 + rest.len();
        if len <= SHORT
            && let Some(word) = short_frame(tagged(first, rest), len)
            && self.tail - self.head < self.ring.capacity()
        {
            self.ring
                .word(self.ring.index(self.tail))
                .store(word, Ordering::Relaxed);
            self.tail += 1;
            self.frames += 1;
            return Ok(());
        }
        self.stage_parts(&[&[first], rest])
    }

    /// Stages frames one after the other, which costs less than a call of [`stage`](Self::stage) for each.
    ///
    /// Returns how many were staged, and the error of the next one.
    #[inline]
    pub fn stage_all<'f>(
        &mut self,
        mut frames: impl Iterator<Item = &'f [u8]>,
    ) -> (usize, Result<(), PushError>) {
        let mut staged = 0;
        loop {
            let words = self.ring.words();
            let end = self.head + self.ring.capacity();
            // In registers: a field would be stored and loaded for each frame.
            let mut tail = self.tail;
            let mut count = 0;
            let other = frames.by_ref().find(|frame| {
                let len = frame.len();
                let short = match len <= SHORT {
                    true => short_frame(join(&[frame]), len),
                    false => None,
                };
                let store = |position, word| words[self.ring.index(position)].store(word, Ordering::Relaxed);
                let taken = if let Some(word) = short {
                    if tail == end {
                        return true;
                    }
                    store(tail, word);
                    1
                } else if let Some(data) = medium_words(frame) {
                    let taken = frame_words(len) as u64;
                    if end - tail < taken {
                        return true;
                    }
                    store(tail, header(len));
                    for (position, word) in (tail + 1..tail + taken).zip(data) {
                        store(position, word);
                    }
                    taken
                } else {
                    return true;
                };
                tail += taken;
                count += 1;
                false
            });
            self.tail = tail;
            self.frames += count;
            staged += count as usize;
            let Some(frame) = other else {
                return (staged, Ok(()));
            };
            match self.stage(frame) {
                Ok(()) => staged += 1,
                Err(e) => return (staged, Err(e)),
            }
        }
    }

    /// Makes every staged frame visible to the consumer, and returns whether the consumer has to be woken.
    #[inline]
    pub fn publish(&mut self) -> Wakeup {
        self.publish_quietly();
        self.ring.wakeup(DATA_MARK, self.frames)
    }

    /// Makes every staged frame visible to a consumer that never sleeps on this ring.
    #[inline]
    pub fn publish_quietly(&mut self) {
        if self.published != self.tail {
            self.ring.word(TAIL).store(self.tail, Ordering::Release);
            // After the position: a consumer that sees this count finds the frames.
            self.ring.word(FRAMES).store(self.frames, Ordering::Release);
            self.published = self.tail;
        }
    }

    /// Returns whether the consumer has to be woken for frames that were published [quietly](Self::publish_quietly). The caller has
    /// executed a sequentially consistent fence since: it pairs with the one in [`Consumer::arm`](super::Consumer::arm), as that of
    /// [`publish`](Self::publish) does. So one fence may serve several purposes.
    #[inline]
    pub fn wakeup_after_fence(&mut self) -> Wakeup {
        self.ring.clear_reached(DATA_MARK, self.frames)
    }

    /// Stages and publishes one frame for a consumer that never sleeps on this ring.
    ///
    /// # Errors
    /// As [`stage`](Self::stage).
    pub fn push(&mut self, frame: &[u8]) -> Result<(), PushError> {
        self.stage(frame)?;
        self.publish_quietly();
        Ok(())
    }

    /// Returns the number of frames that were staged or published since the ring was created.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Publishes every staged frame and declares that this end is about to sleep until a frame of `frame_bytes` bytes fits.
    /// Returns whether it may sleep, and whether the consumer has to be woken before.
    ///
    /// The consumer frees no space of frames that it can't see, so nothing stays staged. If this end has to sleep, a consumer
    /// that sleeps is woken however many frames it waits for: there is no space for more.
    ///
    /// ```
    /// use shm_buffers::ring::{self, Arm, Wakeup};
    ///
    /// let (mut tx, mut rx) = ring::in_process(64);
    /// assert_eq!(rx.arm(1).own, Arm::Sleep);
    /// while tx.stage(b"a frame").is_ok() {}
    /// let armed = tx.arm(7)?;
    /// // This end may sleep, but wakes the consumer first.
    /// assert_eq!((armed.own, armed.peer), (Arm::Sleep, Wakeup::Needed));
    /// # Ok::<(), ring::PushError>(())
    /// ```
    ///
    /// # Errors
    /// [`PushError::TooLarge`] if such a frame never fits. Nothing is published then.
    pub fn arm(&mut self, frame_bytes: usize) -> Result<Armed, PushError> {
        if frame_bytes > self.max_frame() {
            return Err(PushError::TooLarge {
                len: frame_bytes,
                max: self.max_frame(),
            });
        }
        self.publish_quietly();
        let end = self.tail + frame_words(frame_bytes) as u64;
        let target = end.saturating_sub(self.ring.capacity());
        self.ring.declare(SPACE_MARK, target);
        let is_full = self.ring.word(HEAD).load(Ordering::Acquire) < target;
        Ok(match is_full {
            true => Armed {
                own: Arm::Sleep,
                peer: self.ring.clear_reached(DATA_MARK, u64::MAX),
            },
            false => Armed {
                own: self.ring.disarm(SPACE_MARK),
                peer: self.ring.clear_reached(DATA_MARK, self.frames),
            },
        })
    }

    /// Takes back the declaration of [`arm`](Self::arm). Returns [`Arm::WakeupPending`] if the consumer has seen it.
    pub fn disarm(&mut self) -> Arm {
        self.ring.disarm(SPACE_MARK)
    }
}
