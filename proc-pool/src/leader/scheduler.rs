//! [`Scheduler`]: the state of a pool, one value behind one lock (see [`EventLoop`](super::event_loop::EventLoop)). The lock is
//! never held while a thread waits, or during user code or slow system calls.
//!
//! Its duties are in the modules below: [`lifecycle`] of workers and their [`exit`], [`dispatch`] of tasks, [`outcomes`] of tasks
//! in [`turns`] and wakeups for them, [`one_shot`] tasks, withdrawal of tasks ([`withdraw`]), failure and interrupts of the pool
//! ([`failure`]), deadlines and memory ([`limit_checks`]), snapshots ([`snapshot`]), and what large payloads leave
//! ([`idle_memory`]).

mod dispatch;
mod exit;
mod failure;
mod idle_memory;
mod lifecycle;
mod limit_checks;
mod one_shot;
mod outcomes;
mod snapshot;
mod turns;
mod withdraw;

pub(crate) use exit::ExitInfo;
pub(crate) use idle_memory::IdleMemory;
pub(crate) use limit_checks::MEMORY_SAMPLE_INTERVAL;
pub(crate) use withdraw::{Abandoned, InProgress};

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use turns::Turns;

use crate::error::{PoolError, ProcessId, WorkerId};
use crate::leader::command::Command;
use crate::leader::connection::WorkerConnection;
use crate::leader::interrupt::Interrupt;
use crate::leader::limits::Limits;
use crate::leader::pausable_clock::PausableClock;
use crate::leader::stats::Stats;
use crate::leader::supervisor::Supervisor;
use crate::leader::tasks::in_flight::Task;
use crate::leader::tasks::jobs::{JobKey, Jobs};
use crate::metrics::History;
use crate::os::MessageReceiver;
use crate::wire::payload::Large;

/// Maximum time between clock readings while the start of a process is timed.
const MAX_CLOCK_GAP: Duration = Duration::from_millis(100);

/// A process that has connected.
#[derive(Debug)]
struct ActiveWorker {
    process_id: ProcessId,
    pid: u32,
    connection: WorkerConnection,
    ready: bool,
    /// The process manager was asked to kill it.
    kill_pending: bool,
    /// The task that exceeded its deadline.
    overdue: Option<(JobKey, u64)>,
}

impl ActiveWorker {
    /// Returns the number of tasks that may be sent now. A worker that is about to be killed gets none: it could start them before
    /// that, and they would be charged with its death.
    fn room(&self) -> usize {
        match self.ready && !self.kill_pending {
            true => self.connection.room(),
            false => 0,
        }
    }
}

/// A process that was started, connected or not.
#[derive(Debug)]
struct ProcessRecord {
    process_id: ProcessId,
    /// `None` once it was reaped.
    pid: Option<u32>,
    started: Instant,
}

/// The state of a pool.
#[derive(Debug)]
pub(crate) struct Scheduler {
    /// The connected workers, by worker index.
    workers: Vec<Option<ActiveWorker>>,
    turns: Turns,
    pub(crate) jobs: Jobs,
    /// The last process of each worker.
    records: BTreeMap<WorkerId, ProcessRecord>,
    /// Tasks that wait for a worker, the next one first: those submitted alone, and those taken back from a worker.
    backlog: VecDeque<Task<Large>>,
    /// Maximum number of tasks in the backlog that are not wanted any more.
    unwanted: usize,
    limits: Limits,
    supervisor: Supervisor,
    /// The path of the worker program, for errors.
    program: PathBuf,
    /// The clock for the deadlines of workers.
    clock: PausableClock,
    failure: Option<PoolError>,
    stopping: bool,
    interrupted: Option<Interrupt>,
    /// The process manager has panicked.
    manager_lost: bool,
    /// The process manager checks limits periodically; otherwise it is asked to with the next task.
    limit_checks_on: bool,
    /// Number of tasks that were submitted alone.
    one_shots: u64,
    /// Bytes of large payloads whose memory was freed, and perhaps not returned to the system.
    freed_bytes: u64,
    /// When freed memory is returned to the system again, and the pause until then.
    later_return: Option<(Instant, Duration)>,
    pub(crate) stats: Stats,
    pub(crate) history: History,
    /// The event loop sleeps, or is about to, until a worker wakes it: workers that get tasks in this state are asked for a wakeup.
    pub(crate) loop_sleeps: bool,
    /// Outputs must contain their buffers: outputs are read as bytes.
    in_band: bool,
    /// Outcomes seemed to be there, so that a worker was not asked for a wakeup: the next sleep must be short.
    pub(crate) sleep_briefly: bool,
    /// Connections to which the event loop does not listen yet.
    pub(crate) new_connections: Vec<(ProcessId, MessageReceiver)>,
    manager: Sender<Command>,
}

impl Scheduler {
    pub(crate) fn new(
        workers: usize,
        limits: Limits,
        supervisor: Supervisor,
        manager: Sender<Command>,
        program: PathBuf,
    ) -> Self {
        Self {
            workers: (0..workers).map(|_| None).collect(),
            turns: Turns::default(),
            jobs: Jobs::default(),
            records: BTreeMap::new(),
            backlog: VecDeque::new(),
            unwanted: 0,
            limits,
            supervisor,
            program,
            clock: PausableClock::new(Instant::now()),
            failure: None,
            stopping: false,
            interrupted: None,
            manager_lost: false,
            limit_checks_on: true,
            one_shots: 0,
            freed_bytes: 0,
            later_return: None,
            stats: Stats::default(),
            history: History::new(),
            loop_sleeps: false,
            in_band: false,
            sleep_briefly: false,
            new_connections: Vec::new(),
            manager,
        }
    }

    /// Sends a command to the process manager.
    fn command(&self, command: Command) {
        // The manager outlives the scheduler except for the last moments of a pool, when nothing is left to do.
        let _ = self.manager.send(command);
    }

    /// Returns the time by which workers are judged: it stands still while this process is stopped.
    pub(crate) fn now(&mut self) -> Instant {
        self.clock.at(Instant::now())
    }

    /// The process manager promises to read the clock within that time.
    pub(crate) fn expect_clock_read_within(&mut self, wait: Duration) {
        self.clock.expect_read_within(wait, Instant::now());
    }

    /// Returns the time until [`Event::Tick`](crate::leader::supervisor::Event::Tick) is due, or until the clock must be read so
    /// that it does not count a stop of this process as time.
    pub(crate) fn tick_in(&mut self) -> Option<Duration> {
        let at = self.supervisor.deadline()?;
        Some(at.saturating_duration_since(self.now()).min(MAX_CLOCK_GAP))
    }

    /// Returns the connected worker with this process id.
    fn worker(&mut self, process_id: ProcessId) -> Option<&mut ActiveWorker> {
        let worker = self.workers.get_mut(process_id.worker.0 as usize)?.as_mut()?;
        (worker.process_id == process_id).then_some(worker)
    }
}
