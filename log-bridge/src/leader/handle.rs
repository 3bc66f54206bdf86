//! A collector on a thread of its own, and the handle to it.

use std::error::Error;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use shm_buffers::ring::Consumer;
use shm_buffers::slots::Slots;

use super::collector::{AddError, Collector, RemovedSource, Source};
use super::collector::{open_source, removed_source, source_state};
use super::lines::{LineLogger, StdStream};
use super::open::{OpenError, SourceOptions};
use super::replay::sink::Destination;
use super::source::set::SourceSet;
use super::source::state::SourceState;
use super::tally::Tally;
use crate::filter::Filter;
use crate::filter::update::{FilterTooLong, FilterUpdate};
use crate::source_handle::SourceHandle;

/// While sources have records, the thread waits this fraction of its interval.
const BUSY_DIVISOR: u32 = 8;
/// How long a dropped handle waits for readable records to be replayed.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a handle waits, after it has stopped the replay, for the subscriber to receive the notice of dropped events.
const NOTICE_TIMEOUT: Duration = Duration::from_millis(100);

enum Command {
    /// Replay the remaining records of a source that has ended.
    Finish(Arc<SourceState>, SyncSender<()>),
    Flush(SyncSender<()>),
}

/// Why the filter of running workers was not changed.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SetFilterError {
    /// The filter does not fit into the slots.
    TooLong(FilterTooLong),
    /// The collector's thread has stopped.
    Stopped,
}

/// Why a flush did not wait until every record was replayed.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlushError {
    /// The subscriber was too slow.
    TimedOut(Duration),
    /// The collector's thread has stopped, or it would wait for itself because a layer has called.
    Stopped,
}

/// Why a source was not removed.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RemoveError {
    /// The source was never added, or was removed already.
    Unknown {
        /// The worker's id.
        id: u64,
    },
    /// The collector's thread has stopped, or it would wait for itself because a layer has called.
    Stopped {
        /// The worker's id.
        id: u64,
    },
}

impl From<FilterTooLong> for SetFilterError {
    fn from(error: FilterTooLong) -> Self {
        Self::TooLong(error)
    }
}

impl fmt::Display for SetFilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(error) => error.fmt(f),
            Self::Stopped => f.write_str("cannot change the log filter: the log collector has stopped"),
        }
    }
}

impl fmt::Display for FlushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(timeout) => write!(
                f,
                "log records were not all replayed within {timeout:?}: the subscriber is slow or blocked"
            ),
            Self::Stopped => f.write_str(
                "cannot flush log records: the log collector has stopped or would wait for itself",
            ),
        }
    }
}

impl fmt::Display for RemoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { id } => {
                write!(
                    f,
                    "cannot remove worker {id}: the log collector has no such worker"
                )
            }
            Self::Stopped { id } => write!(
                f,
                "cannot remove worker {id}: the log collector has stopped or would wait for itself"
            ),
        }
    }
}

impl Error for SetFilterError {}
impl Error for FlushError {}
impl Error for RemoveError {}

/// A handle to a [`Collector`] on a thread of its own. All methods take `&self`, so that threads can share it.
///
/// Dropping the handle replays all readable records and ends the thread, within 2.1 seconds. Later records are dropped; if
/// the subscriber blocks, the thread stays.
///
/// In a forked child, a copy of the handle has no thread: its methods fail as if the collector had stopped, and dropping it
/// does nothing.
#[derive(Debug)]
pub struct CollectorHandle {
    commands: Option<Sender<Command>>,
    thread: Option<JoinHandle<()>>,
    /// Receives a message when the thread ends.
    ended: Mutex<Receiver<()>>,
    sources: Arc<SourceSet>,
    destination: Destination,
    last_records: usize,
    /// The process that has the thread.
    process: u32,
}

impl Collector {
    /// Starts a thread that drains the collector every `interval`, and more often while there are records. 25 ms is a good
    /// interval.
    ///
    /// # Errors
    /// If the system cannot start another thread.
    pub fn spawn(self, interval: Duration) -> io::Result<CollectorHandle> {
        let (commands, receiver) = channel();
        let (end, ended) = sync_channel(1);
        let (destination, sources, last_records) = self.shared();
        let thread = ReplayThread { collector: self };
        let thread = thread::Builder::new().name("log-bridge".into()).spawn(move || {
            thread.run(&receiver, interval);
            // Fails if the handle was dropped.
            let _ = end.try_send(());
        })?;
        Ok(CollectorHandle {
            commands: Some(commands),
            thread: Some(thread),
            ended: Mutex::new(ended),
            sources,
            destination,
            last_records,
            process: std::process::id(),
        })
    }
}

impl CollectorHandle {
    /// As [`Collector::open`]; does not wait.
    ///
    /// # Errors
    /// As [`Collector::open`], and if the thread has stopped.
    pub fn open(&self, id: u64) -> Result<SourceHandle, OpenError> {
        self.open_with(id, SourceOptions::new())
    }

    /// As [`Collector::open_with`]; does not wait.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(&self, id: u64, options: SourceOptions) -> Result<SourceHandle, OpenError> {
        if !self.is_running() {
            return Err(OpenError::Stopped { id });
        }
        open_source(&self.sources, id, options, self.last_records)
    }

    /// As [`Collector::add`]; does not wait.
    ///
    /// # Errors
    /// If there are fewer than [`SLOTS`](crate::SLOTS) slots, or the thread has stopped.
    pub fn add(&self, source: Source, consumer: Consumer, slots: Slots) -> Result<(), AddError> {
        let state = source_state(source, consumer, slots, self.last_records)?;
        if !self.is_running() {
            return Err(AddError::Stopped { id: source.id });
        }
        self.sources.add(state);
        Ok(())
    }

    /// Returns what turns the lines that `source` prints to `stream` into events, for the same subscriber.
    pub fn line_logger(&self, source: Source, stream: StdStream) -> LineLogger {
        LineLogger::new(source, stream).destination(self.destination.clone())
    }

    /// As [`Collector::set_filter`]; does not wait.
    ///
    /// # Errors
    /// If the filter is too long, or the thread has stopped.
    pub fn set_filter(&self, filter: &Filter) -> Result<(), SetFilterError> {
        let update = FilterUpdate::new(filter)?;
        if !self.is_running() {
            return Err(SetFilterError::Stopped);
        }
        self.sources.set_filter(update);
        Ok(())
    }

    /// As [`Collector::remove`], in the collector's thread. Waits for at most `timeout`.
    ///
    /// The [last records](RemovedSource::last_records) are complete even if the subscriber is busy. After a timeout, the
    /// [counts](RemovedSource::tally) show how many events are waiting; they are replayed later.
    ///
    /// # Errors
    /// If the source is unknown, or the thread has stopped.
    pub fn remove(&self, id: u64, timeout: Duration) -> Result<RemovedSource, RemoveError> {
        if !self.can_wait() {
            return Err(RemoveError::Stopped { id });
        }
        let source = self.sources.find(id).ok_or(RemoveError::Unknown { id })?;
        source.end();
        let (reply, replied) = sync_channel(1);
        self.send(Command::Finish(source.clone(), reply))
            .ok_or(RemoveError::Stopped { id })?;
        // The counts show whether all records were replayed.
        let _ = replied.recv_timeout(timeout);
        Ok(removed_source(&source))
    }

    /// Waits until every record that is readable now was replayed; returns without a system call if that is so already.
    ///
    /// # Errors
    /// If it takes longer than `timeout`, or the thread has stopped.
    pub fn flush(&self, timeout: Duration) -> Result<(), FlushError> {
        if self.can_wait() && self.sources.is_idle() {
            return Ok(());
        }
        if !self.can_wait() {
            return Err(FlushError::Stopped);
        }
        let (reply, replied) = sync_channel(1);
        self.send(Command::Flush(reply)).ok_or(FlushError::Stopped)?;
        replied.recv_timeout(timeout).map_err(|error| match error {
            RecvTimeoutError::Timeout => FlushError::TimedOut(timeout),
            RecvTimeoutError::Disconnected => FlushError::Stopped,
        })
    }

    /// As [`Collector::tally`]. The counts are current even if the subscriber is slow or blocked; it does not wait.
    #[must_use]
    pub fn tally(&self) -> Tally {
        match self.is_forked_copy() {
            // In the parent, a thread may have held the lock during the fork. It is not here to release it.
            true => self.sources.try_tally().unwrap_or_default(),
            false => self.sources.tally(),
        }
    }

    /// Stops the replay: all waiting events are dropped, and counted. Returns the final counts, without waiting.
    pub fn abandon(&self) -> Tally {
        if !self.is_forked_copy() {
            self.sources.abandon();
        }
        self.tally()
    }

    /// As [`stop_within`](Self::stop_within) two seconds.
    pub fn stop(self) -> Tally {
        self.stop_within(STOP_TIMEOUT)
    }

    /// Replays every record that is readable now, removes all sources and ends the thread. Returns the final counts.
    ///
    /// Events that were not replayed within `timeout` are dropped, and counted; it returns a tenth of a second later then.
    pub fn stop_within(mut self, timeout: Duration) -> Tally {
        self.end(timeout);
        self.tally()
    }

    /// Returns whether this process is a forked child of the one that has the thread.
    fn is_forked_copy(&self) -> bool {
        self.process != std::process::id()
    }

    fn is_running(&self) -> bool {
        !self.is_forked_copy() && self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    fn send(&self, command: Command) -> Option<()> {
        self.commands.as_ref()?.send(command).ok()
    }

    /// Returns whether this thread may wait for the collector's. That one itself, in a layer that calls the handle, would
    /// deadlock.
    fn can_wait(&self) -> bool {
        let thread = self.thread.as_ref().map(|thread| thread.thread().id());
        self.is_running() && thread != Some(thread::current().id())
    }

    fn end(&mut self, timeout: Duration) {
        if self.is_forked_copy() {
            std::mem::forget((self.commands.take(), self.thread.take()));
            return;
        }
        self.commands = None;
        let Some(thread) = self.thread.take() else { return };
        if thread::current().id() == thread.thread().id() {
            return;
        }
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let timeout = match self.sources.is_abandoned() {
            true => NOTICE_TIMEOUT,
            false => timeout,
        };
        let mut result = ended.recv_timeout(timeout);
        if result == Err(RecvTimeoutError::Timeout) {
            self.sources.abandon();
            result = ended.recv_timeout(NOTICE_TIMEOUT);
        }
        if result != Err(RecvTimeoutError::Timeout) {
            // The panic hook has reported a panic of the thread.
            let _ = thread.join();
        }
    }
}

impl Drop for CollectorHandle {
    fn drop(&mut self) {
        self.end(STOP_TIMEOUT);
    }
}

struct ReplayThread {
    collector: Collector,
}

impl ReplayThread {
    fn run(mut self, commands: &Receiver<Command>, interval: Duration) {
        let mut wait = interval;
        let mut waiting_since = Instant::now();
        loop {
            // Commands do not postpone the next turn.
            match commands.recv_timeout(wait.saturating_sub(waiting_since.elapsed())) {
                Ok(command) => self.execute(command),
                Err(RecvTimeoutError::Timeout) => {
                    let drained = self.catch_panic(Collector::turn).unwrap_or_default();
                    wait = match (drained.records, drained.unfinished) {
                        (0, _) => (wait * 2).clamp(interval / BUSY_DIVISOR, interval),
                        (_, 0) => interval / BUSY_DIVISOR,
                        _ => Duration::ZERO,
                    };
                    waiting_since = Instant::now();
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.catch_panic(Collector::remove_all);
    }

    /// Executes a command and replies. The reply fails if the caller has stopped waiting.
    fn execute(&mut self, command: Command) {
        match command {
            Command::Finish(source, reply) => {
                self.catch_panic(|collector| collector.replay_remaining(&source));
                let _ = reply.try_send(());
            }
            Command::Flush(reply) => {
                self.catch_panic(Collector::catch_up);
                let _ = reply.try_send(());
            }
        }
    }

    /// Catches panics outside the replay of a record, such as those in the `Drop` of a subscriber.
    fn catch_panic<T>(&mut self, act: impl FnOnce(&mut Collector) -> T) -> Option<T> {
        catch_unwind(AssertUnwindSafe(|| act(&mut self.collector))).ok()
    }
}

shm_buffers::debug_with_causes!(SetFilterError, FlushError, RemoveError);
