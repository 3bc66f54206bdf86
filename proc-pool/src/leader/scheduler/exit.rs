//! The end of a worker's process, and what becomes of its tasks.

use super::Scheduler;
use crate::error::ProcessId;
use crate::error::{ExitCause, Fault, KillReason, PrecedingPanics, WorkerId};
use crate::leader::connection::DrainLimit;
use crate::leader::crash_context::CrashContext;
use crate::leader::start_failure::StartFailure;
use crate::leader::supervisor::Event;
use crate::leader::tasks::in_flight::{RetainedPayload, Task};
use crate::leader::tasks::jobs::JobKey;
use crate::metrics::ExitKind;

/// How a process ended.
#[derive(Debug)]
pub(crate) struct ExitInfo<'a> {
    pub(crate) pid: u32,
    pub(crate) cause: &'a ExitCause,
    pub(crate) context: &'a CrashContext,
}

impl Scheduler {
    /// Called when a process was reaped.
    pub(crate) fn ended(&mut self, process_id: ProcessId, exit: &ExitInfo<'_>) {
        let mut in_task = false;
        let mut stop_requested = false;
        let id = process_id.worker;
        if self.worker(process_id).is_some()
            && let Some(mut worker) = self.workers[id.0 as usize].take()
        {
            // Its ring still contains everything that it had written; the contents of a corrupted ring are ignored.
            self.stats.answered += worker.connection.drain(&mut self.jobs, DrainLimit::All) as u64;
            let (mut recovered, lost) = worker.connection.take_unanswered();
            self.freed_bytes += worker.connection.bytes_since_release();
            // A worker reads a large task into its memory before it starts it.
            if recovered.in_progress.is_none()
                && exit.cause.is_memory_kill()
                && let Some(Task {
                    payload: RetainedPayload::Large(_),
                    ..
                }) = recovered.not_started.first()
            {
                recovered.in_progress = Some(recovered.not_started.remove(0));
            }
            // A worker killed because of its task has none if the task was finished just before the kill.
            let for_deadline = ExitCause::Killed {
                reason: KillReason::Deadline,
            };
            let for_cancel = ExitCause::Killed {
                reason: KillReason::Cancelled,
            };
            in_task = recovered.in_progress.is_some() || [for_deadline, for_cancel].contains(exit.cause);
            stop_requested = worker.connection.stop_requested();
            for (job, index) in lost {
                let fault = self.death_fault((job, index), 1, worker.overdue, id, exit);
                self.fail_task(job, index, fault);
            }
            let mut retry = None;
            if let Some(mut task) = recovered.in_progress {
                let (job, index) = (task.job, task.index);
                task.deaths += 1;
                let wanted = self.jobs.is_wanted(job) && !self.stopping;
                if task.deaths <= self.limits.retries && wanted {
                    self.stats.retried += 1;
                    retry = Some(task);
                } else {
                    let fault = self.death_fault((job, index), task.deaths, worker.overdue, id, exit);
                    self.fail_task(job, index, fault);
                }
            }
            self.stats.resent += recovered.not_started.len() as u64;
            for task in retry.into_iter().chain(recovered.not_started).rev() {
                self.backlog.push_front(task);
            }
        }
        let surplus = self.supervisor.is_surplus(id);
        if !self.stopping {
            self.stats.count_end(stop_requested, surplus);
        }
        let kind = match (self.stopping, stop_requested, surplus) {
            (true, false, _)
                if matches!(
                    exit.cause,
                    ExitCause::Killed {
                        reason: KillReason::Shutdown
                    }
                ) =>
            {
                ExitKind::Finished
            }
            (_, false, _) => ExitKind::Died(exit.cause.clone()),
            (true, true, _) => ExitKind::Finished,
            (false, true, false) => ExitKind::Recycled,
            (false, true, true) => ExitKind::ScaledDown,
        };
        self.history.ended(process_id, kind);
        if let Some(record) = self.records.get_mut(&id) {
            record.pid = None;
        }
        if !exit.context.panics.is_empty() {
            // If it was still starting, this is the reason.
            let reason = format!("{}{}", exit.cause, PrecedingPanics(&exit.context.panics));
            self.event(Event::StartFailed(id, StartFailure::Failed(reason)));
        }
        self.event(Event::Ended {
            worker: id,
            cause: exit.cause.clone(),
            in_task,
        });
        self.dispatch_backlog();
    }

    /// Returns the fault of a task whose worker has died. The task has killed `deaths` workers by now.
    fn death_fault(
        &self,
        task: (JobKey, u64),
        deaths: u32,
        overdue: Option<(JobKey, u64)>,
        worker: WorkerId,
        exit: &ExitInfo<'_>,
    ) -> Fault {
        let context = exit.context.clone();
        match self.limits.deadline {
            Some(deadline) if overdue == Some(task) => Fault::TimedOut {
                worker,
                pid: exit.pid,
                deadline,
                stack: context.stack,
                deaths,
                last_logs: context.logs,
                last_printed: context.printed,
            },
            _ => Fault::WorkerDied {
                worker,
                pid: exit.pid,
                cause: exit.cause.clone(),
                deaths,
                last_panics: context.panics.into(),
                last_logs: context.logs,
                last_printed: context.printed,
            },
        }
    }
}
