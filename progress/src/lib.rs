//! Progress bars over threads and child processes, with exact counts.
//!
//! A [`Bar`] counts what any thread adds with [`Bar::inc`], and sums the counts of any number of writers. A writer (a worker
//! process, a thread, the leader itself) counts in a few atomic slots that it alone owns: [`Counters`]. A [`Reporter`] samples bars at most ten times a
//! second and shows them as a [`Render`]: bars on a terminal, plain or JSON lines elsewhere, or nothing. Log lines go
//! through a [`BarWriter`], which writes them above the bars.
//!
//! ```
//! use progress::{Outcome, Reporter, Total};
//!
//! let reporter = Reporter::builder().start()?;
//! let bar = reporter.bar("recommend", Total::Known(200));
//! std::thread::scope(|scope| {
//!     for _ in 0..2 {
//!         let counters = bar.counters();
//!         scope.spawn(move || {
//!             let done = counters.counter(Outcome::Done);
//!             (0..100).for_each(|_| done.inc());
//!         });
//!     }
//! });
//! assert_eq!(bar.counts().ended(), 200);
//! reporter.finish(); // recommend: 200/200 (100 %), 46511/s, took 4 ms
//! # Ok::<(), progress::StartError>(())
//! ```
//!
//! The op of a long task reports its progress within the task with [`Counters::step`]. A writer that is added with
//! [`Bar::add_labeled_source`] has a line of its own. Tests compare the drawn text with
//! [`ReporterBuilder::start_in_memory`].
//!
//! Writers in other processes count in shared memory. The leader opens [`Bar::remote_counters`] and sends the handle as
//! text or by serde; the worker [connects](CountersHandle::connect):
//!
//! ```
//! use progress::{Bar, CountersHandle, Outcome, Total};
//!
//! let bar = Bar::new("recommend", Total::Known(3));
//! let (source, handle) = bar.remote_counters()?;
//! let text = handle.to_string(); // for an environment variable of the worker
//!
//! // In the worker:
//! let counters = text.parse::<CountersHandle>()?.connect()?;
//! counters.counter(Outcome::Done).add(3);
//!
//! // In the leader, when the worker has ended:
//! source.retire();
//! assert_eq!(bar.counts().done, 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A pool that has a region for each worker already reserves [`SLOTS`] slots in it instead, and passes them to
//! [`Counters::new`] in the worker and to [`Bar::add_source`] in the leader; [`shm_buffers`] is re-exported for that.
//! This crate knows neither processes nor transports.
//!
//! [indicatif](https://docs.rs/indicatif) draws the bars. Without the default feature `indicatif`, [`Render::Auto`]
//! writes lines everywhere.

mod config;
mod counting;
mod output;
mod render;
mod reporter;
mod time;
mod tty;

pub use config::choices::{Color, ParseColorError, ParseRenderError, Render};
pub use config::disable::disable_drawing;
pub use counting::bar::Bar;
pub use counting::counters::{Counter, Counters};
pub use counting::counts::{Counts, Outcome};
pub use counting::handle::{ConnectError, CountersHandle, ParseCountersHandleError};
pub use counting::remote::RemoteCountersError;
pub use counting::slots::SLOTS;
pub use counting::source::Source;
pub use counting::total::{Total, Unit};
pub use reporter::{BarWriter, Reporter, ReporterBuilder, StartError, TestScreen};
// A part of the public interface: slots and regions for `Bar::add_source`, sources of errors, descriptors of handles.
pub use shm_buffers::{self, AttachError, CreateError, ParseHandleError, slots::Slots};
pub use time::rate::{Rate, eta};

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
