//! The lines that a worker prints, as events of the leader.

use std::fmt;
use std::io::{self, Read};

use shm_buffers::{LineSplitter, OutputLine};
use tracing_core::{Dispatch, Level, dispatcher};

use super::collector::Source;
use super::replay::bridge_events;
use super::replay::sink::{Destination, Sink};

const DEFAULT_MAX_LINE: usize = 4096;
const MIN_MAX_LINE: usize = 16;
/// Bytes that are read at a time.
const BUFFER: usize = 8192;

/// A standard stream of a worker. It is the target of its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StdStream {
    /// Target `stdout`, by default at INFO.
    Stdout,
    /// Target `stderr`, by default at WARN.
    Stderr,
}

impl fmt::Display for StdStream {
    /// Writes `stdout` or `stderr`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        })
    }
}

/// Emits an event for each line that a worker prints, in the same span `worker{id=…}` as its log records.
///
/// [`run`](Self::run) reads anything that implements `Read`: the pipe of a child process, a socket, a file. It reads to the
/// end, so each stream needs a thread of its own. If a line is longer than the bound, the rest is skipped; bytes that are not
/// UTF-8 are replaced. Text after a carriage return replaces the text before it, as on a terminal: of a progress bar, the
/// last state becomes the event.
///
/// ```
/// use log_bridge::{LineLogger, Source, StdStream};
/// let pipe = &b"loading libfoo\nready\n"[..];
/// let summary = LineLogger::new(Source::new(3), StdStream::Stdout).run(pipe)?;
/// assert_eq!(summary.lines, 2);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct LineLogger {
    source: Source,
    stream: StdStream,
    level: Level,
    max_line: usize,
    destination: Option<Destination>,
}

/// The result of [`LineLogger::run`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LineSummary {
    /// Lines that became events.
    pub lines: u64,
    /// Those of them that were truncated.
    pub truncated: u64,
}

impl LineLogger {
    /// Returns a logger for the lines that `source` prints to `stream`.
    pub fn new(source: Source, stream: StdStream) -> Self {
        Self {
            source,
            stream,
            level: match stream {
                StdStream::Stdout => Level::INFO,
                StdStream::Stderr => Level::WARN,
            },
            max_line: DEFAULT_MAX_LINE,
            destination: None,
        }
    }

    /// Sets the level of the events.
    pub fn level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    /// Sets how many bytes of a line [`run`](Self::run) keeps; default: 4096. Less than 16 means 16.
    pub fn max_line(mut self, bytes: usize) -> Self {
        self.max_line = bytes.max(MIN_MAX_LINE);
        self
    }

    /// Emits to another subscriber than the default of the thread that calls [`run`](Self::run) or [`log`](Self::log).
    pub fn dispatch(self, dispatch: Dispatch) -> Self {
        self.destination(Destination::Subscriber(dispatch))
    }

    pub(super) fn destination(mut self, destination: Destination) -> Self {
        self.destination = Some(destination);
        self
    }

    /// Reads to the end, and emits an event for each line.
    ///
    /// # Errors
    /// If reading fails. The lines before the error were emitted.
    pub fn run(self, reader: impl Read) -> io::Result<LineSummary> {
        self.in_worker_span(|sink| self.read_lines(reader, sink))
    }

    /// Emits an event for one line that the caller has read, without truncating it.
    ///
    /// ```
    /// use log_bridge::{LineLogger, Source, StdStream};
    /// LineLogger::new(Source::new(3), StdStream::Stderr).log("libfoo: no such device");
    /// ```
    pub fn log(&self, line: &str) {
        self.in_worker_span(|sink| self.emit(line, sink));
    }

    fn in_worker_span<R>(&self, emit: impl FnOnce(&Sink) -> R) -> R {
        let destination = self.destination.clone();
        let sink = destination.unwrap_or_else(Destination::current).sink();
        let Sink::Subscriber(dispatch) = &sink else {
            return emit(&sink);
        };
        dispatcher::with_default(dispatch, || {
            let _worker = bridge_events::worker_span(self.source.id).entered();
            emit(&sink)
        })
    }

    fn read_lines(&self, mut reader: impl Read, sink: &Sink) -> io::Result<LineSummary> {
        let mut summary = LineSummary::default();
        let mut splitter = LineSplitter::new(self.max_line);
        let mut each = |line: OutputLine<'_>| {
            summary.lines += 1;
            match line.cut {
                0 => self.emit(&line.text, sink),
                _ => {
                    summary.truncated += 1;
                    self.emit(&format!("{}…[truncated]", line.text), sink);
                }
            }
        };
        let mut buffer = vec![0; BUFFER];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => splitter.push(&buffer[..len], &mut each),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        splitter.finish(each);
        Ok(summary)
    }

    fn emit(&self, line: &str, sink: &Sink) {
        match sink {
            Sink::Subscriber(_) => self.emit_event(line),
            #[cfg(feature = "log")]
            Sink::Logger => {
                let target = self.stream.to_string();
                super::replay::log_crate::log_line(self.source.id, &target, self.level, line);
            }
            Sink::None => {}
        }
    }

    fn emit_event(&self, line: &str) {
        // Target and level are part of a callsite, so each pair needs its own.
        macro_rules! emit {
            ($target:literal: $($level:ident),*) => {
                match self.level {
                    $(Level::$level => tracing::event!(target: $target, Level::$level, "{line}"),)*
                }
            };
        }
        match self.stream {
            StdStream::Stdout => emit!("stdout": ERROR, WARN, INFO, DEBUG, TRACE),
            StdStream::Stderr => emit!("stderr": ERROR, WARN, INFO, DEBUG, TRACE),
        }
    }
}
