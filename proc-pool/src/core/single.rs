//! Tasks that are submitted alone, and tasks that wait behind one that takes long.

use std::time::{Duration, Instant};

use super::Core;
use crate::error::{Fault, PoolError};
use crate::jobs::{Completions, JobKey};
use crate::lane::Stalled;
use crate::ledger::{Kept, Task};
use crate::payload::Large;

impl Core {
    /// Takes a task in that is a job of its own; gives that job and the task's number.
    pub(crate) fn submit_one(&mut self, payload: Result<Kept<Large>, String>) -> (JobKey, u64) {
        let job = self.jobs.add();
        let index = self.singles;
        self.singles += 1;
        self.stats.submitted += 1;
        self.jobs.submitted(job, 1);
        let interrupted = self.interrupted().map(|_| PoolError::Interrupted);
        match (self.failure.clone().or(interrupted), payload) {
            (Some(error), _) => self.fault(job, index, Fault::Pool(error)),
            (None, Err(reason)) => self.fault(job, index, Fault::Task(reason)),
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

    /// Whether something has come for that job, or never will.
    pub(crate) fn is_done(&mut self, key: JobKey) -> bool {
        self.jobs.get(key).is_none_or(|job| !job.done.list.is_empty())
    }

    /// What has come for that job.
    pub(crate) fn take_done(&mut self, key: JobKey) -> Option<Completions> {
        match self.jobs.get(key) {
            Some(job) => (!job.done.list.is_empty()).then(|| std::mem::take(&mut job.done)),
            None => Some(Completions::default()),
        }
    }

    /// Gives tasks that wait behind one that takes long to workers that have nothing to do; gives when to look again.
    pub(crate) fn rebalance(&mut self, now: Instant) -> Option<Duration> {
        let mut members = self.members.iter().flatten();
        let idle = members.any(|m| m.lane.outstanding() == 0 && m.room() > 0);
        if !idle || !self.backlog.is_empty() {
            return None;
        }
        let mut next = None;
        let mut stalled = Vec::new();
        for (place, member) in self.members.iter_mut().enumerate() {
            match member.as_mut().filter(|m| m.ready).map(|m| m.lane.stalled(now)) {
                None | Some(Stalled::No) => {}
                Some(Stalled::LookIn(wait)) => next = Some(next.map_or(wait, |at| wait.min(at))),
                Some(Stalled::Yes) => stalled.push(place),
            }
        }
        if !stalled.is_empty() {
            self.recall_from(stalled);
            self.dispatch_backlog();
        }
        next
    }

    /// Whether every task is done that anybody gave.
    pub(crate) fn is_idle(&self) -> bool {
        let mut members = self.members.iter().flatten();
        self.backlog.is_empty() && members.all(|m| m.lane.outstanding() == 0)
    }
}
