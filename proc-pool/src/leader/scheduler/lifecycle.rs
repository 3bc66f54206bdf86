//! The life of workers up to their end: started, connected, ready, asked to stop. The supervisor decides; its actions become
//! commands to the process manager. The end of a process is in [`exit`](super::exit).

use std::time::Instant;

use shm_buffers::slots::Slots;

use super::{ActiveWorker, ProcessRecord, Scheduler};
use crate::error::{KillReason, PoolError, ProcessId, WorkerId};
use crate::leader::command::Command;
use crate::leader::connection::WorkerConnection;
use crate::leader::start_failure::StartFailure;
use crate::leader::supervisor::{Action, Event};
use crate::message::WorkerMessage;
use crate::os::MessageReceiver;

impl Scheduler {
    /// Passes an event to the supervisor, and carries its actions out.
    pub(crate) fn event(&mut self, event: Event) {
        let now = self.now();
        for action in self.supervisor.handle(event, now) {
            match action {
                Action::Spawn(worker) => self.command(Command::Spawn(worker)),
                Action::Kill(worker, reason) => self.command(Command::Kill(worker, reason)),
                Action::Retire(worker) => self.retire(worker),
                Action::Fail {
                    worker,
                    attempts,
                    failure,
                } => self.fail(failure.into_error(worker, attempts, &self.program)),
            }
        }
    }

    pub(crate) fn all_ready(&self) -> bool {
        self.supervisor.all_ready()
    }

    /// Returns whether no process is left, or the manager is lost, which would report the end of one.
    pub(crate) fn all_gone(&self) -> bool {
        self.manager_lost || self.supervisor.all_gone()
    }

    /// Called when the process manager has panicked and has killed its processes.
    pub(crate) fn manager_ended(&mut self) {
        self.manager_lost = true;
        self.fail(PoolError::Internal);
    }

    /// Returns the requested number of workers.
    pub(crate) fn wanted(&self) -> usize {
        self.supervisor.wanted()
    }

    /// Sets the requested number of workers.
    pub(crate) fn resize(&mut self, workers: usize) {
        let len = self.workers.len().max(workers);
        self.workers.resize_with(len, || None);
        self.event(Event::Resize(workers));
    }

    fn retire(&mut self, worker: WorkerId) {
        if let Some(worker) = &mut self.workers[worker.0 as usize] {
            worker.connection.set_task_budget(0);
        }
        self.stop_exhausted();
    }

    /// Asks workers to stop that have answered all tasks which they may have. Not earlier: a worker that is asked to stop does not
    /// wait for room for its outputs.
    pub(crate) fn stop_exhausted(&mut self) {
        let mut stopped = Vec::new();
        for worker in self.workers.iter_mut().flatten() {
            if worker.connection.is_exhausted() {
                worker.connection.request_stop();
                stopped.push(worker.process_id.worker);
            }
        }
        for worker in stopped {
            self.event(Event::StopRequested(worker));
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Called when a process was started. `start` is the [`now_ns`](crate::os::now_ns) of that decision, and the process writes its
    /// times into `timing`.
    pub(crate) fn spawned(&mut self, process_id: ProcessId, pid: u32, start: u64, timing: Slots) {
        self.stats.spawned += 1;
        self.history.spawned(process_id, pid, start, timing);
        let record = ProcessRecord {
            process_id,
            pid: Some(pid),
            started: Instant::now(),
        };
        self.records.insert(process_id.worker, record);
    }

    /// Called after the handshake with a process.
    pub(crate) fn connected(
        &mut self,
        process_id: ProcessId,
        pid: u32,
        mut connection: WorkerConnection,
        notes: MessageReceiver,
    ) {
        if self.stopping {
            connection.request_stop();
        }
        if self.in_band {
            connection.require_in_band();
        }
        let worker = process_id.worker;
        if let Some(tasks) = self
            .limits
            .tasks(worker, self.wanted(), process_id.generation == 1)
        {
            connection.set_task_budget(tasks);
        }
        let active = ActiveWorker {
            process_id,
            pid,
            connection,
            ready: false,
            kill_pending: false,
            overdue: None,
        };
        self.workers[worker.0 as usize] = Some(active);
        self.new_connections.push((process_id, notes));
    }

    /// From now on, outputs contain their buffers, because some are read as bytes: those of a pool on bytes, and those that are recorded.
    pub(crate) fn require_in_band(&mut self) {
        if !std::mem::replace(&mut self.in_band, true) {
            for worker in self.workers.iter_mut().flatten() {
                worker.connection.require_in_band();
            }
        }
    }

    /// Handles a message of a worker. Returns whether callers may wait for what it has changed.
    pub(crate) fn on_message(&mut self, process_id: ProcessId, message: WorkerMessage) -> bool {
        let Some(worker) = self.worker(process_id) else {
            return false;
        };
        let ready = worker.ready;
        match message {
            WorkerMessage::Wakeup => {
                worker.connection.on_wakeup();
                return false;
            }
            WorkerMessage::Introduced => {
                self.event(Event::Introduced(process_id.worker));
                return false;
            }
            WorkerMessage::Ready if !ready => {
                self.event(Event::Ready(process_id.worker));
                let accepted = self.supervisor.is_ready(process_id.worker);
                if let Some(worker) = self.worker(process_id) {
                    worker.ready = accepted;
                }
                self.dispatch_backlog();
            }
            WorkerMessage::Failed(reason) if !ready => {
                self.event(Event::Introduced(process_id.worker));
                let failure = StartFailure::Failed(reason);
                self.event(Event::StartFailed(process_id.worker, failure));
            }
            // A repeated message does no harm.
            WorkerMessage::Ready | WorkerMessage::Failed(_) => {}
            WorkerMessage::Invalid if !worker.kill_pending => {
                worker.kill_pending = true;
                self.command(Command::Kill(process_id.worker, KillReason::Corrupt));
            }
            WorkerMessage::Invalid => {}
        }
        true
    }

    /// Called when the connection of a process has closed.
    pub(crate) fn disconnected(&mut self, process_id: ProcessId) {
        self.command(Command::Disconnected(process_id));
    }

    /// Returns the process ids of the connected workers.
    pub(crate) fn pids(&self) -> Vec<(WorkerId, u32)> {
        self.workers
            .iter()
            .flatten()
            .map(|worker| (worker.process_id.worker, worker.pid))
            .collect()
    }

    /// Asks every worker to stop once it has no task.
    pub(crate) fn close(&mut self) {
        self.stopping = true;
        self.event(Event::Stop);
        for worker in self.workers.iter_mut().flatten() {
            worker.connection.request_stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::leader::limits::Limits;
    use crate::leader::supervisor::{RestartPolicy, Supervisor};

    #[test]
    fn pool_without_its_manager_waits_for_no_worker() {
        let (manager, _commands) = crossbeam_channel::unbounded();
        let policy = RestartPolicy {
            start_timeout: Duration::from_secs(60),
            start_attempts: 3,
            backoff: Duration::from_millis(100),
            own_program: false,
        };
        let supervisor = Supervisor::new(2, policy, Instant::now());
        let mut scheduler = Scheduler::new(2, Limits::default(), supervisor, manager, PathBuf::new());
        scheduler.event(Event::Tick);
        // The pool has failed before for another reason.
        scheduler.fail(PoolError::Interrupted);
        assert!(!scheduler.all_gone(), "both workers are being started");
        scheduler.manager_ended();
        assert!(scheduler.all_gone());
    }
}
