//! [`History`]: the processes of a pool, current and ended, with their times. [`Stopwatch`] adds workers that are threads.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shm_buffers::slots::Slots;

use super::worker_metrics::{self, Counted, WorkerMetrics};
use super::{ExitKind, Latency, ProcessHistory, Times, Timing};
use crate::error::ProcessId;
use crate::error::WorkerId;
use crate::metrics::clock::Clock;
use crate::os::now_ns;
use crate::wire::layout::slot;

/// Maximum number of ended processes that are kept one by one, and of their samples.
const MAX_ENDED: usize = 1024;
const MAX_SAMPLES: usize = 1 << 16;

/// The times of all processes of a pool. Cheap to clone, and still readable after the pool is gone.
#[derive(Clone)]
pub struct History(Arc<Mutex<HistoryInner>>);

#[derive(Default)]
struct HistoryInner {
    /// Sums over all processes that have ended.
    past: BTreeMap<WorkerId, Times>,
    current: Vec<CurrentProcess>,
    ended: VecDeque<ProcessHistory>,
    /// Number of samples in `ended`.
    samples: usize,
    /// Number of ended processes that were removed from `ended`.
    forgotten: u64,
    /// `now_ns` when this history was created.
    epoch: u64,
}

/// A process that has not ended.
struct CurrentProcess {
    process_id: ProcessId,
    pid: u32,
    /// `now_ns` when the pool decided to start it.
    spawned: u64,
    slots: Slots,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            worker: WorkerId(0),
            processes: 0,
            start: Duration::ZERO,
            attach: Duration::ZERO,
            state: Duration::ZERO,
            wait: Duration::ZERO,
            blocked: Duration::ZERO,
            decode: Duration::ZERO,
            run: Duration::ZERO,
            encode: Duration::ZERO,
            off_cpu: Duration::ZERO,
            tasks: 0,
            sampled: 0,
            latency: Latency::default(),
        }
    }
}

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}

impl CurrentProcess {
    /// Adds the process's times up to `now`.
    fn add_to(&self, times: &mut Times, now: u64) {
        let counted = Counted::read(&self.slots, now, &mut times.latency);
        let initialized = counted.initialized.unwrap_or(now).max(self.spawned);
        let ready = counted.ready.unwrap_or(now).max(initialized);
        let attached = counted.attached.unwrap_or(ready).clamp(initialized, ready);
        let sums = [
            (&mut times.start, Duration::from_nanos(initialized - self.spawned)),
            (&mut times.attach, Duration::from_nanos(attached - initialized)),
            (&mut times.state, Duration::from_nanos(ready - attached)),
            (&mut times.wait, counted.wait),
            (&mut times.blocked, counted.blocked),
            (&mut times.decode, counted.decode),
            (&mut times.run, counted.run),
            (&mut times.encode, counted.encode),
            (&mut times.off_cpu, counted.off_cpu),
        ];
        for (sum, time) in sums {
            *sum = sum.saturating_add(time);
        }
        times.processes += 1;
        times.tasks = times.tasks.saturating_add(counted.tasks);
        times.sampled = times.sampled.saturating_add(counted.sampled);
    }

    fn history(&self, epoch: u64, now: u64) -> ProcessHistory {
        let counted = Counted::read(&self.slots, now, &mut Latency::default());
        let since = |ns: u64| Duration::from_nanos(ns.saturating_sub(epoch));
        ProcessHistory {
            worker: self.process_id.worker,
            restarts: self.process_id.restarts(),
            pid: self.pid,
            spawned: since(self.spawned),
            initialized: counted.initialized.map(since),
            attached: counted.attached.map(since),
            ready: counted.ready.map(since),
            ended: None,
            tasks: counted.tasks,
            samples: worker_metrics::samples(&self.slots, epoch),
        }
    }
}

impl History {
    /// Creates an empty history; its times count from now.
    pub fn new() -> Self {
        let inner = HistoryInner {
            epoch: now_ns(),
            ..HistoryInner::default()
        };
        Self(Arc::new(Mutex::new(inner)))
    }

    fn lock(&self) -> MutexGuard<'_, HistoryInner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn spawned(&self, process_id: ProcessId, pid: u32, spawned: u64, slots: Slots) {
        self.lock().current.push(CurrentProcess {
            process_id,
            pid,
            spawned,
            slots,
        });
    }

    pub(crate) fn ended(&self, process_id: ProcessId, kind: ExitKind) {
        let mut inner = self.lock();
        let found = inner.current.iter().position(|p| p.process_id == process_id);
        let Some(process) = found.map(|index| inner.current.swap_remove(index)) else {
            return;
        };
        let now = now_ns();
        let worker = process_id.worker;
        let past = inner.past.entry(worker).or_insert_with(|| Times {
            worker,
            ..Times::default()
        });
        process.add_to(past, now);
        let mut history = process.history(inner.epoch, now);
        let end = Duration::from_nanos(now.saturating_sub(inner.epoch));
        history.ended = Some((end, kind));
        inner.samples += history.samples.len();
        inner.ended.push_back(history);
        while inner.ended.len() > MAX_ENDED || inner.samples > MAX_SAMPLES {
            let Some(oldest) = inner.ended.pop_front() else {
                break;
            };
            inner.samples -= oldest.samples.len();
            inner.forgotten += 1;
        }
    }

    /// Returns a stopwatch for a worker that is a thread of this process. The worker counts as ready from now on.
    pub fn stopwatch(&self, worker: WorkerId) -> Stopwatch {
        let slots = Slots::in_process(worker_metrics::slots(Timing::Samples));
        let now = now_ns();
        let metrics = WorkerMetrics::new(slots.clone(), now, now, now);
        let process_id = ProcessId {
            worker,
            generation: 1,
        };
        self.spawned(process_id, std::process::id(), now, slots);
        Stopwatch {
            clock: Clock::new(Slots::in_process(slot::COUNT), metrics),
            history: self.clone(),
            process_id,
        }
    }

    /// Returns where the time of each worker went up to now, ordered by worker index.
    pub fn times(&self) -> Vec<Times> {
        let inner = self.lock();
        let mut all = inner.past.clone();
        let now = now_ns();
        for process in &inner.current {
            let worker = process.process_id.worker;
            let times = all.entry(worker).or_insert_with(|| Times {
                worker,
                ..Times::default()
            });
            process.add_to(times, now);
        }
        all.into_values().collect()
    }

    /// Returns the histories of the current processes and of the last 1,024 that have ended (fewer if they kept many samples),
    /// ordered by the time at which they were spawned.
    pub fn processes(&self) -> Vec<ProcessHistory> {
        let inner = self.lock();
        let now = now_ns();
        let current = inner.current.iter().map(|p| p.history(inner.epoch, now));
        let mut processes: Vec<ProcessHistory> = inner.ended.iter().cloned().chain(current).collect();
        processes.sort_by_key(|process| process.spawned);
        processes
    }

    /// Returns the number of ended processes that [`processes`](Self::processes) does not contain any more.
    pub fn forgotten(&self) -> u64 {
        self.lock().forgotten
    }

    /// Returns the time since this history was created.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(now_ns().saturating_sub(self.lock().epoch))
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.lock();
        f.debug_struct("History")
            .field("current", &inner.current.len())
            .field("ended", &inner.ended.len())
            .finish_non_exhaustive()
    }
}

/// Measures the tasks of a worker that is a thread, as worker processes measure theirs. When it is dropped, its worker has ended.
pub struct Stopwatch {
    clock: Clock,
    history: History,
    process_id: ProcessId,
}

impl Stopwatch {
    /// Runs and measures a task, and returns its output.
    #[inline]
    pub fn measure<R>(&mut self, run: impl FnOnce() -> R) -> R {
        self.clock.start();
        let output = run();
        self.clock.task_done();
        output
    }

    /// Returns the number of tasks whose time was measured, and the nanoseconds that they took together. Tiny tasks are measured together.
    pub fn measured(&self) -> (u64, u64) {
        self.clock.measured()
    }

    /// Records that the worker has no task now.
    pub fn rest(&mut self) {
        self.clock.stop();
    }
}

impl Drop for Stopwatch {
    fn drop(&mut self) {
        self.clock.stop();
        self.history.ended(self.process_id, ExitKind::Finished);
    }
}

impl fmt::Debug for Stopwatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stopwatch")
            .field("worker", &self.process_id.worker)
            .finish_non_exhaustive()
    }
}
