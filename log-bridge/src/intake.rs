//! Taking records out of a worker's ring. Nothing here calls the code of others, so it never waits for a subscriber:
//! a worker's last records can be read while the subscriber is busy with its first ones.

use std::collections::VecDeque;

use shm_buffers::ring::{Consumer, Corrupt};

use crate::known::KnownSites;
use crate::replay;
use crate::wire::{DecodeError, Frame, KIND_EVENT};

/// Records that are taken at a time, and about how many bytes of them.
const BATCH: usize = 64;
const BATCH_BYTES: usize = 256 << 10;
/// Records that a source may leave behind: more than any ring holds, so that a live worker can't keep us here.
const MOST_AT_END: usize = 1 << 22;

/// Why a source's stream was given up.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The ring itself is corrupt.
    #[error(transparent)]
    Ring(#[from] Corrupt),
    /// A record in it is.
    #[error(transparent)]
    Record(#[from] DecodeError),
}

/// Whether a record that was decoded before is one of an event.
fn is_event(frame: &[u8]) -> bool {
    frame.get(1) == Some(&KIND_EVENT)
}

/// The reading end of one worker's ring.
#[derive(Debug)]
pub(crate) struct Intake {
    consumer: Consumer,
    sites: KnownSites,
    /// The last records that were taken.
    last: VecDeque<Vec<u8>>,
    keep: usize,
    /// Records from the ring of a source that has ended, not replayed yet.
    rest: VecDeque<Vec<u8>>,
    state: State,
    error: Option<SourceError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Its worker writes no more, and the ring was emptied.
    Ended,
}

/// Records on their way from a ring to a subscriber; the buffers are used again.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    frames: Vec<Vec<u8>>,
    len: usize,
    next: usize,
}

impl Batch {
    /// The next record, to be given back.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<Vec<u8>> {
        (self.next < self.len).then(|| std::mem::take(&mut self.frames[self.next]))
    }

    /// Takes back the buffer of the last record.
    #[inline]
    pub(crate) fn done(&mut self, frame: Vec<u8>) {
        self.frames[self.next] = frame;
        self.next += 1;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.next == self.len
    }

    fn buffer(&mut self) -> &mut Vec<u8> {
        if self.frames.len() == self.len {
            self.frames.push(Vec::new());
        }
        &mut self.frames[self.len]
    }
}

impl Intake {
    pub(crate) fn new(consumer: Consumer, keep: usize) -> Self {
        Self {
            consumer,
            sites: KnownSites::default(),
            last: VecDeque::with_capacity(keep),
            keep,
            rest: VecDeque::new(),
            state: State::Open,
            error: None,
        }
    }

    pub(crate) fn sites(&self) -> &KnownSites {
        &self.sites
    }

    pub(crate) fn error(&self) -> Option<&SourceError> {
        self.error.as_ref()
    }

    /// Ends the stream because of an error.
    pub(crate) fn fail(&mut self, error: SourceError) {
        self.error.get_or_insert(error);
        self.rest.clear();
    }

    /// Whether there is nothing to take.
    pub(crate) fn is_dry(&mut self) -> bool {
        self.rest.is_empty() && (self.is_over() || matches!(self.consumer.is_empty(), Ok(true)))
    }

    /// Whether nothing will come out of the ring any more.
    pub(crate) fn is_over(&self) -> bool {
        self.error.is_some() || self.state == State::Ended
    }

    /// Whether the worker was said to write no more.
    pub(crate) fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Fills a batch that is empty.
    pub(crate) fn fill(&mut self, batch: &mut Batch) {
        batch.len = 0;
        batch.next = 0;
        let mut bytes = 0;
        // Those of the rest were remembered when they were taken.
        let mut fresh = 0;
        while batch.len < BATCH && bytes < BATCH_BYTES {
            let nth = batch.len;
            let frame = batch.buffer();
            if let Some(rest) = self.rest.pop_front() {
                *frame = rest;
                fresh = nth + 1;
            } else if self.is_over() {
                break;
            } else {
                match self.pop(frame) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        self.fail(error);
                        break;
                    }
                }
            }
            bytes += frame.len();
            batch.len += 1;
        }
        let events = || {
            batch.frames[fresh..batch.len]
                .iter()
                .filter(|frame| is_event(frame))
        };
        let before_last = events().count().saturating_sub(self.keep);
        events().skip(before_last).for_each(|frame| self.remember(frame));
    }

    /// Takes the next record out of the ring.
    fn pop(&mut self, frame: &mut Vec<u8>) -> Result<bool, SourceError> {
        frame.clear();
        if self.consumer.pop(frame)?.is_none() {
            return Ok(false);
        }
        let record = Frame::decode(frame).map_err(DecodeError::from)?;
        if let Frame::Event(record) = record {
            self.sites.learn(&record).map_err(DecodeError::from)?;
        }
        Ok(true)
    }

    fn remember(&mut self, frame: &[u8]) {
        if self.keep == 0 {
            return;
        }
        let mut kept = match self.last.len() < self.keep {
            true => Vec::new(),
            false => self.last.pop_front().unwrap_or_default(),
        };
        kept.clear();
        kept.extend_from_slice(frame);
        self.last.push_back(kept);
    }

    /// Empties the ring of a worker that writes no more, for later. Records that it writes after this are lost.
    pub(crate) fn end(&mut self) {
        let mut taken = 0;
        while !self.is_over() && taken < MOST_AT_END {
            let mut frame = Vec::new();
            match self.pop(&mut frame) {
                Ok(true) => {
                    if is_event(&frame) {
                        self.remember(&frame);
                    }
                    self.rest.push_back(frame);
                }
                Ok(false) => break,
                Err(error) => self.error = Some(error),
            }
            taken += 1;
        }
        self.state = State::Ended;
    }

    /// The last records, oldest first, one line each.
    pub(crate) fn lines(&self) -> Vec<String> {
        let lines = self.last.iter().map(|frame| replay::line(frame, &self.sites));
        lines.flatten().collect()
    }
}

shm_buffers::debug_with_causes!(SourceError);
