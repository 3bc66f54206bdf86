//! Builds a worker's layer, and installs it as the process's default subscriber.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use shm_buffers::RegionHandle;
use shm_buffers::ring::Producer;
use shm_buffers::slots::Slots;
use tracing_subscriber::layer::SubscriberExt;

use super::callsites::CallsiteTable;
use super::guard::WorkerGuard;
use super::layer::WorkerLayer;
use super::leader_watch::LeaderWatch;
use super::rate_limit::RateLimit;
use super::ring_writer::{Overflow, RingWriter};
use super::shared::Shared;
use crate::filter::Filter;
use crate::wire::counters::{Counters, SLOTS};
use crate::wire::limits::MAX_FRAME;
use crate::wire::link::Link;
use crate::wire::shared_memory::MIN_RING;

const DEFAULT_RECORD: usize = 16 * 1024;
const MIN_RECORD: usize = 256;
const DEFAULT_REFRESH: Duration = Duration::from_millis(100);

/// Configures a [`WorkerLayer`].
#[derive(Debug)]
#[must_use]
pub struct WorkerLayerBuilder {
    producer: Producer,
    slots: Slots,
    filter: Filter,
    overflow: Overflow,
    rate_limit: Option<RateLimit>,
    max_record: usize,
    refresh_interval: Duration,
    region: Option<RegionHandle>,
}

/// Why a layer cannot be built.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// The slots cannot hold the counters.
    TooFewSlots {
        /// The number of slots.
        given: usize,
    },
    /// The ring cannot hold a few records.
    RingTooSmall {
        /// The bytes that the ring holds.
        capacity: usize,
    },
}

/// Why a layer did not become the process's default subscriber.
#[non_exhaustive]
pub enum InstallError {
    /// The layer cannot be built.
    Build(BuildError),
    /// Another subscriber is the default already.
    Subscriber(tracing::subscriber::SetGlobalDefaultError),
    /// The system cannot start another thread.
    Thread(io::Error),
    /// Another logger is set already.
    #[cfg(feature = "log")]
    Logger(tracing_log::log::SetLoggerError),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooFewSlots { given } => {
                write!(f, "cannot count log events in {given} slots: {SLOTS} are needed")
            }
            Self::RingTooSmall { capacity } => write!(
                f,
                "cannot log into a ring of {capacity} bytes: at least {MIN_RING} are needed"
            ),
        }
    }
}

impl Error for BuildError {}

impl From<BuildError> for InstallError {
    fn from(error: BuildError) -> Self {
        Self::Build(error)
    }
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Build(error) => error.fmt(f),
            Self::Subscriber(_) => f.write_str(
                "cannot log through the bridge: a global tracing subscriber is already set in this worker",
            ),
            Self::Thread(_) => f.write_str("cannot start the thread that refreshes the log filter"),
            #[cfg(feature = "log")]
            Self::Logger(_) => f.write_str(
                "cannot log through the bridge: a logger for the log crate is already set in this worker",
            ),
        }
    }
}

impl Error for InstallError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Build(_) => None,
            Self::Subscriber(error) => Some(error),
            Self::Thread(error) => Some(error),
            #[cfg(feature = "log")]
            Self::Logger(error) => Some(error),
        }
    }
}

impl WorkerLayer {
    /// Returns a builder for a layer that writes into `producer` and counts in the first [`SLOTS`] of `slots`. Neither may
    /// have been used before.
    ///
    /// This is for a ring and slots that come from elsewhere; a worker that has a [`SourceHandle`](crate::SourceHandle)
    /// [connects](crate::SourceHandle::connect) instead.
    ///
    /// ```
    /// use log_bridge::{Collector, SLOTS, Slots, Source, WorkerLayer, ring};
    ///
    /// let (producer, consumer) = ring::in_process(64 * 1024);
    /// let slots = Slots::in_process(SLOTS);
    /// let layer = WorkerLayer::builder(producer, slots.clone()).build()?;
    /// let mut collector = Collector::new();
    /// collector.add(Source::new(3), consumer, slots)?;
    /// # drop(layer);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder(producer: Producer, slots: Slots) -> WorkerLayerBuilder {
        WorkerLayerBuilder {
            producer,
            slots,
            filter: Filter::default(),
            overflow: Overflow::default(),
            rate_limit: None,
            max_record: DEFAULT_RECORD,
            refresh_interval: DEFAULT_REFRESH,
            region: None,
        }
    }
}

impl WorkerLayerBuilder {
    /// Sets the memory of the leader that the ring is in.
    pub(super) fn connected(mut self, region: RegionHandle) -> Self {
        self.region = Some(region);
        self
    }

    /// Sets which events are sent; default: everything up to INFO.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// Sets what happens when the ring is full; default: [`Overflow::DropNewest`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Limits how many events one callsite may emit; default: no limit. Records of the `log` crate, and callsites beyond
    /// the 4096th, are not limited.
    pub fn rate_limit(mut self, limit: RateLimit) -> Self {
        self.rate_limit = Some(limit);
        self
    }

    /// Sets how often the thread of [`install`](Self::install) checks for a new filter from the leader; default: 100 ms.
    pub fn refresh_interval(mut self, interval: Duration) -> Self {
        self.refresh_interval = interval;
        self
    }

    /// Sets how many bytes one record may have; default: 16 KiB. The value is raised to 256 bytes, then lowered to 64 KiB
    /// and to a quarter of the ring.
    pub fn max_record(mut self, bytes: usize) -> Self {
        self.max_record = bytes;
        self
    }

    /// Builds the layer.
    ///
    /// # Errors
    /// If there are fewer than [`SLOTS`] slots, or the ring holds less than 1024 bytes.
    pub fn build(self) -> Result<WorkerLayer, BuildError> {
        let capacity = self.producer.capacity();
        if capacity < MIN_RING {
            return Err(BuildError::RingTooSmall { capacity });
        }
        let given = self.slots.len();
        let counters = Counters::new(&self.slots).zip(Link::new(&self.slots));
        let (counters, link) = counters.ok_or(BuildError::TooFewSlots { given })?;
        let leader = LeaderWatch::new(link, self.region);
        let writer = RingWriter::new(self.producer, counters, self.overflow);
        Ok(WorkerLayer {
            shared: Arc::new(Shared::new(writer, leader, self.filter)),
            slots: self.slots,
            callsites: CallsiteTable::new(),
            overflow: self.overflow,
            rate_limit: self.rate_limit,
            max_record: self.max_record.clamp(MIN_RECORD, MAX_FRAME).min(capacity / 4),
        })
    }

    /// Builds the layer and makes it, above a registry, the default subscriber of this process. With the feature `log` it
    /// receives the records of the `log` crate, too. A thread applies the filters that the leader sets later.
    ///
    /// A worker calls it once, early, and keeps the guard until it ends.
    ///
    /// # Errors
    /// If the layer cannot be built, the thread cannot be started, or the process has a default subscriber or a logger
    /// already.
    pub fn install(self) -> Result<WorkerGuard, InstallError> {
        let interval = self.refresh_interval;
        let layer = self.build()?;
        let watch = layer.filter_watch();
        let guard = layer.guard();
        #[cfg(feature = "log")]
        let watch = watch.with_log();
        #[cfg(feature = "log")]
        let max_level = layer
            .shared
            .with_filter(|filter| tracing_log::AsLog::as_log(&filter.max_event_level()));
        watch.spawn(interval).map_err(InstallError::Thread)?;
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))
            .map_err(InstallError::Subscriber)?;
        #[cfg(feature = "log")]
        tracing_log::LogTracer::builder()
            .with_max_level(max_level)
            .init()
            .map_err(InstallError::Logger)?;
        Ok(guard)
    }
}

shm_buffers::debug_with_causes!(BuildError, InstallError);

#[cfg(test)]
mod tests {
    use super::*;
    use shm_buffers::ring;
    use tracing_core::LevelFilter;

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
    fn too_small_rings_and_slots_are_errors_and_records_are_clamped() {
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
