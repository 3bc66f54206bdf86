//! What a test holds instead of a screen and a clock.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::shared::Shared;

/// The screen and the clock of a [`Reporter`](crate::Reporter) that draws for a test; made by
/// [`ReporterBuilder::rehearse`](crate::ReporterBuilder::rehearse).
///
/// Nothing is drawn but by [`tick`](Self::tick) (and at the end, and log lines at once), so that what is on the screen
/// is the same in every run, to the character.
///
#[cfg_attr(feature = "indicatif", doc = "```")]
#[cfg_attr(not(feature = "indicatif"), doc = "```ignore")]
/// use progress::{Outcome, Render, Reporter, Total};
/// use std::io::Write;
/// use std::time::Duration;
///
/// let (reporter, rehearsal) = Reporter::builder().render(Render::Bar).columns(70).rehearse()?;
/// let bar = reporter.bar("recommend", Total::Known(200));
/// bar.counters().counter(Outcome::Done).add(50);
/// rehearsal.tick(Duration::from_secs(1));
/// writeln!(reporter.writer(), "a log line")?;
/// assert_eq!(
///     rehearsal.screen(),
///     "a log line\n\
///      recommend  █████░░░░░░░░░░░░░░░  50/200 (25.0 %), 50.0/s, ETA 3.0 s\n"
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Rehearsal {
    shared: Arc<Shared>,
    paper: Paper,
}

impl Rehearsal {
    pub(crate) fn new(shared: Arc<Shared>, paper: Paper) -> Self {
        Self { shared, paper }
    }

    /// Moves the clock on by `passed`, and draws what is due then.
    pub fn tick(&self, passed: Duration) {
        self.shared.tick(passed);
    }

    /// All lines that were ever written, logs among them, and below them the bars that are on the screen, each with a
    /// line break. Without colours, unless they were asked for.
    pub fn screen(&self) -> String {
        let mut screen = self.paper.text();
        for row in self.shared.rows() {
            screen += &row;
            screen += "\n";
        }
        screen
    }
}

/// Text that can be read while it is written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Paper(Arc<Mutex<Vec<u8>>>);

impl Paper {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut paper = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        paper.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
