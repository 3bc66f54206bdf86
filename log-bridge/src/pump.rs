//! The thread that drains a collector, and how it is told what to do.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use shm_buffers::ring::Consumer;
use shm_buffers::slots::Slots;

use crate::collector::{AddError, Collector, Departed, Source, departed, inlet};
use crate::filter::Filter;
use crate::lines::{Lines, Stdio};
use crate::pushed::{FilterTooLong, Pushable};
use crate::sink::Target;
use crate::sources::{Inlet, Sources};
use crate::tally::Tally;

/// How much sooner the pump comes back to sources that had something.
const SOONER: u32 = 8;
/// How long a handle that is dropped waits for what is readable to be replayed.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a subscriber may take to hear that the rest was dropped.
const LAST_NOTICE: Duration = Duration::from_millis(100);

enum Command {
    /// A source has ended: replay its rest.
    Finish(Arc<Inlet>, SyncSender<()>),
    Flush(SyncSender<()>),
}

/// Why workers did not get another filter.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
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
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
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
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RemoveError {
    /// It was never added, or is removed already.
    #[error("log collector has no worker {id}")]
    Unknown {
        /// The worker.
        id: u64,
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
/// Dropping it replays all readable records and ends the thread, within two seconds and a tenth. Later records are dropped,
/// and a subscriber that blocks keeps the thread. The handle belongs to the process that made it: a copy in a forked child
/// has no thread, refuses as one that has stopped, and does nothing when it is dropped.
#[derive(Debug)]
pub struct CollectorHandle {
    commands: Option<Sender<Command>>,
    thread: Option<JoinHandle<()>>,
    ended: Mutex<Receiver<()>>,
    sources: Arc<Sources>,
    target: Target,
    last_records: usize,
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
        let (target, sources, last_records) = self.shared();
        let pump = Pump { collector: self };
        let thread = thread::Builder::new().name("log-bridge".into()).spawn(move || {
            pump.run(&received, interval);
            // Nobody may be waiting.
            let _ = end.try_send(());
        })?;
        Ok(CollectorHandle {
            commands: Some(commands),
            thread: Some(thread),
            ended: Mutex::new(ended),
            sources,
            target,
            last_records,
            maker: std::process::id(),
        })
    }
}

impl CollectorHandle {
    /// As [`Collector::add`]; does not wait.
    ///
    /// # Errors
    /// If there are fewer than [`SLOTS`](crate::SLOTS) slots, or the pump has stopped.
    pub fn add(&self, source: Source, consumer: Consumer, slots: Slots) -> Result<(), AddError> {
        let inlet = inlet(source, consumer, slots, self.last_records)?;
        if !self.is_running() {
            return Err(AddError::Stopped { id: source.id });
        }
        self.sources.add(inlet);
        Ok(())
    }

    /// What turns lines that `source` prints to `stdio` into events, where the collector's go.
    pub fn lines(&self, source: Source, stdio: Stdio) -> Lines {
        Lines::new(source, stdio).target(self.target.clone())
    }

    /// As [`Collector::set_filter`]; does not wait.
    ///
    /// # Errors
    /// If the filter is too long, or the pump has stopped.
    pub fn set_filter(&self, filter: &Filter) -> Result<(), SetFilterError> {
        let filter = Pushable::new(filter)?;
        if !self.is_running() {
            return Err(SetFilterError::Stopped);
        }
        self.sources.push_filter(filter);
        Ok(())
    }

    /// As [`Collector::remove`], in the pump's thread. The [last records](Departed::records) do not depend on the subscriber,
    /// which may be busy. If it takes longer than `within`, the [counts](Departed::tally) show how many events wait; they
    /// are replayed later.
    ///
    /// # Errors
    /// If the source is unknown, or the pump has stopped.
    pub fn remove(&self, id: u64, within: Duration) -> Result<Departed, RemoveError> {
        if !self.can_ask() {
            return Err(RemoveError::Stopped { id });
        }
        let inlet = self.sources.find(id).ok_or(RemoveError::Unknown { id })?;
        inlet.end();
        let (reply, replied) = sync_channel(1);
        self.send(Command::Finish(inlet.clone(), reply))
            .ok_or(RemoveError::Stopped { id })?;
        // The counts show whether it was in time.
        let _ = replied.recv_timeout(within);
        Ok(departed(&inlet))
    }

    /// Waits until everything that is readable now was replayed. Without a system call if that is so already.
    ///
    /// # Errors
    /// If that takes longer than `within`.
    pub fn flush(&self, within: Duration) -> Result<(), FlushError> {
        if self.can_ask() && self.sources.is_idle() {
            return Ok(());
        }
        let (reply, replied) = sync_channel(1);
        self.ask(Command::Flush(reply)).ok_or(FlushError::Stopped)?;
        replied.recv_timeout(within).map_err(|error| match error {
            RecvTimeoutError::Timeout => FlushError::TimedOut(within),
            RecvTimeoutError::Disconnected => FlushError::Stopped,
        })
    }

    /// As [`Collector::tally`]: the counts of this moment, whatever the subscriber does. It does not wait.
    pub fn tally(&self) -> Tally {
        match self.is_copy() {
            // The thread that may hold the lock is not here.
            true => self.sources.try_tally().unwrap_or_default(),
            false => self.sources.tally(),
        }
    }

    /// Stops replaying: all events that wait are dropped, and counted. Returns the final counts, without waiting.
    pub fn abandon(&self) -> Tally {
        if !self.is_copy() {
            self.sources.abandon();
        }
        self.tally()
    }

    /// Replays what is readable, removes every source and ends the thread, within two seconds; gives the final counts.
    pub fn stop(self) -> Tally {
        self.stop_within(PATIENCE)
    }

    /// As [`stop`](Self::stop), within another time, and a tenth of a second. Events that are not replayed by then are
    /// dropped, and counted.
    pub fn stop_within(mut self, within: Duration) -> Tally {
        self.end(within);
        self.tally()
    }

    /// Whether this process is a forked child of the one whose thread it is.
    fn is_copy(&self) -> bool {
        self.maker != std::process::id()
    }

    fn is_running(&self) -> bool {
        !self.is_copy() && self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    fn send(&self, command: Command) -> Option<()> {
        self.commands.as_ref()?.send(command).ok()
    }

    /// Whether the pump may be waited for. Its own thread, in a layer that calls us, would deadlock.
    fn can_ask(&self) -> bool {
        let pump = self.thread.as_ref().map(|pump| pump.thread().id());
        self.is_running() && pump != Some(thread::current().id())
    }

    fn ask(&self, command: Command) -> Option<()> {
        match self.can_ask() {
            true => self.send(command),
            false => None,
        }
    }

    fn end(&mut self, within: Duration) {
        if self.is_copy() {
            std::mem::forget((self.commands.take(), self.thread.take()));
            return;
        }
        self.commands = None;
        let Some(pump) = self.thread.take() else { return };
        if thread::current().id() == pump.thread().id() {
            return;
        }
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let within = match self.sources.is_abandoned() {
            true => LAST_NOTICE,
            false => within,
        };
        let mut over = ended.recv_timeout(within);
        if over == Err(RecvTimeoutError::Timeout) {
            self.sources.abandon();
            over = ended.recv_timeout(LAST_NOTICE);
        }
        if over != Err(RecvTimeoutError::Timeout) {
            // A panic of the pump was told by the panic hook.
            let _ = pump.join();
        }
    }
}

impl Drop for CollectorHandle {
    fn drop(&mut self) {
        self.end(PATIENCE);
    }
}

struct Pump {
    collector: Collector,
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
    }

    /// A reply that nobody waits for any more is no error.
    fn obey(&mut self, command: Command) {
        match command {
            Command::Finish(inlet, reply) => {
                self.guarded(|collector| collector.replay_rest(&inlet));
                let _ = reply.try_send(());
            }
            Command::Flush(reply) => {
                self.guarded(Collector::catch_up);
                let _ = reply.try_send(());
            }
        }
    }

    /// Records have guards of their own; this is for the rest, such as a subscriber's `Drop`.
    fn guarded<T>(&mut self, act: impl FnOnce(&mut Collector) -> T) -> Option<T> {
        catch_unwind(AssertUnwindSafe(|| act(&mut self.collector))).ok()
    }
}

shm_buffers::debug_with_causes!(SetFilterError, FlushError, RemoveError);
