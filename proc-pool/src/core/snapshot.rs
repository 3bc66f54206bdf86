//! What the core knows of its workers, for a snapshot.

use std::time::Instant;

use super::{Core, Member};
use crate::error::WorkerId;
use crate::snapshot::{Running, Snapshot, WorkerSnapshot, WorkerState};
use crate::supervisor::Phase;

impl Core {
    /// Everything but the processes' memory: that is the system's to tell, slowly.
    pub(crate) fn snapshot(&self, now: Instant) -> Snapshot {
        let places = self.members.iter().enumerate();
        Snapshot {
            workers: places
                // A place that is not wanted any more is no worker's.
                .filter(|(place, member)| *place < self.wanted() || member.is_some())
                .map(|(place, member)| self.worker(WorkerId(place as u32), member.as_ref(), now))
                .collect(),
            backlog: self.backlog.len(),
            stats: self.stats,
        }
    }

    fn worker(&self, worker: WorkerId, member: Option<&Member>, now: Instant) -> WorkerSnapshot {
        let birth = self.births.get(&worker);
        let alive = birth.filter(|birth| birth.pid.is_some());
        let load = member.map(|member| member.lane.load());
        let task = load.and_then(|load| load.task);
        let state = match (self.supervisor.phase(worker), member) {
            (Phase::Due, _) => WorkerState::Due,
            (Phase::Gone, _) => WorkerState::Ended,
            (Phase::Ending, _) => WorkerState::Stopping,
            (_, Some(member)) if member.condemned => WorkerState::Stopping,
            (Phase::Starting, _) => WorkerState::Starting,
            (Phase::Ready, _) if task.is_some() => WorkerState::Busy,
            (Phase::Ready, _) if self.stopping => WorkerState::Stopping,
            (Phase::Ready, _) => WorkerState::Idle,
        };
        WorkerSnapshot {
            worker,
            pid: alive.and_then(|birth| birth.pid),
            state,
            task: task.map(|(task, age)| Running { task, age }),
            waiting: load.map_or(0, |load| load.waiting),
            done: load.map_or(0, |load| load.done),
            restarts: birth.map_or(0, |birth| birth.incarnation.number.saturating_sub(1)),
            memory: None,
            uptime: alive.map(|birth| now.saturating_duration_since(birth.at)),
        }
    }
}
