//! The reader's side of one writer.

use std::sync::Arc;

use shm_buffers::slots::Slots;

use super::counts::Counts;
use super::sample::SourceId;
use super::shared::SharedBar;
use super::slots::WriterState;

/// The place of one writer in its bar.
#[derive(Debug)]
pub(super) struct Registration {
    bar: Arc<SharedBar>,
    id: SourceId,
}

impl Registration {
    pub(super) fn new(bar: &Arc<SharedBar>, id: SourceId) -> Self {
        Self {
            bar: Arc::clone(bar),
            id,
        }
    }

    /// Removes the writer: the bar keeps `counts`, or the writer's current counts.
    pub(super) fn retire(&self, counts: Option<Counts>) {
        self.bar.inner().writers.retire(self.id, counts);
    }

    /// Removes the writer of `slots`, of which no other code has a copy: the bar keeps its counts, and its slots for
    /// the next writer.
    pub(super) fn recycle(&self, slots: &Slots) {
        self.bar.inner().writers.recycle(self.id, slots);
    }
}

/// One writer of a [`Bar`](crate::Bar), as the process with the bar sees it.
///
/// [`retire`](Self::retire) it when the writer has ended. Dropping the source without that detaches the writer, as
/// dropping a [`JoinHandle`](std::thread::JoinHandle) detaches a thread: the bar still counts the writer, and retires
/// it after its [`Counters`](crate::Counters) are dropped. After that, the bar ignores new counters in the same slots. The bar keeps the memory of a detached writer whose counters are never dropped (of a process
/// that was killed, or of a [handle](crate::CountersHandle) that no worker connected) until the bar itself is dropped.
///
/// ```
/// use progress::{Bar, Counters, Outcome, Total};
/// let bar = Bar::new("recommend", Total::Known(10));
/// let counters = Counters::in_process();
/// drop(bar.add_source(counters.slots()));
/// counters.counter(Outcome::Done).add(4);
/// drop(counters);
/// assert_eq!(bar.counts().done, 4);
/// ```
#[derive(Debug)]
pub struct Source {
    registration: Registration,
    /// The slots of a handle, which refuses to connect after the source is retired.
    remote: Option<Slots>,
}

impl Source {
    pub(super) fn new(registration: Registration, remote: Option<Slots>) -> Self {
        Self { registration, remote }
    }

    /// Returns the current counts of this writer.
    pub fn counts(&self) -> Counts {
        let inner = self.registration.bar.inner();
        let slots = inner.writers.slots(self.registration.id);
        slots.map_or_else(Counts::default, Counts::read)
    }

    /// Sets the text after the numbers in the line of a [labeled](crate::Bar::add_labeled_source) source. Has no effect
    /// on other sources.
    pub fn set_message(&self, message: impl Into<String>) {
        let mut inner = self.registration.bar.inner();
        if let Some(line) = inner.writers.line_mut(self.registration.id) {
            line.message = message.into();
        }
    }

    /// Removes the writer: the bar keeps its current counts and drops its slots. The bar ignores later counts of
    /// the writer, and a [handle](crate::CountersHandle) that was not connected yet connects no more.
    pub fn retire(self) {
        self.remove(None);
    }

    /// Removes the writer as [`retire`](Self::retire) does, but the bar keeps `counts` in place of what the writer
    /// counted. For a supervisor that knows which tasks of a dead worker will be done again.
    pub fn retire_with(self, counts: Counts) {
        self.remove(Some(counts));
    }

    fn remove(&self, counts: Option<Counts>) {
        if let Some(slots) = &self.remote {
            WriterState::retire(slots);
        }
        self.registration.retire(counts);
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.registration.bar.inner().writers.detach(self.registration.id);
    }
}
