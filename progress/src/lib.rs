//! Progress reporting that costs workers almost nothing.
//!
//! A writer (a worker process, a thread, the leader itself) counts in a few atomic slots that it alone owns:
//! [`Counters`]. A [`Bar`] sums the counts of any number of writers. A [`Reporter`] samples bars at most ten times a
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
//! Writers in other processes count in shared memory: reserve [`SLOTS`] slots of a region for each writer, create its
//! [`Counters::new`] in the worker and [`Bar::add_source`] in the leader. This crate knows neither processes nor
//! transports.
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
pub use counting::bar::{Bar, Source};
pub use counting::counters::{Counter, Counters};
pub use counting::counts::{Counts, Outcome};
pub use counting::slots::SLOTS;
pub use counting::total::{Total, Unit};
pub use reporter::{BarWriter, Reporter, ReporterBuilder, StartError, TestScreen};
pub use time::rate::{Rate, eta};
