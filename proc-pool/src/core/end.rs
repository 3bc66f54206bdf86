//! The end of a worker's process: what becomes of its tasks.

use super::{Core, Incarnation};
use crate::error::{After, Cause, Fault, KillReason, WorkerId};
use crate::jobs::JobKey;
use crate::lane::Extent;
use crate::ledger::{Kept, Task};
use crate::observer::LastWords;
use crate::supervisor::Event;
use crate::timing::Ending;

/// How a process ended.
#[derive(Debug)]
pub(crate) struct End<'a> {
    pub(crate) pid: u32,
    pub(crate) cause: &'a Cause,
    pub(crate) last: &'a LastWords,
}

impl Core {
    /// The process was reaped.
    pub(crate) fn ended(&mut self, incarnation: Incarnation, end: &End<'_>) {
        let mut in_task = false;
        let mut told = false;
        let worker = incarnation.worker;
        if self.member(incarnation).is_some()
            && let Some(mut member) = self.members[worker.0 as usize].take()
        {
            // What it had written is still there. If it had broken its ring, that counts as unwritten.
            self.stats.answered += member.lane.drain(&mut self.jobs, Extent::Rest) as u64;
            let (mut settled, lost) = member.lane.settle();
            // It takes a large task into its memory before it begins with it.
            if settled.in_progress.is_none()
                && end.cause.is_of_memory()
                && let Some(Task {
                    payload: Kept::Large(_),
                    ..
                }) = settled.not_started.first()
            {
                settled.in_progress = Some(settled.not_started.remove(0));
            }
            // A task that is finished in the moment before its worker is killed leaves it without one.
            let for_task = Cause::Killed {
                reason: KillReason::Deadline,
            };
            let for_handle = Cause::Killed {
                reason: KillReason::Cancelled,
            };
            in_task = settled.in_progress.is_some() || [for_task, for_handle].contains(end.cause);
            told = member.lane.is_closed();
            for (job, index) in lost {
                let fault = self.death((job, index), 1, member.expired, worker, end);
                self.fault(job, index, fault);
            }
            let mut again = None;
            if let Some(mut task) = settled.in_progress {
                let what = (task.job, task.index);
                task.deaths += 1;
                let wanted = self.jobs.is_wanted(task.job) && !self.stopping;
                if task.deaths <= self.limits.retries && wanted {
                    self.stats.retried += 1;
                    again = Some(task);
                } else {
                    let fault = self.death(what, task.deaths, member.expired, worker, end);
                    self.fault(what.0, what.1, fault);
                }
            }
            self.stats.resent += settled.not_started.len() as u64;
            for task in again.into_iter().chain(settled.not_started).rev() {
                self.backlog.push_front(task);
            }
        }
        let surplus = self.supervisor.is_surplus(worker);
        if !self.stopping {
            self.stats.count_end(told, surplus);
        }
        let ending = match (self.stopping, told, surplus) {
            (true, false, _)
                if matches!(
                    end.cause,
                    Cause::Killed {
                        reason: KillReason::Shutdown
                    }
                ) =>
            {
                Ending::Finished
            }
            (_, false, _) => Ending::Died(end.cause.clone()),
            (true, true, _) => Ending::Finished,
            (false, true, false) => Ending::Recycled,
            (false, true, true) => Ending::Dismissed,
        };
        self.chronicle.ended(incarnation, ending);
        if let Some(birth) = self.births.get_mut(&worker) {
            birth.pid = None;
        }
        if !end.last.panics.is_empty() {
            // If it has not started, that is why.
            let reason = format!("{}{}", end.cause, After(&end.last.panics));
            self.event(Event::StartFailed(worker, reason));
        }
        self.event(Event::Ended {
            worker,
            cause: end.cause.clone(),
            in_task,
        });
        self.dispatch_backlog();
    }

    /// What befell a task whose worker is gone: it has cost so many by now.
    fn death(
        &self,
        task: (JobKey, u64),
        deaths: u32,
        expired: Option<(JobKey, u64)>,
        worker: WorkerId,
        end: &End<'_>,
    ) -> Fault {
        let last = end.last.clone();
        match self.limits.deadline {
            Some(deadline) if expired == Some(task) => Fault::TimedOut {
                worker,
                pid: end.pid,
                deadline,
                stack: last.stack,
                deaths,
                last_logs: last.logs,
                last_printed: last.printed,
            },
            _ => Fault::WorkerDied {
                worker,
                pid: end.pid,
                cause: end.cause.clone(),
                deaths,
                last_panics: last.panics.into(),
                last_logs: last.logs,
                last_printed: last.printed,
            },
        }
    }
}
