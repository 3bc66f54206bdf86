//! What a worker prints, as events of the leader.

use std::io::{self, BufRead, BufReader, Read};

use tracing_core::{Dispatch, Level, dispatcher};

use crate::collector::Source;
use crate::own;
use crate::sink::{Sink, Target};

const DEFAULT_MAX: usize = 4096;

/// Which of a process's streams is captured; it becomes the target of the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdio {
    /// Target `stdout`, by default at INFO.
    Stdout,
    /// Target `stderr`, by default at WARN.
    Stderr,
}

/// Emits an event for each line that a worker prints, below the same span `worker{id=…}` as its log records.
///
/// Anything that can be read will do: the pipe of a child, a socket, a file. It is read to its end, so each stream needs
/// a thread of its own. A line longer than the bound is cut, and its rest is skipped; bytes that are not UTF-8 are replaced.
/// Text after a carriage return replaces the text before it, as on a terminal: of a progress bar the last state counts.
///
/// ```
/// use log_bridge::{Lines, Source, Stdio};
/// let pipe = &b"loading libfoo\nready\n"[..];
/// let captured = Lines::new(Source::new(3), Stdio::Stdout).run(pipe)?;
/// assert_eq!(captured.lines, 2);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Lines {
    source: Source,
    stdio: Stdio,
    level: Level,
    max: usize,
    target: Option<Target>,
}

/// What was captured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Captured {
    /// Lines that became events.
    pub lines: u64,
    /// Those of them that were cut.
    pub truncated: u64,
}

impl Lines {
    /// The lines that `source` prints to `stdio`.
    pub fn new(source: Source, stdio: Stdio) -> Self {
        Self {
            source,
            stdio,
            level: match stdio {
                Stdio::Stdout => Level::INFO,
                Stdio::Stderr => Level::WARN,
            },
            max: DEFAULT_MAX,
            target: None,
        }
    }

    /// The level of the events.
    pub fn level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    /// Bytes of one line at most; default: 4096. It is raised to 16.
    pub fn max_line(mut self, bytes: usize) -> Self {
        self.max = bytes.max(16);
        self
    }

    /// Emits to another subscriber than the default of the thread that calls [`run`](Self::run).
    pub fn dispatch(self, dispatch: Dispatch) -> Self {
        self.target(Target::Given(dispatch))
    }

    pub(crate) fn target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    /// Reads until the end.
    ///
    /// # Errors
    /// If reading fails; what was read before was emitted.
    pub fn run(self, pipe: impl Read) -> io::Result<Captured> {
        self.as_worker(|sink| self.read(BufReader::new(pipe), sink))
    }

    /// Emits one line that somebody else has read, as it is: it is not cut.
    ///
    /// ```
    /// use log_bridge::{Lines, Source, Stdio};
    /// Lines::new(Source::new(3), Stdio::Stderr).line("libfoo: no such device");
    /// ```
    pub fn line(&self, line: &str) {
        self.as_worker(|sink| self.emit(line, sink));
    }

    fn as_worker<R>(&self, emit: impl FnOnce(&Sink) -> R) -> R {
        let sink = self.target.clone().unwrap_or_else(Target::current).sink();
        let Sink::Subscriber(dispatch) = &sink else {
            return emit(&sink);
        };
        dispatcher::with_default(dispatch, || {
            let _worker = own::worker_span(self.source.id).entered();
            emit(&sink)
        })
    }

    fn read(&self, mut pipe: impl BufRead, sink: &Sink) -> io::Result<Captured> {
        let mut captured = Captured::default();
        let mut line = Line::default();
        loop {
            let bytes = match pipe.fill_buf() {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            line.put(&bytes[..end.unwrap_or(bytes.len())], self.max);
            let ended = match end {
                None if bytes.is_empty() && line.is_empty() => return Ok(captured),
                None => bytes.is_empty(),
                Some(end) if bytes[end] == b'\n' => true,
                Some(_) => {
                    line.cursor = Cursor::AtStart;
                    false
                }
            };
            if ended {
                self.end(&mut line, &mut captured, sink);
            }
            let taken = end.map_or(bytes.len(), |end| end + 1);
            pipe.consume(taken);
        }
    }

    fn end(&self, line: &mut Line, captured: &mut Captured, sink: &Sink) {
        captured.lines += 1;
        let text = String::from_utf8_lossy(&line.bytes);
        match line.rest {
            Rest::Kept => self.emit(&text, sink),
            Rest::Cut => {
                captured.truncated += 1;
                self.emit(&format!("{text}…[truncated]"), sink);
            }
        }
        line.clear();
    }

    fn emit(&self, line: &str, sink: &Sink) {
        match sink {
            Sink::Subscriber(_) => self.emit_event(line),
            #[cfg(feature = "log")]
            Sink::Logger => {
                let target = match self.stdio {
                    Stdio::Stdout => "stdout",
                    Stdio::Stderr => "stderr",
                };
                crate::logger::log_line(self.source.id, target, self.level, line);
            }
            Sink::Nothing => {}
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
        match self.stdio {
            Stdio::Stdout => emit!("stdout": ERROR, WARN, INFO, DEBUG, TRACE),
            Stdio::Stderr => emit!("stderr": ERROR, WARN, INFO, DEBUG, TRACE),
        }
    }
}

/// A line that has not ended yet.
#[derive(Default)]
struct Line {
    bytes: Vec<u8>,
    rest: Rest,
    cursor: Cursor,
}

#[derive(Default, PartialEq, Eq)]
enum Rest {
    #[default]
    Kept,
    Cut,
}

/// Where the next byte of a line goes.
#[derive(Default, PartialEq, Eq)]
enum Cursor {
    #[default]
    AtEnd,
    /// After a carriage return, unless the line ends with it.
    AtStart,
}

impl Line {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.rest = Rest::Kept;
        self.cursor = Cursor::AtEnd;
    }

    fn put(&mut self, part: &[u8], max: usize) {
        if part.is_empty() {
            return;
        }
        if self.cursor == Cursor::AtStart {
            self.clear();
        }
        let kept = part.len().min(max - self.bytes.len());
        self.bytes.extend_from_slice(&part[..kept]);
        if kept < part.len() {
            self.rest = Rest::Cut;
        }
    }
}
