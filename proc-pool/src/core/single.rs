//! Tasks that are submitted alone, and the taking back of tasks.

use std::task::Waker;
use std::time::{Duration, Instant};

use super::Core;
use crate::error::{Fault, KillReason, PoolError};
use crate::handle::Cancelled;
use crate::jobs::{Completions, JobKey};
use crate::keeper::Order;
use crate::lane::Stalled;
use crate::ledger::{Kept, Task};
use crate::payload::Large;

/// What becomes of a task in progress that is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Running {
    GoesOn,
    IsKilled,
}

impl Core {
    /// Takes a task in that is a job of its own; gives that job and the task's number.
    pub(crate) fn submit_one(&mut self, payload: Result<Kept<Large>, String>) -> (JobKey, u64) {
        let job = self.jobs.add();
        let index = self.singles;
        self.singles += 1;
        self.stats.submitted += 1;
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

    /// Cancels the task that a job is.
    pub(crate) fn cancel(&mut self, key: JobKey, index: u64, running: Running) -> Cancelled {
        match self.jobs.get(key) {
            Some(job) if job.done.list.is_empty() => {}
            _ => return Cancelled::Finished,
        }
        let at = self.members.iter().flatten().position(|m| m.lane.has(key));
        if let Some(member) = at.and_then(|at| self.members.iter_mut().flatten().nth(at)) {
            let back = member.lane.recall();
            let begun = !back.iter().any(|task| task.job == key);
            // Its outcome is there: whatever the worker does now is another one's.
            let over = begun && member.lane.has_done(key);
            let worker = member.incarnation.worker;
            if begun && !over && running == Running::IsKilled && !member.condemned {
                member.condemned = true;
                self.order(Order::Kill(worker, KillReason::Cancelled));
            }
            self.take_back(back);
            if over {
                self.dispatch_backlog();
                return Cancelled::Finished;
            }
            if begun && running == Running::GoesOn {
                return Cancelled::Running;
            }
        }
        // It is counted when its turn comes, or its worker has ended.
        if let Some(job) = self.jobs.get(key) {
            job.withdrawn = true;
            job.done.fault(index, Fault::Cancelled);
        }
        self.jobs.came(key);
        self.dispatch_backlog();
        Cancelled::Withdrawn
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

    /// Has `waker` woken when something comes for that job.
    pub(crate) fn wake_when_done(&mut self, key: JobKey, waker: &Waker) {
        if let Some(job) = self.jobs.get(key) {
            job.waker = Some(waker.clone());
        }
    }

    fn take_back(&mut self, tasks: Vec<Task<Large>>) {
        self.stats.recalled += tasks.len() as u64;
        for task in tasks.into_iter().rev() {
            self.backlog.push_front(task);
        }
    }

    /// Takes every task back that no worker has begun.
    pub(super) fn take_all_back(&mut self) {
        let members = self.members.iter_mut().flatten();
        let back = members.flat_map(|member| member.lane.recall()).collect();
        self.take_back(back);
    }

    /// Gives tasks that wait behind one that takes long to workers that have nothing to do; gives when to look again.
    pub(crate) fn rebalance(&mut self, now: Instant) -> Option<Duration> {
        let mut members = self.members.iter().flatten();
        let idle = members.any(|m| m.lane.outstanding() == 0 && m.room() > 0);
        if !idle || !self.backlog.is_empty() {
            return None;
        }
        let mut next = None;
        let mut back = Vec::new();
        for member in self.members.iter_mut().flatten().filter(|m| m.ready) {
            match member.lane.stalled(now) {
                Stalled::No => {}
                Stalled::LookIn(wait) => next = Some(next.map_or(wait, |at| wait.min(at))),
                Stalled::Yes => back.extend(member.lane.recall()),
            }
        }
        if !back.is_empty() {
            self.take_back(back);
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
