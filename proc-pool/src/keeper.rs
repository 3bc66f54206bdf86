//! The keeper: the one thread that starts processes and reaps them.
//!
//! It lives as long as its pool: Linux ends a worker with the *thread* that started it.

mod inquiry;
mod memory;
#[cfg(all(feature = "stacks", target_os = "linux"))]
mod namer;
mod process;
mod seat;
mod start;

pub(crate) use seat::Seat;

use std::collections::HashMap;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use shm_buffers::Backing;
use shm_buffers::descriptors::Descriptors;
use shm_buffers::slots::Slots;

use self::inquiry::{Inquiry, Namer};
use self::process::{IDLE_POLL, Process};
use crate::core::{End, Incarnation, WEIGH};
use crate::driver::Driver;
use crate::entry::Entry;
use crate::error::{Cause, KillReason, PoolError, WorkerId};
use crate::last_panics;
use crate::launch::Launch;
use crate::observer::{LastWords, Observer};
use crate::os;
use crate::panics::guarded;
use crate::payload::{chain, to_segment};
use crate::printed::Reader;
use crate::protocol::{Inherited, Sizes};
use crate::spawn::Introduction;
use crate::supervisor::Event;

/// Bytes of an initial value that travel with the introduction; a larger one has a segment.
const MAX_INTRODUCED: usize = 2 << 10;
/// How long a process may live without its connection, or its connection without it.
const GRACE: Duration = Duration::from_secs(1);
/// How long the keeper may take over its work, before it seems that it was stopped meanwhile.
const WORK: Duration = Duration::from_millis(100);
/// How long a killed process may take to end, before a pool that is dropped leaves it to the system.
const REAP: Duration = Duration::from_secs(5);
/// How long tasks and workers are looked after when no worker has a task any more.
const REST: Duration = Duration::from_secs(1);
/// Of the keeper's time, one in so many parts may be spent on workers' memory.
const WEIGHING: u32 = 50;

/// What the keeper is asked to do.
#[derive(Debug)]
pub(crate) enum Order {
    Spawn(WorkerId),
    Kill(WorkerId, KillReason),
    KillAll(KillReason),
    Introduced(Incarnation, Introduction),
    /// The process's connection has closed.
    Closed(Incarnation),
    /// Tasks were sent: look after them.
    Watch,
    /// Kill what is left and end.
    Stop,
}

/// What every worker is started with.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) entry: Entry,
    pub(crate) sizes: Sizes,
    pub(crate) init: Vec<u8>,
    /// What handles in `init` lead to.
    pub(crate) descriptors: Vec<Arc<Descriptors>>,
    pub(crate) backing: Backing,
    pub(crate) launch: Launch,
    pub(crate) inherited: Inherited,
}

pub(crate) struct Keeper {
    driver: Arc<Driver>,
    observer: Arc<dyn Observer>,
    plan: Plan,
    orders: Receiver<Order>,
    to_self: Sender<Order>,
    processes: Vec<Process>,
    numbers: HashMap<WorkerId, u32>,
    /// How large the memory is that workers share was found out.
    shared: bool,
    /// A large `init` in shared memory, for as long as workers may be started.
    init: Option<(shm_buffers::Segment, shm_buffers::SegmentHandle)>,
    /// Reads what workers print, if that is captured.
    reader: Option<Reader>,
    /// Makes texts of stacks.
    namer: Namer,
    stopping: Option<Instant>,
    /// When workers last had tasks.
    busy: Instant,
    /// When to look after tasks and workers again.
    watch: Option<Duration>,
    /// Workers' memory is not looked at before.
    weigh: Instant,
    /// All processes were asked then whether they have ended.
    asked: Instant,
    oom: os::OomKills,
}

impl Keeper {
    pub(crate) fn new(
        driver: Arc<Driver>,
        observer: Arc<dyn Observer>,
        plan: Plan,
        orders: Receiver<Order>,
        to_self: Sender<Order>,
    ) -> Result<Self, PoolError> {
        let init = match plan.init.len() {
            ..=MAX_INTRODUCED => None,
            _ => Some(to_segment(&plan.init).map_err(PoolError::Init)?),
        };
        let now = Instant::now();
        let reader = plan
            .launch
            .captures()
            .then(|| Reader::start(observer.clone()))
            .transpose()?;
        Ok(Self {
            driver,
            observer,
            plan,
            orders,
            to_self,
            processes: Vec::new(),
            numbers: HashMap::new(),
            shared: false,
            init,
            reader,
            namer: Namer::default(),
            stopping: None,
            busy: now,
            watch: None,
            weigh: now,
            asked: now,
            oom: os::OomKills::new(),
        })
    }

    /// The keeper thread's life.
    pub(crate) fn run(mut self) {
        if guarded(|| self.keep()).is_err() {
            for process in &mut self.processes {
                process.spawned.kill();
                let _ = process.spawned.child.wait();
            }
            self.driver.core().lose_keeper();
            self.driver.nudge();
        }
    }

    fn keep(&mut self) {
        self.driver.core().event(Event::Tick);
        loop {
            let patience = self.patience();
            self.driver.core().look_within(patience);
            let order = self.orders.recv_timeout(patience);
            self.driver.core().look_within(WORK);
            match order {
                Ok(order) => self.obey(order),
                Err(RecvTimeoutError::Timeout) => {}
                // Not while we hold a sender.
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.reap();
            self.watch = self.watch();
            let due = self.driver.core().tick_in();
            if due == Some(Duration::ZERO) {
                self.driver.core().event(Event::Tick);
            }
            match self.stopping {
                Some(_) if self.processes.is_empty() => return,
                Some(since) if since.elapsed() > REAP => return,
                _ => {}
            }
        }
    }

    fn patience(&self) -> Duration {
        let poll = self
            .processes
            .iter()
            .map(Process::poll)
            .chain(self.watch)
            .min()
            .unwrap_or(IDLE_POLL);
        let due = self.driver.core().tick_in();
        due.map_or(poll, |due| due.min(poll))
    }

    /// Looks after tasks that run too long and workers that grow, where that was asked for; gives when to do so
    /// again.
    fn watch(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let mut core = self.driver.core();
        let interval = core.watch_interval()?;
        if core.busy() > 0 {
            self.busy = now;
        } else if now.saturating_duration_since(self.busy) >= REST {
            core.unwatch();
            return None;
        }
        core.expire();
        if now >= self.weigh {
            let members = core.to_weigh();
            drop(core);
            let weights = members
                .into_iter()
                .map(|(member, pid)| (member, os::own_memory(pid)));
            let weights: Vec<_> = weights.collect();
            self.weigh = now + (now.elapsed() * WEIGHING).max(WEIGH);
            let mut core = self.driver.core();
            for (member, bytes) in weights {
                // One that has ended has none.
                bytes.into_iter().for_each(|bytes| core.weighed(member, bytes));
            }
        }
        Some(interval)
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Spawn(worker) => {
                let spawned = self.spawn(worker);
                let hopeless = spawned
                    .as_ref()
                    .err()
                    .filter(|e| matches!(e, PoolError::Program { .. }))
                    .cloned();
                let event = match spawned {
                    Ok(()) => Event::Spawned(worker),
                    Err(e) => Event::StartFailed(worker, chain(&e)),
                };
                let mut core = self.driver.core();
                // No attempt will find it better; once there were workers, it may be about to be replaced.
                if let Some(error) = hopeless.filter(|_| core.stats.spawned == 0) {
                    core.fail(error);
                }
                core.event(event);
            }
            Order::Kill(worker, reason) => {
                self.kill(reason, |process| process.incarnation.worker == worker);
            }
            Order::KillAll(reason) => self.kill(reason, |_| true),
            Order::Introduced(incarnation, introduction) => self.welcome(incarnation, introduction),
            Order::Closed(incarnation) => {
                let process = self.processes.iter_mut().find(|p| p.incarnation == incarnation);
                if let Some(process) = process {
                    process.closed.get_or_insert_with(|| self.driver.core().now());
                }
            }
            Order::Watch => {
                self.busy = Instant::now();
                // Nobody waits for that.
                return;
            }
            Order::Stop => {
                self.stopping = Some(Instant::now());
                self.kill(KillReason::Shutdown, |_| true);
            }
        }
        // Whoever waits may wait for this.
        self.driver.nudge();
    }

    fn kill(&mut self, reason: KillReason, which: impl Fn(&Process) -> bool) {
        for process in self.processes.iter_mut().filter(|p| which(p)) {
            if process.killed.is_none() {
                process.killed = Some(reason);
                if reason == KillReason::Deadline
                    && process.inquiry.begin(process.pid, &process.region, process.sizes)
                {
                    // As soon as it has answered.
                    continue;
                }
                process.spawned.kill();
            }
        }
    }

    /// Collects processes that have ended.
    fn reap(&mut self) {
        let stopping = self.stopping.is_some();
        let now = self.driver.core().now();
        let over = |since: Instant| now.saturating_duration_since(since) > GRACE;
        // That one has died is told by its connection, as a rule: to ask all of many each time would cost.
        let all = stopping || self.asked.elapsed() >= IDLE_POLL;
        if all {
            self.asked = Instant::now();
        }
        let mut index = 0;
        while index < self.processes.len() {
            let process = &mut self.processes[index];
            if process.inquiry.is_over(&mut self.namer) {
                process.spawned.kill();
            }
            if process.ended.is_none() && (all || process.poll() < IDLE_POLL) {
                match process.spawned.try_wait() {
                    Ok(None) => {
                        if process.closed.is_some_and(over) && process.killed.is_none() {
                            process.killed = Some(KillReason::Disconnected);
                            process.spawned.kill();
                        }
                    }
                    Ok(Some(status)) => process.ended = Some((now, Some(status))),
                    // Somebody else reaped it: a `wait(-1)` or an ignored SIGCHLD in this program.
                    Err(_) => process.ended = Some((now, None)),
                }
            }
            match process.ended {
                // A child of its own may hold the connection open.
                // The text of its stack comes from another thread.
                Some(_) if !stopping && !process.inquiry.is_settled() => index += 1,
                Some((at, status))
                    if stopping || !process.connected || process.closed.is_some() || over(at) =>
                {
                    let process = self.processes.swap_remove(index);
                    self.ended(process, status);
                }
                _ => index += 1,
            }
        }
    }

    fn ended(&mut self, process: Process, status: Option<ExitStatus>) {
        let Process {
            incarnation,
            pid,
            killed,
            connected,
            spawned,
            region,
            sizes,
            inquiry,
            ..
        } = process;
        spawned.finish(connected);
        let cause = match (killed, status) {
            // It may have ended by itself just before.
            (Some(reason), Some(status)) if os::is_kill(status) => Cause::Killed { reason },
            (Some(reason), None) => Cause::Killed { reason },
            (_, Some(status)) => {
                let oom = os::is_kill(status).then(|| self.oom.cause()).flatten();
                oom.unwrap_or_else(|| os::cause(status))
            }
            (None, None) => Cause::Unknown,
        };
        let printed = self.reader.as_ref().map(|reader| reader.finish(incarnation));
        let logs = guarded(|| self.observer.ended(incarnation.worker, &cause)).unwrap_or_default();
        let panics = last_panics::read(&Slots::new(&region, sizes.map().last_panics));
        drop(region);
        let last = LastWords {
            logs,
            printed: printed.unwrap_or_default(),
            panics,
            stack: inquiry.text(),
        };
        let end = End {
            pid,
            cause: &cause,
            last: &last,
        };
        self.driver.core().ended(incarnation, &end);
        self.driver.nudge();
    }
}
