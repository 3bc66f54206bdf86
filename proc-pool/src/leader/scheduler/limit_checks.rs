//! The limits that the process manager checks while workers have tasks: deadlines and memory.

use std::time::{Duration, Instant};

use super::Scheduler;
use crate::error::KillReason;
use crate::error::ProcessId;
use crate::leader::command::Command;
use crate::leader::connection::DrainLimit;
use crate::leader::supervisor::Event;
use crate::leader::tasks::jobs::JobKey;

/// Minimum time between two samples of workers' memory.
pub(crate) const MEMORY_SAMPLE_INTERVAL: Duration = Duration::from_millis(200);

impl Scheduler {
    /// Returns the time between two checks, or `None` if the pool has no limits to check.
    pub(crate) fn limit_check_interval(&self) -> Option<Duration> {
        let eighth =
            |deadline: Duration| (deadline / 8).clamp(Duration::from_millis(1), Duration::from_millis(250));
        let deadline = self.limits.deadline.map(eighth);
        deadline
            .into_iter()
            .chain(self.limits.watches_memory().then_some(MEMORY_SAMPLE_INTERVAL))
            .min()
    }

    /// Asks the process manager to check limits, unless it already does.
    pub(super) fn start_limit_checks(&mut self) {
        if !self.limit_checks_on && self.limit_check_interval().is_some() {
            self.limit_checks_on = true;
            self.command(Command::CheckLimits);
        }
    }

    /// Called when the process manager stops checking, because no worker has a task.
    pub(crate) fn limit_checks_ended(&mut self) {
        self.limit_checks_on = false;
    }

    /// Has workers killed whose task exceeds the deadline. If such a task is finished before the kill, its outcome counts, and the
    /// worker is replaced all the same.
    pub(crate) fn enforce_deadline(&mut self) {
        let now = self.now();
        let Some(deadline) = self.limits.deadline else {
            return;
        };
        let mut recalled = false;
        for index in 0..self.workers.len() {
            // The task may be finished, and its outcome not drained yet.
            if self.overdue(index, deadline, now).is_none()
                || self.overdue_after_drain(index, deadline, now).is_none()
            {
                continue;
            }
            self.recall(index);
            recalled = true;
            // The worker may have finished the task before the recall; if not, it will start no other task.
            if let Some(task) = self.overdue_after_drain(index, deadline, now) {
                if let Some(worker) = &mut self.workers[index] {
                    worker.overdue = Some(task);
                }
                self.kill(index, KillReason::Deadline);
            }
        }
        if recalled {
            self.dispatch_backlog();
        }
    }

    /// Returns the overdue task of the worker, unless the worker is about to be killed.
    fn overdue(&mut self, index: usize, deadline: Duration, now: Instant) -> Option<(JobKey, u64)> {
        let worker = self.workers[index]
            .as_mut()
            .filter(|worker| !worker.kill_pending)?;
        worker.connection.overdue(deadline, now)
    }

    /// Drains the worker's outcomes, then returns its overdue task.
    fn overdue_after_drain(
        &mut self,
        index: usize,
        deadline: Duration,
        now: Instant,
    ) -> Option<(JobKey, u64)> {
        let worker = self.workers[index].as_mut()?;
        self.stats.answered += worker.connection.drain(&mut self.jobs, DrainLimit::Bounded) as u64;
        self.overdue(index, deadline, now)
    }

    /// Returns the processes that need a memory sample.
    pub(crate) fn processes_to_sample(&self) -> Vec<(ProcessId, u32)> {
        let watches = self.limits.watches_memory();
        let workers = self.workers.iter().flatten();
        workers
            .filter(|worker| watches && !worker.kill_pending)
            .map(|worker| (worker.process_id, worker.pid))
            .collect()
    }

    /// Handles a sample of a process's private memory, in bytes: kills the process beyond its limit, and has it replaced beyond its
    /// recycling threshold.
    pub(crate) fn memory_sampled(&mut self, process_id: ProcessId, bytes: u64) {
        let limits = self.limits;
        let Some(worker) = self.worker(process_id) else {
            return;
        };
        let id = process_id.worker;
        if limits.memory.is_some_and(|max| bytes > max) {
            self.kill(id.0 as usize, KillReason::MemoryLimit);
            self.dispatch_backlog();
        } else if limits.recycle_above.is_some_and(|max| bytes > max) && worker.connection.has_answered() {
            // The replacement of a process that has run no task would be as large.
            self.event(Event::Oversized(id));
        }
    }
}
