//! A lane: the leader's side of one worker process.

mod drain;
mod large;
mod lifespan;
mod load;
mod patience;
mod read;
mod stall;

use std::sync::atomic::{Ordering, fence};
use std::time::Instant;

use shm_buffers::Region;
use shm_buffers::arena::{BlockReader, BlockWriter};
use shm_buffers::claims::Giver;
use shm_buffers::ring::{Arm, Bell, Consumer, Producer, PushError};
use shm_buffers::slots::Slots;

use crate::batch::Run;
use crate::error::{KillReason, WorkerId};
use crate::jobs::JobKey;
use crate::ledger::{Kept, Ledger, Task};
use crate::os::doorbell::{Doorbell, ToWorker};
use crate::os::introduction::Liveness;
use crate::payload::{Large, Payload};
use crate::pieces::{Inbound, Outbound};
use crate::protocol::{Sizes, leader, slot};
use crate::window::Window;

pub(crate) use drain::Extent;
use large::Outgoing;
pub(crate) use stall::Stalled;

/// Bytes of large tasks that wait at a worker, beyond the one it runs, at most.
const LARGE: usize = 16 << 20;

/// The leader's side of one worker process, from the moment it is ready.
#[derive(Debug)]
pub(crate) struct Lane {
    worker: WorkerId,
    tasks: Producer,
    outcomes: Consumer,
    /// Pieces of tasks.
    pieces_out: Outbound,
    /// Pieces of outputs.
    pieces_in: Inbound,
    /// The task that is being sent.
    outgoing: Option<Outgoing>,
    control: Slots,
    claims: Giver,
    /// `None` once the worker was told to end.
    doorbell: Option<Doorbell>,
    /// Its closing tells the worker of our end, whatever the worker is doing.
    _liveness: Liveness,
    ledger: Ledger<Large>,
    /// Tasks that it may still be sent.
    left: u64,
    /// Bytes of large tasks in the ledger.
    large: usize,
    /// The ring was full and no task was answered since.
    full: bool,
    /// Why the worker has to end: nothing it says is of interest any more.
    broken: Option<KillReason>,
    /// It has tasks and does not begin: since then, with so many tasks answered and pieces taken, after so many
    /// rescues.
    idle: Option<(Instant, u64, u32)>,
    /// The task in progress, by the number of those answered before, as seen since then.
    running: Option<(u64, Instant)>,
    /// So many were answered when tasks were first seen to wait, since then.
    stall: Option<(u64, Instant)>,
    /// Tasks that the worker gave back unbegun.
    returned: Vec<Task<Large>>,
    /// Answered with what no correct worker writes.
    lost: Vec<(JobKey, u64)>,
    window: Window,
    /// What the worker had told of its time when we last looked: (ns, tasks).
    busy: (u64, u64),
    sleep: Sleep,
    scratch: Vec<u8>,
}

/// Whether the worker owes us a bell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sleep {
    Awake,
    /// A bell comes when so many frames are there.
    Armed(u64),
    /// It saw our wish; the bell is on its way, and no second wish is made before it came.
    Owed,
}

/// When to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// When half of what is outstanding is there.
    AtHalf,
    /// When anything is there.
    AtOnce,
}

/// What a worker's lane does for its sleeping leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Armed {
    /// There is something already.
    Ready,
    /// A bell comes, but only when several tasks are done.
    Several,
    /// A bell comes with the next thing that happens.
    Next,
}

/// Why a task was not taken by a lane.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Its ring is full now.
    Full,
    /// The task can't be sent to any worker.
    Unsendable(String),
    /// The worker has broken its lane.
    Broken,
}

impl Lane {
    pub(crate) fn new(
        worker: WorkerId,
        region: &Region,
        sizes: Sizes,
        to_worker: ToWorker,
        liveness: Liveness,
    ) -> Self {
        let map = sizes.map();
        let control = Slots::new(region, map.control);
        let leader = Slots::new(region, map.leader);
        let doorbell = Doorbell::new(leader.part(leader::DOORBELL), to_worker);
        Self {
            worker,
            tasks: Producer::new(region, map.tasks),
            outcomes: Consumer::new(region, map.outcomes),
            pieces_out: Outbound::new(
                BlockWriter::new(region, map.large_tasks),
                control.part(slot::TAKEN..slot::TAKEN + 1),
                leader.part(leader::WANTED..leader::WANTED + 1),
            ),
            pieces_in: Inbound::new(
                BlockReader::new(region, map.large_outputs),
                leader.part(leader::TAKEN..leader::TAKEN + 1),
                control.part(slot::WANTED..slot::WANTED + 1),
                sizes.output,
            ),
            outgoing: None,
            claims: Giver::new(
                control.part(slot::STARTED..slot::STARTED + 1),
                leader.part(leader::RECALLED..leader::RECALLED + 1),
            ),
            control,
            doorbell: Some(doorbell),
            _liveness: liveness,
            ledger: Ledger::default(),
            left: u64::MAX,
            large: 0,
            full: false,
            broken: None,
            idle: None,
            running: None,
            stall: None,
            returned: Vec::new(),
            lost: Vec::new(),
            window: Window::default(),
            busy: (0, 0),
            sleep: Sleep::Awake,
            scratch: Vec::new(),
        }
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.ledger.outstanding()
    }

    /// Whether it has a task of that job.
    pub(crate) fn has(&self, job: JobKey) -> bool {
        self.ledger.has(job)
    }

    /// Whether it has a task of that job which the worker has not started.
    pub(crate) fn has_unbegun(&self, job: JobKey) -> bool {
        self.ledger.has_beyond(self.claims.begun(), job)
    }

    /// Whether the worker has gone on to tasks behind that job's, whose outcome it has told then.
    pub(crate) fn has_done(&self, job: JobKey) -> bool {
        let last = self.ledger.count_answered() + self.ledger.outstanding() as u64;
        let begun = self.claims.begun();
        // One that says it began more than it was sent has told nothing.
        begun <= last && self.ledger.place(job).is_some_and(|place| begun > place)
    }

    /// Why the worker has to end, if it has to.
    pub(crate) fn broken(&self) -> Option<KillReason> {
        self.broken
    }

    /// Tasks that may be sent now.
    pub(crate) fn room(&self) -> usize {
        let outstanding = self.ledger.outstanding();
        // Behind a task that has cost workers, nobody has to wait and see; what was taken back is not to come back.
        let closed = self.full
            || self.broken.is_some()
            || self.is_sending()
            || self.ledger.ends_with_suspect()
            || self.ledger.has_recalled();
        if closed || (self.large > LARGE && outstanding > 1) {
            return 0;
        }
        let window = self.window.tasks().saturating_sub(outstanding);
        window.min(usize::try_from(self.left).unwrap_or(usize::MAX))
    }

    /// Sends a task again that came back from another lane.
    pub(crate) fn send_again(&mut self, task: &Task<Large>) -> Result<(), Refused> {
        let payload = match &task.payload {
            Kept::Frame(frame) => Payload::Inline(frame),
            Kept::Large(large) => Payload::Large(large),
        };
        self.send(task.job, task.index, payload)?;
        self.ledger.had_deaths(task.deaths);
        Ok(())
    }

    /// Sends one task, to be shown to the worker by [`publish`](Self::publish).
    #[inline]
    pub(crate) fn send(&mut self, job: JobKey, index: u64, payload: Payload<'_>) -> Result<(), Refused> {
        if self.is_sending() {
            return Err(Refused::Full);
        }
        let frame = match payload {
            Payload::Inline(frame) => frame,
            Payload::Large(large) => return self.send_large(job, index, large),
        };
        let staged = self.tasks.stage(frame);
        staged.map_err(|e| self.refused(e, 0))?;
        self.ledger.sent(job, index, frame);
        self.left = self.left.saturating_sub(1);
        Ok(())
    }

    /// Sends small tasks, as [`send`](Self::send) does one; gives how many, and why the next one was not.
    #[inline]
    pub(crate) fn send_run(&mut self, job: JobKey, run: Run<'_>) -> (usize, Result<(), Refused>) {
        let (sent, refused) = self.tasks.stage_all(run.frames());
        let refused = refused.map_err(|e| self.refused(e, sent));
        let run = run.first(sent);
        self.ledger.sent_run(job, run.entries(), run.bytes());
        self.left = self.left.saturating_sub(sent as u64);
        (sent, refused)
    }

    /// Why a frame was not written into the ring, behind `staged` others that are not in the ledger yet.
    #[cold]
    fn refused(&mut self, error: PushError, staged: usize) -> Refused {
        match error {
            // With nothing to wait for, it would be full for ever.
            PushError::Full if self.ledger.outstanding() + staged > 0 => {
                self.full = true;
                Refused::Full
            }
            PushError::TooLarge { .. } => Refused::Unsendable(error.to_string()),
            _ => {
                self.broken = Some(KillReason::Corrupt);
                Refused::Broken
            }
        }
    }

    /// Shows what was sent and wakes the worker if it sleeps.
    pub(crate) fn publish(&mut self) {
        if self.tasks.publish() == Bell::Ring {
            self.ring();
        }
    }

    /// Rings, unless a bell is under way that will wake the worker as well.
    fn ring(&mut self) {
        // With the fence in the worker's `hear`: either it sees what we did, or we see that it heard the last bell.
        fence(Ordering::SeqCst);
        self.ring_if_unheard(0);
    }

    /// Rings if at most `most` bells are under way.
    fn ring_if_unheard(&mut self, most: u64) {
        let heard = self.control.slot(slot::BELLS).get();
        let Some(doorbell) = self.doorbell.as_mut().filter(|_| self.broken.is_none()) else {
            return;
        };
        match doorbell.rung().checked_sub(heard) {
            Some(unheard) if unheard <= most => doorbell.ring(),
            Some(_) => {}
            // It says that it heard more than there were.
            None => self.broken = Some(KillReason::Corrupt),
        }
    }

    /// Asks to be woken.
    pub(crate) fn arm(&mut self, wake: Wake) -> Armed {
        let outstanding = self.ledger.outstanding() as u64;
        if outstanding == 0 || self.broken.is_some() {
            return Armed::Next;
        }
        if self.sleep == Sleep::Awake {
            let frames = match wake {
                Wake::AtHalf => outstanding.div_ceil(2),
                Wake::AtOnce => 1,
            };
            self.sleep = match self.outcomes.arm(frames) {
                Arm::Sleep => Sleep::Armed(frames),
                Arm::Ready => return Armed::Ready,
                Arm::BellComing => {
                    self.sleep = Sleep::Owed;
                    return Armed::Ready;
                }
            };
        }
        match self.sleep {
            Sleep::Armed(2..) => Armed::Several,
            _ => Armed::Next,
        }
    }

    /// Takes the wish back.
    pub(crate) fn disarm(&mut self) {
        if matches!(self.sleep, Sleep::Armed(_)) {
            self.sleep = match self.outcomes.disarm() {
                Arm::BellComing => Sleep::Owed,
                _ => Sleep::Awake,
            };
        }
    }

    /// The bell came.
    pub(crate) fn heard(&mut self) {
        self.sleep = Sleep::Awake;
    }

    /// Whether something is there to drain.
    pub(crate) fn has_outcomes(&mut self) -> bool {
        self.ledger.outstanding() > 0 && self.broken.is_none() && self.outcomes.is_empty() == Ok(false)
    }
}
