//! Tasks that are submitted alone, each a job of its own.

use super::Scheduler;
use crate::error::{Fault, PoolError};
use crate::leader::tasks::decode::OutputForm;
use crate::leader::tasks::in_flight::{RetainedPayload, Task};
use crate::leader::tasks::jobs::{Completions, JobKey};
use crate::wire::bytes::BuffersIn;
use crate::wire::payload::Large;

impl Scheduler {
    /// Adds a job.
    pub(crate) fn add_job(&mut self, form: OutputForm) -> JobKey {
        if form.buffers == BuffersIn::Output {
            self.require_in_band();
        }
        self.jobs.add(form.alignment)
    }

    /// Adds a task as a job of its own. Returns the job, and the task's number among all tasks submitted alone.
    pub(crate) fn submit_one(
        &mut self,
        payload: Result<RetainedPayload<Large>, String>,
        form: OutputForm,
    ) -> (JobKey, u64) {
        let job = self.add_job(form);
        let index = self.one_shots;
        self.one_shots += 1;
        self.stats.submitted += 1;
        self.jobs.submitted(job, 1);
        let interrupted = self.interrupted().map(|_| PoolError::Interrupted);
        match (self.failure.clone().or(interrupted), payload) {
            (Some(error), _) => self.fail_task(job, index, Fault::Pool(error)),
            (None, Err(reason)) => self.fail_task(job, index, Fault::Task(reason)),
            (None, Ok(payload)) => {
                let deaths = 0;
                self.backlog.push_back(Task {
                    job,
                    index,
                    deaths,
                    payload,
                });
                self.dispatch_backlog();
            }
        }
        (job, index)
    }

    /// Returns whether the job has an outcome, or will never have one.
    pub(crate) fn is_done(&mut self, key: JobKey) -> bool {
        self.jobs.get(key).is_none_or(|job| !job.done.is_empty())
    }

    /// Returns whether a worker has started the task of a job that is one task, and has not answered it: it cannot be cancelled.
    pub(crate) fn is_running(&mut self, key: JobKey) -> bool {
        if self.is_done(key) {
            return false;
        }
        let mut connections = self.workers.iter().flatten().map(|worker| &worker.connection);
        connections.any(|connection| {
            connection.has_task_of(key) && !connection.has_unstarted(key) && !connection.has_finished(key)
        })
    }

    /// Takes the outcomes of the job. Returns `None` if it has no outcome yet, and empty completions if it does not exist.
    pub(crate) fn take_done(&mut self, key: JobKey) -> Option<Completions> {
        match self.jobs.get(key) {
            Some(job) => (!job.done.is_empty()).then(|| std::mem::take(&mut job.done)),
            None => Some(Completions::default()),
        }
    }
}
