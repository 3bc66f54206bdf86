//! One source, shared by the collector and its handle.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shm_buffers::ring::Consumer;
use shm_buffers::slots::Slots;

use super::counts::SourceCounts;
use super::reader::{RecordBatch, RecordReader, SourceError};
use crate::filter::update::FilterUpdate;
use crate::wire::counters::Counters;
use crate::wire::link::Link;

/// What collector and handle share of one source. The replay itself belongs to the collector.
#[derive(Debug)]
pub(crate) struct SourceState {
    pub(crate) id: u64,
    pub(crate) counts: SourceCounts,
    pub(crate) reader: Arc<Mutex<RecordReader>>,
    slots: Slots,
    link: Link,
    /// The process that reads the ring. A forked child has a copy of this.
    process: u32,
}

impl SourceState {
    /// Returns the state of a source of which the last `keep` events are kept, or `None` if there are fewer than
    /// [`SLOTS`](crate::SLOTS) slots.
    pub(crate) fn new(id: u64, consumer: Consumer, slots: Slots, keep: usize) -> Option<Self> {
        Some(Self {
            id,
            counts: SourceCounts::new(Counters::new(&slots)?),
            reader: Arc::new(Mutex::new(RecordReader::new(consumer, keep))),
            link: Link::new(&slots)?,
            slots,
            process: std::process::id(),
        })
    }

    fn reader(&self) -> MutexGuard<'_, RecordReader> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills an empty batch with the next records.
    pub(crate) fn fill(&self, batch: &mut RecordBatch) {
        self.reader().fill(batch);
    }

    /// Returns whether no record can be taken now.
    pub(crate) fn is_empty(&self) -> bool {
        self.reader().is_empty()
    }

    /// Abandons the stream because of an error.
    pub(crate) fn fail(&self, error: SourceError) {
        self.reader().fail(error);
    }

    pub(crate) fn error(&self) -> Option<SourceError> {
        self.reader().error().cloned()
    }

    /// Takes all records out of the ring: the worker writes no more.
    pub(crate) fn end(&self) {
        self.reader().end();
        self.close();
    }

    /// Makes workers stop waiting for room in the ring.
    pub(crate) fn close(&self) {
        self.link.close();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.reader().has_ended()
    }

    /// Returns the last events, oldest first, one line each.
    pub(crate) fn last_lines(&self) -> Vec<String> {
        self.reader().last_lines()
    }

    /// Sends the worker another filter. The caller holds the lock of the [`SourceSet`](super::set::SourceSet).
    pub(super) fn send_filter(&self, filter: &FilterUpdate) {
        filter.publish(&self.slots);
    }
}

impl Drop for SourceState {
    fn drop(&mut self) {
        if self.process == std::process::id() {
            self.close();
        }
    }
}
