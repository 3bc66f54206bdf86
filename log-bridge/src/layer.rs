//! The worker's layer: every wanted event becomes a record in the ring.

use std::io;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use shm_buffers::ring::Producer;
use shm_buffers::slots::Slots;
use tracing_core::{Event, Interest, LevelFilter, Metadata, Subscriber, span};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::encode::{Batch, EncodedSpan, Go, Origin, SCRATCH, Scratch};
use crate::filter::Filter;
use crate::numbers::{Numbers, RateLimit, key_of};
use crate::outlet::{Outlet, Overflow};
use crate::tally::{Counters, SLOTS};
use crate::watch::Watch;
use crate::wire::{MAX_FRAME, level_index};

const MIN_RING: usize = 1024;
const DEFAULT_RECORD: usize = 16 * 1024;
const MIN_RECORD: usize = 256;
const DEFAULT_WATCH: Duration = Duration::from_millis(100);

/// A [`tracing_subscriber::Layer`] that writes events, and the spans that they are in, into a ring.
///
/// It never blocks, and it holds no lock while it formats a value: a `Debug` that logs loses its own events
/// (counted), nothing else. It is meant to be a worker's only layer above the registry: what its [`Filter`]
/// refuses is refused for the whole subscriber, which is what makes it cost a level check only.
///
/// A value that would make its record larger than [`max_record`](WorkerLayerBuilder::max_record) is shortened,
/// marked and counted; so are the outermost spans left out then.
pub struct WorkerLayer {
    shared: Arc<Shared>,
    slots: Slots,
    numbers: Numbers,
    overflow: Overflow,
    rate_limit: Option<RateLimit>,
    max_record: usize,
}

/// The state that the layer shares with its [`Watch`] and its [`WorkerGuard`].
pub(crate) struct Shared {
    pub(crate) outlet: Outlet,
    /// Read only where `tracing` caches the answer, or by who asks `enabled!`.
    pub(crate) filter: RwLock<Filter>,
}

impl Shared {
    fn with_filter<T>(&self, read: impl FnOnce(&Filter) -> T) -> T {
        read(&self.filter.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Settings of a [`WorkerLayer`].
#[derive(Debug)]
#[must_use]
pub struct WorkerLayerBuilder {
    producer: Producer,
    slots: Slots,
    filter: Filter,
    overflow: Overflow,
    rate_limit: Option<RateLimit>,
    max_record: usize,
    watch: Duration,
}

/// Why there is no layer.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
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
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// It could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Somebody else was faster.
    #[error("a global tracing subscriber is already set in this worker")]
    Subscriber(#[from] tracing::subscriber::SetGlobalDefaultError),
    /// The system has no thread left for [`WorkerLayerBuilder::watch_every`].
    #[error("cannot start the thread that watches for another log filter")]
    Thread(#[source] io::Error),
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
            rate_limit: None,
            max_record: DEFAULT_RECORD,
            watch: DEFAULT_WATCH,
        }
    }

    /// By which the layer learns that the leader has [set another filter](crate::Collector::set_filter). To be taken
    /// before the layer is put into a subscriber; [`install`](WorkerLayerBuilder::install) takes care of it itself.
    pub fn watch(&self) -> Watch {
        Watch::new(&self.shared, &self.slots)
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

    /// How many events one callsite may emit; default: any number. Records of the `log` crate, and callsites beyond the
    /// 4096th, are not limited.
    pub fn rate_limit(mut self, limit: RateLimit) -> Self {
        self.rate_limit = Some(limit);
        self
    }

    /// How often [`install`](Self::install)'s thread looks whether the leader has set another filter; default: 100 ms.
    pub fn watch_every(mut self, interval: Duration) -> Self {
        self.watch = interval;
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
        let counters = Counters::new(&self.slots).ok_or(BuildError::TooFewSlots { given })?;
        Ok(WorkerLayer {
            shared: Arc::new(Shared {
                outlet: Outlet::new(self.producer, counters, self.overflow),
                filter: RwLock::new(self.filter),
            }),
            slots: self.slots,
            numbers: Numbers::new(),
            overflow: self.overflow,
            rate_limit: self.rate_limit,
            max_record: self.max_record.clamp(MIN_RECORD, MAX_FRAME).min(capacity / 4),
        })
    }

    /// Makes the layer, above a registry, the default subscriber of this process; with the feature `log` it gets
    /// the records of the `log` crate, too. A thread watches for another filter. To be called once, early in a worker, which
    /// keeps the guard until it ends.
    ///
    /// # Errors
    /// If it can't be built, there is no thread, or the process has a default already.
    pub fn install(self) -> Result<WorkerGuard, InstallError> {
        let interval = self.watch;
        let layer = self.build()?;
        let watch = layer.watch();
        let guard = WorkerGuard {
            shared: Arc::downgrade(&layer.shared),
        };
        #[cfg(feature = "log")]
        let watch = watch.with_log();
        #[cfg(feature = "log")]
        let max_level = layer
            .shared
            .with_filter(|filter| tracing_log::AsLog::as_log(&filter.max_event_level()));
        watch.spawn(interval).map_err(InstallError::Thread)?;
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))?;
        #[cfg(feature = "log")]
        tracing_log::LogTracer::builder()
            .with_max_level(max_level)
            .init()?;
        Ok(guard)
    }
}

/// Writes into the ring what an [installed](WorkerLayerBuilder::install) layer has held back, when it is dropped: the
/// summaries of [`Overflow::Batch`]. A default subscriber is never dropped, so a worker that ends right after a flood
/// would lose them. Events themselves need no flush.
#[must_use = "a worker keeps it until it ends"]
pub struct WorkerGuard {
    shared: Weak<Shared>,
}

impl WorkerGuard {
    /// Writes now, for a worker that is about to exit without dropping the guard. Never blocks: a ring without room for all
    /// summaries takes some.
    pub fn flush(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.outlet.flush();
        }
    }
}

impl std::fmt::Debug for WorkerGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerGuard").finish_non_exhaustive()
    }
}

impl Drop for WorkerGuard {
    fn drop(&mut self) {
        self.flush();
    }
}

impl std::fmt::Debug for WorkerLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerLayer")
            .field(
                "filter",
                &*self.shared.filter.read().unwrap_or_else(PoisonError::into_inner),
            )
            .field("max_record", &self.max_record)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for WorkerLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        match self.shared.with_filter(|filter| filter.enabled(metadata)) {
            true => Interest::always(),
            false => Interest::never(),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.shared.with_filter(|filter| filter.enabled(metadata))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.shared.with_filter(Filter::max_level))
    }

    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        // Values are formatted before the span's extensions are locked: a `Debug` may log.
        let first = self.read(|scratch| scratch.attributes(attributes, self.span_room()));
        let first = first.unwrap_or_else(Batch::unreadable);
        let encoded = EncodedSpan::new(&self.numbers, attributes.metadata(), first);
        if let (Some(span), Some(encoded)) = (context.span(id), encoded) {
            span.extensions_mut().replace(encoded);
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        let later = self.read(|scratch| scratch.later(values, self.span_room()));
        if let Some(span) = context.span(id)
            && let Some(encoded) = span.extensions_mut().get_mut::<EncodedSpan>()
        {
            encoded.record(later.unwrap_or_else(Batch::unreadable), self.span_room());
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let level = level_index(*metadata.level());
        let outlet = &self.shared.outlet;
        let normalized = normalized(event);
        let key = match &normalized {
            Some(metadata) if self.overflow == Overflow::Batch => key_of_log(metadata),
            _ => key_of(metadata) as u64,
        };
        if outlet.refuses(level, key) {
            return;
        }
        let origin = Origin {
            numbers: &self.numbers,
            limit: self.rate_limit,
            now: now(),
            max: self.max_record,
        };
        let each_span = |each: &mut dyn FnMut(&EncodedSpan) -> Go| {
            for span in context.event_scope(event).into_iter().flatten() {
                if let Some(encoded) = span.extensions().get::<EncodedSpan>()
                    && each(encoded) == Go::Stop
                {
                    break;
                }
            }
        };
        let publish = |frame: &[u8]| outlet.offer(level, key, frame);
        let written = SCRATCH.try_with(|scratch| {
            let mut scratch = scratch.try_borrow_mut().ok()?;
            scratch
                .event(event, normalized.as_ref(), &origin, each_span, publish)
                .ok()
        });
        // The thread is ending, or in the midst of another event, or the metadata alone is too large, or there were
        // too many.
        if !matches!(written, Ok(Some(()))) {
            outlet.lose(level);
        }
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs() * 1_000_000_000 + u64::from(since.subsec_nanos())
}

/// The metadata of a record of the `log` crate, which are among its values.
#[cfg(feature = "log")]
#[inline]
fn normalized<'a>(event: &'a Event<'_>) -> Option<Metadata<'a>> {
    // Much faster than to look for the callsite, and hardly ever wrong.
    match event.metadata().name() {
        "log event" => tracing_log::NormalizeEvent::normalized_metadata(event),
        _ => None,
    }
}

#[cfg(not(feature = "log"))]
fn normalized(_: &Event<'_>) -> Option<Metadata<'static>> {
    None
}

/// What tells the callsites of the `log` crate apart.
fn key_of_log(metadata: &Metadata<'_>) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (
        metadata.level(),
        metadata.target(),
        metadata.file(),
        metadata.line(),
    )
        .hash(&mut hasher);
    hasher.finish()
}

shm_buffers::debug_with_causes!(BuildError, InstallError);

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
        assert_eq!(layer.shared.with_filter(Filter::max_level), LevelFilter::INFO);
        assert_eq!(layer.rate_limit, None);
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
