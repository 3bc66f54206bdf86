//! The thread that writes, so that a destination that blocks, fails or panics costs others a bounded time, and nothing else.
//!
//! A caller writes as much as it can without blocking. It hands the rest to the thread and waits until that is written, for
//! [`PATIENCE`] at most. Then the destination is *behind*: until the queue is empty, callers add to it and do not wait. When
//! the queue is full, callers wait for a destination that still takes something, and otherwise lose their lines. A destination that never takes anything again keeps the thread, and only the thread.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use crate::direct::Direct;
#[cfg(feature = "indicatif")]
use crate::output::Drawn;
use crate::tty;

/// How long a caller waits for its bytes to be written.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long the end of a reporter waits for what is not yet written.
const LAST_PATIENCE: Duration = Duration::from_secs(1);
/// How many bytes may wait.
const ROOM: usize = 1 << 20;
/// How long the thread sleeps before it tries again, where the destination would block and says so.
const RETRY: Duration = Duration::from_millis(5);
/// How many errors are kept for callers that wait.
const ERRORS: usize = 64;

/// The pen of standard error, of which there is one in a process.
static STDERR: Mutex<Weak<Pen>> = Mutex::new(Weak::new());

/// A destination with its queue.
pub(crate) struct Pen {
    state: Mutex<State>,
    /// The thread has something to do.
    work: Condvar,
    /// Something was written, or given up.
    progress: Condvar,
}

struct State {
    writer: Writer,
    /// What needs no thread.
    direct: Option<Direct>,
    queue: VecDeque<Item>,
    /// Bytes in the queue and in the thread's hands.
    waiting: usize,
    /// How many items were handed over, and how many of them are written or given up, in this order.
    handed: u64,
    ended: u64,
    errors: VecDeque<(u64, io::Error)>,
    lost_lines: u64,
    pace: Pace,
    /// When the destination last took something, or was last given something after it had everything.
    moved: Instant,
    /// How many [`Handle`]s there are, and how many [`Hurry`]s.
    handles: usize,
    hurries: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    Prompt,
    /// A caller's patience has ended, and not all is written since.
    Behind,
}

enum Writer {
    /// Not started, or ended because nothing was left to do.
    Idle(Destination),
    Running(ThreadId, ProcessId),
    /// It panicked.
    Broken,
}

/// A copy of this process made by `fork` has the locks and no thread.
type ProcessId = u32;

enum Destination {
    Stderr,
    Given(Box<dyn Write + Send>),
}

struct Item {
    bytes: Vec<u8>,
    lines: Lines,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lines {
    /// They are counted when they are lost.
    Text,
    /// A later drawing replaces them.
    #[cfg(feature = "indicatif")]
    Frame,
}

impl Pen {
    pub(crate) fn stderr() -> Handle {
        let mut shared = STDERR.lock().unwrap_or_else(PoisonError::into_inner);
        let pen = match shared.upgrade() {
            // Also one whose handles are gone, but whose thread is not: it knows how standard error fares.
            Some(pen) if pen.state().is_of_this_process() => pen,
            _ => Self::new(Destination::Stderr),
        };
        *shared = Arc::downgrade(&pen);
        Handle::new(pen)
    }

    pub(crate) fn given(write: Box<dyn Write + Send>) -> Handle {
        Handle::new(Self::new(Destination::Given(write)))
    }

    fn new(destination: Destination) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                direct: match destination {
                    Destination::Stderr => Some(Direct::new()),
                    Destination::Given(_) => None,
                },
                writer: Writer::Idle(destination),
                queue: VecDeque::new(),
                waiting: 0,
                handed: 0,
                ended: 0,
                errors: VecDeque::new(),
                lost_lines: 0,
                pace: Pace::Prompt,
                moved: Instant::now(),
                handles: 0,
                hurries: 0,
            }),
            work: Condvar::new(),
            progress: Condvar::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No change can panic halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lost_lines(&self) -> u64 {
        self.state().lost_lines
    }

    pub(crate) fn write(self: &Arc<Self>, text: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let written = state.write_now(text);
        let rest = match &written {
            Ok(written) => text.get(*written..).unwrap_or_default(),
            Err(_) => text,
        };
        if rest.is_empty() {
            return Ok(());
        }
        let item = Item {
            bytes: rest.to_vec(),
            lines: Lines::Text,
        };
        let room = match written.and_then(|_| state.start(self)) {
            Ok(()) => self.make_room(state, rest.len()),
            Err(error) => Err((state, error)),
        };
        match room {
            Ok(state) => self.hand_over(state, item),
            Err((mut state, error)) => {
                state.lost_lines += item.count();
                Err(error)
            }
        }
    }

    #[cfg(feature = "indicatif")]
    pub(crate) fn draw(self: &Arc<Self>, frame: &[u8]) -> Drawn {
        let mut state = self.state();
        if state.is_busy() {
            return Drawn::No;
        }
        let rest = match state.write_now(frame) {
            // A terminal that takes nothing now may get the next one.
            Ok(0) if state.is_direct() => return Drawn::No,
            Ok(written) => frame.get(written..).unwrap_or_default(),
            Err(_) => return Drawn::No,
        };
        if rest.is_empty() {
            return Drawn::Yes;
        }
        if state.start(self).is_err() {
            return Drawn::No;
        }
        let item = Item {
            bytes: rest.to_vec(),
            lines: Lines::Frame,
        };
        match self.hand_over(state, item) {
            Ok(()) => Drawn::Yes,
            Err(_) => Drawn::No,
        }
    }

    /// Waits until `length` bytes may be handed over.
    fn make_room<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        length: usize,
    ) -> Result<MutexGuard<'a, State>, (MutexGuard<'a, State>, io::Error)> {
        let begun = Instant::now();
        while state.is_busy() && state.waiting + length > ROOM {
            let waited = begun.elapsed().max(state.moved.elapsed());
            match PATIENCE.checked_sub(waited) {
                Some(left) if !left.is_zero() && state.hurries == 0 => {
                    let woken = self.progress.wait_timeout(state, left);
                    state = woken.unwrap_or_else(PoisonError::into_inner).0;
                }
                _ => return Err((state, io::ErrorKind::TimedOut.into())),
            }
        }
        Ok(state)
    }

    /// Hands `item` over, and waits until it is written.
    fn hand_over(&self, mut state: MutexGuard<'_, State>, item: Item) -> io::Result<()> {
        if !state.is_busy() {
            state.moved = Instant::now();
        }
        let ticket = state.handed;
        state.handed += 1;
        state.waiting += item.bytes.len();
        state.queue.push_back(item);
        self.work.notify_one();
        let begun = Instant::now();
        while state.ended <= ticket {
            if state.pace == Pace::Behind || state.hurries > 0 {
                return Ok(());
            }
            let Some(left) = PATIENCE.checked_sub(begun.elapsed()) else {
                state.pace = Pace::Behind;
                return Ok(());
            };
            let woken = self.progress.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        match state.errors.iter().position(|(of, _)| *of == ticket) {
            Some(index) => state.errors.remove(index).map_or(Ok(()), |(_, error)| Err(error)),
            None => Ok(()),
        }
    }

    /// From now on until it is dropped, nothing waits.
    pub(crate) fn hurry(&self) -> Hurry<'_> {
        self.state().hurries += 1;
        self.progress.notify_all();
        Hurry(self)
    }

    /// The thread.
    fn run(&self, mut destination: Destination) {
        let mut state = self.state();
        loop {
            let Some(item) = state.queue.pop_front() else {
                if state.handles == 0 {
                    state.writer = match destination {
                        Destination::Stderr => Writer::Idle(destination),
                        // Nothing writes to it any more; it may take its time to be dropped.
                        Destination::Given(_) => Writer::Broken,
                    };
                    return;
                }
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            let written = catch_unwind(AssertUnwindSafe(|| self.write_all(&mut destination, &item.bytes)));
            state = self.state();
            let panicked = written.is_err();
            state.end(&item, written.unwrap_or_else(|_| Err(broken())));
            if panicked {
                state.writer = Writer::Broken;
                while let Some(item) = state.queue.pop_front() {
                    state.end(&item, Err(broken()));
                }
                self.progress.notify_all();
                drop(state);
                // It may panic again.
                let _ = catch_unwind(AssertUnwindSafe(|| drop(destination)));
                return;
            }
            self.progress.notify_all();
        }
    }

    fn write_all(&self, destination: &mut Destination, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = match destination {
                Destination::Stderr => tty::from_the_background(|| io::stderr().write(bytes)),
                Destination::Given(write) => write.write(bytes),
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    bytes = bytes.get(n..).unwrap_or_default();
                    self.state().moved = Instant::now();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Another program has made the terminal or pipe nonblocking: that is a setting of the file, not of the process.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let state = self.state();
                    if state.handles == 0 && state.moved.elapsed() > LAST_PATIENCE {
                        return Err(error);
                    }
                    drop(state);
                    std::thread::sleep(RETRY);
                }
                Err(error) => return Err(error),
            }
        }
        match destination {
            Destination::Stderr => Ok(()),
            Destination::Given(write) => write.flush(),
        }
    }
}

impl State {
    /// Starts the thread, if it does not run.
    fn start(&mut self, pen: &Arc<Pen>) -> io::Result<()> {
        match &self.writer {
            Writer::Running(thread, process) => match () {
                () if *thread == std::thread::current().id() => Err(io::Error::other(
                    "the thread that writes for a reporter cannot wait for itself",
                )),
                () if *process != std::process::id() => Err(io::Error::other(
                    "this process is a copy, made by fork, of one with a reporter, and has no thread that writes",
                )),
                () => Ok(()),
            },
            Writer::Broken => Err(broken()),
            Writer::Idle(_) => {
                let Writer::Idle(destination) = std::mem::replace(&mut self.writer, Writer::Broken) else {
                    return Err(broken());
                };
                // A thread that cannot be started gives nothing back, so the destination is sent to it.
                let (send, receive) = std::sync::mpsc::sync_channel(1);
                let theirs = Arc::clone(pen);
                let thread = std::thread::Builder::new().name("progress-output".into());
                let started = thread.spawn(move || {
                    if let Ok(destination) = receive.recv() {
                        theirs.run(destination);
                    }
                });
                match started {
                    Ok(thread) => {
                        self.writer = Writer::Running(thread.thread().id(), std::process::id());
                        let _ = send.send(destination);
                        Ok(())
                    }
                    Err(error) => {
                        self.writer = Writer::Idle(destination);
                        Err(error)
                    }
                }
            }
        }
    }

    /// Writes what can be written without the thread, and returns how many bytes that was.
    fn write_now(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.direct {
            Some(direct) if self.ended == self.handed => direct.write(bytes),
            _ => Ok(0),
        }
    }

    /// Whether what is not written directly would block.
    #[cfg(feature = "indicatif")]
    fn is_direct(&self) -> bool {
        self.direct.as_ref().is_some_and(Direct::is_possible)
    }

    fn is_of_this_process(&self) -> bool {
        !matches!(self.writer, Writer::Running(_, process) if process != std::process::id())
    }

    /// Whether something is not yet written.
    fn is_busy(&self) -> bool {
        self.ended < self.handed
    }

    fn end(&mut self, item: &Item, result: io::Result<()>) {
        if let Err(error) = result {
            self.lost_lines += item.count();
            self.errors.truncate(ERRORS - 1);
            self.errors.push_front((self.ended, error));
        }
        self.ended += 1;
        self.waiting -= item.bytes.len();
        self.moved = Instant::now();
        if !self.is_busy() {
            self.pace = Pace::Prompt;
        }
    }
}

impl Item {
    /// How many lines are lost with it.
    fn count(&self) -> u64 {
        match self.lines {
            Lines::Text => self.bytes.iter().filter(|byte| **byte == b'\n').count() as u64,
            #[cfg(feature = "indicatif")]
            Lines::Frame => 0,
        }
    }
}

fn broken() -> io::Error {
    io::Error::other("the writer that was given to the reporter panicked")
}

/// One of those who may write. When the last is gone, the thread ends after what it was given.
pub(crate) struct Handle(Arc<Pen>);

impl Handle {
    fn new(pen: Arc<Pen>) -> Self {
        pen.state().handles += 1;
        Self(pen)
    }

    pub(crate) fn pen(&self) -> &Arc<Pen> {
        &self.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.state().handles -= 1;
        self.0.work.notify_one();
    }
}

/// Nothing waits for the pen while this exists.
pub(crate) struct Hurry<'a>(&'a Pen);

impl Hurry<'_> {
    /// Waits until all is written, but not for long, and not for what has waited for long already.
    pub(crate) fn drain(self) {
        let mut state = self.0.state();
        let begun = Instant::now();
        while state.is_busy() && state.is_of_this_process() {
            let waited = begun.elapsed().max(state.moved.elapsed());
            let Some(left) = LAST_PATIENCE.checked_sub(waited) else {
                return;
            };
            let woken = self.0.progress.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.state().hurries -= 1;
    }
}
