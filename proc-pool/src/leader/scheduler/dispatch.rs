//! Dispatch: sending tasks to workers, from a map's batch or from the backlog, and taking them back from a worker that stalls.

use std::time::{Duration, Instant};

use super::{ActiveWorker, Scheduler};
use crate::error::{Fault, PoolError};
use crate::leader::connection::{ExpectedWakeup, SendError, Stalled, WakeThreshold};
use crate::leader::tasks::batch::Batch;
use crate::leader::tasks::jobs::JobKey;

impl Scheduler {
    /// Returns the number of tasks that the workers could take now. A pool that has failed or was cancelled takes tasks as well, to
    /// fail them.
    pub(crate) fn room(&self) -> usize {
        if self.failure.is_some() || self.is_cancelled() {
            return 64;
        }
        let room: usize = self.workers.iter().flatten().map(ActiveWorker::room).sum();
        room.saturating_sub(self.backlog.len())
    }

    /// Sends the batch's tasks to workers. Tasks for which no worker has room stay in the batch.
    pub(crate) fn submit(&mut self, key: JobKey, batch: &mut Batch) {
        let before = batch.len();
        let cancelled = || self.is_cancelled().then_some(PoolError::Interrupted);
        if let Some(error) = self.failure.clone().or_else(cancelled) {
            self.stats.submitted += before as u64;
            self.jobs.submitted(key, before);
            while let Some((index, _)) = batch.front() {
                self.fail_task(key, index, Fault::Pool(error.clone()));
                batch.pop();
            }
            return;
        }
        let has_room = |worker: &&mut ActiveWorker| worker.room() > 0;
        let open = self.workers.iter_mut().flatten().filter(has_room);
        let (open, outstanding) = open.fold((0, 0), |(open, outstanding), worker| {
            (open + 1, outstanding + worker.connection.outstanding())
        });
        let level = (before + outstanding).div_ceil(open.max(1));
        let mut unsendable = Vec::new();
        // First all workers are filled to the same level, so that no task waits at a busy worker while another one is idle, and
        // the last tasks of a map don't pile up; then they get what fits.
        for level in [level, usize::MAX] {
            for worker in self.workers.iter_mut().flatten().filter(has_room) {
                let max = level.saturating_sub(worker.connection.outstanding());
                let mut max = max.min(worker.room());
                while max > 0 {
                    let run = batch.run(max);
                    if run.is_empty() {
                        // The next task is large, or the batch is empty.
                        let Some((index, payload)) = batch.front() else {
                            break;
                        };
                        match worker.connection.send(key, index, payload) {
                            Ok(()) => {}
                            Err(SendError::Full | SendError::Broken) => break,
                            Err(SendError::Unsendable(reason)) => unsendable.push((index, reason)),
                        }
                        batch.pop();
                        max = (max - 1).min(worker.room());
                        continue;
                    }
                    let (sent, result) = worker.connection.send_run(key, run);
                    batch.pop_run(sent);
                    max -= sent;
                    match (result, batch.front()) {
                        (Err(SendError::Unsendable(reason)), Some((index, _))) => {
                            unsendable.push((index, reason));
                            batch.pop();
                            max -= 1;
                        }
                        (Err(_), _) => break,
                        (Ok(()), _) => {}
                    }
                }
                worker.connection.publish();
            }
            if batch.is_empty() {
                break;
            }
        }
        self.stats.submitted += (before - batch.len()) as u64;
        self.jobs.submitted(key, before - batch.len());
        for (index, reason) in unsendable {
            self.fail_task(key, index, Fault::Task(reason));
        }
        self.after_sending();
    }

    /// Sends tasks of the backlog to the workers with the fewest tasks, as long as one has room.
    pub(super) fn dispatch_backlog(&mut self) {
        if self.backlog.is_empty() {
            return;
        }
        while let Some(task) = self.backlog.pop_front() {
            if !self.jobs.is_wanted(task.job) {
                // It was counted as submitted, so its end is counted as well.
                self.stats.failed += 1;
                continue;
            }
            if self.is_cancelled() {
                self.fail_task(task.job, task.index, Fault::Pool(PoolError::Interrupted));
                continue;
            }
            let open = self.workers.iter_mut().flatten();
            let open = open.filter(|worker| worker.room() > 0);
            let Some(worker) = open.min_by_key(|worker| worker.connection.outstanding()) else {
                self.backlog.push_front(task);
                break;
            };
            match worker.connection.send_task(&task) {
                Ok(()) => worker.connection.publish(),
                // This worker has no room any more, but another one may.
                Err(SendError::Full | SendError::Broken) => self.backlog.push_front(task),
                Err(SendError::Unsendable(reason)) => {
                    self.fail_task(task.job, task.index, Fault::Task(reason));
                }
            }
        }
        self.after_sending();
    }

    /// Makes sure that the event loop and the limit checks learn of the tasks that were sent.
    fn after_sending(&mut self) {
        self.start_limit_checks();
        if self.loop_sleeps {
            for worker in self.workers.iter_mut().flatten().filter(|worker| worker.ready) {
                // This thread is awake and sees outcomes that are already there, but not those that are just being written.
                self.sleep_briefly |= worker.connection.arm(WakeThreshold::Half) == ExpectedWakeup::Now;
            }
        }
        self.kill_broken();
    }

    /// Moves tasks that wait behind a long one to workers that are idle. Returns when to check again, if necessary.
    pub(crate) fn rebalance(&mut self, now: Instant) -> Option<Duration> {
        let mut workers = self.workers.iter().flatten();
        let has_idle = workers.any(|worker| worker.connection.outstanding() == 0 && worker.room() > 0);
        if !has_idle || !self.backlog.is_empty() {
            return None;
        }
        let mut next = None;
        let mut stalled = Vec::new();
        for (index, worker) in self.workers.iter_mut().enumerate() {
            match worker
                .as_mut()
                .filter(|worker| worker.ready)
                .map(|worker| worker.connection.stalled(now))
            {
                None | Some(Stalled::No) => {}
                Some(Stalled::CheckIn(wait)) => next = Some(next.map_or(wait, |at| wait.min(at))),
                Some(Stalled::Yes) => stalled.push(index),
            }
        }
        if !stalled.is_empty() {
            self.recall_from(stalled);
            self.dispatch_backlog();
        }
        next
    }

    /// Returns the number of workers that have tasks.
    pub(crate) fn busy(&self) -> usize {
        self.workers
            .iter()
            .flatten()
            .filter(|worker| worker.connection.outstanding() > 0)
            .count()
    }

    /// Returns whether no task is unfinished.
    pub(crate) fn is_idle(&self) -> bool {
        let mut workers = self.workers.iter().flatten();
        self.backlog.is_empty() && workers.all(|worker| worker.connection.outstanding() == 0)
    }
}
