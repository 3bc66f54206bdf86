//! The worker's layer: every wanted event becomes a record in the ring.

use shm_buffers::ring::Producer;
use shm_buffers::slots::Slots;
use tracing_core::{Event, Interest, LevelFilter, Metadata, Subscriber, span};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::encode::{Batch, EncodedSpan, Go, SCRATCH, Scratch};
use crate::filter::Filter;
use crate::outlet::Outlet;
use crate::tally::{Counters, SLOTS};
use crate::wire::{MAX_FRAME, level_index};

const MIN_RING: usize = 1024;
const DEFAULT_RECORD: usize = 16 * 1024;
const MIN_RECORD: usize = 256;

/// What happens to an event when the ring is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// It is dropped and counted.
    #[default]
    DropNewest,
}

/// A [`tracing_subscriber::Layer`] that writes events, and the spans that they are in, into a ring.
///
/// It never blocks, and it holds no lock while it formats a value: a `Debug` that logs loses its own events
/// (counted), nothing else. It is meant to be a worker's only layer above the registry: what its [`Filter`]
/// refuses is refused for the whole subscriber, which is what makes it cost a level check only.
///
/// A value that would make its record larger than [`max_record`](WorkerLayerBuilder::max_record) is shortened,
/// marked and counted; so are the outermost spans left out then.
pub struct WorkerLayer {
    outlet: Outlet,
    filter: Filter,
    max_record: usize,
}

/// Settings of a [`WorkerLayer`].
#[derive(Debug)]
#[must_use]
pub struct WorkerLayerBuilder {
    producer: Producer,
    slots: Slots,
    filter: Filter,
    overflow: Overflow,
    max_record: usize,
}

/// Why there is no layer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The counters have no place.
    #[error("{given} slots given for log counters, {SLOTS} are needed")]
    TooFewSlots {
        /// How many there are.
        given: usize,
    },
    /// The ring can't hold a few records.
    #[error("log ring of {capacity} bytes is too small, {MIN_RING} are needed")]
    RingTooSmall {
        /// Bytes that it holds.
        capacity: usize,
    },
}

/// Why the layer did not become the process's default.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// It could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Somebody else was faster.
    #[error("a global tracing subscriber is already set in this worker")]
    Subscriber(#[from] tracing::subscriber::SetGlobalDefaultError),
    /// Somebody else was faster.
    #[cfg(feature = "log")]
    #[error("a logger for the log crate is already set in this worker")]
    Logger(#[from] tracing_log::log::SetLoggerError),
}

impl WorkerLayer {
    /// A layer that writes into `producer` and counts in the first [`SLOTS`] of `slots`, both fresh.
    pub fn builder(producer: Producer, slots: Slots) -> WorkerLayerBuilder {
        WorkerLayerBuilder {
            producer,
            slots,
            filter: Filter::default(),
            overflow: Overflow::default(),
            max_record: DEFAULT_RECORD,
        }
    }

    /// A quarter of a record for the values of each span.
    fn span_room(&self) -> usize {
        self.max_record / 4
    }

    fn read(&self, read: impl FnOnce(&mut Scratch) -> Batch) -> Option<Batch> {
        SCRATCH
            .try_with(|s| s.try_borrow_mut().ok().map(|mut s| read(&mut s)))
            .ok()
            .flatten()
    }
}

impl WorkerLayerBuilder {
    /// What is sent; default: everything up to INFO.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// What happens when the ring is full; default: [`Overflow::DropNewest`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Bytes of one record at most; default: 16 KiB. It is raised to 256 bytes, and lowered to 64 KiB and to a
    /// quarter of the ring.
    pub fn max_record(mut self, bytes: usize) -> Self {
        self.max_record = bytes;
        self
    }

    /// The layer.
    ///
    /// # Errors
    /// If slots or ring are too small.
    pub fn build(self) -> Result<WorkerLayer, BuildError> {
        let capacity = self.producer.capacity();
        if capacity < MIN_RING {
            return Err(BuildError::RingTooSmall { capacity });
        }
        let given = self.slots.len();
        let counters = Counters::new(self.slots).ok_or(BuildError::TooFewSlots { given })?;
        // Matched so that a policy to come can't be forgotten here.
        match self.overflow {
            Overflow::DropNewest => {}
        }
        Ok(WorkerLayer {
            outlet: Outlet::new(self.producer, counters),
            filter: self.filter,
            max_record: self.max_record.clamp(MIN_RECORD, MAX_FRAME).min(capacity / 4),
        })
    }

    /// Makes the layer, above a registry, the default subscriber of this process; with the feature `log` it gets
    /// the records of the `log` crate, too. To be called once, early in a worker.
    ///
    /// # Errors
    /// If it can't be built, or the process has a default already.
    pub fn install(self) -> Result<(), InstallError> {
        #[cfg(feature = "log")]
        let max_level = tracing_log::AsLog::as_log(&self.filter.max_level());
        let subscriber = tracing_subscriber::registry().with(self.build()?);
        tracing::subscriber::set_global_default(subscriber)?;
        #[cfg(feature = "log")]
        tracing_log::LogTracer::builder()
            .with_max_level(max_level)
            .init()?;
        Ok(())
    }
}

impl std::fmt::Debug for WorkerLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerLayer")
            .field("filter", &self.filter)
            .field("max_record", &self.max_record)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for WorkerLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        match self.filter.enabled(metadata) {
            true => Interest::always(),
            false => Interest::never(),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.filter.enabled(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.filter.max_level())
    }

    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        // Values are formatted before the span's extensions are locked: a `Debug` may log.
        let first = self.read(|scratch| scratch.attributes(attributes, self.span_room()));
        let encoded = EncodedSpan::new(attributes.metadata(), first.unwrap_or_else(Batch::unreadable));
        if let Some(span) = context.span(id) {
            span.extensions_mut().replace(encoded);
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        let later = self.read(|scratch| scratch.later(values, self.span_room()));
        if let Some(span) = context.span(id)
            && let Some(encoded) = span.extensions_mut().get_mut::<EncodedSpan>()
        {
            encoded.record(&later.unwrap_or_else(Batch::unreadable), self.span_room());
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        #[cfg(feature = "log")]
        let normalized = tracing_log::NormalizeEvent::normalized_metadata(event);
        #[cfg(not(feature = "log"))]
        let normalized: Option<Metadata<'_>> = None;

        let level = level_index(*event.metadata().level());
        if self.outlet.refuses(level) {
            return;
        }
        let offered = SCRATCH.try_with(|scratch| {
            let mut scratch = scratch.try_borrow_mut().ok()?;
            let frame = scratch.event(event, normalized.as_ref(), self.max_record, |each| {
                for span in context.event_scope(event).into_iter().flatten() {
                    if let Some(encoded) = span.extensions().get::<EncodedSpan>()
                        && each(encoded) == Go::Stop
                    {
                        break;
                    }
                }
            })?;
            self.outlet.offer(level, frame);
            Some(())
        });
        // The thread is ending, or in the midst of another event, or the metadata alone is too large.
        if !matches!(offered, Ok(Some(()))) {
            self.outlet.lose(level);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shm_buffers::ring;

    #[test]
    fn defaults_are_as_documented() {
        let (producer, _) = ring::in_process(1 << 20);
        let layer = WorkerLayer::builder(producer, Slots::in_process(SLOTS))
            .build()
            .unwrap();
        assert_eq!(layer.filter.max_level(), LevelFilter::INFO);
        assert_eq!(layer.max_record, 16 * 1024);
        assert_eq!(Overflow::default(), Overflow::DropNewest);
    }

    #[test]
    fn what_is_too_small_is_refused() {
        let build = |ring, slots| {
            let (producer, _) = ring::in_process(ring);
            WorkerLayer::builder(producer, Slots::in_process(slots))
                .max_record(1 << 20)
                .build()
        };
        assert_eq!(
            build(512, SLOTS).unwrap_err(),
            BuildError::RingTooSmall { capacity: 512 }
        );
        assert_eq!(build(1024, 9).unwrap_err(), BuildError::TooFewSlots { given: 9 });
        assert_eq!(build(1024, SLOTS).unwrap().max_record, 256);
        assert_eq!(build(1 << 20, SLOTS).unwrap().max_record, MAX_FRAME);
    }
}
