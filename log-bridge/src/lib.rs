//! A bounded, never-blocking bridge for `tracing` events from workers to their leader.
//!
//! A worker's [`WorkerLayer`] writes each event that its [`Filter`] lets pass into a ring of shared memory. The leader's
//! [`Collector`] replays it into the leader's own subscriber with the original level, target, name, file, line, fields and
//! spans, below a span `worker{id=…}`. `EnvFilter`, `fmt`, `tracing-appender` and other layers work as usual, and what a
//! worker has written before it is killed still arrives. [`replay`] has a table of what a replayed event keeps.
//!
//! - *Nothing blocks.* If the ring is full, the newest event is dropped, or [collapsed](Overflow::Collapse) into a summary
//!   for its callsite. A lock protects the ring from the worker's other threads; it is held for one copy, and a thread that
//!   does not get it within a bounded number of attempts drops its event.
//! - *Every lost event is counted.* For each level, emitted = delivered + dropped + waiting holds exactly at every moment, also
//!   after a SIGKILL: [`Tally`] explains why. Dropped events are reported by an event, too.
//! - *A slow subscriber does no harm.* Counts and a dead worker's last records are available while the subscriber is slow or
//!   blocked, and its panic costs only the record that it panicked on. A process may set its subscriber late, or have only a
//!   logger of the `log` crate.
//! - *WARN and ERROR have priority.* The last quarter of the ring is reserved for them. They are all delivered, whatever else
//!   is emitted, if their records (about 100 bytes each with a few fields) fit into a quarter of the ring between two drains
//!   and the leader can replay them as fast as they come. With a ring of 1 MiB and a drain every 25 ms that is 100,000 of
//!   them a second, more than most subscribers print. If threads share a ring, one that does not get the lock within some
//!   4,000 yields drops even an ERROR, and counts it.
//! - *Nothing is sent twice.* The metadata of a callsite travels inside the first record that reaches the ring; later records
//!   have a number instead. An event that no subscriber wants is not sent at all: [`Filter::covering`] derives the worker's
//!   filter from the directives of an `EnvFilter`, and [`Collector::set_filter`] changes it while workers run.
//! - *Workers are not trusted.* A corrupt ring or malformed record is a typed error, is counted, and ends only the stream of
//!   that source. The leader's memory is bounded. Per source: 4,096 callsites and 1 MiB of metadata for events, and the same
//!   for spans; the spans of 16 threads; the last records. For all sources together: 2,048 callsites each for events, for
//!   spans and for records of `log`.
//!
//! With the feature `log` (on by default), records of the `log` crate travel, too. [`log_panics`] turns panics into events, and
//! [`LineLogger`] the lines that a worker prints.
//!
//! Between machines there is no ring: a [`relay`] keeps events until a program sends them over a network, bounded and counted, too.
//!
//! The crate does not start processes. The leader [opens](Collector::open) a source and passes its [`SourceHandle`] to the
//! worker in any way: an environment variable, an argument, a pipe, the initial value of a pool. The worker
//! [connects](SourceHandle::connect). The two ends may be threads, and a [`ring`] and [`Slots`] from elsewhere
//! serve as well ([`WorkerLayer::builder`], [`Collector::add`]).
//!
//! ```
//! use log_bridge::{Collector, Filter, LevelFilter, SourceHandle, SourceOptions};
//! use tracing_subscriber::prelude::*;
//!
//! // In the leader. Without `.dispatch(…)`, the collector uses the default subscriber.
//! let leader = tracing::Dispatch::new(tracing_subscriber::fmt().with_writer(std::io::stderr).finish());
//! let mut collector = Collector::new().dispatch(leader);
//! let options = SourceOptions::new().filter(Filter::new(LevelFilter::INFO));
//! let text = collector.open_with(3, options)?.to_string();
//!
//! // In the worker. There, `.install()` instead of `.build()` makes the layer the global default.
//! let layer = text.parse::<SourceHandle>()?.connect()?.build()?;
//! tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
//!     tracing::info!(user = 7, "recommending");
//!     tracing::debug!("rejected by the filter");
//! });
//!
//! // In the leader, again.
//! collector.drain();
//! let removed = collector.remove(3).unwrap();
//! assert_eq!(removed.tally.total().delivered, 1);
//! assert!(removed.last_records[0].ends_with("recommending user=7"), "{:?}", removed.last_records);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(missing_docs)]

// Two programs share this crate: what records, in `worker`, and what replays, in `leader`. They never import each other.
// Imports run in one direction:
//
//     leader   worker
//          \   /
//      source_handle   what the leader passes to the worker
//             |
//          filter      which events a worker sends, and how a running worker gets another filter
//             |
//           wire       the record format, its bounds, and the counters that both sides see
//
// `relay` stands beside them: it has no ring.
//
// Within a folder, the module file says which way imports run.

mod filter;
mod leader;
#[cfg(test)]
mod malformed_records;
pub mod relay;
pub mod replay;
mod source_handle;
#[cfg(test)]
mod test_callsite;
mod wire;
mod worker;

pub use filter::update::FilterTooLong;
pub use filter::{Filter, ParseFilterError};
pub use leader::SourceError;
pub use leader::collector::{AddError, Collector, Drained, RemovedSource, Source};
pub use leader::emission_time::EmissionTime;
pub use leader::handle::{CollectorHandle, FlushError, RemoveError, SetFilterError};
pub use leader::lines::{LineLogger, LineSummary, StdStream};
pub use leader::open::{OpenError, SourceOptions};
pub use leader::tally::{LevelTally, Tally};
pub use source_handle::{ParseSourceHandleError, SourceHandle};
pub use wire::counters::SLOTS;
pub use wire::error::DecodeError;
pub use worker::builder::{BuildError, InstallError, WorkerLayerBuilder};
pub use worker::connect::ConnectError;
pub use worker::filter_watch::FilterWatch;
pub use worker::guard::{WorkerFlushError, WorkerGuard};
pub use worker::layer::WorkerLayer;
pub use worker::panics::log_panics;
pub use worker::rate_limit::RateLimit;
pub use worker::ring_writer::Overflow;

/// Types of other crates in this crate's API, so that a program need not depend on these crates to name them.
#[doc(no_inline)]
pub use {
    shm_buffers::slots::Slots,
    shm_buffers::{AttachError, Backing, CreateError, ring},
    tracing::level_filters::LevelFilter,
    tracing::{Dispatch, Level, Metadata},
};

/// The example of the README is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
