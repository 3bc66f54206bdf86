//! What the keeper looks after while workers have tasks: time and memory.

use std::time::{Duration, Instant};

use super::{Core, Incarnation};
use crate::error::KillReason;
use crate::jobs::JobKey;
use crate::keeper::Order;
use crate::lane::Extent;
use crate::supervisor::Event;

/// How often workers' memory is looked at, at most.
pub(crate) const WEIGH: Duration = Duration::from_millis(200);

impl Core {
    /// How often to look; `None` if nothing of that was asked for.
    pub(crate) fn watch_interval(&self) -> Option<Duration> {
        let eighth =
            |deadline: Duration| (deadline / 8).clamp(Duration::from_millis(1), Duration::from_millis(250));
        let expiry = self.limits.deadline.map(eighth);
        expiry
            .into_iter()
            .chain(self.limits.weighs().then_some(WEIGH))
            .min()
    }

    /// Asks the keeper to look again, if it does not do so by itself: tasks were sent.
    pub(super) fn have_watched(&mut self) {
        if !self.watched && self.watch_interval().is_some() {
            self.watched = true;
            self.order(Order::Watch);
        }
    }

    /// No worker has a task, so that nobody looks until one is sent.
    pub(crate) fn unwatch(&mut self) {
        self.watched = false;
    }

    /// Has workers killed whose task runs too long. If such a task is finished before the kill comes, its outcome
    /// counts; the worker is replaced all the same.
    pub(crate) fn expire(&mut self) {
        let now = self.now();
        let Some(deadline) = self.limits.deadline else {
            return;
        };
        let mut recalled = false;
        for place in 0..self.members.len() {
            // The task may be finished, and its outcome not drained yet.
            if self.overdue(place, deadline, now).is_none()
                || self.drained_overdue(place, deadline, now).is_none()
            {
                continue;
            }
            self.recall(place);
            recalled = true;
            // The worker may have gone on before that; if not, it begins no other task.
            if let Some(task) = self.drained_overdue(place, deadline, now) {
                if let Some(member) = &mut self.members[place] {
                    member.expired = Some(task);
                }
                self.kill(place, KillReason::Deadline);
            }
        }
        if recalled {
            self.dispatch_backlog();
        }
    }

    /// The task of the worker in that place that runs too long, unless its killing was ordered already.
    fn overdue(&mut self, place: usize, deadline: Duration, now: Instant) -> Option<(JobKey, u64)> {
        let member = self.members[place].as_mut().filter(|member| !member.condemned)?;
        member.lane.overdue(deadline, now)
    }

    /// The same, after the worker's outcomes were taken.
    fn drained_overdue(&mut self, place: usize, deadline: Duration, now: Instant) -> Option<(JobKey, u64)> {
        let member = self.members[place].as_mut()?;
        self.stats.answered += member.lane.drain(&mut self.jobs, Extent::Turn) as u64;
        self.overdue(place, deadline, now)
    }

    /// The processes whose memory is of interest.
    pub(crate) fn to_weigh(&self) -> Vec<(Incarnation, u32)> {
        let asked = self.limits.weighs();
        let members = self.members.iter().flatten().filter(|m| asked && !m.condemned);
        members.map(|m| (m.incarnation, m.pid)).collect()
    }

    /// A process has so many bytes of its own: kills it if that is too much, or has it replaced in its time.
    pub(crate) fn weighed(&mut self, incarnation: Incarnation, bytes: u64) {
        let limits = self.limits;
        let Some(member) = self.member(incarnation) else {
            return;
        };
        let worker = incarnation.worker;
        if limits.memory.is_some_and(|most| bytes > most) {
            self.kill(worker.0 as usize, KillReason::MemoryLimit);
            self.dispatch_backlog();
        } else if limits.recycle_above.is_some_and(|most| bytes > most) && member.lane.has_answered() {
            // One that has not run anything would be as large again.
            self.event(Event::Oversized(worker));
        }
    }
}
