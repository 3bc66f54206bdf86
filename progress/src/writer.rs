//! Log lines above bars.

use std::io::{self, Write};
use std::sync::Arc;

use crate::shared::Shared;

/// The longest line that is kept back until it is whole, in bytes; what is longer is cut.
const LONGEST_LINE: usize = 64 * 1024;

/// Writes whole lines above the bars of a [`Reporter`](crate::Reporter), or straight to its output where no bars are
/// drawn. Each clone keeps its own unfinished line, and writes it when dropped.
///
/// Writing never fails, because who logs has no use for the error: `tracing-subscriber` prints it to standard error, and
/// panics when that fails. Lines that cannot be written are [counted](Self::lost_lines).
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
    shared: Arc<Shared>,
    unfinished: Vec<u8>,
}

impl BarWriter {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            unfinished: Vec::new(),
        }
    }

    /// How many lines could not be written to the reporter's output, by this and all other writers: of logs, and of bars that
    /// ended.
    pub fn lost_lines(&self) -> u64 {
        self.shared.lost_lines()
    }

    fn end_line(&mut self) {
        if !self.unfinished.is_empty() {
            let mut line = std::mem::take(&mut self.unfinished);
            line.push(b'\n');
            self.shared.print(&line);
        }
    }
}

impl Clone for BarWriter {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.shared))
    }
}

impl Write for BarWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |last| last + 1);
        let (lines, rest) = bytes.split_at(whole);
        if self.unfinished.is_empty() {
            if !lines.is_empty() {
                self.shared.print(lines);
            }
        } else if !lines.is_empty() {
            self.unfinished.extend_from_slice(lines);
            let lines = std::mem::take(&mut self.unfinished);
            self.shared.print(&lines);
        }
        for part in rest.chunks(LONGEST_LINE) {
            if self.unfinished.len() + part.len() > LONGEST_LINE {
                self.end_line();
            }
            self.unfinished.extend_from_slice(part);
        }
        Ok(bytes.len())
    }

    /// Does nothing: whole lines are written at once, and an unfinished one waits for its end.
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
