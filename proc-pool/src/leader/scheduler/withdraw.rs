//! The one place that withdraws tasks: for a dropped handle, map or stream, a cancelled task, an interrupted pool, and before a
//! worker is killed.
//!
//! Whatever the reason, the tasks that a worker has not started are recalled first. So a withdrawn task does not run, and a kill is
//! charged only to the task that was in progress when the kill was commanded.

use super::Scheduler;
use crate::error::{Fault, KillReason};
use crate::leader::command::Command;
use crate::leader::tasks::jobs::{Job, JobKey};
use crate::leader::withdrawal::CancelOutcome;

/// What happens to a cancelled task that is in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InProgress {
    /// It goes on.
    Continue,
    /// Its worker is killed.
    Kill,
}

/// A job whose handle or map was dropped.
#[derive(Debug)]
pub(crate) struct Abandoned {
    /// The job. It must be dropped while nothing is locked.
    pub(crate) job: Job,
    /// The job had unfinished tasks.
    pub(crate) pending: bool,
}

impl Scheduler {
    /// Ends a job whose owner is gone, and withdraws its tasks. Tasks that a worker has started go on and count as answered; the
    /// others count as failed.
    pub(crate) fn abandon(&mut self, key: JobKey) -> Option<Abandoned> {
        let job = self.jobs.remove(key)?;
        // A cancelled task was already withdrawn.
        let pending = if job.withdrawn { 0 } else { job.pending };
        if pending > 0 {
            let workers = self.workers.iter().enumerate();
            let has_unstarted = workers.filter(|(_, worker)| {
                let worker = worker.as_ref();
                worker.is_some_and(|worker| worker.connection.has_unstarted(key))
            });
            let indices: Vec<usize> = has_unstarted.map(|(index, _)| index).collect();
            self.recall_from(indices);
            self.purge(pending);
            self.dispatch_backlog();
        }
        Some(Abandoned {
            job,
            pending: pending > 0,
        })
    }

    /// Cancels the task of a job that is one task.
    pub(crate) fn cancel(&mut self, key: JobKey, task: u64, in_progress: InProgress) -> CancelOutcome {
        match self.jobs.get(key) {
            Some(job) if job.done.is_empty() => {}
            _ => return CancelOutcome::Finished,
        }
        let mut workers = self.workers.iter().enumerate();
        let holder = workers.find(|(_, worker)| {
            let worker = worker.as_ref();
            worker.is_some_and(|worker| worker.connection.has_task_of(key))
        });
        if let Some((index, _)) = holder {
            self.recall(index);
            // If the task is still there, the worker has started it.
            if let Some(worker) = self.workers[index]
                .as_ref()
                .filter(|worker| worker.connection.has_task_of(key))
            {
                // If its outcome is there, the worker runs another task now.
                let finished = worker.connection.has_finished(key);
                if finished || in_progress == InProgress::Continue {
                    self.dispatch_backlog();
                    return match finished {
                        true => CancelOutcome::Finished,
                        false => CancelOutcome::StillRunning,
                    };
                }
                self.kill(index, KillReason::Cancelled);
            }
        }
        // The statistics count the task when it leaves the backlog, or when its worker has ended.
        if let Some(job) = self.jobs.get(key) {
            job.withdrawn = true;
            job.done.fault(task, Fault::Cancelled);
        }
        self.jobs.completed(key, 0);
        self.purge(1);
        self.dispatch_backlog();
        CancelOutcome::Withdrawn
    }

    /// Has the worker killed, and keeps it from starting another task. If the task in progress is finished before the kill, its
    /// outcome counts.
    pub(super) fn kill(&mut self, index: usize, reason: KillReason) {
        if self.workers[index]
            .as_ref()
            .is_none_or(|worker| worker.kill_pending)
        {
            return;
        }
        // A worker that exceeds its memory limit while it reads a large task is killed by that task (see `ended`). If the task were
        // recalled, it would kill every other worker, too.
        let charged_to_next = reason == KillReason::MemoryLimit
            && (self.workers[index].as_ref()).is_some_and(|worker| worker.connection.next_is_large());
        if !charged_to_next {
            self.recall(index);
        }
        if let Some(worker) = &mut self.workers[index] {
            worker.kill_pending = true;
            let id = worker.process_id.worker;
            self.command(Command::Kill(id, reason));
        }
    }

    /// Takes the tasks that the worker has not started back into the backlog, and drops those that are not wanted.
    pub(super) fn recall(&mut self, index: usize) {
        self.recall_from([index]);
    }

    /// Does the same for several workers.
    pub(super) fn recall_from(&mut self, indices: impl IntoIterator<Item = usize>) {
        let mut recalled_tasks = Vec::new();
        for index in indices {
            let Some(Some(worker)) = self.workers.get_mut(index) else {
                continue;
            };
            let jobs = &self.jobs;
            let recalled = worker.connection.recall(|job| jobs.is_wanted(job));
            self.stats.recalled += (recalled.wanted.len() + recalled.dropped) as u64;
            self.stats.failed += recalled.dropped as u64;
            recalled_tasks.extend(recalled.wanted);
        }
        for task in recalled_tasks.into_iter().rev() {
            self.backlog.push_front(task);
        }
    }

    /// Takes every task back that no worker has started.
    pub(super) fn recall_all(&mut self) {
        self.recall_from(0..self.workers.len());
    }

    /// Up to `tasks` more tasks of the backlog are not wanted any more: removes such tasks once they may be half of it, so that each
    /// costs amortized constant time.
    fn purge(&mut self, tasks: usize) {
        self.unwanted += tasks;
        if self.unwanted < self.backlog.len().div_ceil(2) {
            return;
        }
        self.unwanted = 0;
        let before = self.backlog.len();
        let jobs = &self.jobs;
        self.backlog.retain(|task| jobs.is_wanted(task.job));
        self.stats.failed += (before - self.backlog.len()) as u64;
    }
}
