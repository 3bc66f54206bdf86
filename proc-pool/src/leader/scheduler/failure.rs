//! Failure and interrupts of a pool: tasks get an error instead of an outcome.

use super::Scheduler;
use crate::error::{Fault, KillReason, PoolError};
use crate::leader::command::Command;
use crate::leader::connection::DrainLimit;
use crate::leader::interrupt::Interrupt;
use crate::leader::supervisor::Event;
use crate::leader::tasks::jobs::JobKey;

impl Scheduler {
    pub(crate) fn failure(&self) -> Option<&PoolError> {
        self.failure.as_ref()
    }

    /// Returns how the pool was interrupted, if it was: maps then take no more tasks from their inputs.
    pub(crate) fn interrupted(&self) -> Option<Interrupt> {
        self.interrupted
    }

    /// Returns whether tasks that are not at a worker fail.
    pub(super) fn is_cancelled(&self) -> bool {
        self.interrupted >= Some(Interrupt::Cancel)
    }

    pub(crate) fn interrupt(&mut self, how: Interrupt) {
        if self.interrupted >= Some(how) {
            return;
        }
        self.interrupted = Some(how);
        match how {
            Interrupt::Finish => {}
            Interrupt::Cancel => {
                self.recall_all();
                self.dispatch_backlog();
            }
            Interrupt::Kill => self.fail(PoolError::Interrupted),
        }
    }

    /// Fails the pool: every unfinished task and every later one gets `error`, and the workers are killed. Only the first failure
    /// counts.
    pub(crate) fn fail(&mut self, error: PoolError) {
        if self.failure.is_some() {
            return;
        }
        self.failure = Some(error.clone());
        self.stopping = true;
        self.event(Event::Stop);
        let mut unfinished: Vec<(JobKey, u64)> = self
            .backlog
            .drain(..)
            .map(|task| (task.job, task.index))
            .collect();
        for worker in self.workers.iter_mut().flatten() {
            self.stats.answered += worker.connection.drain(&mut self.jobs, DrainLimit::Bounded) as u64;
            let (recovered, lost) = worker.connection.take_unanswered();
            unfinished.extend(lost);
            unfinished.extend(recovered.in_progress.map(|task| (task.job, task.index)));
            unfinished.extend(
                recovered
                    .not_started
                    .into_iter()
                    .map(|task| (task.job, task.index)),
            );
        }
        for (job, index) in unfinished {
            self.fail_task(job, index, Fault::Pool(error.clone()));
        }
        self.command(Command::KillAll(KillReason::Shutdown));
    }

    /// Ends a task with an error instead of an answer.
    pub(super) fn fail_task(&mut self, job: JobKey, index: u64, fault: Fault) {
        self.stats.failed += 1;
        if let Some(it) = self.jobs.get(job) {
            it.done.fault(index, fault);
            self.jobs.completed(job, 1);
        }
    }
}
