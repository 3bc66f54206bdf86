//! Progress reporting that costs nothing to the worker.
//!
//! A writer (a worker process, a thread, the leader itself) counts in a few atomic slots that it alone owns:
//! [`Counters`]. A [`Bar`] sums any number of writers. A [`Reporter`] samples bars at most ten times a second and
//! shows them as [`Render`] says: bars on a terminal, plain or JSON lines off it, or nothing. Log lines go through a
//! [`BarWriter`], so that they never garble bars.
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
//! An op that takes long tells how far it is with [`Counters::step`]; a writer of [`Bar::add_row`] has a line of its own.
//! Tests assert what is shown with [`ReporterBuilder::rehearse`].
//!
//! Writers in other processes count in shared memory: reserve [`SLOTS`] slots of a region for each, make
//! [`Counters::new`] of them there and [`Bar::add_source`] of them here. This crate knows neither processes nor
//! transports.
//!
//! [indicatif](https://docs.rs/indicatif) draws the bars if the feature `indicatif` is on, as it is by default; without it,
//! [`Render::Auto`] prints lines everywhere.

mod bar;
mod choice;
mod clock;
mod counter;
mod direct;
mod end;
mod escape;
mod mute;
mod output;
mod panics;
mod pen;
mod rate;
mod rehearsal;
mod render;
mod reporter;
mod shared;
mod stage;
mod tty;
mod writer;

pub use bar::{Bar, Source, Total, Unit};
pub use choice::{Color, ParseRenderError, Render};
pub use counter::{Counter, Counters, Counts, Outcome, SLOTS};
pub use mute::mute;
pub use rate::{Rate, eta};
pub use rehearsal::Rehearsal;
pub use reporter::{Reporter, ReporterBuilder, StartError};
pub use writer::BarWriter;
