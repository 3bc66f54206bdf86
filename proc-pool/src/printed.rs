//! What workers print: where it goes, and how it is read when the pool is to have it.
//!
//! One thread reads all pipes of a pool (on Windows it is fed by one a pipe), because they are silent most of the
//! time. It holds a line at most of each; a worker that prints faster than lines are taken waits at its full pipe,
//! and nobody else does.

use std::collections::VecDeque;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use shm_buffers::Printable;

use crate::core::Incarnation;
use crate::error::PoolError;
use crate::observer::Observer;
use crate::os::pipes::{Pipe, Pipes, Waker};
use crate::panics::guarded;

/// Bytes of a line that are kept.
const MAX_LINE: usize = 16 << 10;
/// Last lines of each stream that are kept for the error of the worker's task.
const LAST: usize = 16;
/// How long the lines of a worker that has ended may take an observer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where a stream of the workers' goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Redirect {
    /// Where the leader's goes.
    #[default]
    Inherit,
    /// Nowhere.
    Null,
    /// To [`Observer::printed`], line by line, and the last lines into the error of a task that costs its worker.
    Capture,
}

/// What a worker prints to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Redirect {
    pub(crate) fn stdio(self) -> Stdio {
        match self {
            Self::Inherit => Stdio::inherit(),
            Self::Null => Stdio::null(),
            Self::Capture => Stdio::piped(),
        }
    }
}

/// What the reading thread is asked to do.
enum Order {
    Read(Incarnation, Vec<(Stream, Pipe)>),
    /// The process has ended. The answer are its last lines.
    Finish(Incarnation, Sender<Vec<String>>),
}

/// The thread that reads.
pub(crate) struct Reader {
    orders: Option<Sender<Order>>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    pub(crate) fn start(observer: Arc<dyn Observer>) -> Result<Self, PoolError> {
        let (pipes, waker) = Pipes::new().map_err(PoolError::io("make what wakes a thread"))?;
        let (orders, to_thread) = crossbeam_channel::unbounded();
        let reading = Reading {
            pipes,
            orders: to_thread,
            voices: Voices {
                observer,
                all: Vec::new(),
            },
            next: 0,
        };
        let thread = thread::Builder::new()
            .name("proc-pool reader".into())
            .spawn(move || reading.run())
            .map_err(PoolError::io("start a thread"))?;
        Ok(Self {
            orders: Some(orders),
            waker,
            thread: Some(thread),
        })
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // It fails if the thread has failed, and closed the pipes.
            let _ = orders.send(order);
            self.waker.wake();
        }
    }

    /// Reads from now on what is captured of the process.
    pub(crate) fn read(&self, incarnation: Incarnation, child: &mut Child) {
        let stdout = child.stdout.take().map(|pipe| (Stream::Stdout, pipe.into()));
        let stderr = child.stderr.take().map(|pipe| (Stream::Stderr, pipe.into()));
        let pipes = stdout.into_iter().chain(stderr).collect();
        self.order(Order::Read(incarnation, pipes));
    }

    /// The process has ended: returns when the observer was told all it had printed; gives the last lines.
    pub(crate) fn finish(&self, incarnation: Incarnation) -> Vec<String> {
        let (answer, answered) = crossbeam_channel::bounded(1);
        self.order(Order::Finish(incarnation, answer));
        answered.recv_timeout(PATIENCE).unwrap_or_default()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.orders = None;
        self.waker.wake();
        let Some(thread) = self.thread.take() else { return };
        let began = Instant::now();
        while !thread.is_finished() && began.elapsed() < PATIENCE {
            thread::sleep(Duration::from_micros(100));
        }
        // An observer that does not return keeps it; it ends after that.
        if thread.is_finished() {
            let _ = thread.join();
        }
    }
}

/// The reading thread's own.
struct Reading {
    pipes: Pipes,
    orders: Receiver<Order>,
    voices: Voices,
    /// The next pipe's key.
    next: u64,
}

struct Voices {
    observer: Arc<dyn Observer>,
    all: Vec<Voice>,
}

/// A process's stream.
struct Voice {
    incarnation: Incarnation,
    stream: Stream,
    /// Its pipe's.
    key: u64,
    line: Line,
    last: VecDeque<String>,
}

impl Reading {
    fn run(mut self) {
        // Without it the pipes close: printing fails, and does not block.
        while self
            .pipes
            .wait(|key, bytes| self.voices.heard(key, bytes))
            .is_ok()
        {
            loop {
                match self.orders.try_recv() {
                    Ok(Order::Read(incarnation, pipes)) => self.read(incarnation, pipes),
                    Ok(Order::Finish(incarnation, answer)) => {
                        let last = self.finish(incarnation);
                        // Nobody may wait any longer.
                        let _ = answer.send(last);
                    }
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
        }
    }

    fn read(&mut self, incarnation: Incarnation, pipes: Vec<(Stream, Pipe)>) {
        for (stream, pipe) in pipes {
            self.next += 1;
            // One that can't be read is closed.
            if self.pipes.add(self.next, pipe).is_ok() {
                self.voices.all.push(Voice {
                    incarnation,
                    stream,
                    key: self.next,
                    line: Line::default(),
                    last: VecDeque::new(),
                });
            }
        }
    }

    fn finish(&mut self, incarnation: Incarnation) -> Vec<String> {
        let Self { pipes, voices, .. } = self;
        let its = |voice: &Voice| voice.incarnation == incarnation;
        let keys: Vec<u64> = voices.all.iter().filter(|it| its(it)).map(|it| it.key).collect();
        for key in keys {
            pipes.finish(key, |key, bytes| voices.heard(key, bytes));
        }
        let (ended, others) = std::mem::take(&mut voices.all).into_iter().partition(its);
        voices.all = others;
        ended.into_iter().flat_map(|voice: Voice| voice.last).collect()
    }
}

impl Voices {
    /// What came through a pipe; nothing at its end.
    fn heard(&mut self, key: u64, bytes: &[u8]) {
        let Some(voice) = self.all.iter_mut().find(|voice| voice.key == key) else {
            return;
        };
        let Voice {
            incarnation,
            stream,
            line,
            last,
            ..
        } = voice;
        line.add(bytes, |text| {
            if last.len() == LAST {
                last.pop_front();
            }
            // A person reads them in an error; the observer gets the original.
            last.push_back(Printable(text).to_string());
            let tell = || self.observer.printed(incarnation.worker, *stream, text);
            let _ = guarded(tell);
        });
    }
}

/// A line that has not ended yet. Text after a carriage return replaces the text before it, as on a terminal: of a
/// progress bar the newest state is kept.
#[derive(Debug, Default)]
struct Line {
    bytes: Vec<u8>,
    /// Bytes beyond those.
    cut: u64,
    cursor: Cursor,
}

/// Where the next byte of a line goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Cursor {
    #[default]
    AtEnd,
    /// After a carriage return, unless the line ends with it.
    AtStart,
}

impl Line {
    /// Adds what was read, or nothing at the stream's end, and tells each line that ends with it.
    fn add(&mut self, bytes: &[u8], mut tell: impl FnMut(&str)) {
        for part in bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            let (part, end) = match part {
                [part @ .., end @ (b'\n' | b'\r')] => (part, Some(*end)),
                part => (part, None),
            };
            self.put(part);
            match end {
                Some(b'\n') => self.end(&mut tell),
                Some(_) => self.cursor = Cursor::AtStart,
                None => {}
            }
        }
        if bytes.is_empty() && !self.bytes.is_empty() {
            self.end(&mut tell);
        }
    }

    fn put(&mut self, part: &[u8]) {
        if !part.is_empty() && self.cursor == Cursor::AtStart {
            self.bytes.clear();
            self.cut = 0;
            self.cursor = Cursor::AtEnd;
        }
        let kept = part.len().min(MAX_LINE - self.bytes.len());
        self.bytes.extend_from_slice(&part[..kept]);
        self.cut += (part.len() - kept) as u64;
    }

    fn end(&mut self, tell: &mut impl FnMut(&str)) {
        self.cursor = Cursor::AtEnd;
        let text = String::from_utf8_lossy(&self.bytes);
        match std::mem::take(&mut self.cut) {
            0 => tell(&text),
            cut => tell(&format!("{text}… ({cut} bytes more)")),
        }
        self.bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(parts: &[&[u8]]) -> Vec<String> {
        let mut line = Line::default();
        let mut told = Vec::new();
        for part in parts {
            line.add(part, |text| told.push(text.to_owned()));
            assert!(line.bytes.len() <= MAX_LINE);
        }
        told
    }

    #[test]
    fn lines_are_put_together() {
        let parts: [&[u8]; 5] = [b"a\nb", b"c", b"\r\n\n", b"\xffd", b""];
        assert_eq!(lines(&parts), ["a", "bc", "", "\u{fffd}d"]);
        assert_eq!(lines(&[b"a\n", b""]), ["a"]);
        // What has not ended is not told.
        assert_eq!(lines(&[b"a\nb"]), ["a"]);
    }

    #[test]
    fn text_after_a_carriage_return_replaces_the_text_before_it() {
        assert_eq!(
            lines(&[b"10 %\r20 %\r", b"100 %\r", b"\ndone\n"]),
            ["100 %", "done"]
        );
        assert_eq!(lines(&[b"\r10 %", b"\r20 %\r\r", b""]), ["20 %"]);
        let mut long = vec![b'x'; MAX_LINE + 7];
        long.extend_from_slice(b"\rnewest\n");
        assert_eq!(lines(&[&long]), ["newest"]);
    }

    #[test]
    fn long_lines_are_cut_with_a_mark() {
        let exact = vec![b'x'; MAX_LINE];
        let told = lines(&[&exact, b"\n", &exact, b"yyy", b"y\nnext\n"]);
        assert_eq!(told[0].len(), MAX_LINE);
        assert!(told[1].ends_with("x… (4 bytes more)"), "{}", told[1].len());
        assert_eq!(told[2], "next");
    }
}
