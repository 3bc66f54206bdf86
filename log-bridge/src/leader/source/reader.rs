//! Takes records out of a worker's ring. A worker's last records can be read while the subscriber is busy with its first
//! ones.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;

use shm_buffers::ring::{Consumer, Corrupt};

use super::definitions::Definitions;
use super::text;
use crate::wire::error::DecodeError;
use crate::wire::record::{Frame, is_event};

/// Records of a batch.
const BATCH: usize = 64;
/// Bytes of a batch; its last record may exceed them.
const BATCH_BYTES: usize = 256 << 10;
/// Records that are read from the ring of a source that has ended. It is more than any ring holds, so it only stops a
/// worker that is still writing.
const MAX_AT_END: usize = 1 << 22;

/// Why the stream of a source was abandoned.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SourceError {
    /// The ring is corrupt.
    Ring(Corrupt),
    /// A record is malformed.
    Record(DecodeError),
}

impl From<Corrupt> for SourceError {
    fn from(corrupt: Corrupt) -> Self {
        Self::Ring(corrupt)
    }
}

impl From<DecodeError> for SourceError {
    fn from(error: DecodeError) -> Self {
        Self::Record(error)
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(corrupt) => corrupt.fmt(f),
            Self::Record(error) => error.fmt(f),
        }
    }
}

// The messages are those of the variants' errors, which have no causes.
impl Error for SourceError {}

/// The reading end of one worker's ring.
#[derive(Debug)]
pub(crate) struct RecordReader {
    consumer: Consumer,
    definitions: Definitions,
    /// The last events that were taken.
    last: VecDeque<Vec<u8>>,
    /// How many of them are kept.
    keep: usize,
    /// After the source has ended: the records from its ring that are not replayed yet.
    remaining: VecDeque<Vec<u8>>,
    state: State,
    error: Option<SourceError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The worker writes no more, and the ring was emptied.
    Ended,
}

/// Records on their way from a ring to a subscriber. Its buffers are used again.
#[derive(Debug, Default)]
pub(crate) struct RecordBatch {
    frames: Vec<Vec<u8>>,
    len: usize,
    next: usize,
}

impl RecordBatch {
    /// Takes the next record. Its buffer goes back with [`put_back`](Self::put_back) before the next call.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<Vec<u8>> {
        (self.next < self.len).then(|| std::mem::take(&mut self.frames[self.next]))
    }

    /// Puts back the buffer of the record that was taken last.
    #[inline]
    pub(crate) fn put_back(&mut self, frame: Vec<u8>) {
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

impl RecordReader {
    /// Returns a reader that keeps the last `keep` events.
    pub(super) fn new(consumer: Consumer, keep: usize) -> Self {
        Self {
            consumer,
            definitions: Definitions::default(),
            last: VecDeque::with_capacity(keep),
            keep,
            remaining: VecDeque::new(),
            state: State::Open,
            error: None,
        }
    }

    pub(crate) fn definitions(&self) -> &Definitions {
        &self.definitions
    }

    pub(super) fn error(&self) -> Option<&SourceError> {
        self.error.as_ref()
    }

    /// Abandons the stream because of an error.
    pub(super) fn fail(&mut self, error: SourceError) {
        self.error.get_or_insert(error);
        self.remaining.clear();
    }

    /// Returns whether no record can be taken now.
    pub(super) fn is_empty(&mut self) -> bool {
        self.remaining.is_empty() && (self.is_closed() || matches!(self.consumer.is_empty(), Ok(true)))
    }

    /// Returns whether the ring is not read any more.
    fn is_closed(&self) -> bool {
        self.error.is_some() || self.state == State::Ended
    }

    /// Returns whether [`end`](Self::end) was called.
    pub(super) fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Fills an empty batch.
    pub(super) fn fill(&mut self, batch: &mut RecordBatch) {
        batch.len = 0;
        batch.next = 0;
        let mut bytes = 0;
        // The remaining ones were remembered when they were taken.
        let mut first_new = 0;
        while batch.len < BATCH && bytes < BATCH_BYTES {
            let index = batch.len;
            let frame = batch.buffer();
            if let Some(remaining) = self.remaining.pop_front() {
                *frame = remaining;
                first_new = index + 1;
            } else if self.is_closed() {
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
            batch.frames[first_new..batch.len]
                .iter()
                .filter(|frame| is_event(frame))
        };
        let before_last = events().count().saturating_sub(self.keep);
        events().skip(before_last).for_each(|frame| self.remember(frame));
    }

    /// Takes the next record out of the ring; returns `false` if the ring is empty.
    fn pop(&mut self, frame: &mut Vec<u8>) -> Result<bool, SourceError> {
        frame.clear();
        if self.consumer.pop(frame)?.is_none() {
            return Ok(false);
        }
        let record = Frame::decode(frame).map_err(DecodeError::from)?;
        if let Frame::Event(record) = record {
            self.definitions.learn(&record).map_err(DecodeError::from)?;
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

    /// Empties the ring of a worker that writes no more; [`fill`](Self::fill) returns its records later. Records that the
    /// worker writes after this are lost.
    pub(super) fn end(&mut self) {
        let mut taken = 0;
        while !self.is_closed() && taken < MAX_AT_END {
            let mut frame = Vec::new();
            match self.pop(&mut frame) {
                Ok(true) => {
                    if is_event(&frame) {
                        self.remember(&frame);
                    }
                    self.remaining.push_back(frame);
                }
                Ok(false) => break,
                Err(error) => self.error = Some(error),
            }
            taken += 1;
        }
        self.state = State::Ended;
    }

    /// Returns the last events, oldest first, one line each.
    pub(super) fn last_lines(&self) -> Vec<String> {
        let lines = self.last.iter().map(|frame| text::line(frame, &self.definitions));
        lines.flatten().collect()
    }
}

shm_buffers::debug_with_causes!(SourceError);
