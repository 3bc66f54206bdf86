//! [`Clock`]: measures the tasks of one worker, and reports them to the leader through shared slots.

use shm_buffers::slots::Slots;

use crate::metrics::PhaseTimes;
use crate::metrics::worker_metrics::WorkerMetrics;
use crate::os::{now_ns, thread_cpu_ns};
use crate::wire::layout::slot;

/// While there are tasks, the clock is read about once in this time, in nanoseconds.
pub(crate) const READ_INTERVAL: u64 = 20_000;
/// A task is sampled when the last sampled task started at least this long ago, in nanoseconds.
const SAMPLE_INTERVAL: u64 = 200_000;

/// Measures how long tasks take, without a clock reading for every tiny task.
#[derive(Debug)]
pub(crate) struct Clock {
    control: Slots,
    metrics: Option<WorkerMetrics>,
    /// The last clock reading; `None` while there is no task.
    since: Option<u64>,
    /// Tasks done since the last clock reading.
    tasks: u64,
    /// Number of tasks between clock readings.
    tasks_per_read: u64,
    /// Nanoseconds since the last clock reading in which the worker was blocked: they are not part of any task.
    blocked: u64,
    /// Whether the task that starts now will be sampled: it is the first one after a clock reading.
    sample: bool,
    /// When the last sampled task started.
    last_sample: u64,
    /// Tasks done since the last sampled task.
    unsampled: u64,
}

impl Clock {
    pub(crate) fn new(control: Slots, metrics: Option<WorkerMetrics>) -> Self {
        Self {
            control,
            metrics,
            since: None,
            tasks: 0,
            tasks_per_read: 1,
            blocked: 0,
            sample: false,
            last_sample: 0,
            unsampled: 0,
        }
    }

    /// Returns whether the task that starts now will be sampled.
    #[inline]
    pub(crate) fn is_sampling(&self) -> bool {
        self.sample
    }

    /// Called before each task.
    #[inline]
    pub(crate) fn start(&mut self) {
        if self.since.is_none() {
            let now = now_ns();
            if let Some(metrics) = &self.metrics {
                metrics.start_busy(now);
            }
            self.start_interval(now);
        }
    }

    /// Called after each task that is not sampled.
    #[inline]
    pub(crate) fn task_done(&mut self) {
        self.tasks += 1;
        if self.tasks >= self.tasks_per_read {
            let now = now_ns();
            self.finish_interval(now);
            self.start_interval(now);
        }
    }

    /// Called after a sampled task.
    pub(crate) fn sample_done(&mut self, phases: PhaseTimes) {
        self.tasks += 1;
        let now = now_ns();
        if let (Some(metrics), Some(start)) = (&mut self.metrics, self.since) {
            let end = (now, thread_cpu_ns());
            metrics.sample(start, phases, end, self.blocked, self.unsampled + 1);
            self.last_sample = start;
        }
        self.finish_interval(now);
        self.unsampled = 0;
        self.start_interval(now);
    }

    /// Returns the number of tasks whose time was measured, and the nanoseconds that they took together.
    pub(crate) fn measured(&self) -> (u64, u64) {
        let value = |slot| self.control.slot(slot).get();
        (value(slot::BUSY_TASKS), value(slot::BUSY_NS))
    }

    /// Called when there is no task any more.
    pub(crate) fn stop(&mut self) {
        let Some(since) = self.since else { return };
        // If no task was done since the last clock reading, that reading was just now.
        let now = if self.tasks > 0 { now_ns() } else { since };
        self.finish_interval(now);
        if let Some(metrics) = &self.metrics {
            metrics.start_idle(now);
        }
        self.since = None;
    }

    /// Excludes the time since `start` from the task's time: the worker waited for room for its output.
    pub(crate) fn exclude_blocked(&mut self, start: u64) {
        let ns = now_ns().saturating_sub(start);
        if let Some(metrics) = &self.metrics {
            metrics.add_blocked(ns);
        }
        self.blocked += ns;
    }

    fn start_interval(&mut self, now: u64) {
        self.since = Some(now);
        self.blocked = 0;
        self.sample = self.metrics.is_some() && now.saturating_sub(self.last_sample) >= SAMPLE_INTERVAL;
        self.control.slot(slot::SINCE_NS).set(now);
    }

    fn finish_interval(&mut self, now: u64) {
        if let (Some(since), 1..) = (self.since, self.tasks) {
            let ns = now.saturating_sub(since).saturating_sub(self.blocked);
            self.control.slot(slot::BUSY_NS).add(ns);
            self.control.slot(slot::BUSY_TASKS).add(self.tasks);
            if let Some(metrics) = &self.metrics {
                metrics.add_batch(self.tasks, ns, READ_INTERVAL / self.tasks_per_read);
            }
            self.tasks_per_read = (READ_INTERVAL * self.tasks / ns.max(1)).clamp(1, 64);
            self.unsampled += self.tasks;
            self.tasks = 0;
        }
    }
}
