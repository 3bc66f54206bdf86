//! The core: what is true of a pool now. One value behind one lock that is never held while anybody waits, calls
//! a user's code or the system's slow parts.

mod single;
mod snapshot;
mod tasks;
mod watch;
mod withdraw;

pub(crate) use watch::WEIGH;
pub(crate) use withdraw::{Abandoned, Running};

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use shm_buffers::slots::Slots;

use crate::awake::Awake;
use crate::error::{After, Cause, Fault, KillReason, PoolError, WorkerId};
use crate::interrupt::Interrupt;
use crate::jobs::{JobKey, Jobs};
use crate::keeper::Order;
use crate::lane::{Extent, Lane};
use crate::ledger::Task;
use crate::limits::Limits;
use crate::observer::LastWords;
use crate::os::Notes;
use crate::payload::Large;
use crate::protocol::Note;
use crate::stats::Stats;
use crate::supervisor::{self, Action, Event, Supervisor};
use crate::timing::{Chronicle, Ending};

/// One process in a worker's place: the place, and how many were there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Incarnation {
    pub(crate) worker: WorkerId,
    pub(crate) number: u32,
}

/// How often the clock is looked at while a process's start is timed.
const LOOK: Duration = Duration::from_millis(100);

/// How a process ended.
#[derive(Debug)]
pub(crate) struct End<'a> {
    pub(crate) pid: u32,
    pub(crate) cause: &'a Cause,
    pub(crate) last: &'a LastWords,
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

impl Member {
    /// Tasks that it may be given now. To one that is about to be killed, none: it could begin with them before that, and
    /// they would be charged with its death.
    fn room(&self) -> usize {
        match self.ready && !self.condemned {
            true => self.lane.room(),
            false => 0,
        }
    }
}

/// A process that was started, connected or not.
#[derive(Debug)]
struct Birth {
    incarnation: Incarnation,
    /// `None` once it was reaped.
    pid: Option<u32>,
    at: Instant,
}

#[derive(Debug)]
pub(crate) struct Core {
    members: Vec<Option<Member>>,
    pub(crate) jobs: Jobs,
    /// The last process in each place.
    births: BTreeMap<WorkerId, Birth>,
    /// Tasks that wait for a worker: those submitted alone, and those that came back from one; the next one first.
    backlog: VecDeque<Task<Large>>,
    /// The number of those that are not wanted any more, at most.
    unwanted: usize,
    limits: Limits,
    supervisor: Supervisor,
    /// The time that workers' delays are measured in.
    clock: Awake,
    failure: Option<PoolError>,
    stopping: bool,
    interrupted: Option<Interrupt>,
    /// The keeper has panicked.
    keeperless: bool,
    /// The keeper looks after tasks and workers from time to time; otherwise it is asked to with the next task.
    watched: bool,
    /// Tasks that were submitted alone.
    singles: u64,
    pub(crate) stats: Stats,
    pub(crate) chronicle: Chronicle,
    /// Somebody sleeps, or is about to, until a worker rings: tasks that are given meanwhile need a bell, too.
    pub(crate) sleeping: bool,
    /// A worker seemed to have something, so that nobody asked it for a bell: who sleeps next must not for long.
    pub(crate) unsure: bool,
    /// Doorbells that the driver has not begun to listen to.
    pub(crate) arrivals: Vec<(Incarnation, Notes)>,
    keeper: Sender<Order>,
}

impl Core {
    pub(crate) fn new(workers: usize, limits: Limits, supervisor: Supervisor, keeper: Sender<Order>) -> Self {
        Self {
            members: (0..workers).map(|_| None).collect(),
            jobs: Jobs::default(),
            births: BTreeMap::new(),
            backlog: VecDeque::new(),
            unwanted: 0,
            limits,
            supervisor,
            clock: Awake::new(Instant::now()),
            failure: None,
            stopping: false,
            interrupted: None,
            keeperless: false,
            watched: true,
            singles: 0,
            stats: Stats::default(),
            chronicle: Chronicle::new(),
            sleeping: false,
            unsure: false,
            arrivals: Vec::new(),
            keeper,
        }
    }

    /// Feeds the supervisor and passes its actions on to the keeper.
    pub(crate) fn event(&mut self, event: Event) {
        let now = self.now();
        for action in self.supervisor.handle(event, now) {
            match action {
                Action::Spawn(worker) => self.order(Order::Spawn(worker)),
                Action::Kill(worker, reason) => self.order(Order::Kill(worker, reason)),
                Action::Retire(worker) => self.retire(worker),
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

    /// The time by which workers are judged: it stands still while this process does.
    pub(crate) fn now(&mut self) -> Instant {
        self.clock.at(Instant::now())
    }

    /// The keeper promises to look within that time.
    pub(crate) fn look_within(&mut self, wait: Duration) {
        self.clock.look_within(wait, Instant::now());
    }

    /// How long until [`Event::Tick`] is due, or the clock has to be looked at, lest it counts a stop as waiting.
    pub(crate) fn tick_in(&mut self) -> Option<Duration> {
        let at = self.supervisor.deadline()?;
        Some(at.saturating_duration_since(self.now()).min(LOOK))
    }

    pub(crate) fn all_ready(&self) -> bool {
        self.supervisor.all_ready()
    }

    /// Whether no worker is left, or nothing that could report the end of one.
    pub(crate) fn all_gone(&self) -> bool {
        self.keeperless || self.supervisor.all_gone()
    }

    /// The keeper has panicked, and has killed its processes.
    pub(crate) fn lose_keeper(&mut self) {
        self.keeperless = true;
        self.fail(PoolError::Keeper);
    }

    /// How many workers there should be.
    pub(crate) fn wanted(&self) -> usize {
        self.supervisor.wanted()
    }

    /// Wants so many workers from now on.
    pub(crate) fn resize(&mut self, workers: usize) {
        let members = self.members.len().max(workers);
        self.members.resize_with(members, || None);
        self.event(Event::Resize(workers));
    }

    fn retire(&mut self, worker: WorkerId) {
        if let Some(member) = &mut self.members[worker.0 as usize] {
            member.lane.limit(0);
        }
        self.let_go();
    }

    /// Tells workers to end that have done all they get to do. They have answered everything: one that is told
    /// earlier would not wait for room for its outputs.
    pub(super) fn let_go(&mut self) {
        let mut told = Vec::new();
        for member in self.members.iter_mut().flatten() {
            if member.lane.is_spent() {
                member.lane.close();
                told.push(member.incarnation.worker);
            }
        }
        for worker in told {
            self.event(Event::ToldToEnd(worker));
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping
    }

    pub(crate) fn failure(&self) -> Option<&PoolError> {
        self.failure.as_ref()
    }

    /// A process was started, at `begun` as [`now_ns`](crate::os::now_ns) tells; `timing` are its slots for that.
    pub(crate) fn spawned(&mut self, incarnation: Incarnation, pid: u32, begun: u64, timing: Slots) {
        self.stats.spawned += 1;
        self.chronicle.spawned(incarnation, pid, begun, timing);
        let birth = Birth {
            incarnation,
            pid: Some(pid),
            at: Instant::now(),
        };
        self.births.insert(incarnation.worker, birth);
    }

    pub(crate) fn connected(&mut self, incarnation: Incarnation, pid: u32, mut lane: Lane, notes: Notes) {
        if self.stopping {
            lane.close();
        }
        let worker = incarnation.worker;
        if let Some(tasks) = self.limits.tasks(worker, self.wanted(), incarnation.number == 1) {
            lane.limit(tasks);
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
    pub(crate) fn note(&mut self, incarnation: Incarnation, note: Note) -> bool {
        let Some(member) = self.member(incarnation) else {
            return false;
        };
        let ready = member.ready;
        match note {
            Note::Bell => {
                member.lane.heard();
                return false;
            }
            Note::Ready if !ready => {
                self.event(Event::Ready(incarnation.worker));
                let accepted = self.supervisor.is_ready(incarnation.worker);
                if let Some(member) = self.member(incarnation) {
                    member.ready = accepted;
                }
                self.dispatch_backlog();
            }
            Note::Failed(reason) if !ready => {
                self.event(Event::StartFailed(incarnation.worker, reason));
            }
            // Said twice: no harm.
            Note::Ready | Note::Failed(_) => {}
            Note::Nonsense if !member.condemned => {
                member.condemned = true;
                self.order(Order::Kill(incarnation.worker, KillReason::Corrupt));
            }
            Note::Nonsense => {}
        }
        true
    }

    pub(crate) fn closed(&mut self, incarnation: Incarnation) {
        self.order(Order::Closed(incarnation));
    }

    /// The process was reaped.
    pub(crate) fn ended(&mut self, incarnation: Incarnation, end: &End<'_>) {
        let mut in_task = false;
        let mut told = false;
        let worker = incarnation.worker;
        if self.member(incarnation).is_some()
            && let Some(mut member) = self.members[worker.0 as usize].take()
        {
            // What it had written is still there. If it had broken its ring, that counts as unwritten.
            self.stats.answered += member.lane.drain(&mut self.jobs, Extent::Rest) as u64;
            let (settled, lost) = member.lane.settle();
            // A task that is finished in the moment before its worker is killed leaves it without one.
            let for_task = Cause::Killed {
                reason: KillReason::Deadline,
            };
            let for_handle = Cause::Killed {
                reason: KillReason::Cancelled,
            };
            in_task = settled.in_progress.is_some() || [for_task, for_handle].contains(end.cause);
            told = member.lane.is_closed();
            for (job, index) in lost {
                let fault = self.death((job, index), 1, member.expired, worker, end);
                self.fault(job, index, fault);
            }
            let mut again = None;
            if let Some(mut task) = settled.in_progress {
                let what = (task.job, task.index);
                task.deaths += 1;
                let wanted = self.jobs.is_wanted(task.job) && !self.stopping;
                if task.deaths <= self.limits.retries && wanted {
                    self.stats.retried += 1;
                    again = Some(task);
                } else {
                    let fault = self.death(what, task.deaths, member.expired, worker, end);
                    self.fault(what.0, what.1, fault);
                }
            }
            self.stats.resent += settled.not_started.len() as u64;
            for task in again.into_iter().chain(settled.not_started).rev() {
                self.backlog.push_front(task);
            }
        }
        let surplus = self.supervisor.is_surplus(worker);
        if !self.stopping {
            self.stats.count_end(told, surplus);
        }
        let ending = match (self.stopping, told, surplus) {
            (true, false, _)
                if matches!(
                    end.cause,
                    Cause::Killed {
                        reason: KillReason::Shutdown
                    }
                ) =>
            {
                Ending::Finished
            }
            (_, false, _) => Ending::Died(end.cause.clone()),
            (true, true, _) => Ending::Finished,
            (false, true, false) => Ending::Recycled,
            (false, true, true) => Ending::Dismissed,
        };
        self.chronicle.ended(incarnation, ending);
        if let Some(birth) = self.births.get_mut(&worker) {
            birth.pid = None;
        }
        if !end.last.panics.is_empty() {
            // If it has not started, that is why.
            let reason = format!("{}{}", end.cause, After(&end.last.panics));
            self.event(Event::StartFailed(worker, reason));
        }
        self.event(Event::Ended {
            worker,
            cause: end.cause.clone(),
            in_task,
        });
        self.dispatch_backlog();
    }

    /// What befell a task whose worker is gone: it has cost so many by now.
    fn death(
        &self,
        task: (JobKey, u64),
        deaths: u32,
        expired: Option<(JobKey, u64)>,
        worker: WorkerId,
        end: &End<'_>,
    ) -> Fault {
        let last = end.last.clone();
        match self.limits.deadline {
            Some(deadline) if expired == Some(task) => Fault::TimedOut {
                worker,
                pid: end.pid,
                deadline,
                stack: last.stack,
                deaths,
                last_logs: last.logs,
                last_printed: last.printed,
            },
            _ => Fault::WorkerDied {
                worker,
                pid: end.pid,
                cause: end.cause.clone(),
                deaths,
                last_panics: last.panics.into(),
                last_logs: last.logs,
                last_printed: last.printed,
            },
        }
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

    /// How hard the pool was interrupted, if it was: then maps take in no more tasks.
    pub(crate) fn interrupted(&self) -> Option<Interrupt> {
        self.interrupted
    }

    /// Whether tasks that are at no worker have their error.
    fn is_cancelled(&self) -> bool {
        self.interrupted >= Some(Interrupt::Cancel)
    }

    pub(crate) fn interrupt(&mut self, how: Interrupt) {
        if self.interrupted >= Some(how) {
            return;
        }
        self.interrupted = Some(how);
        match how {
            Interrupt::Finish => {}
            Interrupt::Cancel => {
                self.recall_all();
                self.dispatch_backlog();
            }
            Interrupt::Kill => self.fail(PoolError::Interrupted),
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
            self.stats.answered += member.lane.drain(&mut self.jobs, Extent::Turn) as u64;
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::Patience;

    #[test]
    fn a_pool_that_has_lost_its_keeper_waits_for_no_worker() {
        let (keeper, _orders) = crossbeam_channel::unbounded();
        let patience = Patience {
            start_timeout: Duration::from_secs(60),
            start_attempts: 3,
            backoff: Duration::from_millis(100),
        };
        let supervisor = Supervisor::new(2, patience, Instant::now());
        let mut core = Core::new(2, Limits::default(), supervisor, keeper);
        core.event(Event::Tick);
        // It failed before for another reason.
        core.fail(PoolError::Interrupted);
        assert!(!core.all_gone(), "both are being started");
        core.lose_keeper();
        assert!(core.all_gone());
    }
}
