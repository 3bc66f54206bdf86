//! Log lines above bars.

use std::io::{self, Write};
use std::sync::Arc;

use super::shared::SharedDisplay;

/// The largest number of bytes of an unfinished line that is kept. A longer line is split.
const MAX_UNFINISHED: usize = 64 * 1024;

/// Writes whole lines above the bars of a [`Reporter`](crate::Reporter), or directly to its output if it draws no bars.
/// Each clone keeps its own unfinished line, and writes it when the clone is dropped.
///
/// Writing never fails, because a logger cannot handle the error: `tracing-subscriber` prints it to standard error, and
/// panics if that fails too. Lines that cannot be written are [counted](Self::lost_lines).
///
/// With the feature `tracing` it is a `MakeWriter`:
#[cfg_attr(feature = "tracing", doc = "```")]
#[cfg_attr(not(feature = "tracing"), doc = "```ignore")]
/// let reporter = progress::Reporter::builder().render(progress::Render::None).start()?;
/// let subscriber = tracing_subscriber::fmt().with_writer(reporter.writer()).finish();
/// tracing::subscriber::with_default(subscriber, || tracing::info!("above the bars"));
/// # Ok::<(), progress::StartError>(())
/// ```
#[derive(Debug)]
pub struct BarWriter {
    display: Arc<SharedDisplay>,
    unfinished: Vec<u8>,
}

impl BarWriter {
    pub(super) fn new(display: Arc<SharedDisplay>) -> Self {
        Self {
            display,
            unfinished: Vec::new(),
        }
    }

    /// Returns the number of lines that could not be written to the reporter's output: log lines of this and all other writers,
    /// and last lines of bars.
    pub fn lost_lines(&self) -> u64 {
        self.display.lost_lines()
    }

    fn end_line(&mut self) {
        if !self.unfinished.is_empty() {
            let mut line = std::mem::take(&mut self.unfinished);
            line.push(b'\n');
            self.display.print(&line);
        }
    }
}

impl Clone for BarWriter {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.display))
    }
}

impl Write for BarWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |last| last + 1);
        let (lines, rest) = bytes.split_at(whole);
        if self.unfinished.is_empty() {
            if !lines.is_empty() {
                self.display.print(lines);
            }
        } else if !lines.is_empty() {
            self.unfinished.extend_from_slice(lines);
            let lines = std::mem::take(&mut self.unfinished);
            self.display.print(&lines);
        }
        for part in rest.chunks(MAX_UNFINISHED) {
            if self.unfinished.len() + part.len() > MAX_UNFINISHED {
                self.end_line();
            }
            self.unfinished.extend_from_slice(part);
        }
        Ok(bytes.len())
    }

    /// Does nothing: whole lines are already written, and an unfinished line is kept until it is whole.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BarWriter {
    fn drop(&mut self) {
        self.end_line();
    }
}

#[cfg(feature = "tracing")]
impl tracing_subscriber::fmt::MakeWriter<'_> for BarWriter {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
