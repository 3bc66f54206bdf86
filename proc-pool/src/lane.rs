//! A lane: the leader's side of one worker process.

use ipc_channel::ipc::IpcSender;
use shm_buffers::ring::{Arm, Bell, Consumer, Corrupt, Producer, PushError};
use shm_buffers::slots::Slots;
use shm_buffers::{Region, Segment, SegmentHandle};

use crate::error::{Fault, WorkerId};
use crate::jobs::{Completion, Jobs, Outcome};
use crate::ledger::{Ledger, Settled, Task};
use crate::protocol::{MAX_INLINE, Map, Panic, Tag, ToWorker, slot};
use crate::service::{decode, encode};
use crate::window::Window;
use crate::worker::to_segment;

/// The leader's side of one worker process, from the moment it is ready.
#[derive(Debug)]
pub(crate) struct Lane {
    worker: WorkerId,
    tasks: Producer,
    outcomes: Consumer,
    control: Slots,
    taken: Slots,
    /// `None` once the worker was told to end.
    to_worker: Option<IpcSender<ToWorker>>,
    /// Its closing tells the worker of our end, whatever the worker is doing.
    _liveness: IpcSender<()>,
    ledger: Ledger<Segment>,
    window: Window,
    /// What the worker had told of its time when we last looked: (ns, tasks).
    busy: (u64, u64),
    bells: u64,
    sleep: Sleep,
    scratch: Vec<u8>,
}

/// Whether the worker owes us a bell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sleep {
    Awake,
    Armed,
    /// It saw our wish; the bell is on its way, and no second wish is made before it came.
    Owed,
}

/// Why a task was not taken by a lane.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Its ring is full now.
    Full,
    /// The task can't be sent to any worker.
    Unsendable(String),
    /// The worker has broken the ring.
    Corrupt,
}

impl Lane {
    pub(crate) fn new(
        worker: WorkerId,
        region: &Region,
        map: Map,
        to_worker: IpcSender<ToWorker>,
        liveness: IpcSender<()>,
    ) -> Self {
        Self {
            worker,
            tasks: Producer::new(region, map.tasks),
            outcomes: Consumer::new(region, map.outcomes),
            control: Slots::new(region, map.control),
            taken: Slots::new(region, map.taken),
            to_worker: Some(to_worker),
            _liveness: liveness,
            ledger: Ledger::default(),
            window: Window::default(),
            busy: (0, 0),
            bells: 0,
            sleep: Sleep::Awake,
            scratch: Vec::new(),
        }
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.ledger.outstanding()
    }

    /// Tasks that may be sent now.
    pub(crate) fn room(&self) -> usize {
        self.window.tasks().saturating_sub(self.ledger.outstanding())
    }

    /// Sends one task, to be shown to the worker by [`publish`](Self::publish).
    pub(crate) fn send(&mut self, task: &Task) -> Result<(), Refused> {
        self.send_parts(task.job, task.index, &task.payload)
    }

    pub(crate) fn send_parts(
        &mut self,
        job: crate::jobs::JobKey,
        index: u64,
        payload: &[u8],
    ) -> Result<(), Refused> {
        let refused = |e| match e {
            PushError::Full => Refused::Full,
            PushError::TooLarge { .. } => Refused::Unsendable(e.to_string()),
            _ => Refused::Corrupt,
        };
        if payload.len() <= MAX_INLINE {
            self.tasks
                .stage_parts(&[&[Tag::Inline as u8], payload])
                .map_err(refused)?;
            self.ledger.sent(job, index, payload, None);
            return Ok(());
        }
        let (segment, handle) = to_segment(payload).map_err(Refused::Unsendable)?;
        self.scratch.clear();
        encode(&handle, &mut self.scratch).map_err(|e| Refused::Unsendable(e.to_string()))?;
        self.tasks
            .stage_parts(&[&[Tag::Segment as u8], &self.scratch])
            .map_err(refused)?;
        self.ledger.sent(job, index, payload, Some(segment));
        Ok(())
    }

    /// Shows what was sent and wakes the worker if it sleeps.
    pub(crate) fn publish(&mut self) {
        if self.tasks.publish() == Bell::Ring {
            self.ring();
        }
    }

    /// Rings, unless a bell is under way that will wake the worker as well.
    fn ring(&mut self) {
        if self.bells <= self.control.slot(slot::BELLS).get()
            && let Some(to_worker) = &self.to_worker
        {
            self.bells += 1;
            // It fails if the worker has died; its end is told by other means.
            let _ = to_worker.send(ToWorker::Bell);
        }
    }

    /// Tells the worker to end once it has nothing to do.
    pub(crate) fn close(&mut self) {
        self.to_worker = None;
    }

    /// Takes every outcome that is there to its job; gives how many there were.
    pub(crate) fn drain(&mut self, jobs: &mut Jobs) -> Result<usize, Corrupt> {
        let mut count = 0;
        let mut attached = false;
        // Who is answered was sent: more answers than tasks are a lie, and left in the ring.
        while let Some((job, index)) = self.ledger.next() {
            let mut discarded = std::mem::take(&mut self.scratch);
            discarded.clear();
            let mut job = jobs.get(job);
            let bytes = match &mut job {
                Some(job) => &mut job.done.bytes,
                None => &mut discarded,
            };
            let start = bytes.len();
            let popped = self.outcomes.pop(bytes);
            let outcome = match popped {
                Ok(Some(_)) => Some(read(self.worker, bytes, start)),
                Ok(None) => None,
                Err(corrupt) => {
                    self.scratch = discarded;
                    return Err(corrupt);
                }
            };
            self.scratch = discarded;
            let Some((outcome, large)) = outcome else { break };
            attached |= large;
            if large {
                self.taken.slot(0).add(1);
            }
            self.ledger.answered();
            count += 1;
            if let Some(job) = job {
                job.pending -= 1;
                job.done.list.push(Completion { index, outcome });
            }
        }
        if count > 0 {
            if self.outcomes.settle() == Bell::Ring || attached {
                self.ring();
            }
            let busy = (
                self.control.slot(slot::BUSY_NS).get(),
                self.control.slot(slot::BUSY_TASKS).get(),
            );
            self.window.observe(
                busy.1.saturating_sub(self.busy.1),
                busy.0.saturating_sub(self.busy.0),
            );
            self.busy = busy;
        }
        Ok(count)
    }

    /// Asks to be woken when half of what is outstanding is there; `false` if it is there already.
    pub(crate) fn arm(&mut self) -> bool {
        let outstanding = self.ledger.outstanding() as u64;
        if outstanding == 0 || self.sleep != Sleep::Awake {
            return true;
        }
        match self.outcomes.arm(outstanding.div_ceil(2)) {
            Arm::Sleep => {
                self.sleep = Sleep::Armed;
                true
            }
            Arm::Ready => false,
            Arm::BellComing => {
                self.sleep = Sleep::Owed;
                false
            }
        }
    }

    /// Takes the wish back.
    pub(crate) fn disarm(&mut self) {
        if self.sleep == Sleep::Armed {
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
        self.ledger.outstanding() > 0 && !self.outcomes.is_empty().unwrap_or(false)
    }

    /// The worker is dead and everything it had written was drained.
    pub(crate) fn settle(&mut self) -> Settled {
        self.ledger.settle(self.control.slot(slot::STARTED).get())
    }
}

/// Reads the frame that starts at `start` of `bytes`; tells also whether it was a large one.
fn read(worker: WorkerId, bytes: &mut Vec<u8>, start: usize) -> (Outcome, bool) {
    let fault = |fault| Outcome::Fault(Box::new(fault));
    let end = bytes.len();
    let Some(tag) = bytes.get(start).copied().and_then(Tag::of) else {
        bytes.truncate(start);
        return (
            fault(Fault::Output("the worker sent an unknown frame".to_owned())),
            false,
        );
    };
    if tag == Tag::Inline {
        return (
            Outcome::Bytes {
                start: start + 1,
                end,
            },
            false,
        );
    }
    let payload = &bytes[start + 1..end];
    let text = || String::from_utf8_lossy(payload).into_owned();
    let outcome = match tag {
        Tag::Segment => {
            let attached = decode::<SegmentHandle>(payload)
                .map_err(|e| e.to_string())
                .and_then(|handle| Segment::attach(&handle).map_err(|e| e.to_string()));
            match attached {
                Ok(segment) => Outcome::Segment(segment),
                Err(reason) => fault(Fault::Output(reason)),
            }
        }
        Tag::Panicked => {
            let panic: Panic = decode(payload).unwrap_or_default();
            let Panic {
                message,
                location,
                backtrace,
            } = panic;
            fault(Fault::Panicked {
                worker,
                message,
                location,
                backtrace,
            })
        }
        Tag::BadTask => fault(Fault::Task(text())),
        Tag::BadOutput | Tag::Inline => fault(Fault::Output(text())),
    };
    bytes.truncate(start);
    (outcome, tag == Tag::Segment)
}
