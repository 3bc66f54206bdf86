//! Builds a worker's layer, and installs it as the process's default subscriber.

use std::fmt;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use shm_buffers::ring::Producer;
use shm_buffers::slots::Slots;
use tracing_subscriber::layer::SubscriberExt;

use super::callsites::CallsiteTable;
use super::layer::WorkerLayer;
use super::rate_limit::RateLimit;
use super::ring_writer::{Overflow, RingWriter};
use super::shared::Shared;
use crate::filter::Filter;
use crate::wire::counters::{Counters, SLOTS};
use crate::wire::limits::MAX_FRAME;

const MIN_RING: usize = 1024;
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
}

/// Why a layer cannot be built.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The slots cannot hold the counters.
    #[error("cannot count log events in {given} slots: {SLOTS} are needed")]
    TooFewSlots {
        /// The number of slots.
        given: usize,
    },
    /// The ring cannot hold a few records.
    #[error("cannot log into a ring of {capacity} bytes: at least {MIN_RING} are needed")]
    RingTooSmall {
        /// The bytes that the ring holds.
        capacity: usize,
    },
}

/// Why a layer did not become the process's default subscriber.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// The layer cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Another subscriber is the default already.
    #[error("cannot log through the bridge: a global tracing subscriber is already set in this worker")]
    Subscriber(#[from] tracing::subscriber::SetGlobalDefaultError),
    /// The system cannot start another thread.
    #[error("cannot start the thread that refreshes the log filter")]
    Thread(#[source] io::Error),
    /// Another logger is set already.
    #[cfg(feature = "log")]
    #[error("cannot log through the bridge: a logger for the log crate is already set in this worker")]
    Logger(#[from] tracing_log::log::SetLoggerError),
}

impl WorkerLayer {
    /// Returns a builder for a layer that writes into `producer` and counts in the first [`SLOTS`] of `slots`. Neither may
    /// have been used before.
    pub fn builder(producer: Producer, slots: Slots) -> WorkerLayerBuilder {
        WorkerLayerBuilder {
            producer,
            slots,
            filter: Filter::default(),
            overflow: Overflow::default(),
            rate_limit: None,
            max_record: DEFAULT_RECORD,
            refresh_interval: DEFAULT_REFRESH,
        }
    }
}

impl WorkerLayerBuilder {
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
        let counters = Counters::new(&self.slots).ok_or(BuildError::TooFewSlots { given })?;
        let writer = RingWriter::new(self.producer, counters, self.overflow);
        Ok(WorkerLayer {
            shared: Arc::new(Shared::new(writer, self.filter)),
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

/// Writes the pending summaries of [`Overflow::Collapse`] when it is dropped.
///
/// A default subscriber is never dropped, so a worker that ends right after a flood would lose them. Events themselves
/// need no flush.
#[must_use = "a worker keeps it until it ends"]
pub struct WorkerGuard {
    shared: Weak<Shared>,
}

impl WorkerGuard {
    /// Writes the pending summaries now, for a worker that is about to exit without dropping the guard. It never blocks: if
    /// the ring has no room for all summaries, it writes those that fit.
    pub fn flush(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.writer.flush();
        }
    }
}

impl fmt::Debug for WorkerGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerGuard").finish_non_exhaustive()
    }
}

impl Drop for WorkerGuard {
    fn drop(&mut self) {
        self.flush();
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
