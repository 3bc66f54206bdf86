//! What the keeper looks after while workers have tasks: time and memory.

use std::time::Duration;

use super::{Core, Incarnation};
use crate::error::KillReason;
use crate::keeper::Order;
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

    /// Has workers killed whose task runs too long.
    pub(crate) fn expire(&mut self) {
        let now = self.now();
        let Some(deadline) = self.limits.deadline else {
            return;
        };
        let mut late = Vec::new();
        for member in self.members.iter_mut().flatten().filter(|m| !m.condemned) {
            if member.lane.overdue(deadline, now).is_none() {
                continue;
            }
            // It may be done long since, and nobody has looked.
            let drained = member.lane.drain(&mut self.jobs);
            self.stats.answered += drained as u64;
            if let Some(task) = member.lane.overdue(deadline, now) {
                member.condemned = true;
                member.expired = Some(task);
                late.push(member.incarnation.worker);
            }
        }
        for worker in late {
            self.order(Order::Kill(worker, KillReason::Deadline));
        }
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
            member.condemned = true;
            self.order(Order::Kill(worker, KillReason::MemoryLimit));
        } else if limits.recycle_above.is_some_and(|most| bytes > most) && member.lane.has_answered() {
            // One that has not run anything would be as large again.
            self.event(Event::Oversized(worker));
        }
    }
}
