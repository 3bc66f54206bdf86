//! [`WorkerConnection`]: the leader's side of one worker process. It sends tasks, collects outcomes, and wakes the worker.
//!
//! [`drain`] collects outcomes, [`read`] parses them, [`large`] sends large tasks in pieces, [`health`] watches progress,
//! [`idle_memory`] returns memory.

mod drain;
mod health;
mod idle_memory;
mod large;
mod read;

use std::sync::atomic::{Ordering, fence};
use std::time::Instant;

use shm_buffers::Region;
use shm_buffers::arena::{BlockReader, BlockWriter};
use shm_buffers::claims::Revoker;
use shm_buffers::ring::{Arm, Consumer, Producer, PushError, Wakeup};
use shm_buffers::slots::Slots;

use crate::error::{KillReason, WorkerId};
use crate::leader::tasks::batch::FrameSlice;
use crate::leader::tasks::in_flight::{InFlightQueue, RetainedPayload, Task};
use crate::leader::tasks::jobs::JobKey;
use crate::leader::tasks::window::Window;
use crate::os::doorbell::{Doorbell, ToWorker};
use crate::os::introduction::Liveness;
use crate::wire::layout::{RegionSizes, leader, slot};
use crate::wire::payload::{Large, Payload};
use crate::wire::pieces::{Inbound, Outbound, Trust};

#[cfg(test)]
pub(crate) use drain::BOUNDED_BYTES;
pub(crate) use drain::{COLLECT_BYTES, DrainLimit};
pub(crate) use health::Stalled;
pub(crate) use idle_memory::KeptMemory;
use idle_memory::PayloadMemory;
use large::OutgoingTask;

/// Maximum total size in bytes of large tasks that wait at a worker, beyond the one that it runs.
const MAX_LARGE_BYTES: usize = 16 << 20;

/// The leader's side of one worker process, from the moment it is ready.
#[derive(Debug)]
pub(crate) struct WorkerConnection {
    worker: WorkerId,
    tasks: Producer,
    outcomes: Consumer,
    /// Sends the pieces of large tasks.
    pieces_out: Outbound,
    /// Receives the pieces of large outputs.
    pieces_in: Inbound,
    /// The large task that is being sent.
    outgoing: Option<OutgoingTask>,
    /// Blocks may be under way that the worker holds, because they are buffers.
    buffers_under_way: bool,
    control: Slots,
    /// The slot by which the leader requires that outputs contain their buffers.
    in_band: Slots,
    claims: Revoker,
    /// `None` once the worker was asked to stop.
    doorbell: Option<Doorbell>,
    /// When it closes, the worker notices the end of this process, whatever the worker is doing.
    _liveness: Liveness,
    in_flight: InFlightQueue<Large>,
    /// Number of tasks that may still be sent.
    task_budget: u64,
    /// Total size of the large tasks in `in_flight`, in bytes.
    large_bytes: usize,
    /// The ring was full, and no task was answered since.
    full: bool,
    /// Why the worker must be killed: none of its data is read any more.
    broken: Option<KillReason>,
    /// The worker has tasks and does not start one: since when, at which progress (tasks answered and pieces taken), and how often
    /// it was woken again.
    not_starting: Option<(Instant, u64, u32)>,
    /// The task in progress, as the number of tasks answered before it, and when it was first seen.
    running: Option<(u64, Instant)>,
    /// The number of tasks answered when others were first seen to wait, and when that was.
    stalled_at: Option<(u64, Instant)>,
    /// Tasks that were recalled and that the worker reports as not started.
    returned: Vec<Task<Large>>,
    /// Tasks that the worker answered with invalid data.
    lost: Vec<(JobKey, u64)>,
    window: Window,
    /// The busy time in ns and the number of tasks that the worker had reported when they were last read.
    last_busy: (u64, u64),
    wake_request: WakeRequest,
    scratch: Vec<u8>,
    memory: PayloadMemory,
}

/// Whether the worker was asked for a wakeup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WakeRequest {
    None,
    /// A wakeup comes when this number of frames is there.
    Armed(u64),
    /// The worker saw the request and its wakeup is on the way. No second request is made before it has come.
    Seen,
}

/// When the leader wants to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WakeThreshold {
    /// When half of the outstanding tasks are answered.
    Half,
    /// When a task is answered.
    First,
}

/// The next wakeup that the worker will send, soonest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ExpectedWakeup {
    /// Outcomes are already there, so the leader should not sleep.
    Now,
    /// A wakeup comes only when several tasks are answered.
    Several,
    /// A wakeup comes with the next event.
    Next,
}

/// Why a connection did not take a task.
#[derive(Debug)]
pub(crate) enum SendError {
    /// The worker's ring is full now.
    Full,
    /// The task cannot be sent to any worker.
    Unsendable(String),
    /// The worker has broken its connection.
    Broken,
}

impl WorkerConnection {
    pub(crate) fn new(
        worker: WorkerId,
        region: &Region,
        sizes: RegionSizes,
        trust: Trust,
        to_worker: ToWorker,
        liveness: Liveness,
    ) -> Self {
        let map = sizes.layout();
        let control = Slots::new(region, map.control);
        let leader = Slots::new(region, map.leader);
        let doorbell = Doorbell::new(leader.part(leader::DOORBELL), to_worker);
        Self {
            worker,
            tasks: Producer::new(region, map.tasks),
            outcomes: Consumer::new(region, map.outcomes),
            pieces_out: Outbound::new(
                BlockWriter::new(region, map.large_tasks),
                leader.part(leader::TASKS_OUT),
            ),
            pieces_in: Inbound::new(
                BlockReader::new(region, map.large_outputs),
                control.part(slot::OUTPUTS_OUT),
                sizes.output,
                trust,
            ),
            outgoing: None,
            buffers_under_way: false,
            claims: Revoker::new(
                control.part(slot::STARTED..slot::STARTED + 1),
                leader.part(leader::RECALLED..leader::RECALLED + 1),
            ),
            control,
            in_band: leader.part(leader::IN_BAND..leader::IN_BAND + 1),
            doorbell: Some(doorbell),
            _liveness: liveness,
            in_flight: InFlightQueue::default(),
            task_budget: u64::MAX,
            large_bytes: 0,
            full: false,
            broken: None,
            not_starting: None,
            running: None,
            stalled_at: None,
            returned: Vec::new(),
            lost: Vec::new(),
            window: Window::default(),
            last_busy: (0, 0),
            wake_request: WakeRequest::None,
            scratch: Vec::new(),
            memory: PayloadMemory::default(),
        }
    }

    /// From the next task on, the worker's outputs contain their buffers.
    pub(crate) fn require_in_band(&mut self) {
        self.in_band.slot(0).set(1);
    }

    /// Returns the number of unanswered tasks.
    pub(crate) fn outstanding(&self) -> usize {
        self.in_flight.outstanding()
    }

    /// Returns whether it has a task of the job.
    pub(crate) fn has_task_of(&self, job: JobKey) -> bool {
        self.in_flight.has_task_of(job)
    }

    /// Returns whether it has a task of the job that the worker has not started.
    pub(crate) fn has_unstarted(&self, job: JobKey) -> bool {
        self.in_flight.has_unstarted(self.claims.claimed(), job)
    }

    /// Returns whether the worker has answered the job's first task: it has started the task after it.
    pub(crate) fn has_finished(&self, job: JobKey) -> bool {
        let last = self.in_flight.count_answered() + self.in_flight.outstanding() as u64;
        let started = self.claims.claimed();
        // A worker that claims to have started more tasks than it was sent is not trusted.
        started <= last
            && self
                .in_flight
                .number_of(job)
                .is_some_and(|number| started > number)
    }

    /// Returns why the worker must be killed, if it must.
    pub(crate) fn broken(&self) -> Option<KillReason> {
        self.broken
    }

    /// Returns the number of tasks that may be sent now.
    pub(crate) fn room(&self) -> usize {
        let outstanding = self.in_flight.outstanding();
        // Tasks must not wait behind one that has killed workers, and a worker whose tasks were taken back gets no new ones until it
        // has acknowledged that.
        let closed = self.full
            || self.broken.is_some()
            || self.is_sending()
            || self.in_flight.last_is_suspect()
            || self.in_flight.has_recalled();
        if closed || (self.large_bytes > MAX_LARGE_BYTES && outstanding > 1) {
            return 0;
        }
        let window = self.window.tasks().saturating_sub(outstanding);
        window.min(usize::try_from(self.task_budget).unwrap_or(usize::MAX))
    }

    /// Sends a task that was taken back or submitted alone.
    pub(crate) fn send_task(&mut self, task: &Task<Large>) -> Result<(), SendError> {
        let payload = match &task.payload {
            RetainedPayload::Frame(frame) => Payload::Inline(frame),
            RetainedPayload::Large(large) => Payload::Large(large),
        };
        self.send(task.job, task.index, payload)?;
        self.in_flight.set_deaths_of_last(task.deaths);
        Ok(())
    }

    /// Stages one task. The worker sees it after [`publish`](Self::publish).
    #[inline]
    pub(crate) fn send(&mut self, job: JobKey, index: u64, payload: Payload<'_>) -> Result<(), SendError> {
        if self.is_sending() {
            return Err(SendError::Full);
        }
        let frame = match payload {
            Payload::Inline(frame) => frame,
            Payload::Large(large) => return self.send_large(job, index, large),
        };
        let staged = self.tasks.stage(frame);
        staged.map_err(|e| self.send_error(e))?;
        self.in_flight.push(job, index, frame);
        self.task_budget = self.task_budget.saturating_sub(1);
        Ok(())
    }

    /// Stages small tasks. Returns how many, and why the next one was not staged.
    #[inline]
    pub(crate) fn send_run(&mut self, job: JobKey, run: FrameSlice<'_>) -> (usize, Result<(), SendError>) {
        let mut sent = 0;
        let mut result = Ok(());
        for (mut run, frames) in run.runs() {
            let staged;
            (staged, result) = self.tasks.stage_all(frames.chunks_exact(run.frame_len));
            run.count = staged;
            self.in_flight.push_run(job, run, &frames[..run.bytes()]);
            sent += staged;
            if result.is_err() {
                break;
            }
        }
        self.task_budget = self.task_budget.saturating_sub(sent as u64);
        (sent, result.map_err(|e| self.send_error(e)))
    }

    /// Returns why a frame was not staged.
    #[cold]
    fn send_error(&mut self, error: PushError) -> SendError {
        match error {
            // If the worker has no task, it will never make room, so a full ring is invalid then.
            PushError::Full if self.in_flight.outstanding() > 0 => {
                self.full = true;
                SendError::Full
            }
            PushError::TooLarge { .. } => SendError::Unsendable(error.to_string()),
            _ => {
                self.broken = Some(KillReason::Corrupt);
                SendError::Broken
            }
        }
    }

    /// Publishes the staged tasks and wakes the worker if it sleeps.
    pub(crate) fn publish(&mut self) {
        if self.tasks.publish() == Wakeup::Needed {
            self.wake_worker();
        }
    }

    /// Wakes the worker, unless it has not yet received an earlier wakeup, which serves as well.
    fn wake_worker(&mut self) {
        // Pairs with the fence in the worker's wait: either the worker sees what was published, or this thread sees that the worker
        // has received the last wakeup.
        fence(Ordering::SeqCst);
        self.wake_unless_pending(0);
    }

    /// Wakes the worker if at most `max_pending` wakeups have not been received yet.
    fn wake_unless_pending(&mut self, max_pending: u64) {
        let received = self.control.slot(slot::RINGS_SEEN).get();
        let Some(doorbell) = self.doorbell.as_mut().filter(|_| self.broken.is_none()) else {
            return;
        };
        match doorbell.rung().checked_sub(received) {
            Some(pending) if pending <= max_pending => doorbell.ring(),
            Some(_) => {}
            // The worker claims to have received more wakeups than were sent.
            None => self.broken = Some(KillReason::Corrupt),
        }
    }

    /// Asks the worker for a wakeup. Returns what to expect.
    pub(crate) fn arm(&mut self, threshold: WakeThreshold) -> ExpectedWakeup {
        let outstanding = self.in_flight.outstanding() as u64;
        if outstanding == 0 || self.broken.is_some() {
            return ExpectedWakeup::Next;
        }
        if self.wake_request == WakeRequest::None {
            let frames = match threshold {
                WakeThreshold::Half => outstanding.div_ceil(2),
                WakeThreshold::First => 1,
            };
            let armed = self.outcomes.arm(frames);
            if armed.peer == Wakeup::Needed {
                self.wake_worker();
            }
            self.wake_request = match armed.own {
                Arm::Sleep => WakeRequest::Armed(frames),
                Arm::Ready => return ExpectedWakeup::Now,
                Arm::WakeupPending => {
                    self.wake_request = WakeRequest::Seen;
                    return ExpectedWakeup::Now;
                }
            };
        }
        match self.wake_request {
            WakeRequest::Armed(2..) => ExpectedWakeup::Several,
            _ => ExpectedWakeup::Next,
        }
    }

    /// Withdraws the request for a wakeup.
    pub(crate) fn disarm(&mut self) {
        if matches!(self.wake_request, WakeRequest::Armed(_)) {
            self.wake_request = match self.outcomes.disarm() {
                Arm::WakeupPending => WakeRequest::Seen,
                _ => WakeRequest::None,
            };
        }
    }

    /// Called when a wakeup of the worker has come.
    pub(crate) fn on_wakeup(&mut self) {
        self.wake_request = WakeRequest::None;
    }

    /// Returns whether outcomes are there to be drained.
    pub(crate) fn has_outcomes(&mut self) -> bool {
        self.in_flight.outstanding() > 0 && self.broken.is_none() && self.outcomes.is_empty() == Ok(false)
    }
}
