//! The progress of a worker, as its connection shows it: its load, its task budget, and whether tasks wait, do not start or run
//! too long.

use std::time::{Duration, Instant};

use super::WorkerConnection;
use crate::error::KillReason;
use crate::leader::tasks::jobs::JobKey;
use crate::os;
use crate::os::doorbell;
use crate::wire::layout::slot;

/// The tasks of a worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// The index of the task in progress, and how long it has been running.
    pub(crate) task: Option<(u64, Duration)>,
    /// Number of tasks after that one.
    pub(crate) waiting: usize,
    /// Number of tasks that this process has answered.
    pub(crate) done: u64,
}

/// How long tasks wait behind one that takes longer than expected, while another worker is idle, before they are taken back. Taking
/// them back costs much less.
const STALL: Duration = Duration::from_millis(2);

/// Whether tasks wait behind a long one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stalled {
    Yes,
    /// Not yet; check again after this time.
    CheckIn(Duration),
    No,
}

/// How long a worker that has tasks may take to start the first of them before it is woken again. This usually takes microseconds,
/// but a worker that damaged its memory may have lost its request for a wakeup. The time doubles up to `DOUBLINGS` times.
const FIRST_RETRY: Duration = Duration::from_millis(20);
const DOUBLINGS: u32 = 6;
/// Number of wakeups without effect, over about 30 s, before the worker is killed.
const MAX_RETRIES: u32 = 28;

impl WorkerConnection {
    /// Returns the worker's current load.
    pub(crate) fn load(&self) -> Load {
        let done = self.in_flight.count_answered();
        let has_started = self.claims.claimed() > done;
        let since = self.control.slot(slot::SINCE_NS).get();
        let task = self
            .in_flight
            .next()
            .filter(|(job, _)| has_started && *job != JobKey::NONE);
        Load {
            done,
            waiting: self.in_flight.count_wanted() - usize::from(task.is_some()),
            task: task.map(|(_, index)| (index, Duration::from_nanos(os::now_ns().saturating_sub(since)))),
        }
    }

    /// Returns whether tasks have been waiting behind a long one for [`STALL`], or when to check again. Tasks also wait too long if they
    /// were sent when tasks were much shorter.
    pub(crate) fn stalled(&mut self, now: Instant) -> Stalled {
        let answered = self.in_flight.count_answered();
        if self.in_flight.count_wanted() < 2 || self.broken.is_some() || self.has_outcomes() {
            self.stalled_at = None;
            return Stalled::No;
        }
        if self.window.is_exceeded_by(self.in_flight.count_wanted()) {
            self.stalled_at = None;
            return Stalled::Yes;
        }
        let (before, since) = *self.stalled_at.get_or_insert((answered, now));
        let waited = now.saturating_duration_since(since);
        if before != answered {
            self.stalled_at = Some((answered, now));
            Stalled::CheckIn(STALL)
        } else if waited < STALL {
            Stalled::CheckIn(STALL - waited)
        } else {
            self.stalled_at = None;
            Stalled::Yes
        }
    }

    /// Wakes the worker again if it has tasks and does not start one, and gives it up after many attempts. Returns when to check
    /// again, if necessary.
    pub(crate) fn wake_if_not_starting(&mut self, now: Instant) -> Option<Duration> {
        let answered = self.in_flight.count_answered();
        let has_started = self.claims.claimed() > answered;
        if self.in_flight.outstanding() == 0 || has_started || self.broken.is_some() {
            self.not_starting = None;
            return None;
        }
        if self.is_sending() && self.pieces_out.under_way() == 0 {
            // The worker waits for pieces that have not been sent yet.
            self.not_starting = None;
            return None;
        }
        let progress = answered + self.pieces_out.progress();
        let (since, before, retries) = *self.not_starting.get_or_insert((now, progress, 0));
        if before != progress {
            self.not_starting = Some((now, progress, 0));
            return Some(FIRST_RETRY);
        }
        let delay = FIRST_RETRY * 2u32.pow(retries.min(DOUBLINGS));
        let waited = now.saturating_duration_since(since);
        if waited < delay {
            return Some(delay - waited);
        }
        if retries >= MAX_RETRIES {
            self.broken = Some(KillReason::Unresponsive);
            return None;
        }
        self.wake_unless_pending(doorbell::MAX_UNSEEN);
        self.not_starting = Some((now, progress, retries + 1));
        Some(delay)
    }

    /// Returns the task in progress if it has been running for `deadline`.
    pub(crate) fn overdue(&mut self, deadline: Duration, now: Instant) -> Option<(JobKey, u64)> {
        let answered = self.in_flight.count_answered();
        if self.claims.claimed() <= answered {
            self.running = None;
            return None;
        }
        match self.running {
            Some((task, since)) if task == answered => {
                let is_overdue = now.saturating_duration_since(since) >= deadline;
                self.in_flight
                    .next()
                    .filter(|(job, _)| is_overdue && *job != JobKey::NONE)
            }
            _ => {
                self.running = Some((answered, now));
                None
            }
        }
    }

    /// Sets the number of tasks that may be sent from now on.
    pub(crate) fn set_task_budget(&mut self, tasks: u64) {
        self.task_budget = tasks;
    }

    /// Returns whether the worker has answered all tasks that it may have, and was not asked to stop yet.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.task_budget == 0 && self.in_flight.outstanding() == 0 && !self.stop_requested()
    }

    /// Returns whether the worker has answered a task.
    pub(crate) fn has_answered(&self) -> bool {
        self.in_flight.count_answered() > 0
    }

    /// Returns whether the worker was asked to stop.
    pub(crate) fn stop_requested(&self) -> bool {
        self.doorbell.is_none()
    }

    /// Asks the worker to stop once it has no task: its end of the doorbell closes.
    pub(crate) fn request_stop(&mut self) {
        self.doorbell = None;
    }
}
