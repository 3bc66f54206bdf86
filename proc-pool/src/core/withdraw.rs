//! The one place that withdraws tasks: for a dropped handle, map or stream, a cancelled task, an interrupted pool, and
//! before a worker is killed.
//!
//! Whatever the reason, the tasks that a worker has not started are recalled first. So a withdrawn task is not run, and a
//! kill is charged to no task but the one that was in progress when it was ordered.

use super::Core;
use crate::error::{Fault, KillReason};
use crate::handle::Cancelled;
use crate::jobs::{Job, JobKey};
use crate::keeper::Order;

/// What becomes of a task in progress that is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Running {
    GoesOn,
    IsKilled,
}

/// A job whose handle or map was dropped.
#[derive(Debug)]
pub(crate) struct Abandoned {
    /// To be dropped while nothing is locked.
    pub(crate) job: Job,
    /// It had tasks whose outcome was not known.
    pub(crate) pending: bool,
}

impl Core {
    /// Ends a job that nothing waits for, and withdraws its tasks. Those that a worker has started go on, and are counted
    /// as answered; the others count as faulted.
    pub(crate) fn abandon(&mut self, key: JobKey) -> Option<Abandoned> {
        let job = self.jobs.remove(key)?;
        // A cancelled task was withdrawn then.
        let pending = if job.withdrawn { 0 } else { job.pending };
        if pending > 0 {
            let members = self.members.iter().enumerate();
            let has_unbegun = members.filter(|(_, member)| {
                let member = member.as_ref();
                member.is_some_and(|member| member.lane.has_unbegun(key))
            });
            let places: Vec<usize> = has_unbegun.map(|(place, _)| place).collect();
            self.recall_from(places);
            self.purge(pending);
            self.dispatch_backlog();
        }
        Some(Abandoned {
            job,
            pending: pending > 0,
        })
    }

    /// Cancels the task that a job is.
    pub(crate) fn cancel(&mut self, key: JobKey, index: u64, running: Running) -> Cancelled {
        match self.jobs.get(key) {
            Some(job) if job.done.list.is_empty() => {}
            _ => return Cancelled::Finished,
        }
        let mut members = self.members.iter().enumerate();
        let at = members.find(|(_, member)| member.as_ref().is_some_and(|m| m.lane.has(key)));
        if let Some((place, _)) = at {
            self.recall(place);
            // Still there: the worker has started it.
            if let Some(member) = self.members[place].as_ref().filter(|m| m.lane.has(key)) {
                // Its outcome is there: the worker runs another task now.
                let over = member.lane.has_done(key);
                if over || running == Running::GoesOn {
                    self.dispatch_backlog();
                    return match over {
                        true => Cancelled::Finished,
                        false => Cancelled::Running,
                    };
                }
                self.kill(place, KillReason::Cancelled);
            }
        }
        // It is counted when it leaves the backlog, or its worker has ended.
        if let Some(job) = self.jobs.get(key) {
            job.withdrawn = true;
            job.done.fault(index, Fault::Cancelled);
        }
        self.jobs.came(key, 0);
        self.purge(1);
        self.dispatch_backlog();
        Cancelled::Withdrawn
    }

    /// Has the worker in that place killed, after it was kept from starting another task. If the task in progress is
    /// finished before the kill comes, its outcome counts.
    pub(super) fn kill(&mut self, place: usize, reason: KillReason) {
        if self.members[place].as_ref().is_none_or(|member| member.condemned) {
            return;
        }
        // One that grows while it takes a large task dies of that task (`ended`), which would otherwise cost every worker.
        let of_next = reason == KillReason::MemoryLimit
            && (self.members[place].as_ref()).is_some_and(|member| member.lane.takes_large());
        if !of_next {
            self.recall(place);
        }
        if let Some(member) = &mut self.members[place] {
            member.condemned = true;
            let worker = member.incarnation.worker;
            self.order(Order::Kill(worker, reason));
        }
    }

    /// Takes back into the backlog the tasks that the worker in that place has not started; drops those that are not wanted.
    pub(super) fn recall(&mut self, place: usize) {
        self.recall_from([place]);
    }

    /// The same for several places.
    pub(super) fn recall_from(&mut self, places: impl IntoIterator<Item = usize>) {
        let mut back = Vec::new();
        for place in places {
            let Some(Some(member)) = self.members.get_mut(place) else {
                continue;
            };
            let jobs = &self.jobs;
            let recalled = member.lane.recall(|job| jobs.is_wanted(job));
            self.stats.recalled += (recalled.back.len() + recalled.dropped) as u64;
            self.stats.faulted += recalled.dropped as u64;
            back.extend(recalled.back);
        }
        for task in back.into_iter().rev() {
            self.backlog.push_front(task);
        }
    }

    /// Takes every task back that no worker has started.
    pub(super) fn recall_all(&mut self) {
        self.recall_from(0..self.members.len());
    }

    /// Up to `tasks` more of the backlog are not wanted any more: removes such tasks once they may be half of it, so
    /// that each costs constant time.
    fn purge(&mut self, tasks: usize) {
        self.unwanted += tasks;
        if self.unwanted < self.backlog.len().div_ceil(2) {
            return;
        }
        self.unwanted = 0;
        let before = self.backlog.len();
        let jobs = &self.jobs;
        self.backlog.retain(|task| jobs.is_wanted(task.job));
        self.stats.faulted += (before - self.backlog.len()) as u64;
    }
}
