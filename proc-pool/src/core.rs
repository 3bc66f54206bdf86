//! The core: what is true of a pool now. One value behind one lock that is never held while anybody waits, calls
//! a user's code or the system's slow parts.

use std::collections::VecDeque;
use std::time::Instant;

use crossbeam_channel::Sender;
use ipc_channel::ipc::IpcReceiver;

use crate::batch::Batch;
use crate::error::{Cause, Fault, KillReason, PoolError, WorkerId};
use crate::jobs::{JobKey, Jobs};
use crate::keeper::Order;
use crate::lane::{Lane, Refused};
use crate::ledger::Task;
use crate::protocol::Note;
use crate::supervisor::{self, Action, Event, Supervisor};

/// One process in a worker's place: the place, and how many were there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Incarnation {
    pub(crate) worker: WorkerId,
    pub(crate) number: u32,
}

/// A process that has connected.
#[derive(Debug)]
struct Member {
    incarnation: Incarnation,
    pid: u32,
    lane: Lane,
    ready: bool,
}

/// Counts since the pool was built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Tasks given to the pool.
    pub submitted: u64,
    /// Tasks that were answered by a worker, whatever the answer.
    pub answered: u64,
    /// Tasks that ended with a [`Fault`] of the pool's: a dead worker, a failed pool.
    pub faulted: u64,
    /// Tasks sent again because the worker that had them died before it started them.
    pub resent: u64,
    /// Worker processes that ended before the pool did.
    pub deaths: u64,
    /// Worker processes that were started.
    pub spawned: u64,
}

#[derive(Debug)]
pub(crate) struct Core {
    members: Vec<Option<Member>>,
    pub(crate) jobs: Jobs,
    /// Tasks that came back from dead workers, oldest first.
    backlog: VecDeque<Task>,
    supervisor: Supervisor,
    failure: Option<PoolError>,
    stopping: bool,
    pub(crate) stats: Stats,
    /// Doorbells that the driver has not begun to listen to.
    pub(crate) arrivals: Vec<(Incarnation, IpcReceiver<Note>)>,
    keeper: Sender<Order>,
}

impl Core {
    pub(crate) fn new(workers: usize, supervisor: Supervisor, keeper: Sender<Order>) -> Self {
        Self {
            members: (0..workers).map(|_| None).collect(),
            jobs: Jobs::default(),
            backlog: VecDeque::new(),
            supervisor,
            failure: None,
            stopping: false,
            stats: Stats::default(),
            arrivals: Vec::new(),
            keeper,
        }
    }

    // -- workers --

    /// Feeds the supervisor and passes its actions on to the keeper.
    pub(crate) fn event(&mut self, event: Event) {
        for action in self.supervisor.handle(event, Instant::now()) {
            match action {
                Action::Spawn(worker) => self.order(Order::Spawn(worker)),
                Action::Kill(worker, reason) => self.order(Order::Kill(worker, reason)),
                Action::Fail {
                    worker,
                    attempts,
                    reason,
                } => {
                    self.fail(supervisor::failure(worker, attempts, reason));
                }
            }
        }
    }

    fn order(&self, order: Order) {
        // The keeper outlives the core but for the last moments of a pool, when nothing is to be done any more.
        let _ = self.keeper.send(order);
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.supervisor.deadline()
    }

    pub(crate) fn all_ready(&self) -> bool {
        self.supervisor.all_ready()
    }

    pub(crate) fn all_gone(&self) -> bool {
        self.supervisor.all_gone()
    }

    pub(crate) fn failure(&self) -> Option<&PoolError> {
        self.failure.as_ref()
    }

    pub(crate) fn connected(
        &mut self,
        incarnation: Incarnation,
        pid: u32,
        lane: Lane,
        notes: IpcReceiver<Note>,
    ) {
        let member = Member {
            incarnation,
            pid,
            lane,
            ready: false,
        };
        self.members[incarnation.worker.0 as usize] = Some(member);
        self.arrivals.push((incarnation, notes));
    }

    fn member(&mut self, incarnation: Incarnation) -> Option<&mut Member> {
        let member = self.members.get_mut(incarnation.worker.0 as usize)?.as_mut()?;
        (member.incarnation == incarnation).then_some(member)
    }

    pub(crate) fn note(&mut self, incarnation: Incarnation, note: Option<Note>) {
        let Some(member) = self.member(incarnation) else {
            return;
        };
        match note {
            Some(Note::Bell) => member.lane.heard(),
            Some(Note::Ready) if !member.ready => {
                member.ready = true;
                self.event(Event::Ready(incarnation.worker));
            }
            Some(Note::Failed(reason)) => self.event(Event::StartFailed(incarnation.worker, reason)),
            // Said twice, or unreadable: no harm.
            Some(Note::Ready) | None => {}
        }
    }

    pub(crate) fn closed(&mut self, incarnation: Incarnation) {
        self.order(Order::Closed(incarnation));
    }

    /// The process was reaped.
    pub(crate) fn ended(&mut self, incarnation: Incarnation, pid: u32, cause: &Cause, last_logs: &[String]) {
        let mut in_task = false;
        let worker = incarnation.worker;
        if self.member(incarnation).is_some()
            && let Some(mut member) = self.members[worker.0 as usize].take()
        {
            // What it had written is still there. If it had broken its ring, that counts as unwritten.
            let drained = member.lane.drain(&mut self.jobs).unwrap_or(0);
            self.stats.answered += drained as u64;
            let settled = member.lane.settle();
            in_task = settled.in_progress.is_some();
            if let Some((job, index)) = settled.in_progress {
                let cause = cause.clone();
                let fault = Fault::WorkerDied {
                    worker,
                    pid,
                    cause,
                    last_logs: last_logs.to_vec(),
                };
                self.fault(job, index, fault);
            }
            self.stats.resent += settled.not_started.len() as u64;
            for task in settled.not_started.into_iter().rev() {
                self.backlog.push_front(task);
            }
        }
        if !self.stopping {
            self.stats.deaths += 1;
        }
        self.event(Event::Ended {
            worker,
            cause: cause.clone(),
            in_task,
        });
        self.dispatch_backlog();
    }

    /// Process ids of the workers that are there.
    pub(crate) fn pids(&self) -> Vec<(WorkerId, u32)> {
        self.members
            .iter()
            .flatten()
            .map(|m| (m.incarnation.worker, m.pid))
            .collect()
    }

    /// Ends every worker that is idle, and every other once it is.
    pub(crate) fn close(&mut self) {
        self.stopping = true;
        self.event(Event::Stop);
        for member in self.members.iter_mut().flatten() {
            member.lane.close();
        }
    }

    /// Nothing can be done any more: every task that waits gets `error`, and so does every later one.
    pub(crate) fn fail(&mut self, error: PoolError) {
        if self.failure.is_some() {
            return;
        }
        self.failure = Some(error.clone());
        self.stopping = true;
        self.event(Event::Stop);
        let mut lost: Vec<(JobKey, u64)> = self
            .backlog
            .drain(..)
            .map(|task| (task.job, task.index))
            .collect();
        for member in self.members.iter_mut().flatten() {
            let drained = member.lane.drain(&mut self.jobs).unwrap_or(0);
            self.stats.answered += drained as u64;
            let settled = member.lane.settle();
            lost.extend(settled.in_progress);
            lost.extend(settled.not_started.into_iter().map(|task| (task.job, task.index)));
        }
        for (job, index) in lost {
            self.fault(job, index, Fault::Pool(error.clone()));
        }
        self.order(Order::KillAll(KillReason::Shutdown));
    }

    fn fault(&mut self, job: JobKey, index: u64, fault: Fault) {
        self.stats.faulted += 1;
        if let Some(job) = self.jobs.get(job) {
            job.pending -= 1;
            job.done.fault(index, fault);
        }
    }

    // -- tasks --

    /// Tasks that the workers could take now. A pool that failed takes any number, to give them their error.
    pub(crate) fn room(&self) -> usize {
        if self.failure.is_some() {
            return 64;
        }
        let room: usize = self
            .members
            .iter()
            .flatten()
            .filter(|m| m.ready)
            .map(|m| m.lane.room())
            .sum();
        room.saturating_sub(self.backlog.len())
    }

    /// Gives the batch's tasks to workers; what finds no room stays in the batch.
    pub(crate) fn submit(&mut self, key: JobKey, batch: &mut Batch) {
        let before = batch.len();
        let given = |core: &mut Self, taken: usize| {
            core.stats.submitted += taken as u64;
            if let Some(job) = core.jobs.get(key) {
                job.pending += taken;
            }
        };
        if let Some(error) = self.failure.clone() {
            given(self, before);
            while let Some((index, _)) = batch.front() {
                self.fault(key, index, Fault::Pool(error.clone()));
                batch.pop();
            }
            return;
        }
        given(self, before);
        let lanes = self
            .members
            .iter()
            .flatten()
            .filter(|m| m.ready && m.lane.room() > 0)
            .count();
        // An equal share first, so that the last tasks of a run don't pile up at one worker; then what fits.
        for share in [before.div_ceil(lanes.max(1)), usize::MAX] {
            let mut broken = Vec::new();
            let mut unsendable = Vec::new();
            for member in self.members.iter_mut().flatten().filter(|m| m.ready) {
                let mut left = share.min(member.lane.room());
                let any = left > 0 && batch.front().is_some();
                while left > 0
                    && let Some((index, payload)) = batch.front()
                {
                    match member.lane.send_parts(key, index, payload) {
                        Ok(()) => left -= 1,
                        Err(Refused::Full) => break,
                        Err(Refused::Unsendable(reason)) => unsendable.push((index, reason)),
                        Err(Refused::Corrupt) => {
                            broken.push(member.incarnation.worker);
                            break;
                        }
                    }
                    batch.pop();
                }
                if any {
                    member.lane.publish();
                }
            }
            for (index, reason) in unsendable {
                self.fault(key, index, Fault::Task(reason));
            }
            for worker in broken {
                self.order(Order::Kill(worker, KillReason::Corrupt));
            }
            if batch.is_empty() {
                break;
            }
        }
        // Not taken after all.
        let left = batch.len();
        self.stats.submitted -= left as u64;
        if let Some(job) = self.jobs.get(key) {
            job.pending -= left;
        }
    }

    fn dispatch_backlog(&mut self) {
        while let Some(task) = self.backlog.pop_front() {
            if self.jobs.get(task.job).is_none() {
                continue;
            }
            let member = self
                .members
                .iter_mut()
                .flatten()
                .filter(|m| m.ready && m.lane.room() > 0)
                .min_by_key(|m| m.lane.outstanding());
            let Some(member) = member else {
                self.backlog.push_front(task);
                return;
            };
            match member.lane.send(&task) {
                Ok(()) => member.lane.publish(),
                Err(Refused::Full) => {
                    self.backlog.push_front(task);
                    return;
                }
                Err(Refused::Unsendable(reason)) => {
                    self.fault(task.job, task.index, Fault::Task(reason));
                }
                Err(Refused::Corrupt) => {
                    let worker = member.incarnation.worker;
                    self.backlog.push_front(task);
                    self.order(Order::Kill(worker, KillReason::Corrupt));
                    return;
                }
            }
        }
    }

    /// Takes what workers have finished and hands out what waits; gives how many tasks were finished.
    pub(crate) fn pump(&mut self) -> usize {
        let mut count = 0;
        let mut broken = Vec::new();
        for member in self.members.iter_mut().flatten().filter(|m| m.ready) {
            match member.lane.drain(&mut self.jobs) {
                Ok(n) => count += n,
                Err(_) => broken.push(member.incarnation.worker),
            }
        }
        for worker in broken {
            self.order(Order::Kill(worker, KillReason::Corrupt));
        }
        self.stats.answered += count as u64;
        if count > 0 {
            self.supervisor.progress();
        }
        if !self.backlog.is_empty() {
            self.dispatch_backlog();
        }
        count
    }

    /// Asks every worker for a bell; `false` if there is something to pump already.
    pub(crate) fn arm(&mut self) -> bool {
        let mut all = true;
        for member in self.members.iter_mut().flatten().filter(|m| m.ready) {
            all &= member.lane.arm();
        }
        if !all {
            self.disarm();
        }
        all
    }

    pub(crate) fn disarm(&mut self) {
        for member in self.members.iter_mut().flatten() {
            member.lane.disarm();
        }
    }

    /// Workers that have tasks.
    pub(crate) fn busy(&self) -> usize {
        self.members
            .iter()
            .flatten()
            .filter(|m| m.lane.outstanding() > 0)
            .count()
    }

    pub(crate) fn has_outcomes(&mut self) -> bool {
        self.members.iter_mut().flatten().any(|m| m.lane.has_outcomes())
    }
}
