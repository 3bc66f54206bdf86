//! Outcomes of workers: collecting them, asking for wakeups when they come, and acting on workers that don't work.

use std::time::{Duration, Instant};

use super::Scheduler;
use crate::error::KillReason;
use crate::leader::command::Command;
use crate::leader::connection::{COLLECT_BYTES, DrainLimit, ExpectedWakeup, WakeThreshold};

impl Scheduler {
    /// Takes what workers have finished, and dispatches tasks that wait. Large outputs are taken only up to a number of bytes: the rest is
    /// left for the next call, in which it is another worker's turn. Returns the number of tasks finished, of workers from which a part of an
    /// output was taken, and of workers that have room again because a large task was sent to its end.
    pub(crate) fn collect(&mut self) -> usize {
        let mut count = 0;
        let mut broken = false;
        let mut exhausted = false;
        let mut others = 0;
        let mut budget = COLLECT_BYTES;
        let mut last = None;
        for index in self.turns.order(self.workers.len()) {
            let Some(worker) = self.workers[index].as_mut().filter(|worker| worker.ready) else {
                continue;
            };
            let was_sending = worker.connection.is_sending();
            let bytes = budget;
            let drained = worker
                .connection
                .drain(&mut self.jobs, DrainLimit::Share(&mut budget));
            others += usize::from(drained == 0 && budget < bytes);
            others += usize::from(was_sending && !worker.connection.is_sending());
            self.backlog.extend(worker.connection.take_returned());
            if drained > 0 {
                count += drained;
                self.supervisor.progress(worker.process_id.worker);
            }
            broken |= worker.connection.broken().is_some();
            exhausted |= worker.connection.is_exhausted();
            if budget == 0 {
                last = Some((index, worker.connection.is_receiving()));
                break;
            }
        }
        match last {
            Some((index, is_receiving)) => self.turns.ended_with(index, is_receiving),
            None => self.turns.all_taken(),
        }
        self.stats.answered += count as u64;
        if broken {
            self.kill_broken();
        }
        if exhausted {
            self.stop_exhausted();
        }
        self.dispatch_backlog();
        count + others
    }

    /// Returns whether a worker has finished a task that was not collected.
    pub(crate) fn has_outcomes(&mut self) -> bool {
        self.workers
            .iter_mut()
            .flatten()
            .any(|worker| worker.connection.has_outcomes())
    }

    /// Asks every worker for a wakeup. Returns the soonest one to expect.
    pub(crate) fn arm(&mut self, threshold: WakeThreshold) -> ExpectedWakeup {
        let workers = self.workers.iter_mut().flatten().filter(|worker| worker.ready);
        workers
            .map(|worker| worker.connection.arm(threshold))
            .min()
            .unwrap_or(ExpectedWakeup::Next)
    }

    /// Withdraws the requests for wakeups.
    pub(crate) fn disarm(&mut self) {
        for worker in self.workers.iter_mut().flatten() {
            worker.connection.disarm();
        }
    }

    /// Wakes workers again that don't start their tasks. Returns when to check again, if necessary.
    pub(crate) fn wake_not_starting(&mut self, now: Instant) -> Option<Duration> {
        let workers = self.workers.iter_mut().flatten().filter(|worker| worker.ready);
        let next = workers
            .filter_map(|worker| worker.connection.wake_if_not_starting(now))
            .min();
        self.kill_broken();
        next
    }

    /// Has workers killed that have broken their connections.
    pub(super) fn kill_broken(&mut self) {
        let mut to_kill = Vec::new();
        for index in 0..self.workers.len() {
            let worker = self.workers[index].as_ref().filter(|worker| !worker.kill_pending);
            let Some((reason, process_id)) =
                worker.and_then(|worker| Some((worker.connection.broken()?, worker.process_id)))
            else {
                continue;
            };
            if reason == KillReason::Unresponsive {
                // Its memory is valid: it must not start a task after all.
                self.recall(index);
            }
            if let Some(worker) = &mut self.workers[index] {
                worker.kill_pending = true;
            }
            to_kill.push((process_id, reason));
        }
        for (process_id, reason) in to_kill {
            self.command(match reason {
                // Most likely it is already dying, and its exit cause must not be taken for the pool's kill.
                KillReason::Disconnected => Command::Disconnected(process_id),
                _ => Command::Kill(process_id.worker, reason),
            });
        }
    }
}
