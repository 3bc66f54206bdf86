//! A lane: the leader's side of one worker process.

mod lifespan;
mod load;
mod patience;

use std::sync::atomic::{Ordering, fence};
use std::time::Instant;

use ipc_channel::ipc::IpcSender;
use shm_buffers::ring::{Arm, Bell, Consumer, Producer, PushError};
use shm_buffers::slots::Slots;
use shm_buffers::{AttachError, Region, Segment, SegmentHandle};

use crate::error::{Fault, KillReason, WorkerId};
use crate::jobs::{Completion, Completions, JobKey, Jobs, Outcome};
use crate::ledger::{Kept, Ledger, Settled, Task};
use crate::os;
use crate::panics::Panic;
use crate::payload::{Large, Payload, chain};
use crate::protocol::{Map, Tag, ToWorker, slot};
use crate::service::decode;
use crate::window::Window;

/// Bytes of large tasks that wait at a worker, beyond the one it runs, at most.
const LARGE: usize = 16 << 20;

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
    ledger: Ledger<Large>,
    /// Tasks that it may still be sent.
    left: u64,
    /// Bytes of large tasks in the ledger.
    large: usize,
    /// The ring was full and no task was answered since.
    full: bool,
    /// Why the worker has to end: nothing it says is of interest any more.
    broken: Option<KillReason>,
    /// It has tasks and does not begin: since then, with so many tasks answered, after so many rescues.
    idle: Option<(Instant, u64, u32)>,
    /// The task in progress, by the number of those answered before, as seen since then.
    running: Option<(u64, Instant)>,
    /// Answered with an output that ended with the worker's process.
    lost: Vec<(JobKey, u64)>,
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
            left: u64::MAX,
            large: 0,
            full: false,
            broken: None,
            idle: None,
            running: None,
            lost: Vec::new(),
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

    /// Why the worker has to end, if it has to.
    pub(crate) fn broken(&self) -> Option<KillReason> {
        self.broken
    }

    /// Tasks that may be sent now.
    pub(crate) fn room(&self) -> usize {
        let outstanding = self.ledger.outstanding();
        // Behind a task that has cost workers, nobody has to wait and see.
        let closed = self.full || self.broken.is_some() || self.ledger.ends_with_suspect();
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
        let frame = match payload {
            Payload::Inline(frame) => frame,
            Payload::Large(large) => &large.frame,
        };
        match self.tasks.stage(frame) {
            Ok(()) => {}
            // With nothing to wait for, it would be full for ever.
            Err(PushError::Full) if self.ledger.outstanding() > 0 => {
                self.full = true;
                return Err(Refused::Full);
            }
            Err(e @ PushError::TooLarge { .. }) => return Err(Refused::Unsendable(e.to_string())),
            Err(_) => {
                self.broken = Some(KillReason::Corrupt);
                return Err(Refused::Broken);
            }
        }
        match payload {
            Payload::Inline(frame) => self.ledger.sent(job, index, frame),
            Payload::Large(large) => {
                self.large += large.len();
                self.ledger.sent_large(job, index, large.clone());
            }
        }
        self.left = self.left.saturating_sub(1);
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
        // With the fence in the worker's `hear`: either it sees what we did, or we see that it heard the last bell.
        fence(Ordering::SeqCst);
        self.ring_if_unheard(0);
    }

    /// Rings if at most `most` bells are under way.
    fn ring_if_unheard(&mut self, most: u64) {
        let heard = self.control.slot(slot::BELLS).get();
        let Some(unheard) = self.bells.checked_sub(heard) else {
            // It says that it heard more than there were.
            self.broken = Some(KillReason::Corrupt);
            return;
        };
        if unheard <= most
            && self.broken.is_none()
            && let Some(to_worker) = &self.to_worker
        {
            self.bells += 1;
            // It fails if the worker has died; its end is told by other means.
            let _ = os::without_sigpipe(|| to_worker.send(ToWorker::Bell));
        }
    }

    /// Takes every outcome that is there to its job; gives how many there were.
    pub(crate) fn drain(&mut self, jobs: &mut Jobs) -> usize {
        let mut count = 0;
        let mut attached = false;
        // Who is answered was sent: more answers than tasks are a lie, and left in the ring.
        while self.broken.is_none()
            && let Some((key, _)) = self.ledger.next()
        {
            let (drained, run) = match jobs.get(key) {
                Some(job) => self.drain_job(key, &mut job.done, &mut attached),
                None => {
                    let mut nobody = Completions::default();
                    std::mem::swap(&mut nobody.bytes, &mut self.scratch);
                    let drained = self.drain_job(key, &mut nobody, &mut attached);
                    nobody.clear();
                    self.scratch = nobody.bytes;
                    drained
                }
            };
            count += drained;
            if run == Run::Dry {
                break;
            }
        }
        if count > 0 {
            self.full = false;
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
        count
    }

    /// Takes outcomes for as long as they are `key`'s.
    fn drain_job(&mut self, key: JobKey, done: &mut Completions, attached: &mut bool) -> (usize, Run) {
        let before = self.ledger.count_answered();
        let count = |this: &Self| (this.ledger.count_answered() - before) as usize;
        while let Some((_, index)) = self.ledger.next().filter(|(next, _)| *next == key) {
            let start = done.bytes.len();
            let read = match self.outcomes.pop(&mut done.bytes) {
                Ok(Some(_)) => read(self.worker, &mut done.bytes, start),
                Ok(None) => return (count(self), Run::Dry),
                Err(_) => {
                    self.broken = Some(KillReason::Corrupt);
                    return (count(self), Run::Dry);
                }
            };
            let outcome = match read {
                Read::Small(outcome) => outcome,
                Read::Large(outcome) => {
                    *attached = true;
                    self.taken.slot(0).add(1);
                    outcome
                }
                // Its owner is about to end, or lies: both ways this process's end settles it.
                Read::Lost => {
                    let count = count(self);
                    self.answered();
                    self.broken = Some(KillReason::Disconnected);
                    self.lost.push((key, index));
                    return (count, Run::Dry);
                }
            };
            self.answered();
            done.list.push(Completion { index, outcome });
        }
        (count(self), Run::Over)
    }

    #[inline]
    fn answered(&mut self) {
        if let Some(large) = self.ledger.answered() {
            self.large -= large.len();
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

    /// The worker is dead and everything it had written was drained.
    pub(crate) fn settle(&mut self) -> (Settled<Large>, Vec<(JobKey, u64)>) {
        self.large = 0;
        let settled = self.ledger.settle(self.control.slot(slot::STARTED).get());
        (settled, std::mem::take(&mut self.lost))
    }
}

/// Why no more of a job's outcomes were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    /// The next one is another job's, or there is none.
    Over,
    /// None is there now.
    Dry,
}

/// A frame that was read.
#[derive(Debug)]
enum Read {
    Small(Outcome),
    /// It came in a segment.
    Large(Outcome),
    /// It was in a segment that can't be reached any more.
    Lost,
}

/// Reads the frame that starts at `start` of `bytes`, which keep only what the outcome refers to.
#[inline]
fn read(worker: WorkerId, bytes: &mut Vec<u8>, start: usize) -> Read {
    let end = bytes.len();
    let tag = bytes.get(start).copied().and_then(Tag::of);
    if tag == Some(Tag::Inline) {
        let start = start + 1;
        return Read::Small(Outcome::Bytes { start, end });
    }
    read_other(worker, tag, bytes, start)
}

#[cold]
fn read_other(worker: WorkerId, tag: Option<Tag>, bytes: &mut Vec<u8>, start: usize) -> Read {
    let fault = |fault| Outcome::Fault(Box::new(fault));
    let payload = bytes.get(start + 1..).unwrap_or_default();
    let text = || String::from_utf8_lossy(payload).into_owned();
    let read = match tag {
        Some(Tag::Segment) => match decode::<SegmentHandle>(payload) {
            Ok(handle) => match Segment::attach(&handle) {
                Ok(segment) => Read::Large(Outcome::Segment(segment)),
                Err(AttachError::Unreachable { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound =>
                {
                    Read::Lost
                }
                Err(e) => Read::Large(fault(Fault::Output(chain(&e)))),
            },
            Err(e) => Read::Large(fault(Fault::Output(e.to_string()))),
        },
        Some(Tag::Panicked) => {
            let Panic {
                message,
                location,
                backtrace,
            } = decode(payload).unwrap_or_default();
            Read::Small(fault(Fault::Panicked {
                worker,
                message,
                location,
                backtrace,
            }))
        }
        Some(Tag::BadTask) => Read::Small(fault(Fault::Task(text()))),
        Some(Tag::BadOutput) => Read::Small(fault(Fault::Output(text()))),
        Some(Tag::Inline) | None => {
            let unknown = "the worker sent an unknown frame".to_owned();
            Read::Small(fault(Fault::Output(unknown)))
        }
    };
    bytes.truncate(start);
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_frame(frame: &[u8]) -> (Read, Vec<u8>) {
        let mut bytes = b"before".to_vec();
        bytes.extend_from_slice(frame);
        let read = read(WorkerId(3), &mut bytes, 6);
        (read, bytes)
    }

    #[test]
    fn an_output_stays_where_it_is() {
        for output in [&b""[..], b"output"] {
            let (read, bytes) = read_frame(&[&[Tag::Inline as u8], output].concat());
            let Read::Small(Outcome::Bytes { start, end }) = read else {
                panic!("{read:?}")
            };
            assert_eq!(&bytes[start..end], output);
        }
    }

    #[test]
    fn hostile_frames_are_faults_and_leave_nothing() {
        let garbage = [0xff; 40];
        let mut frames: Vec<Vec<u8>> = vec![vec![], vec![5], vec![0xff; 9]];
        for tag in [Tag::Segment, Tag::Panicked, Tag::BadTask, Tag::BadOutput] {
            for len in 0..garbage.len() {
                frames.push([&[tag as u8], &garbage[..len]].concat());
            }
        }
        for frame in frames {
            let (read, bytes) = read_frame(&frame);
            assert_eq!(bytes, b"before", "{frame:?}");
            assert!(
                matches!(
                    read,
                    Read::Small(Outcome::Fault(_)) | Read::Large(Outcome::Fault(_))
                ),
                "{frame:?}: {read:?}"
            );
        }
    }

    #[test]
    fn a_segment_of_nobody_is_lost() {
        let (segment, handle) = crate::payload::to_segment(&[7; 100]).unwrap();
        let mut frame = vec![Tag::Segment as u8];
        crate::service::encode(&handle, &mut frame).unwrap();
        let (read, _) = read_frame(&frame);
        assert!(matches!(read, Read::Large(Outcome::Segment(it)) if it[..] == [7; 100]));
        drop(segment);
        let (read, _) = read_frame(&frame);
        // Another test's descriptor may have its number now.
        assert!(!matches!(read, Read::Large(Outcome::Segment(_))), "{read:?}");
    }
}
