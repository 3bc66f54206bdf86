//! [`OutputReader`]: reads what workers print, if it is captured, and passes it to the observer.
//!
//! One thread reads all pipes of a pool (on Windows, one more thread for each pipe feeds it), because they are silent most of the
//! time. It buffers at most one line of each stream. A worker that prints faster than its lines are taken waits at its full
//! pipe; no other worker waits for it.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::process::Child;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use shm_buffers::{LineSplitter, OutputLine, Printable};

use crate::error::PoolError;
use crate::error::ProcessId;
use crate::observer::{Observer, Stream};
use crate::os::pipes::{Pipe, PipeSet, PipeSetWaker};
use crate::panics::guarded;

/// Maximum length of a line in bytes; the rest is only counted.
const MAX_LINE: usize = 16 << 10;
/// Number of last lines of each stream that are kept for the error of the worker's task.
const LAST_LINES: usize = 16;
/// How long the observer may take for the lines of a worker that has ended.
const OBSERVER_TIMEOUT: Duration = Duration::from_secs(1);

/// A command to the reading thread.
enum ReadCommand {
    Read(ProcessId, Vec<(Stream, Pipe)>),
    /// The process has ended. The reply contains its last lines.
    Finish(ProcessId, Sender<Vec<String>>),
}

/// The handle of the reading thread.
pub(crate) struct OutputReader {
    commands: Option<Sender<ReadCommand>>,
    waker: PipeSetWaker,
    thread: Option<JoinHandle<()>>,
}

impl OutputReader {
    pub(crate) fn start(observer: Arc<dyn Observer>) -> Result<Self, PoolError> {
        let (pipes, waker) = PipeSet::new().map_err(PoolError::io("create a waker for a thread"))?;
        let (commands, to_thread) = crossbeam_channel::unbounded();
        let reader = ReaderThread {
            pipes,
            commands: to_thread,
            streams: Streams {
                observer,
                all: Vec::new(),
            },
            next_key: 0,
        };
        let thread = thread::Builder::new()
            .name("proc-pool reader".into())
            .spawn(move || reader.run())
            .map_err(PoolError::io("start a thread"))?;
        Ok(Self {
            commands: Some(commands),
            waker,
            thread: Some(thread),
        })
    }

    fn send(&self, command: ReadCommand) {
        if let Some(commands) = &self.commands {
            // This fails if the thread has failed, which closed the pipes.
            let _ = commands.send(command);
            self.waker.wake();
        }
    }

    /// Starts to read the captured streams of a process.
    pub(crate) fn read(&self, process_id: ProcessId, child: &mut Child) {
        let stdout = child.stdout.take().map(|pipe| (Stream::Stdout, pipe.into()));
        let stderr = child.stderr.take().map(|pipe| (Stream::Stderr, pipe.into()));
        let pipes = stdout.into_iter().chain(stderr).collect();
        self.send(ReadCommand::Read(process_id, pipes));
    }

    /// Returns the last lines of a process that has ended, when the observer has received everything that it printed, or after a
    /// timeout.
    pub(crate) fn finish(&self, process_id: ProcessId) -> Vec<String> {
        let (reply, receiver) = crossbeam_channel::bounded(1);
        self.send(ReadCommand::Finish(process_id, reply));
        receiver.recv_timeout(OBSERVER_TIMEOUT).unwrap_or_default()
    }
}

impl Drop for OutputReader {
    fn drop(&mut self) {
        self.commands = None;
        self.waker.wake();
        let Some(thread) = self.thread.take() else { return };
        let start = Instant::now();
        while !thread.is_finished() && start.elapsed() < OBSERVER_TIMEOUT {
            thread::sleep(Duration::from_micros(100));
        }
        // An observer that does not return blocks the thread, which ends after that.
        if thread.is_finished() {
            let _ = thread.join();
        }
    }
}

/// The state of the reading thread.
struct ReaderThread {
    pipes: PipeSet,
    commands: Receiver<ReadCommand>,
    streams: Streams,
    next_key: u64,
}

struct Streams {
    observer: Arc<dyn Observer>,
    all: Vec<OutputStreamState>,
}

/// One stream of a process.
struct OutputStreamState {
    process_id: ProcessId,
    stream: Stream,
    /// The key of its pipe.
    key: u64,
    line: LineSplitter,
    last: VecDeque<String>,
}

impl ReaderThread {
    fn run(mut self) {
        // If waiting fails, the thread ends and the pipes close: workers' prints then fail, but do not block.
        while self
            .pipes
            .wait(|key, bytes| self.streams.on_bytes(key, bytes))
            .is_ok()
        {
            loop {
                match self.commands.try_recv() {
                    Ok(ReadCommand::Read(process_id, pipes)) => self.read(process_id, pipes),
                    Ok(ReadCommand::Finish(process_id, reply)) => {
                        let last = self.finish(process_id);
                        // This fails if the manager has stopped waiting.
                        let _ = reply.send(last);
                    }
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
        }
    }

    fn read(&mut self, process_id: ProcessId, pipes: Vec<(Stream, Pipe)>) {
        for (stream, pipe) in pipes {
            self.next_key += 1;
            // A pipe that cannot be read is closed.
            if self.pipes.add(self.next_key, pipe).is_ok() {
                self.streams.all.push(OutputStreamState {
                    process_id,
                    stream,
                    key: self.next_key,
                    line: LineSplitter::new(MAX_LINE),
                    last: VecDeque::new(),
                });
            }
        }
    }

    fn finish(&mut self, process_id: ProcessId) -> Vec<String> {
        let Self { pipes, streams, .. } = self;
        let is_its = |state: &OutputStreamState| state.process_id == process_id;
        let keys: Vec<u64> = streams
            .all
            .iter()
            .filter(|state| is_its(state))
            .map(|state| state.key)
            .collect();
        for key in keys {
            pipes.finish(key, |key, bytes| streams.on_bytes(key, bytes));
        }
        let (ended, others) = std::mem::take(&mut streams.all).into_iter().partition(is_its);
        streams.all = others;
        ended
            .into_iter()
            .flat_map(|state: OutputStreamState| state.last)
            .collect()
    }
}

impl Streams {
    /// Handles the bytes read from a pipe; empty at its end.
    fn on_bytes(&mut self, key: u64, bytes: &[u8]) {
        let Some(state) = self.all.iter_mut().find(|state| state.key == key) else {
            return;
        };
        let OutputStreamState {
            process_id,
            stream,
            line,
            last,
            ..
        } = state;
        let observer = &self.observer;
        let each = |line: OutputLine<'_>| {
            let text = &marked(line);
            if last.len() == LAST_LINES {
                last.pop_front();
            }
            // These lines become part of an error message; the observer receives the original.
            last.push_back(Printable(text).to_string());
            let _ = guarded(|| observer.printed(process_id.worker, *stream, text));
        };
        match bytes {
            [] => line.finish(each),
            bytes => line.push(bytes, each),
        }
    }
}

/// Returns the text of a line, with a mark if it was cut.
fn marked(line: OutputLine<'_>) -> Cow<'_, str> {
    match line.cut {
        0 => line.text,
        cut => format!("{}… ({cut} bytes more)", line.text).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_has_a_mark() {
        let mut lines = Vec::new();
        let mut splitter = LineSplitter::new(4);
        splitter.push(b"abcd\nabcdefg\n", |line| lines.push(marked(line).into_owned()));
        assert_eq!(lines, ["abcd", "abcd… (3 bytes more)"]);
    }
}
