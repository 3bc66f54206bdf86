//! A bounded, never-blocking bridge for `tracing` events from workers to their leader.
//!
//! A worker's [`WorkerLayer`] writes each event that the leader's [`Filter`] wants into a ring of shared memory;
//! the leader's [`Collector`] replays it into the leader's own subscriber with the original level, target, name,
//! file, line, fields and spans, below a span `worker{id=…}`. So `EnvFilter`, `fmt`, `tracing-appender` and any
//! other layer just work, and what a worker wrote before it was killed still arrives.
//!
//! - *Nothing blocks.* A full ring drops the newest event, or [collapses](Overflow::Batch) it with others of its
//!   callsite. Threads of a worker share the ring behind a lock that is held for a copy only and never waited for longer
//!   than a bounded spin.
//! - *Nothing is lost uncounted.* Per level, emitted = delivered + dropped + waiting at every moment, to the event, also
//!   after SIGKILL: see [`Tally`] for the order of operations that makes it so. Drops are replayed as an event, too.
//! - *No subscriber is trusted to be quick.* Counts and a dead worker's last records are there while it is slow or blocked; a
//!   panic costs the record that caused it; a process may get its subscriber late, or have a logger of `log` only.
//! - *The important survives.* The last quarter of the ring is for WARN and ERROR alone. They are all delivered, whatever
//!   else is emitted, as long as their own records (about 100 bytes each with a few fields) fit into a quarter of the ring
//!   between two drains, and in the long run are fewer bytes than the leader replays. A ring of 1 MiB that is drained
//!   every 25 ms takes 100,000 of them a second, which is more than most subscribers print. Threads that share a ring have
//!   one more bound: a thread that does not get the lock within some 4,000 yields drops even an ERROR, and counts it.
//! - *Nothing is sent twice.* The metadata of a callsite travels inside the first record that reaches the ring, and is a
//!   number from then on. What nobody wants is not sent at all: [`Filter::covering`] pushes an `EnvFilter` down, and
//!   [`Collector::set_filter`] changes it while workers run.
//! - *Nothing is trusted.* A hostile or corrupt stream is a typed error, counted, and ends that source only. What a source
//!   makes the leader keep is bounded: 4,096 callsites and 1 MiB of metadata of events and of spans each, the spans of 16
//!   threads, its last records; of all sources together, 2,048 callsites of events, of spans and of records of `log` each.
//!
//! Beside events of `tracing` and, with the feature `log`, records of `log`, [`log_panics`] turns panics into events, and
//! [`Lines`] what a worker prints. With the feature `setup` there are ready-made subscribers in `setup`.
//!
//! The crate knows rings and slots, not processes: the two ends may as well be threads.
//!
//! ```
//! use log_bridge::{Collector, Filter, SLOTS, Source, WorkerLayer};
//! use shm_buffers::{ring, slots::Slots};
//! use tracing::level_filters::LevelFilter;
//! use tracing_subscriber::prelude::*;
//!
//! let (producer, consumer) = ring::in_process(64 * 1024);
//! let slots = Slots::in_process(SLOTS);
//!
//! // In the worker (there, `.install()` makes it the global default instead):
//! let layer = WorkerLayer::builder(producer, slots.clone())
//!     .filter(Filter::new(LevelFilter::INFO))
//!     .build()?;
//! tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
//!     tracing::info!(user = 7, "recommending");
//!     tracing::debug!("nobody wants this");
//! });
//!
//! // In the leader (by default, into its own subscriber):
//! let leader = tracing::Dispatch::new(tracing_subscriber::fmt().with_writer(std::io::stderr).finish());
//! let mut collector = Collector::new().dispatch(leader);
//! collector.add(Source::new(3), consumer, slots)?;
//! collector.drain();
//! let last = collector.remove(3).unwrap();
//! assert_eq!(last.tally.total().delivered, 1);
//! assert!(last.records[0].ends_with("recommending user=7"), "{:?}", last.records);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(missing_docs)]

mod account;
mod callsites;
mod collector;
mod cover;
mod encode;
mod filter;
mod intake;
mod known;
mod layer;
mod lines;
#[cfg(feature = "log")]
mod logger;
mod newest;
mod numbers;
mod outlet;
mod own;
mod panics;
mod pump;
mod pushed;
mod reader;
mod repeats;
pub mod replay;
#[cfg(feature = "setup")]
pub mod setup;
mod sink;
mod site;
mod source;
mod sources;
mod spans;
mod tally;
mod time;
mod watch;
mod wire;

pub use collector::{AddError, Collector, Departed, Drained, Source};
pub use filter::{Filter, ParseFilterError};
pub use intake::SourceError;
pub use layer::{BuildError, InstallError, WorkerGuard, WorkerLayer, WorkerLayerBuilder};
pub use lines::{Captured, Lines, Stdio};
pub use numbers::RateLimit;
pub use outlet::Overflow;
pub use panics::log_panics;
pub use pump::{CollectorHandle, FlushError, RemoveError, SetFilterError};
pub use pushed::FilterTooLong;

pub use tally::{LevelTally, SLOTS, Tally};
pub use time::EmissionTime;
pub use watch::Watch;
pub use wire::DecodeError;
