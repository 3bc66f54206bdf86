//! The thread that drains a collector, and how it is told what to do.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use shm_buffers::ring::Consumer;
use shm_buffers::slots::Slots;
use tracing_core::Dispatch;

use crate::collector::{AddError, Collector, Departed, Source};
use crate::filter::Filter;
use crate::lines::{Lines, Stdio};
use crate::pushed::{FilterTooLong, Pushable};
use crate::tally::{SLOTS, Tally};

/// How much sooner the pump comes back to sources that had something.
const SOONER: u32 = 8;
/// How long a handle waits for counts, or for its pump to end, when a subscriber blocks.
const PATIENCE: Duration = Duration::from_secs(2);

enum Command {
    Add(Source, Consumer, Slots),
    Remove(u64, SyncSender<Option<Departed>>),
    Flush(SyncSender<()>),
    Count(SyncSender<()>),
    Filter(Box<Pushable>),
}

/// Why workers did not get another filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetFilterError {
    /// It does not fit.
    #[error(transparent)]
    TooLong(#[from] FilterTooLong),
    /// The pump has stopped.
    #[error("log collector has stopped, the filter was not changed")]
    Stopped,
}

/// Why not everything was replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlushError {
    /// The subscriber was too slow.
    #[error("log records were not all replayed within {0:?}: the subscriber is slow or blocked")]
    TimedOut(Duration),
    /// The pump has stopped, or waits for itself because a layer called it.
    #[error("log collector has stopped or is waiting for itself")]
    Stopped,
}

/// Why nothing is known about a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RemoveError {
    /// It was never added, or is removed already.
    #[error("log collector has no worker {id}")]
    Unknown {
        /// The worker.
        id: u64,
    },
    /// The subscriber was too slow. The source will be removed all the same.
    #[error(
        "log records of worker {id} were not all replayed within {within:?}: the subscriber is slow or blocked"
    )]
    TimedOut {
        /// The worker.
        id: u64,
        /// How long was waited.
        within: Duration,
    },
    /// The pump has stopped, or waits for itself because a layer called it.
    #[error("log collector has stopped or is waiting for itself, worker {id} was not removed")]
    Stopped {
        /// The worker.
        id: u64,
    },
}

/// A [`Collector`] that a thread of its own drains; can be shared by reference.
///
/// When dropped it replays what is readable and ends the thread, within two seconds: a subscriber that blocks
/// for longer is left behind with it. It belongs to the process that made it: a copy in a forked child has no thread,
/// refuses as one that has stopped, and does nothing when it is dropped.
#[derive(Debug)]
pub struct CollectorHandle {
    commands: Option<Sender<Command>>,
    thread: Option<JoinHandle<()>>,
    ended: Mutex<Receiver<()>>,
    tally: Arc<Mutex<Tally>>,
    dispatch: Dispatch,
    /// The process whose thread it is.
    maker: u32,
}

impl Collector {
    /// Drains from now on in a thread of its own, every `interval` and sooner while there is something.
    /// 25 ms is a good interval.
    ///
    /// # Errors
    /// If the system has no thread left.
    pub fn spawn(self, interval: Duration) -> io::Result<CollectorHandle> {
        let (commands, received) = channel();
        let (end, ended) = sync_channel(1);
        let tally = Arc::new(Mutex::new(self.tally()));
        let dispatch = self.replays_into().clone();
        let pump = Pump {
            collector: self,
            tally: tally.clone(),
        };
        let thread = thread::Builder::new().name("log-bridge".into()).spawn(move || {
            pump.run(&received, interval);
            // Nobody may be waiting.
            let _ = end.try_send(());
        })?;
        Ok(CollectorHandle {
            commands: Some(commands),
            thread: Some(thread),
            ended: Mutex::new(ended),
            tally,
            dispatch,
            maker: std::process::id(),
        })
    }
}

impl CollectorHandle {
    /// As [`Collector::add`]; does not wait.
    ///
    /// # Errors
    /// If there are fewer than [`SLOTS`] slots, or the pump has stopped.
    pub fn add(&self, source: Source, consumer: Consumer, slots: Slots) -> Result<(), AddError> {
        let (id, given) = (source.id, slots.len());
        if given < SLOTS {
            return Err(AddError::TooFewSlots { id, given });
        }
        self.send(Command::Add(source, consumer, slots))
            .ok_or(AddError::Stopped { id })
    }

    /// What turns lines that `source` prints to `stdio` into events, where the collector's go.
    pub fn lines(&self, source: Source, stdio: Stdio) -> Lines {
        Lines::new(source, stdio).dispatch(self.dispatch.clone())
    }

    /// As [`Collector::set_filter`]; does not wait.
    ///
    /// # Errors
    /// If the filter is too long, or the pump has stopped.
    pub fn set_filter(&self, filter: &Filter) -> Result<(), SetFilterError> {
        let filter = Box::new(Pushable::new(filter)?);
        self.send(Command::Filter(filter)).ok_or(SetFilterError::Stopped)
    }

    /// As [`Collector::remove`], at once.
    ///
    /// # Errors
    /// If the source is unknown, or its rest is not replayed within the given time.
    pub fn remove(&self, id: u64, within: Duration) -> Result<Departed, RemoveError> {
        let (reply, replied) = sync_channel(1);
        self.ask(Command::Remove(id, reply))
            .ok_or(RemoveError::Stopped { id })?;
        match replied.recv_timeout(within) {
            Ok(Some(departed)) => Ok(departed),
            Ok(None) => Err(RemoveError::Unknown { id }),
            Err(RecvTimeoutError::Timeout) => Err(RemoveError::TimedOut { id, within }),
            Err(RecvTimeoutError::Disconnected) => Err(RemoveError::Stopped { id }),
        }
    }

    /// Waits until everything that is readable now was replayed.
    ///
    /// # Errors
    /// If that takes longer than `within`.
    pub fn flush(&self, within: Duration) -> Result<(), FlushError> {
        let (reply, replied) = sync_channel(1);
        self.ask(Command::Flush(reply)).ok_or(FlushError::Stopped)?;
        replied.recv_timeout(within).map_err(|error| match error {
            RecvTimeoutError::Timeout => FlushError::TimedOut(within),
            RecvTimeoutError::Disconnected => FlushError::Stopped,
        })
    }

    /// As [`Collector::tally`]. If the subscriber blocks for seconds, the counts are those of its last good time.
    pub fn tally(&self) -> Tally {
        let (reply, replied) = sync_channel(1);
        if self.ask(Command::Count(reply)).is_some() {
            // Without an answer the counts are older, not wrong.
            let _ = replied.recv_timeout(PATIENCE);
        }
        self.last_tally()
    }

    fn last_tally(&self) -> Tally {
        if self.is_copy() {
            // The thread that may hold the lock is not here.
            return self
                .tally
                .try_lock()
                .map(|tally| tally.clone())
                .unwrap_or_default();
        }
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replays what is readable, removes every source and ends the thread; gives the final counts.
    pub fn stop(mut self) -> Tally {
        self.end();
        self.last_tally()
    }

    /// Whether this process is a forked child of the one whose thread it is.
    fn is_copy(&self) -> bool {
        self.maker != std::process::id()
    }

    fn send(&self, command: Command) -> Option<()> {
        if self.is_copy() {
            return None;
        }
        self.commands.as_ref()?.send(command).ok()
    }

    /// Sends what will be waited for; the pump's own thread, in a layer that calls us, would wait for ever.
    fn ask(&self, command: Command) -> Option<()> {
        let pump = self.thread.as_ref()?.thread().id();
        if thread::current().id() == pump {
            return None;
        }
        self.send(command)
    }

    fn end(&mut self) {
        if self.is_copy() {
            std::mem::forget((self.commands.take(), self.thread.take()));
            return;
        }
        self.commands = None;
        let Some(pump) = self.thread.take() else { return };
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if thread::current().id() != pump.thread().id()
            && !matches!(ended.recv_timeout(PATIENCE), Err(RecvTimeoutError::Timeout))
        {
            // A panic of the pump was told by the panic hook.
            let _ = pump.join();
        }
    }
}

impl Drop for CollectorHandle {
    fn drop(&mut self) {
        self.end();
    }
}

struct Pump {
    collector: Collector,
    tally: Arc<Mutex<Tally>>,
}

impl Pump {
    fn run(mut self, commands: &Receiver<Command>, interval: Duration) {
        let mut wait = interval;
        let mut waiting_since = Instant::now();
        loop {
            // Commands don't put the next turn off.
            match commands.recv_timeout(wait.saturating_sub(waiting_since.elapsed())) {
                Ok(command) => self.obey(command),
                Err(RecvTimeoutError::Timeout) => {
                    let drained = self.guarded(Collector::turn).unwrap_or_default();
                    wait = match (drained.records, drained.unfinished) {
                        (0, _) => (wait * 2).clamp(interval / SOONER, interval),
                        (_, 0) => interval / SOONER,
                        _ => Duration::ZERO,
                    };
                    waiting_since = Instant::now();
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.guarded(Collector::remove_all);
        self.publish();
    }

    /// A reply that nobody waits for any more is no error.
    fn obey(&mut self, command: Command) {
        match command {
            Command::Add(source, consumer, slots) => {
                // Checked by the sender.
                let _ = self.guarded(|collector| collector.add(source, consumer, slots));
            }
            Command::Remove(id, reply) => {
                let departed = self.guarded(|collector| collector.remove(id));
                self.publish();
                let _ = reply.try_send(departed.flatten());
            }
            Command::Flush(reply) => {
                self.guarded(Collector::drain);
                self.publish();
                let _ = reply.try_send(());
            }
            Command::Filter(filter) => {
                self.guarded(|collector| collector.push_filter(*filter));
            }
            Command::Count(reply) => {
                self.publish();
                let _ = reply.try_send(());
            }
        }
    }

    /// A subscriber that panics loses the event that it panicked on; the panic hook has told about it.
    fn guarded<T>(&mut self, act: impl FnOnce(&mut Collector) -> T) -> Option<T> {
        catch_unwind(AssertUnwindSafe(|| act(&mut self.collector))).ok()
    }

    fn publish(&mut self) {
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner) = self.collector.tally();
    }
}
