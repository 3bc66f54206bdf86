//! The queue in front of an output and the thread that writes it, so that an output that blocks, fails or panics costs
//! callers a bounded time and nothing else.
//!
//! A caller writes as much as it can without blocking. It queues the rest for the thread and waits until that is
//! written, for at most [`WRITE_TIMEOUT`]. After a timeout the queue is *behind*: until it is empty, callers queue
//! their lines without waiting. When it is full, callers wait while the output still takes something, and otherwise
//! lose their lines. An output that never takes anything again blocks the thread forever, and only the thread.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use super::nonblocking::NonblockingStderr;
use crate::tty;

/// The longest time for which a caller waits until its bytes are written.
const WRITE_TIMEOUT: Duration = Duration::from_millis(250);
/// The longest time for which the end of a reporter waits until the queue is empty.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// The largest number of bytes in the queue.
const CAPACITY: usize = 1 << 20;
/// The time after which the thread tries again to write to a nonblocking output that is full.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);
/// The largest number of errors that are kept for waiting callers.
const MAX_ERRORS: usize = 64;

/// The queue of standard error, of which a process has one.
static STDERR: Mutex<Weak<OutputQueue>> = Mutex::new(Weak::new());

/// What happened to a frame.
#[cfg(feature = "indicatif")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameResult {
    Written,
    /// No byte of it was or will be written.
    Skipped,
}

/// An output with its queue.
pub(crate) struct OutputQueue {
    state: Mutex<State>,
    /// Wakes the thread: an item was queued, or the last handle was dropped.
    queued: Condvar,
    /// Wakes callers: bytes were written, an item ended, or waits were disabled.
    progress: Condvar,
}

struct State {
    thread: ThreadState,
    /// Writes to standard error without the thread.
    nonblocking: Option<NonblockingStderr>,
    queue: VecDeque<Item>,
    /// The number of bytes in the queue and in the item that the thread writes.
    queued_bytes: usize,
    /// How many items were queued, and how many of them were written or failed, in this order.
    queued_items: u64,
    ended_items: u64,
    /// The number of each failed item, and its error; newest first.
    errors: VecDeque<(u64, io::Error)>,
    lost_lines: u64,
    backlog: Backlog,
    /// The last time when the output took something, or got the first item after it had taken everything.
    last_progress: Instant,
    handles: usize,
    /// The number of [`NoWait`] guards.
    no_waits: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backlog {
    /// Callers wait until their items are written.
    None,
    /// A caller timed out, and the queue has not been empty since.
    Behind,
}

enum ThreadState {
    /// The thread was not started, or has ended because nothing was left to write.
    Stopped(Destination),
    Running(ThreadId, ProcessId),
    /// The writer panicked, or has been dropped with the last handle.
    Closed,
}

/// A copy of this process that `fork` made has the locks, but not the thread.
type ProcessId = u32;

enum Destination {
    Stderr,
    Writer(Box<dyn Write + Send>),
}

struct Item {
    bytes: Vec<u8>,
    kind: ItemKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ItemKind {
    /// Lost lines are counted.
    Lines,
    /// A later frame replaces it.
    #[cfg(feature = "indicatif")]
    Frame,
}

impl OutputQueue {
    pub(super) fn for_stderr() -> QueueHandle {
        let mut stderr = STDERR.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = match stderr.upgrade() {
            // Even without handles, the queue may still have a thread, and knows whether standard error is blocked.
            Some(queue) if queue.state().is_of_this_process() => queue,
            _ => Self::with_destination(Destination::Stderr),
        };
        *stderr = Arc::downgrade(&queue);
        QueueHandle::new(queue)
    }

    pub(super) fn for_writer(writer: Box<dyn Write + Send>) -> QueueHandle {
        QueueHandle::new(Self::with_destination(Destination::Writer(writer)))
    }

    fn with_destination(destination: Destination) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                nonblocking: match destination {
                    Destination::Stderr => Some(NonblockingStderr::new()),
                    Destination::Writer(_) => None,
                },
                thread: ThreadState::Stopped(destination),
                queue: VecDeque::new(),
                queued_bytes: 0,
                queued_items: 0,
                ended_items: 0,
                errors: VecDeque::new(),
                lost_lines: 0,
                backlog: Backlog::None,
                last_progress: Instant::now(),
                handles: 0,
                no_waits: 0,
            }),
            queued: Condvar::new(),
            progress: Condvar::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic leaves the state consistent: no change to it can panic halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lost_lines(&self) -> u64 {
        self.state().lost_lines
    }

    pub(super) fn write(self: &Arc<Self>, text: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let written = state.write_nonblocking(text);
        let rest = match &written {
            Ok(written) => text.get(*written..).unwrap_or_default(),
            Err(_) => text,
        };
        if rest.is_empty() {
            return Ok(());
        }
        let item = Item {
            bytes: rest.to_vec(),
            kind: ItemKind::Lines,
        };
        let space = match written.and_then(|_| state.start_thread(self)) {
            Ok(()) => self.wait_for_space(state, rest.len()),
            Err(error) => Err((state, error)),
        };
        match space {
            Ok(state) => self.queue_and_wait(state, item),
            Err((mut state, error)) => {
                state.lost_lines += item.lines();
                Err(error)
            }
        }
    }

    #[cfg(feature = "indicatif")]
    pub(super) fn write_frame(self: &Arc<Self>, frame: &[u8]) -> FrameResult {
        let mut state = self.state();
        if state.is_busy() {
            return FrameResult::Skipped;
        }
        let rest = match state.write_nonblocking(frame) {
            // The terminal takes nothing now. It may take the next frame.
            Ok(0) if state.is_nonblocking_available() => return FrameResult::Skipped,
            Ok(written) => frame.get(written..).unwrap_or_default(),
            Err(_) => return FrameResult::Skipped,
        };
        if rest.is_empty() {
            return FrameResult::Written;
        }
        if state.start_thread(self).is_err() {
            return FrameResult::Skipped;
        }
        let item = Item {
            bytes: rest.to_vec(),
            kind: ItemKind::Frame,
        };
        match self.queue_and_wait(state, item) {
            Ok(()) => FrameResult::Written,
            Err(_) => FrameResult::Skipped,
        }
    }

    /// Waits until the queue has space for `length` bytes.
    fn wait_for_space<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        length: usize,
    ) -> Result<MutexGuard<'a, State>, (MutexGuard<'a, State>, io::Error)> {
        let begin = Instant::now();
        while state.is_busy() && state.queued_bytes + length > CAPACITY {
            let waited = begin.elapsed().max(state.last_progress.elapsed());
            match WRITE_TIMEOUT.checked_sub(waited) {
                Some(timeout) if !timeout.is_zero() && state.no_waits == 0 => {
                    let woken = self.progress.wait_timeout(state, timeout);
                    state = woken.unwrap_or_else(PoisonError::into_inner).0;
                }
                _ => return Err((state, io::ErrorKind::TimedOut.into())),
            }
        }
        Ok(state)
    }

    /// Queues `item` and waits until it is written, unless the queue is behind.
    fn queue_and_wait(&self, mut state: MutexGuard<'_, State>, item: Item) -> io::Result<()> {
        if !state.is_busy() {
            state.last_progress = Instant::now();
        }
        let number = state.queued_items;
        state.queued_items += 1;
        state.queued_bytes += item.bytes.len();
        state.queue.push_back(item);
        self.queued.notify_one();
        let begin = Instant::now();
        while state.ended_items <= number {
            if state.backlog == Backlog::Behind || state.no_waits > 0 {
                return Ok(());
            }
            let Some(timeout) = WRITE_TIMEOUT.checked_sub(begin.elapsed()) else {
                state.backlog = Backlog::Behind;
                return Ok(());
            };
            let woken = self.progress.wait_timeout(state, timeout);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        match state.errors.iter().position(|(failed, _)| *failed == number) {
            Some(index) => state.errors.remove(index).map_or(Ok(()), |(_, error)| Err(error)),
            None => Ok(()),
        }
    }

    /// Disables all waits until the returned guard is dropped.
    pub(super) fn disable_waits(&self) -> NoWait<'_> {
        self.state().no_waits += 1;
        self.progress.notify_all();
        NoWait(self)
    }

    /// The thread's main function. It returns when the queue is empty and the last handle is dropped, or after a panic.
    fn run(&self, mut destination: Destination) {
        let mut state = self.state();
        loop {
            let Some(item) = state.queue.pop_front() else {
                if state.handles == 0 {
                    state.thread = match destination {
                        Destination::Stderr => ThreadState::Stopped(destination),
                        // Nothing writes to it any more, so it may be dropped here, after the lock is released.
                        Destination::Writer(_) => ThreadState::Closed,
                    };
                    return;
                }
                state = self.queued.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            let written = catch_unwind(AssertUnwindSafe(|| self.write_all(&mut destination, &item.bytes)));
            state = self.state();
            let panicked = written.is_err();
            state.end_item(&item, written.unwrap_or_else(|_| Err(writer_panicked())));
            if panicked {
                state.thread = ThreadState::Closed;
                while let Some(item) = state.queue.pop_front() {
                    state.end_item(&item, Err(writer_panicked()));
                }
                self.progress.notify_all();
                drop(state);
                // The drop may panic again.
                let _ = catch_unwind(AssertUnwindSafe(|| drop(destination)));
                return;
            }
            self.progress.notify_all();
        }
    }

    fn write_all(&self, destination: &mut Destination, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = match destination {
                Destination::Stderr => tty::allow_background_write(|| io::stderr().write(bytes)),
                Destination::Writer(writer) => writer.write(bytes),
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    bytes = bytes.get(n..).unwrap_or_default();
                    self.state().last_progress = Instant::now();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Another program has made the terminal or pipe nonblocking. Both programs share this property.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let state = self.state();
                    if state.handles == 0 && state.last_progress.elapsed() > FLUSH_TIMEOUT {
                        return Err(error);
                    }
                    drop(state);
                    std::thread::sleep(RETRY_INTERVAL);
                }
                Err(error) => return Err(error),
            }
        }
        match destination {
            Destination::Stderr => Ok(()),
            Destination::Writer(writer) => writer.flush(),
        }
    }
}

impl State {
    /// Starts the thread, unless it runs.
    fn start_thread(&mut self, queue: &Arc<OutputQueue>) -> io::Result<()> {
        match &self.thread {
            ThreadState::Running(thread, process) => match () {
                () if *thread == std::thread::current().id() => Err(io::Error::other(
                    "the thread that writes for a reporter cannot wait for itself",
                )),
                () if *process != std::process::id() => Err(io::Error::other(
                    "this process is a forked copy of one with a reporter, and has no thread that writes",
                )),
                () => Ok(()),
            },
            ThreadState::Closed => Err(writer_panicked()),
            ThreadState::Stopped(_) => {
                let ThreadState::Stopped(destination) =
                    std::mem::replace(&mut self.thread, ThreadState::Closed)
                else {
                    return Err(writer_panicked());
                };
                // If the spawn fails, its closure is lost, so the destination is sent to the thread afterwards.
                let (send, receive) = std::sync::mpsc::sync_channel(1);
                let queue = Arc::clone(queue);
                let thread = std::thread::Builder::new().name("progress-output".into());
                let started = thread.spawn(move || {
                    if let Ok(destination) = receive.recv() {
                        queue.run(destination);
                    }
                });
                match started {
                    Ok(thread) => {
                        self.thread = ThreadState::Running(thread.thread().id(), std::process::id());
                        let _ = send.send(destination);
                        Ok(())
                    }
                    Err(error) => {
                        self.thread = ThreadState::Stopped(destination);
                        Err(error)
                    }
                }
            }
        }
    }

    /// Writes without the thread until the next byte would block, and returns the number of written bytes.
    fn write_nonblocking(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let is_busy = self.is_busy();
        match &mut self.nonblocking {
            Some(stderr) if !is_busy => stderr.write(bytes),
            _ => Ok(0),
        }
    }

    /// Whether bytes that [`write_nonblocking`](Self::write_nonblocking) did not write would block.
    #[cfg(feature = "indicatif")]
    fn is_nonblocking_available(&self) -> bool {
        self.nonblocking
            .as_ref()
            .is_some_and(NonblockingStderr::is_available)
    }

    fn is_of_this_process(&self) -> bool {
        !matches!(self.thread, ThreadState::Running(_, process) if process != std::process::id())
    }

    /// Whether an item is not yet written.
    fn is_busy(&self) -> bool {
        self.ended_items < self.queued_items
    }

    fn end_item(&mut self, item: &Item, result: io::Result<()>) {
        if let Err(error) = result {
            self.lost_lines += item.lines();
            self.errors.truncate(MAX_ERRORS - 1);
            self.errors.push_front((self.ended_items, error));
        }
        self.ended_items += 1;
        self.queued_bytes -= item.bytes.len();
        self.last_progress = Instant::now();
        if !self.is_busy() {
            self.backlog = Backlog::None;
        }
    }
}

impl Item {
    /// Returns the number of lines that are lost if the item is not written.
    fn lines(&self) -> u64 {
        match self.kind {
            ItemKind::Lines => self.bytes.iter().filter(|byte| **byte == b'\n').count() as u64,
            #[cfg(feature = "indicatif")]
            ItemKind::Frame => 0,
        }
    }
}

fn writer_panicked() -> io::Error {
    io::Error::other("the writer of the reporter's output panicked")
}

/// A handle to write to a queue. After the last handle is dropped, the thread writes the queued items and ends.
pub(super) struct QueueHandle(Arc<OutputQueue>);

impl QueueHandle {
    fn new(queue: Arc<OutputQueue>) -> Self {
        queue.state().handles += 1;
        Self(queue)
    }

    pub(super) fn queue(&self) -> &Arc<OutputQueue> {
        &self.0
    }
}

impl Drop for QueueHandle {
    fn drop(&mut self) {
        self.0.state().handles -= 1;
        self.0.queued.notify_one();
    }
}

/// While this guard exists, no caller waits for the queue.
pub(super) struct NoWait<'a>(&'a OutputQueue);

impl NoWait<'_> {
    /// Waits until everything is written, for at most [`FLUSH_TIMEOUT`]. An output that has already taken nothing for
    /// that time is not waited for.
    pub(super) fn flush(self) {
        let mut state = self.0.state();
        let begin = Instant::now();
        while state.is_busy() && state.is_of_this_process() {
            let waited = begin.elapsed().max(state.last_progress.elapsed());
            let Some(timeout) = FLUSH_TIMEOUT.checked_sub(waited) else {
                return;
            };
            let woken = self.0.progress.wait_timeout(state, timeout);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for NoWait<'_> {
    fn drop(&mut self) {
        self.0.state().no_waits -= 1;
    }
}
