//! The screen and the clock of a reporter under test.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::shared::SharedDisplay;

/// The screen and the clock of a [`Reporter`](crate::Reporter) in a test; returned by
/// [`ReporterBuilder::start_in_memory`](crate::ReporterBuilder::start_in_memory).
///
/// Bars are drawn only by [`advance`](Self::advance) and when the reporter ends. Log lines are written immediately. So
/// the contents of the screen are the same in every run, character by character.
///
#[cfg_attr(feature = "indicatif", doc = "```")]
#[cfg_attr(not(feature = "indicatif"), doc = "```ignore")]
/// use progress::{Outcome, Render, Reporter, Total};
/// use std::io::Write;
/// use std::time::Duration;
///
/// let builder = Reporter::builder().render(Render::Bar).columns(70);
/// let (reporter, screen) = builder.start_in_memory()?;
/// let bar = reporter.bar("recommend", Total::Known(200));
/// bar.counters().counter(Outcome::Done).add(50);
/// screen.advance(Duration::from_secs(1));
/// writeln!(reporter.writer(), "a log line")?;
/// assert_eq!(
///     screen.contents(),
///     "a log line\n\
///      recommend  █████░░░░░░░░░░░░░░░  50/200 (25.0 %), 50.0/s, ETA 3.0 s\n"
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct TestScreen {
    display: Arc<SharedDisplay>,
    written: SharedText,
}

impl TestScreen {
    pub(super) fn new(display: Arc<SharedDisplay>, written: SharedText) -> Self {
        Self { display, written }
    }

    /// Advances the reporter's clock by `time`, and draws what is due then.
    pub fn advance(&self, time: Duration) {
        self.display.advance(time);
    }

    /// Returns all lines that were ever written, including log lines, and then the current lines of running bars. Each line
    /// ends with a line break. There are no colours unless the builder's [`color`](crate::ReporterBuilder::color) is
    /// [`Always`](crate::Color::Always).
    pub fn contents(&self) -> String {
        let mut contents = self.written.text();
        for line in self.display.lines_in_memory() {
            contents += &line;
            contents += "\n";
        }
        contents
    }
}

/// Text that can be read while it is written.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedText(Arc<Mutex<Vec<u8>>>);

impl SharedText {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for SharedText {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
