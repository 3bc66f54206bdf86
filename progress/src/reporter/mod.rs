//! The reporter, which draws bars and writes log lines above them.

mod builder;
mod display;
mod log_writer;
mod panic_hook;
mod shared;
mod test_screen;

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::counting::bar::Bar;
use crate::counting::total::Total;

pub use builder::{ReporterBuilder, StartError};
use display::ReporterId;
pub use log_writer::BarWriter;
use shared::{End, SharedDisplay};
pub use test_screen::TestScreen;

/// Draws bars until it is finished or dropped. Only the leader has one.
///
/// A thread samples the bars at most ten times a second. Writers never wait for it.
///
/// **Terminal failures never affect the job.** Standard error may be closed, full, a terminal that is gone, or one that
/// takes nothing (an unread pipe, Ctrl-S): progress that cannot be drawn is skipped without an error. A call waits for
/// the output for at most a quarter of a second, and the end of the reporter for at most one second. After such a
/// timeout, calls do not wait, and lines stay in a queue until the output takes them. In the background, no bars are
/// drawn, and lines do not stop the job, even with `stty tostop`.
///
/// **Time** does not count while the process is stopped (by Ctrl-Z, or with its container or machine), so rates and
/// ETAs are those of the time in which the job ran.
///
/// **Several reporters** on one terminal, such as those of two invokers that run at the same time, draw together, with
/// the configuration of the first.
///
/// Dropping a reporter stops it: bars that ended get their last lines, and bars that still run are erased. A
/// reporter belongs to the process that started it: a copy in a forked child draws nothing, even if it is finished
/// or dropped.
///
/// ```
/// use progress::{Outcome, Render, Reporter, Total};
/// let reporter = Reporter::builder().render(Render::None).start()?;
/// let bar = reporter.bar("recommend", Total::Known(1000));
/// let counters = bar.counters();
/// for _ in 0..1000 {
///     counters.counter(Outcome::Done).inc();
/// }
/// reporter.finish(); // draws the last state
/// # Ok::<(), progress::StartError>(())
/// ```
#[derive(Debug)]
#[must_use = "dropping a reporter stops it"]
pub struct Reporter {
    display: Arc<SharedDisplay>,
    id: ReporterId,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Ended,
}

impl Reporter {
    fn new(display: Arc<SharedDisplay>) -> io::Result<Self> {
        let id = display.add_reporter()?;
        Ok(Self {
            display,
            id,
            state: State::Running,
        })
    }

    /// Returns the default configuration: [`Render::Auto`](crate::Render::Auto) on standard error.
    pub fn builder() -> ReporterBuilder {
        ReporterBuilder::new()
    }

    /// Creates a bar of tasks and shows it below the others.
    pub fn bar(&self, label: impl Into<String>, total: Total) -> Bar {
        let bar = Bar::new(label, total);
        self.add(&bar);
        bar
    }

    /// Shows `bar` below the others. Its time and rate start now. Does nothing if the bar is shown already.
    pub fn add(&self, bar: &Bar) {
        let now = self.display.now();
        self.display.display().add(now, bar, None, self.id);
    }

    /// Shows `bar` nested in `parent`, or below the others if `parent` is not shown.
    pub fn add_nested(&self, parent: &Bar, bar: &Bar) {
        let now = self.display.now();
        self.display.display().add(now, bar, Some(parent), self.id);
    }

    /// Returns a writer for log lines above the bars. It may outlive the reporter.
    pub fn writer(&self) -> BarWriter {
        BarWriter::new(Arc::clone(&self.display))
    }

    /// Erases the bars while `f` runs, so that `f` can write to the terminal, for example to standard output. `f` may
    /// run for any time, log, and panic.
    pub fn suspend<T>(&self, f: impl FnOnce() -> T) -> T {
        struct Resume<'a>(&'a SharedDisplay);
        impl Drop for Resume<'_> {
            fn drop(&mut self) {
                self.0.resume();
            }
        }
        self.display.display().suspend();
        let _resume = Resume(&self.display);
        f()
    }

    /// Installs a panic hook that erases the bars while a panic of any thread of this process is reported, as
    /// [`suspend`](Self::suspend) does. Without it, the next drawing erases the panic message.
    ///
    /// The first call in a process sets the hook, which calls the previous one. A program with its own hook sets that
    /// first.
    ///
    /// ```
    /// # use progress::{Render, Reporter};
    /// let reporter = Reporter::builder().render(Render::None).start()?;
    /// reporter.install_panic_hook();
    /// # Ok::<(), progress::StartError>(())
    /// ```
    pub fn install_panic_hook(&self) {
        panic_hook::install(&self.display);
    }

    /// Finishes all bars, draws their last lines and stops.
    pub fn finish(mut self) {
        self.end(End::Finish(Instant::now()));
    }

    fn end(&mut self, end: End) {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Ended => {}
            State::Running if self.display.is_of_this_process() => {
                self.display.remove_reporter(self.id, end);
            }
            // A forked child has no drawing thread, and the parent's thread may have held any lock at the fork. So the
            // display is leaked.
            State::Running => std::mem::forget(Arc::clone(&self.display)),
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.end(End::Abandon);
    }
}
