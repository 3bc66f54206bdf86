//! [`ProcessManager`]: the one thread that spawns, kills and reaps worker processes. It executes the scheduler's
//! [`Command`]s and reports back to it.
//!
//! The thread lives as long as its pool: on Linux, a worker is killed when the *thread* that spawned it ends.
//!
//! The duties are in the modules below: [`start`] spawns processes, [`handshake`] connects them, [`limit_checks`] watches
//! deadlines and memory, [`reap`] handles their end.

mod handshake;
mod limit_checks;
mod pending_stack;
mod pending_thread;
mod process;
mod reap;
mod region;
mod start;
#[cfg(all(feature = "stacks", target_os = "linux"))]
mod symbolizer;

pub(crate) use pending_thread::PendingThread;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use shm_buffers::Backing;
use shm_buffers::descriptors::Descriptors;

use self::pending_stack::Symbolizer;
use self::process::{IDLE_POLL, ManagedProcess};
use crate::error::{KillReason, PoolError, WorkerId};
use crate::leader::command::Command;
use crate::leader::event_loop::EventLoop;
use crate::leader::supervisor::Event;
use crate::observer::Observer;
use crate::os;
use crate::panics::guarded;
use crate::process::launch::Launch;
use crate::process::output_reader::OutputReader;
use crate::process::worker_hooks::WorkerHooks;
use crate::wire::entry::Entry;
use crate::wire::handshake::Inherited;
use crate::wire::layout::RegionSizes;
use crate::wire::pieces::Trust;
use crate::wire::value::PreparedValue;

/// How long the manager may work between two waits. If it takes longer, its process was probably stopped during the work (see
/// [`PausableClock`](crate::leader::pausable_clock::PausableClock)).
const MAX_WORK: Duration = Duration::from_millis(100);
/// How long killed processes may take to end before a pool that is dropped leaves them to the system.
const REAP_TIMEOUT: Duration = Duration::from_secs(5);

/// How every worker is started.
#[derive(Debug)]
pub(crate) struct SpawnConfig {
    pub(crate) entry: Entry,
    pub(crate) sizes: RegionSizes,
    pub(crate) init: PreparedValue,
    /// The descriptors that handles in `init` refer to.
    pub(crate) descriptors: Vec<Arc<Descriptors>>,
    pub(crate) backing: Backing,
    pub(crate) launch: Launch,
    pub(crate) inherited: Inherited,
    pub(crate) trust: Trust,
    pub(crate) hooks: WorkerHooks,
}

pub(crate) struct ProcessManager {
    event_loop: Arc<EventLoop>,
    observer: Arc<dyn Observer>,
    config: SpawnConfig,
    commands: Receiver<Command>,
    /// Sends commands to this manager, from threads that wait for a process to connect.
    command_sender: Sender<Command>,
    processes: Vec<ManagedProcess>,
    /// Number of processes that each worker has had.
    generations: HashMap<WorkerId, u32>,
    /// Reads the output of workers, if it is captured.
    output_reader: Option<OutputReader>,
    symbolizer: Symbolizer,
    /// When the pool asked this manager to stop.
    stopping_since: Option<Instant>,
    /// When workers last had tasks.
    last_busy: Instant,
    /// Time until deadlines and memory are checked next; `None` while they need no checks.
    limit_check_in: Option<Duration>,
    /// The memory of workers is not sampled before this time.
    next_memory_sample: Instant,
    /// When all processes were last polled for their end.
    last_full_poll: Instant,
    oom_kills: os::OomKills,
}

impl ProcessManager {
    pub(crate) fn new(
        event_loop: Arc<EventLoop>,
        observer: Arc<dyn Observer>,
        config: SpawnConfig,
        commands: Receiver<Command>,
        command_sender: Sender<Command>,
    ) -> Result<Self, PoolError> {
        let now = Instant::now();
        let output_reader = config
            .launch
            .captures()
            .then(|| OutputReader::start(observer.clone()))
            .transpose()?;
        Ok(Self {
            event_loop,
            observer,
            config,
            commands,
            command_sender,
            processes: Vec::new(),
            generations: HashMap::new(),
            output_reader,
            symbolizer: Symbolizer::default(),
            stopping_since: None,
            last_busy: now,
            limit_check_in: None,
            next_memory_sample: now,
            last_full_poll: now,
            oom_kills: os::OomKills::none(),
        })
    }

    /// Runs the manager until its pool is gone. If it panics, kills all processes and fails the pool. OOM kills are looked up in
    /// `oom_kills`.
    pub(crate) fn run(mut self, oom_kills: os::OomKills) {
        self.oom_kills = oom_kills;
        if guarded(|| self.run_loop()).is_err() {
            for process in &mut self.processes {
                process.spawned.kill();
                let _ = process.spawned.child.wait();
            }
            self.event_loop.scheduler().manager_ended();
            self.event_loop.nudge();
        }
    }

    fn run_loop(&mut self) {
        self.event_loop.scheduler().event(Event::Tick);
        loop {
            let timeout = self.command_timeout();
            self.event_loop.scheduler().expect_clock_read_within(timeout);
            let command = self.commands.recv_timeout(timeout);
            self.event_loop.scheduler().expect_clock_read_within(MAX_WORK);
            match command {
                Ok(command) => self.execute(command),
                Err(RecvTimeoutError::Timeout) => {}
                // This cannot happen while `command_sender` exists.
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.reap();
            self.limit_check_in = self.check_limits();
            let due = self.event_loop.scheduler().tick_in();
            if due == Some(Duration::ZERO) {
                self.event_loop.scheduler().event(Event::Tick);
            }
            match self.stopping_since {
                Some(_) if self.processes.is_empty() => return,
                Some(since) if since.elapsed() > REAP_TIMEOUT => return,
                _ => {}
            }
        }
    }

    /// Returns how long to wait for the next command.
    fn command_timeout(&self) -> Duration {
        let poll = self
            .processes
            .iter()
            .map(ManagedProcess::poll_interval)
            .chain(self.limit_check_in)
            .min()
            .unwrap_or(IDLE_POLL);
        let due = self.event_loop.scheduler().tick_in();
        due.map_or(poll, |due| due.min(poll))
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Spawn(worker) => {
                if let Some(next) = self.spawn(worker) {
                    self.execute(next);
                }
            }
            Command::Kill(worker, reason) => {
                self.kill(reason, |process| process.process_id.worker == worker);
            }
            Command::KillAll(reason) => self.kill(reason, |_| true),
            Command::Connected(process_id, connection) => self.shake_hands(process_id, connection),
            Command::Disconnected(process_id) => {
                let process = self.processes.iter_mut().find(|p| p.process_id == process_id);
                if let Some(process) = process {
                    process
                        .disconnected_at
                        .get_or_insert_with(|| self.event_loop.scheduler().now());
                }
            }
            Command::CheckLimits => {
                self.last_busy = Instant::now();
                // No caller waits for this.
                return;
            }
            Command::Stop => {
                self.stopping_since = Some(Instant::now());
                self.kill(KillReason::Shutdown, |_| true);
            }
        }
        // A caller may wait for what the command has changed.
        self.event_loop.nudge();
    }

    /// Kills the processes that `which` selects. A process with an overdue task is first asked for its stack, and killed when it
    /// has replied (see [`reap`](Self::reap)).
    fn kill(&mut self, reason: KillReason, which: impl Fn(&ManagedProcess) -> bool) {
        for process in self.processes.iter_mut().filter(|p| which(p)) {
            if process.killed.is_none() {
                process.killed = Some(reason);
                if reason == KillReason::Deadline
                    && process.stack.request(process.pid, &process.region, process.sizes)
                {
                    continue;
                }
                process.spawned.kill();
            }
        }
    }
}
