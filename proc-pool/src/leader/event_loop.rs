//! [`EventLoop`]: waits for wakeups of workers and runs the scheduler.
//!
//! A thread that calls a pool and has to wait runs the event loop itself: it listens to all workers together and handles their
//! events for all callers. So a single caller is woken directly by the worker, with no thread in between. Callers that find another thread
//! running the loop wait for its notification. When no thread has called for a while, the pool's standby thread runs the loop.

mod guard;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

pub(crate) use guard::SchedulerGuard;

use crate::error::PoolError;
use crate::error::ProcessId;
use crate::leader::connection::{ExpectedWakeup, WakeThreshold};
use crate::leader::scheduler::{Abandoned, IdleMemory, Scheduler};
use crate::leader::snapshot::Snapshot;
use crate::leader::tasks::jobs::JobKey;
use crate::os::{ConnectionEvent, ListenerWaker, MessageListener, Origin, ProcessMemory};
use crate::panics::guarded;
use crate::spin::{Spinner, pause};
use crate::wire::handshake::Spin;

/// Maximum sleep: if a wakeup is lost for whatever reason, its cause is noticed after this time.
const MAX_SLEEP: Duration = Duration::from_secs(1);
/// Maximum sleep until several outcomes are there, which should take much less. After it, the loop asks for a wakeup with the next
/// outcome instead.
const SEVERAL_SLEEP: Duration = Duration::from_millis(10);
/// A short sleep, while outcomes are expected at any moment.
const SHORT_SLEEP: Duration = Duration::from_millis(1);
/// How often in a row outcomes may seem to be there that are not, before the loop sleeps briefly each time.
const MAX_EMPTY_POLLS: u32 = 100;
/// How long a caller waits for the thread that runs the loop before it checks by itself.
const FOLLOWER_WAIT: Duration = Duration::from_millis(50);
/// How long no thread must have called before the standby thread runs the loop.
const STANDBY_DELAY: Duration = Duration::from_millis(10);

/// The scheduler behind its lock, and what threads wait on.
#[derive(Debug)]
pub(crate) struct EventLoop {
    scheduler: Mutex<Scheduler>,
    /// Notified when a task was finished, or the thread that runs the loop leaves it.
    changed: Condvar,
    /// Locked by the thread that runs the loop.
    poll_state: Mutex<PollState>,
    waker: LoopWaker,
    /// Number of callers that wait now.
    callers: AtomicUsize,
    /// Number of waits of callers, and of other uses, since the start.
    uses: AtomicU64,
    /// A task is awaited without a thread.
    standby_requested: AtomicBool,
    standby_runs: AtomicBool,
    stop: AtomicBool,
    /// The standby thread sleeps on this.
    standby_sleep: (Mutex<()>, Condvar),
    cores: usize,
    /// Identifies the leader's process.
    origin: Origin,
}

/// The state of the thread that runs the loop.
struct PollState {
    listener: MessageListener,
    /// The processes, by the keys of their events.
    processes: HashMap<u64, ProcessId>,
    threshold: WakeThreshold,
    /// A reused buffer.
    events: Vec<(u64, ConnectionEvent)>,
    /// Number of times in a row that outcomes seemed to be there and were not: a worker writes invalid data, or died while writing.
    empty_polls: u32,
    spinner: Spinner,
}

impl std::fmt::Debug for PollState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PollState")
            .field("processes", &self.processes)
            .finish_non_exhaustive()
    }
}

/// Wakes the thread that runs the loop.
#[derive(Debug)]
struct LoopWaker {
    listener: ListenerWaker,
    /// It was woken and has not polled since: one wakeup is enough.
    pending: AtomicBool,
}

impl LoopWaker {
    fn wake(&self) {
        if !self.pending.swap(true, Ordering::SeqCst) {
            self.listener.wake();
        }
    }
}

/// How the loop has run once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ran {
    Normally,
    /// It did not sleep: first, memory that this process has freed should be returned to the system.
    ReturnFreedMemory,
}

/// Returns freed memory to the system if the loop asks for that. This may take milliseconds, in which another thread can run the loop.
fn return_memory_after(ran: Ran) {
    if ran == Ran::ReturnFreedMemory {
        shm_buffers::return_freed_memory();
    }
}

/// Counts a caller while it waits.
struct WaitingCaller<'a>(&'a EventLoop);

impl Drop for WaitingCaller<'_> {
    fn drop(&mut self) {
        self.0.callers.fetch_sub(1, Ordering::SeqCst);
        // Another caller may have to run the loop from now on.
        if self.0.callers.load(Ordering::SeqCst) > 0 {
            self.0.notify_callers();
        }
    }
}

impl EventLoop {
    pub(crate) fn new(scheduler: Scheduler, cores: usize) -> Result<Self, PoolError> {
        let (listener, waker) = MessageListener::new().map_err(PoolError::io("listen to workers"))?;
        Ok(Self {
            scheduler: Mutex::new(scheduler),
            changed: Condvar::new(),
            poll_state: Mutex::new(PollState {
                listener,
                processes: HashMap::new(),
                threshold: WakeThreshold::Half,
                events: Vec::new(),
                empty_polls: 0,
                spinner: Spinner::default(),
            }),
            waker: LoopWaker {
                listener: waker,
                pending: AtomicBool::new(false),
            },
            callers: AtomicUsize::new(0),
            uses: AtomicU64::new(0),
            standby_requested: AtomicBool::new(false),
            standby_runs: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            standby_sleep: (Mutex::new(()), Condvar::new()),
            cores,
            origin: Origin::here(),
        })
    }

    /// Returns whether this process is the leader. In a forked copy of it, nothing else here may be called. Costs next to nothing.
    #[inline]
    pub(crate) fn is_here(&self) -> bool {
        self.origin.is_here()
    }

    /// Checks the same with a system call, for operations that are not done for each task.
    ///
    /// # Errors
    /// [`PoolError::Forked`] in a forked copy.
    pub(crate) fn check(&self) -> Result<(), PoolError> {
        match self.origin.is_surely_here() {
            true => Ok(()),
            false => Err(self.forked()),
        }
    }

    /// Returns the error of all operations in a forked copy.
    #[cold]
    pub(crate) fn forked(&self) -> PoolError {
        let pid = self.origin.pid();
        PoolError::Forked { pid }
    }

    /// Locks the scheduler. Keep the lock only for a moment.
    pub(crate) fn scheduler(&self) -> SchedulerGuard<'_> {
        // Only a bug of this crate can poison the lock; the state is consistent between statements.
        SchedulerGuard::new(self.scheduler.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Records that the pool is being used by a thread that does not wait now, so the standby thread need not run the loop.
    pub(crate) fn record_use(&self) {
        self.uses.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes the standby thread run the loop, because a task is awaited without a thread.
    pub(crate) fn request_standby(&self) {
        if !self.standby_runs.load(Ordering::SeqCst) && !self.standby_requested.swap(true, Ordering::SeqCst) {
            self.standby_sleep.1.notify_all();
        }
    }

    /// Locks the scheduler, after it has collected everything that workers have finished.
    pub(crate) fn fresh_scheduler(&self) -> SchedulerGuard<'_> {
        let mut scheduler = self.scheduler();
        // A caller may sleep until what was just collected comes. A caller that waits from now on checks first.
        if scheduler.collect() > 0 && self.callers.load(Ordering::SeqCst) > 0 {
            drop(scheduler);
            self.nudge();
            scheduler = self.scheduler();
        }
        scheduler
    }

    /// Returns what the workers are doing now; nothing in a forked copy.
    pub(crate) fn snapshot(&self) -> Snapshot {
        if self.check().is_err() {
            return Snapshot::default();
        }
        let mut snapshot = self.fresh_scheduler().snapshot(Instant::now());
        for worker in &mut snapshot.workers {
            worker.memory = worker.pid.and_then(ProcessMemory::resident_of);
        }
        snapshot
    }

    /// Ends a job whose owner is gone. Never waits for a worker.
    pub(crate) fn abandon(&self, job: JobKey) {
        if !self.is_here() {
            return;
        }
        let abandoned = self.scheduler().abandon(job);
        let Some(Abandoned { job, pending }) = abandoned else {
            return;
        };
        // A shutdown may wait for these tasks.
        if pending && self.callers.load(Ordering::SeqCst) > 0 {
            self.nudge();
        }
        // Dropping its waker runs user code.
        let _ = guarded(|| drop(job));
    }

    /// Makes waiting callers, and the thread that runs the loop, look at the scheduler: it has changed.
    pub(crate) fn nudge(&self) {
        self.notify_callers();
        self.waker.wake();
    }

    /// Notifies callers that wait while another thread runs the loop. Locks the scheduler first, so that a caller which is about to
    /// sleep is not missed.
    fn notify_callers(&self) {
        drop(self.scheduler());
        self.changed.notify_all();
    }

    /// Returns whether workers should spin, given their number.
    pub(crate) fn worker_spin(&self, workers: usize) -> Spin {
        if workers < self.cores {
            Spin::Briefly
        } else {
            Spin::Never
        }
    }

    /// Waits until `ready` returns a result. Returns `None` if that has not happened by `deadline`.
    pub(crate) fn wait<R>(
        &self,
        deadline: Option<Instant>,
        mut ready: impl FnMut(&mut Scheduler) -> Option<R>,
    ) -> Option<R> {
        self.callers.fetch_add(1, Ordering::SeqCst);
        self.uses.fetch_add(1, Ordering::Relaxed);
        let _waiting = WaitingCaller(self);
        loop {
            if let Some(result) = self.collect_and_check(&mut ready) {
                return Some(result);
            }
            if deadline.is_some_and(|at| at <= Instant::now()) {
                return None;
            }
            match self.try_poll_state() {
                Some(mut state) => {
                    if let Some(result) = self.spin(&mut state.spinner, &mut ready) {
                        return Some(result);
                    }
                    let ran = self.run_once(&mut state, deadline);
                    drop(state);
                    return_memory_after(ran);
                }
                None => {
                    if self.standby_runs.load(Ordering::SeqCst) {
                        self.waker.wake();
                    }
                    let mut scheduler = self.scheduler();
                    // Checked again under the lock, so that no change is missed.
                    if let Some(result) = ready(&mut scheduler) {
                        return Some(result);
                    }
                    if self.try_poll_state().is_none() {
                        let briefly = std::mem::take(&mut scheduler.sleep_briefly);
                        let timeout = if briefly { SHORT_SLEEP } else { FOLLOWER_WAIT };
                        scheduler.sleep(&self.changed, timeout);
                    }
                }
            }
        }
    }

    /// Acquires the right to run the loop, unless another thread has it.
    fn try_poll_state(&self) -> Option<MutexGuard<'_, PollState>> {
        match self.poll_state.try_lock() {
            Ok(state) => Some(state),
            // Only a bug of this crate can poison the lock; the listener still works then.
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Takes outcomes until there is a result, or until none are left. The lock is released in between, because large outputs take time.
    fn collect_and_check<R>(&self, ready: &mut impl FnMut(&mut Scheduler) -> Option<R>) -> Option<R> {
        loop {
            let mut scheduler = self.scheduler();
            let collected = scheduler.collect() > 0;
            if collected {
                self.notify_other_callers();
            }
            let result = ready(&mut scheduler);
            if result.is_some() || !collected {
                return result;
            }
        }
    }

    fn notify_other_callers(&self) {
        if self.callers.load(Ordering::SeqCst) > 1 {
            self.changed.notify_all();
        }
    }

    /// Spins for outcomes for a moment, if a core is free for that.
    fn spin<R>(
        &self,
        spinner: &mut Spinner,
        ready: &mut impl FnMut(&mut Scheduler) -> Option<R>,
    ) -> Option<R> {
        // A worker that was just woken may wait for this core: the first poll is followed by a yield without a pause.
        let mut first = true;
        let found = spinner.spin(|| {
            if !std::mem::take(&mut first) {
                pause();
            }
            let mut scheduler = self.scheduler();
            let busy = scheduler.busy();
            if busy == 0 || busy >= self.cores {
                return ControlFlow::Break(None);
            }
            if scheduler.has_outcomes() && scheduler.collect() > 0 {
                self.notify_other_callers();
                if let Some(result) = ready(&mut scheduler) {
                    return ControlFlow::Break(Some(result));
                }
            }
            ControlFlow::Continue(())
        });
        found.flatten()
    }

    /// Runs the loop once: sleeps until an event comes, and handles all available events.
    fn run_once(&self, state: &mut PollState, deadline: Option<Instant>) -> Ran {
        let (expected, check_in) = {
            let mut scheduler = self.scheduler();
            let now = Instant::now();
            let memory_check = match scheduler.release_idle_memory(now) {
                IdleMemory::ReturnFreed => return Ran::ReturnFreedMemory,
                IdleMemory::CheckIn(time) => Some(time),
                IdleMemory::Nothing => None,
            };
            for (process_id, notes) in scheduler.new_connections.drain(..) {
                // If this fails, the worker sends no wakeups. Its outcomes, or its death, are noticed after the maximum sleep.
                if let Ok(key) = state.listener.add(notes) {
                    state.processes.insert(key, process_id);
                }
            }
            let expected = scheduler.arm(state.threshold);
            scheduler.loop_sleeps = true;
            let checks = [
                scheduler.wake_not_starting(now),
                scheduler.rebalance(now),
                memory_check,
            ];
            (expected, checks.into_iter().flatten().min())
        };
        let max_sleep = match expected {
            // The listener is polled in any case: a worker that writes invalid data must not keep this thread from the others.
            ExpectedWakeup::Now if state.empty_polls < MAX_EMPTY_POLLS => Duration::ZERO,
            ExpectedWakeup::Now => SHORT_SLEEP,
            ExpectedWakeup::Several => SEVERAL_SLEEP,
            ExpectedWakeup::Next => MAX_SLEEP,
        };
        let max_sleep = check_in.map_or(max_sleep, |check_in| check_in.min(max_sleep));
        let timeout = deadline.map_or(max_sleep, |at| {
            at.saturating_duration_since(Instant::now()).min(max_sleep)
        });
        let mut events = std::mem::take(&mut state.events);
        let waited = state
            .listener
            .wait(timeout, |key, event| events.push((key, event)));
        self.waker.pending.store(false, Ordering::SeqCst);
        if waited.is_err() {
            // A file descriptor has become invalid, or the like: don't spin on the error.
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut scheduler = self.scheduler();
        scheduler.loop_sleeps = false;
        scheduler.disarm();
        let mut changed = false;
        let timed_out = matches!(waited, Ok(false));
        for (key, event) in events.drain(..) {
            match event {
                ConnectionEvent::Message(message) => {
                    if let Some(&process_id) = state.processes.get(&key) {
                        changed |= scheduler.on_message(process_id, message);
                    }
                }
                ConnectionEvent::Closed => {
                    if let Some(process_id) = state.processes.remove(&key) {
                        scheduler.disconnected(process_id);
                    }
                }
            }
        }
        state.events = events;
        let collected = scheduler.collect() > 0;
        if collected || changed {
            self.notify_other_callers();
        }
        state.threshold = match expected {
            ExpectedWakeup::Several if timed_out && !collected => WakeThreshold::First,
            _ if collected => WakeThreshold::Half,
            _ => state.threshold,
        };
        state.empty_polls = match expected {
            ExpectedWakeup::Now if !collected => state.empty_polls.saturating_add(1),
            _ => 0,
        };
        Ran::Normally
    }

    /// Runs the standby thread: it runs the loop while no other thread calls the pool, until [`stop`](Self::stop).
    pub(crate) fn run_standby(&self) {
        let mut last_uses = u64::MAX;
        while !self.stop.load(Ordering::SeqCst) {
            let uses = self.uses.load(Ordering::Relaxed);
            let requested = self.standby_requested.swap(false, Ordering::SeqCst);
            let quiet = self.callers.load(Ordering::SeqCst) == 0 && (uses == last_uses || requested);
            last_uses = uses;
            if quiet && let Some(mut state) = self.try_poll_state() {
                self.standby_runs.store(true, Ordering::SeqCst);
                let mut ran = Ran::Normally;
                if self.callers.load(Ordering::SeqCst) == 0 {
                    ran = self.run_once(&mut state, None);
                }
                self.standby_runs.store(false, Ordering::SeqCst);
                drop(state);
                return_memory_after(ran);
                if self.callers.load(Ordering::SeqCst) > 0 {
                    self.notify_callers();
                }
                continue;
            }
            let guard = self
                .standby_sleep
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            drop(self.standby_sleep.1.wait_timeout(guard, STANDBY_DELAY));
        }
    }

    /// Ends the standby thread.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.standby_sleep.1.notify_all();
        self.nudge();
    }
}
