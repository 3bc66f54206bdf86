//! Fills in a [`Snapshot`], except for the memory of processes.

use std::time::Instant;

use super::{ActiveWorker, Scheduler};
use crate::error::{ProcessId, WorkerId};
use crate::leader::snapshot::{RunningTask, Snapshot, WorkerSnapshot, WorkerState};
use crate::leader::supervisor::SlotPhase;

impl Scheduler {
    /// Returns what the workers are doing. The memory of their processes is missing: asking the system for it is slow.
    pub(crate) fn snapshot(&self, now: Instant) -> Snapshot {
        let workers = self.workers.iter().enumerate();
        Snapshot {
            workers: workers
                // An index beyond the requested number of workers counts only while its process lives.
                .filter(|(index, worker)| *index < self.wanted() || worker.is_some())
                .map(|(index, worker)| self.worker_snapshot(WorkerId(index as u32), worker.as_ref(), now))
                .collect(),
            backlog: self.backlog.len(),
            stats: self.stats,
        }
    }

    fn worker_snapshot(&self, id: WorkerId, worker: Option<&ActiveWorker>, now: Instant) -> WorkerSnapshot {
        let record = self.records.get(&id);
        let alive = record.filter(|record| record.pid.is_some());
        let load = worker.map(|worker| worker.connection.load());
        let task = load.and_then(|load| load.task);
        let state = match (self.supervisor.phase(id), worker) {
            (SlotPhase::Pending, _) => WorkerState::Pending,
            (SlotPhase::Gone, _) => WorkerState::Ended,
            (SlotPhase::Stopping, _) => WorkerState::Stopping,
            (_, Some(worker)) if worker.kill_pending => WorkerState::Stopping,
            (SlotPhase::Starting, _) => WorkerState::Starting,
            (SlotPhase::Ready, _) if task.is_some() => WorkerState::Busy,
            (SlotPhase::Ready, _) if self.stopping => WorkerState::Stopping,
            (SlotPhase::Ready, _) => WorkerState::Idle,
        };
        WorkerSnapshot {
            worker: id,
            pid: alive.and_then(|record| record.pid),
            state,
            task: task.map(|(task, age)| RunningTask { task, age }),
            waiting: load.map_or(0, |load| load.waiting),
            done: load.map_or(0, |load| load.done),
            restarts: record
                .map(|record| record.process_id)
                .map_or(0, ProcessId::restarts),
            memory: None,
            uptime: alive.map(|record| now.saturating_duration_since(record.started)),
        }
    }
}
