//! The core: what is true of a pool now. One value behind one lock that is never held while anybody waits, calls
//! a user's code or the system's slow parts.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use ipc_channel::ipc::IpcReceiver;

use crate::batch::Batch;
use crate::error::{Cause, Fault, KillReason, PoolError, WorkerId};
use crate::jobs::{JobKey, Jobs};
use crate::keeper::Order;
use crate::lane::{Armed, Lane, Refused, Wake};
use crate::ledger::Task;
use crate::limits::Limits;
use crate::payload::Large;
use crate::protocol::Note;
use crate::stats::Stats;
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
    /// Its killing was ordered.
    condemned: bool,
    /// This task ran too long.
    expired: Option<(JobKey, u64)>,
}

#[derive(Debug)]
pub(crate) struct Core {
    members: Vec<Option<Member>>,
    pub(crate) jobs: Jobs,
    /// Tasks that came back from dead workers, oldest first.
    backlog: VecDeque<Task<Large>>,
    limits: Limits,
    supervisor: Supervisor,
    failure: Option<PoolError>,
    stopping: bool,
    pub(crate) stats: Stats,
    /// Somebody sleeps, or is about to, until a worker rings: tasks that are given meanwhile need a bell, too.
    pub(crate) sleeping: bool,
    /// A worker seemed to have something, so that nobody asked it for a bell: who sleeps next must not for long.
    pub(crate) unsure: bool,
    /// Doorbells that the driver has not begun to listen to.
    pub(crate) arrivals: Vec<(Incarnation, IpcReceiver<Note>)>,
    keeper: Sender<Order>,
}

impl Core {
    pub(crate) fn new(workers: usize, limits: Limits, supervisor: Supervisor, keeper: Sender<Order>) -> Self {
        Self {
            members: (0..workers).map(|_| None).collect(),
            jobs: Jobs::default(),
            backlog: VecDeque::new(),
            limits,
            supervisor,
            failure: None,
            stopping: false,
            stats: Stats::default(),
            sleeping: false,
            unsure: false,
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

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping
    }

    pub(crate) fn failure(&self) -> Option<&PoolError> {
        self.failure.as_ref()
    }

    pub(crate) fn connected(
        &mut self,
        incarnation: Incarnation,
        pid: u32,
        mut lane: Lane,
        notes: IpcReceiver<Note>,
    ) {
        if self.stopping {
            lane.close();
        }
        let member = Member {
            incarnation,
            pid,
            lane,
            ready: false,
            condemned: false,
            expired: None,
        };
        self.members[incarnation.worker.0 as usize] = Some(member);
        self.arrivals.push((incarnation, notes));
    }

    fn member(&mut self, incarnation: Incarnation) -> Option<&mut Member> {
        let member = self.members.get_mut(incarnation.worker.0 as usize)?.as_mut()?;
        (member.incarnation == incarnation).then_some(member)
    }

    /// What a worker said; `true` if others may wait for that.
    pub(crate) fn note(&mut self, incarnation: Incarnation, note: Option<Note>) -> bool {
        let Some(member) = self.member(incarnation) else {
            return false;
        };
        let ready = member.ready;
        match note {
            Some(Note::Bell) => {
                member.lane.heard();
                return false;
            }
            Some(Note::Ready) if !ready => {
                self.event(Event::Ready(incarnation.worker));
                let accepted = self.supervisor.is_ready(incarnation.worker);
                if let Some(member) = self.member(incarnation) {
                    member.ready = accepted;
                }
                self.dispatch_backlog();
            }
            Some(Note::Failed(reason)) if !ready => {
                self.event(Event::StartFailed(incarnation.worker, reason));
            }
            // Said twice, or unreadable: no harm.
            Some(Note::Ready | Note::Failed(_)) | None => {}
        }
        true
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
            self.stats.answered += member.lane.drain(&mut self.jobs) as u64;
            let (settled, lost) = member.lane.settle();
            in_task = settled.in_progress.is_some();
            for (job, index) in lost {
                let fault = self.death((job, index), member.expired, worker, pid, cause, last_logs);
                self.fault(job, index, fault);
            }
            let mut again = None;
            if let Some(mut task) = settled.in_progress {
                let what = (task.job, task.index);
                if task.deaths < self.limits.retries && !self.stopping {
                    task.deaths += 1;
                    self.stats.retried += 1;
                    again = Some(task);
                } else {
                    let fault = self.death(what, member.expired, worker, pid, cause, last_logs);
                    self.fault(what.0, what.1, fault);
                }
            }
            self.stats.resent += settled.not_started.len() as u64;
            for task in again.into_iter().chain(settled.not_started).rev() {
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

    /// What befell a task whose worker is gone.
    fn death(
        &self,
        task: (JobKey, u64),
        expired: Option<(JobKey, u64)>,
        worker: WorkerId,
        pid: u32,
        cause: &Cause,
        last_logs: &[String],
    ) -> Fault {
        let last_logs = last_logs.to_vec();
        match self.limits.deadline {
            Some(deadline) if expired == Some(task) => Fault::TimedOut {
                worker,
                pid,
                deadline,
                last_logs,
            },
            _ => Fault::WorkerDied {
                worker,
                pid,
                cause: cause.clone(),
                last_logs,
            },
        }
    }

    /// Has workers killed whose task runs too long; gives when to look again.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<Duration> {
        let deadline = self.limits.deadline?;
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
        Some((deadline / 8).clamp(Duration::from_millis(1), Duration::from_millis(250)))
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
            self.stats.answered += member.lane.drain(&mut self.jobs) as u64;
            let (settled, unreachable) = member.lane.settle();
            lost.extend(unreachable);
            lost.extend(settled.in_progress.map(|task| (task.job, task.index)));
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
        if let Some(error) = self.failure.clone() {
            self.stats.submitted += before as u64;
            while let Some((index, _)) = batch.front() {
                self.fault(key, index, Fault::Pool(error.clone()));
                batch.pop();
            }
            return;
        }
        let open = |member: &&mut Member| member.ready && member.lane.room() > 0;
        let lanes = self.members.iter_mut().flatten().filter(open);
        let (lanes, waiting) = lanes.fold((0, 0), |(lanes, waiting), member| {
            (lanes + 1, waiting + member.lane.outstanding())
        });
        let level = (before + waiting).div_ceil(lanes.max(1));
        let mut unsendable = Vec::new();
        // To the same level first, so that nobody waits at a worker that is busy while another one is idle, and the
        // last tasks of a run don't pile up; then what fits.
        for level in [level, usize::MAX] {
            for member in self.members.iter_mut().flatten().filter(open) {
                while member.lane.outstanding() < level && member.lane.room() > 0 {
                    let Some((index, payload)) = batch.front() else {
                        break;
                    };
                    match member.lane.send(key, index, payload) {
                        Ok(()) => {}
                        Err(Refused::Full | Refused::Broken) => break,
                        Err(Refused::Unsendable(reason)) => unsendable.push((index, reason)),
                    }
                    batch.pop();
                }
                member.lane.publish();
            }
            if batch.is_empty() {
                break;
            }
        }
        self.stats.submitted += (before - batch.len()) as u64;
        for (index, reason) in unsendable {
            self.fault(key, index, Fault::Task(reason));
        }
        self.after_sending();
    }

    fn dispatch_backlog(&mut self) {
        if self.backlog.is_empty() {
            return;
        }
        while let Some(task) = self.backlog.pop_front() {
            if self.jobs.get(task.job).is_none() {
                // Nobody waits for it any more. It was counted as submitted: so it has to end.
                self.stats.faulted += 1;
                continue;
            }
            let open = self.members.iter_mut().flatten();
            let open = open.filter(|m| m.ready && m.lane.room() > 0);
            let Some(member) = open.min_by_key(|m| m.lane.outstanding()) else {
                self.backlog.push_front(task);
                break;
            };
            match member.lane.send_again(&task) {
                Ok(()) => member.lane.publish(),
                // It has no room now: another one may.
                Err(Refused::Full | Refused::Broken) => self.backlog.push_front(task),
                Err(Refused::Unsendable(reason)) => {
                    self.fault(task.job, task.index, Fault::Task(reason));
                }
            }
        }
        self.after_sending();
    }

    /// Makes sure that whoever sleeps is woken for what was sent.
    fn after_sending(&mut self) {
        if self.sleeping {
            for member in self.members.iter_mut().flatten().filter(|m| m.ready) {
                // Who sends is awake and sees what is there already; unless it is only about to be there.
                self.unsure |= member.lane.arm(Wake::AtHalf) == Armed::Ready;
            }
        }
        self.condemn();
    }

    /// Has workers killed that broke their lanes.
    fn condemn(&mut self) {
        let mut condemned = Vec::new();
        for member in self.members.iter_mut().flatten() {
            if let Some(reason) = member.lane.broken()
                && !member.condemned
            {
                member.condemned = true;
                condemned.push((member.incarnation.worker, reason));
            }
        }
        for (worker, reason) in condemned {
            self.order(Order::Kill(worker, reason));
        }
    }

    /// Takes what workers have finished and hands out what waits; gives how many tasks were finished.
    pub(crate) fn pump(&mut self) -> usize {
        let mut count = 0;
        let mut broken = false;
        for member in self.members.iter_mut().flatten().filter(|m| m.ready) {
            let drained = member.lane.drain(&mut self.jobs);
            if drained > 0 {
                count += drained;
                self.supervisor.progress(member.incarnation.worker);
            }
            broken |= member.lane.broken().is_some();
        }
        self.stats.answered += count as u64;
        if broken {
            self.condemn();
        }
        self.dispatch_backlog();
        count
    }

    /// Asks every worker for a bell.
    pub(crate) fn arm(&mut self, wake: Wake) -> Armed {
        let members = self.members.iter_mut().flatten().filter(|m| m.ready);
        members
            .map(|member| member.lane.arm(wake))
            .min()
            .unwrap_or(Armed::Next)
    }

    /// Looks after workers that don't begin with their tasks; gives when to do so again.
    pub(crate) fn rescue(&mut self, now: Instant) -> Option<Duration> {
        let members = self.members.iter_mut().flatten().filter(|m| m.ready);
        let next = members.filter_map(|member| member.lane.rescue(now)).min();
        self.condemn();
        next
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
