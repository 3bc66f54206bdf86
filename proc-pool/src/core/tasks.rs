//! The core's tasks: given to workers, taken back from them, waited for.

use std::time::{Duration, Instant};

use super::{Core, Member};
use crate::batch::Batch;
use crate::error::{Fault, KillReason, PoolError};
use crate::jobs::JobKey;
use crate::keeper::Order;
use crate::lane::{Armed, Extent, Refused, Wake};

impl Core {
    pub(super) fn fault(&mut self, job: JobKey, index: u64, fault: Fault) {
        self.stats.faulted += 1;
        if let Some(it) = self.jobs.get(job) {
            it.done.fault(index, fault);
            self.jobs.came(job, 1);
        }
    }

    /// Tasks that the workers could take now. A pool that failed, or was cancelled, takes any number, to give them their error.
    pub(crate) fn room(&self) -> usize {
        if self.failure.is_some() || self.is_cancelled() {
            return 64;
        }
        let room: usize = self.members.iter().flatten().map(Member::room).sum();
        room.saturating_sub(self.backlog.len())
    }

    /// Gives the batch's tasks to workers; what finds no room stays in the batch.
    pub(crate) fn submit(&mut self, key: JobKey, batch: &mut Batch) {
        let before = batch.len();
        let cancelled = || self.is_cancelled().then_some(PoolError::Interrupted);
        if let Some(error) = self.failure.clone().or_else(cancelled) {
            self.stats.submitted += before as u64;
            self.jobs.submitted(key, before);
            while let Some((index, _)) = batch.front() {
                self.fault(key, index, Fault::Pool(error.clone()));
                batch.pop();
            }
            return;
        }
        let open = |member: &&mut Member| member.room() > 0;
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
                let most = level.saturating_sub(member.lane.outstanding());
                let mut most = most.min(member.room());
                while most > 0 {
                    let run = batch.run(most);
                    if run.is_empty() {
                        // The next one is large, or there is none.
                        let Some((index, payload)) = batch.front() else {
                            break;
                        };
                        match member.lane.send(key, index, payload) {
                            Ok(()) => {}
                            Err(Refused::Full | Refused::Broken) => break,
                            Err(Refused::Unsendable(reason)) => unsendable.push((index, reason)),
                        }
                        batch.pop();
                        most = (most - 1).min(member.room());
                        continue;
                    }
                    let (sent, refused) = member.lane.send_run(key, run);
                    batch.pop_run(sent);
                    most -= sent;
                    match (refused, batch.front()) {
                        (Err(Refused::Unsendable(reason)), Some((index, _))) => {
                            unsendable.push((index, reason));
                            batch.pop();
                            most -= 1;
                        }
                        (Err(_), _) => break,
                        (Ok(()), _) => {}
                    }
                }
                member.lane.publish();
            }
            if batch.is_empty() {
                break;
            }
        }
        self.stats.submitted += (before - batch.len()) as u64;
        self.jobs.submitted(key, before - batch.len());
        for (index, reason) in unsendable {
            self.fault(key, index, Fault::Task(reason));
        }
        self.after_sending();
    }

    pub(super) fn dispatch_backlog(&mut self) {
        if self.backlog.is_empty() {
            return;
        }
        while let Some(task) = self.backlog.pop_front() {
            if !self.jobs.is_wanted(task.job) {
                // It was counted as submitted, so it is counted as ended.
                self.stats.faulted += 1;
                continue;
            }
            if self.is_cancelled() {
                self.fault(task.job, task.index, Fault::Pool(PoolError::Interrupted));
                continue;
            }
            let open = self.members.iter_mut().flatten();
            let open = open.filter(|m| m.room() > 0);
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
        self.have_watched();
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
        for place in 0..self.members.len() {
            let member = self.members[place].as_ref().filter(|member| !member.condemned);
            let Some((reason, incarnation)) = member.and_then(|m| Some((m.lane.broken()?, m.incarnation)))
            else {
                continue;
            };
            if reason == KillReason::Unresponsive {
                // Its claims are sound: it must not begin a task after all.
                self.recall(place);
            }
            if let Some(member) = &mut self.members[place] {
                member.condemned = true;
            }
            condemned.push((incarnation, reason));
        }
        for (incarnation, reason) in condemned {
            self.order(match reason {
                // It is dying by another hand, most likely, whose deed is not to be taken for ours.
                KillReason::Disconnected => Order::Closed(incarnation),
                _ => Order::Kill(incarnation.worker, reason),
            });
        }
    }

    /// Takes what workers have finished and hands out what waits; gives how many tasks were finished, and how many workers
    /// have room again because a large task has reached them.
    pub(crate) fn pump(&mut self) -> usize {
        let mut count = 0;
        let mut broken = false;
        let mut spent = false;
        let mut opened = 0;
        for member in self.members.iter_mut().flatten().filter(|m| m.ready) {
            let sending = member.lane.is_sending();
            let drained = member.lane.drain(&mut self.jobs, Extent::Turn);
            opened += usize::from(sending && !member.lane.is_sending());
            self.backlog.extend(member.lane.take_returned());
            if drained > 0 {
                count += drained;
                self.supervisor.progress(member.incarnation.worker);
            }
            broken |= member.lane.broken().is_some();
            spent |= member.lane.is_spent();
        }
        self.stats.answered += count as u64;
        if broken {
            self.condemn();
        }
        if spent {
            self.let_go();
        }
        self.dispatch_backlog();
        count + opened
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
