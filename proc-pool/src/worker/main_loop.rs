//! The worker's main loop: receives tasks from the leader, runs them, sends their outcomes. The leader's side of the same
//! rings is `leader::connection`.

mod incoming;
mod outcome;

use std::ops::ControlFlow;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use shm_buffers::Region;
use shm_buffers::arena::{BlockReader, BlockWriter};
use shm_buffers::claims::{Claim, Claimant};
use shm_buffers::ring::{Arm, Consumer, Producer, PushError, Wakeup};
use shm_buffers::slots::Slots;

use self::incoming::inline;
use crate::error::chain;
use crate::last_panics;
use crate::message::ORPHANED;
use crate::message::WorkerMessage;
use crate::metrics::PhaseTimes;
use crate::metrics::clock::Clock;
use crate::metrics::worker_metrics::WorkerMetrics;
use crate::os;
use crate::os::doorbell::{DoorbellClosed, WakeListener};
use crate::os::introduction::LeaderSender;
use crate::panics::catch_panic;
use crate::spin::Spinner;
use crate::wire::bytes::{BuffersIn, OutputBuf};
use crate::wire::encoding::{decode, encode};
use crate::wire::handshake::Spin;
use crate::wire::layout::{RegionLayout, leader, slot};
use crate::wire::owned_bytes::OwnedBytes;
use crate::wire::pieces::{Arrived, Inbound, Outbound, Trust};
use crate::wire::tags::Tag;
use crate::wire::worker_values::{WorkerValue, WorkerValueError};
use crate::worker::bootstrap::{Bootstrap, fail_start, refuse_start};
use crate::worker::service::{CallError, Runner, TaskBytes, UnfitWorker, WorkerContext};

/// Number of times that a spinning worker polls for a task between two yields.
const POLLS: u32 = 32;
/// Maximum size, in bytes, of the memory that a worker keeps for the next large task, and for the next output, while its tasks and
/// outputs are large. Pages of new memory take longer than copying. On Windows a worker does not notice that it is idle.
const KEEP_LARGE: usize = if cfg!(windows) { KEEP_SMALL } else { 128 << 20 };
/// Maximum size of the same memory after a small task.
const KEEP_SMALL: usize = 4 << 20;
/// How long a worker waits for a task before it releases memory of large payloads.
const IDLE: Duration = Duration::from_secs(1);

const INLINE: u8 = Tag::Inline as u8;
const PIECE: u8 = Tag::Piece as u8;
const WITHDRAWN: u8 = Tag::Withdrawn as u8;
const BUFFERS: u8 = Tag::Buffers as u8;
const BLOCK: u8 = Tag::Block as u8;

/// The main function of a worker process that runs `R`.
pub(crate) fn serve<R: Runner>(bootstrap: Bootstrap) -> ! {
    let welcome = &bootstrap.welcome;
    let region = match Region::attach(&welcome.region) {
        Ok(region) => region,
        Err(e) => fail_start(&bootstrap.to_leader, &chain(&e)),
    };
    let layout = welcome.sizes.layout();
    last_panics::write_into(Slots::new(&region, layout.last_panics));
    #[cfg(all(feature = "stacks", target_os = "linux"))]
    if welcome.sizes.stack > 0 {
        // If it fails, the leader gets no stack and waits in vain for a moment.
        let _ = os::stack::capture_into(Slots::new(&region, layout.stack));
    }
    let mut context = WorkerContext {
        worker: welcome.worker,
        workers: welcome.workers as usize,
        generation: welcome.generation,
        user_ring: Some(Producer::new(&region, layout.user_ring)),
        slots: Slots::new(&region, layout.slots),
        op: bootstrap.op.clone(),
        values: Vec::new(),
        attached_ns: None,
    };
    let started = catch_panic(|| {
        let values = welcome.values.with_bytes(decode::<Vec<WorkerValue>>)?;
        context.values = values.map_err(|e| UnfitWorker(format!("cannot decode its values: {e}")))?;
        welcome.init.with_bytes(|init| R::start(&mut context, init))?
    });
    let mut runner = match started {
        Ok(Ok(runner)) => runner,
        Ok(Err(e)) => {
            let reason = format!("failed to start: {}", chain(&*e));
            match e.is::<UnfitWorker>() || e.is::<WorkerValueError>() {
                true => refuse_start(&bootstrap.to_leader, &reason),
                false => fail_start(&bootstrap.to_leader, &reason),
            }
        }
        Err(panic) => fail_start(&bootstrap.to_leader, &panic.to_string()),
    };
    let ready = os::now_ns();
    let metrics = WorkerMetrics::new(
        Slots::new(&region, layout.timing),
        bootstrap.init_ns,
        context.attached_ns.unwrap_or(ready),
        ready,
    );
    if bootstrap.to_leader.send(&WorkerMessage::Ready).is_err() {
        os::end_group(ORPHANED);
    }
    let mut tasks = TaskLoop::new(&region, layout, bootstrap, metrics);
    R::run_tasks(|| tasks.run(&mut runner));
    drop(runner);
    // A worker ends by an ordinary exit, so that `atexit` handlers, profilers and the like run.
    std::process::exit(0)
}

/// Why a wait for a task has ended.
enum Waited {
    /// There may be a task.
    Woken,
    /// No task has come for [`IDLE`], and this worker keeps memory of large payloads.
    Idle,
}

/// The loop over tasks, with the worker's ends of everything that it shares with its leader.
struct TaskLoop {
    tasks: Consumer,
    outcomes: Producer,
    /// Pieces of large tasks.
    pieces_in: Inbound,
    /// Pieces of large outputs.
    pieces_out: Outbound,
    control: Slots,
    /// Not 0 if outputs must contain their buffers.
    in_band: Slots,
    claims: Claimant,
    doorbell: WakeListener,
    to_leader: LeaderSender,
    /// Present if the worker may spin before it parks.
    spinner: Option<Spinner>,
    /// A large payload came or went since memory was released.
    keeps_memory: bool,
    /// Maximum size of an output in bytes.
    max_output: u64,
    clock: Clock,
}

impl TaskLoop {
    fn new(
        region: &Region,
        layout: RegionLayout,
        bootstrap: Bootstrap,
        metrics: Option<WorkerMetrics>,
    ) -> Self {
        let control = Slots::new(region, layout.control);
        let leader = Slots::new(region, layout.leader);
        Self {
            tasks: Consumer::new(region, layout.tasks),
            outcomes: Producer::new(region, layout.outcomes),
            claims: Claimant::new(
                control.part(slot::STARTED..slot::STARTED + 1),
                leader.part(leader::RECALLED..leader::RECALLED + 1),
            ),
            clock: Clock::new(control.clone(), metrics),
            doorbell: WakeListener::new(leader.part(leader::DOORBELL), bootstrap.from_leader),
            pieces_in: Inbound::new(
                BlockReader::new(region, layout.large_tasks),
                leader.part(leader::TASKS_OUT),
                u64::MAX,
                Trust::Sender,
            ),
            pieces_out: Outbound::new(
                BlockWriter::new(region, layout.large_outputs),
                control.part(slot::OUTPUTS_OUT),
            ),
            keeps_memory: false,
            max_output: bootstrap.welcome.sizes.output,
            control,
            in_band: leader.part(leader::IN_BAND..leader::IN_BAND + 1),
            to_leader: bootstrap.to_leader,
            spinner: (bootstrap.welcome.spin == Spin::Briefly).then(Spinner::default),
        }
    }

    /// Runs tasks until the leader asks this worker to end.
    fn run<R: Runner>(&mut self, runner: &mut R) {
        let alignment = R::alignment();
        let mut frame = Vec::new();
        let mut output = OutputBuf::default();
        let mut received = Vec::new();
        loop {
            frame.clear();
            match self.tasks.pop(&mut frame) {
                Ok(Some(_)) => {}
                Ok(None) => {
                    // No claim follows that serves as the look for a sleeping leader.
                    if self.publish().is_err() || self.release_blocks().is_err() {
                        return;
                    }
                    self.clock.stop();
                    match R::wait(|| self.wait_for_task()) {
                        Ok(Waited::Woken) => continue,
                        Ok(Waited::Idle) => {
                            (frame, output) = Default::default();
                            if self.release_memory().is_err() {
                                return;
                            }
                            continue;
                        }
                        Err(DoorbellClosed) => return,
                    }
                }
                // The memory of this process's own leader is corrupt: nothing sensible can follow.
                Err(_) => os::end_group(ORPHANED),
            }
            let mut large = match frame.first() {
                Some(&PIECE) => match self.take_piece(&frame[1..], alignment) {
                    Ok(Arrived::Part) => continue,
                    Ok(Arrived::Whole(bytes)) => Some(Ok(bytes)),
                    Ok(Arrived::Lost(reason)) => Some(Err(reason)),
                    Err(DoorbellClosed) => return,
                },
                Some(&(BUFFERS | BLOCK)) => match self.take_buffer(&frame) {
                    Ok(()) => continue,
                    Err(DoorbellClosed) => return,
                },
                Some(&WITHDRAWN) => {
                    self.pieces_in.forget();
                    Some(Err(String::from_utf8_lossy(&frame[1..]).into_owned()))
                }
                _ => None,
            };
            self.clock.start();
            output.clear();
            // This claims the task before the op runs: if the op kills this process, the leader knows which task it was.
            let claim = self.claims.claim();
            // The outcome before was published without a look at whether the leader sleeps: one fence serves both.
            let wakeup = self.outcomes.wakeup_after_fence();
            if self.wake_if_needed(wakeup).is_err() {
                return;
            }
            if claim == Claim::Revoked {
                drop(self.pieces_in.take_apart());
                if self.send::<R>(Tag::Recalled, &mut output).is_err() {
                    return;
                }
                continue;
            }
            let mut task = match &mut large {
                _ if self.pieces_in.awaits_payload() => {
                    self.task_apart(&frame, large.as_mut(), &mut received)
                }
                None => inline(&frame).map(TaskBytes::Small),
                Some(Ok(large)) => Ok(TaskBytes::Large(large)),
                Some(Err(reason)) => Err(std::mem::take(reason)),
            };
            output.buffers = match self.in_band.slot(0).get() {
                0 => BuffersIn::Blocks,
                _ => BuffersIn::Output,
            };
            let mut phases = self.clock.is_sampling().then(PhaseTimes::default);
            let tag = call(runner, &mut task, &mut output, phases.as_mut());
            // The task has dropped its buffers, and the op may have kept some.
            if self.release_blocks().is_err() || self.send::<R>(tag, &mut output).is_err() {
                return;
            }
            match phases {
                None => self.clock.task_done(),
                Some(phases) => self.clock.sample_done(phases),
            }
            if self.keeps_memory || output.keeps_more_than(KEEP_SMALL) {
                self.free_memory(&mut output, large);
            }
        }
    }

    /// Frees memory of payloads, unless the next ones are probably as large as those of the task that was run.
    fn free_memory(&mut self, output: &mut OutputBuf, large: Option<Result<OwnedBytes, String>>) {
        let used = output.len();
        output.clear();
        if output.capacity() > kept(used) {
            output.shrink_to(KEEP_SMALL);
        }
        match large {
            Some(Ok(bytes)) => {
                let max = kept(bytes.len());
                self.pieces_in.reuse(bytes, max);
            }
            _ => self.pieces_in.free(KEEP_SMALL),
        }
    }

    /// Writes a frame as soon as there is room for it.
    #[inline]
    fn stage<R: Runner>(&mut self, parts: &[&[u8]]) -> Result<(), DoorbellClosed> {
        loop {
            match self.outcomes.stage_parts(parts) {
                Ok(()) => return Ok(()),
                Err(PushError::Full) => {
                    let len = parts.iter().map(|part| part.len()).sum();
                    self.wait_for_room::<R>(len)?;
                }
                Err(_) => os::end_group(ORPHANED),
            }
        }
    }

    /// Publishes the staged frames to the leader, and wakes it if it sleeps until there are as many outcomes.
    #[inline]
    fn publish(&mut self) -> Result<(), DoorbellClosed> {
        let wakeup = self.outcomes.publish();
        self.wake_if_needed(wakeup)
    }

    #[inline]
    fn wake_if_needed(&self, leader: Wakeup) -> Result<(), DoorbellClosed> {
        match leader {
            Wakeup::Needed => self.wake_leader(),
            Wakeup::NotNeeded => Ok(()),
        }
    }

    fn wake_leader(&self) -> Result<(), DoorbellClosed> {
        self.to_leader
            .send(&WorkerMessage::Wakeup)
            .map_err(|_| DoorbellClosed)
    }

    /// Waits until there may be a task: spins if allowed, then parks. Returns earlier if memory should be released.
    fn wait_for_task(&mut self) -> Result<Waited, DoorbellClosed> {
        if let Some(spinner) = &mut self.spinner {
            let tasks = &mut self.tasks;
            // The leader may wait for this very core before it can send anything: the first yield comes after one poll.
            let mut polls = 1;
            let found = spinner.spin(|| {
                for _ in 0..std::mem::replace(&mut polls, POLLS) {
                    if tasks.is_empty() == Ok(false) {
                        return ControlFlow::Break(());
                    }
                    std::hint::spin_loop();
                }
                ControlFlow::Continue(())
            });
            if found.is_some() {
                return Ok(Waited::Woken);
            }
        }
        let armed = self.tasks.arm(1);
        self.wake_if_needed(armed.peer)?;
        match armed.own {
            Arm::Ready => return Ok(Waited::Woken),
            Arm::Sleep if self.keeps_memory => match self.doorbell.wait_for(IDLE)? {
                Some(rings) => {
                    self.on_ring(rings);
                    return Ok(Waited::Woken);
                }
                None if self.tasks.disarm() != Arm::WakeupPending => return Ok(Waited::Idle),
                None => {}
            },
            Arm::Sleep | Arm::WakeupPending => {}
        }
        // A wakeup that is coming is consumed as well, so that there is never more than one on its way.
        self.park()?;
        Ok(Waited::Woken)
    }

    /// Waits until the outcome ring may have room for a frame of `len` bytes.
    fn wait_for_room<R: Runner>(&mut self, len: usize) -> Result<(), DoorbellClosed> {
        let Ok(armed) = self.outcomes.arm(len) else {
            os::end_group(ORPHANED)
        };
        self.wake_if_needed(armed.peer)?;
        if armed.own != Arm::Ready {
            self.park_behind_leader::<R>()?;
        }
        Ok(())
    }

    /// Does the same as [`park`](Self::park) while the leader has too much to take from this worker.
    fn park_behind_leader<R: Runner>(&mut self) -> Result<(), DoorbellClosed> {
        let start = os::now_ns();
        R::wait(|| os::wake_without_preempting(|| self.park()))?;
        self.clock.exclude_blocked(start);
        Ok(())
    }

    /// Sleeps until the leader rings the doorbell. It may do so for another reason than the one waited for.
    fn park(&mut self) -> Result<(), DoorbellClosed> {
        let rings = self.doorbell.wait()?;
        self.on_ring(rings);
        Ok(())
    }

    /// Called when the leader has rung the doorbell.
    fn on_ring(&mut self, rings: u64) {
        self.control.slot(slot::RINGS_SEEN).set(rings);
        // Pairs with the fence in the leader's `ring`: either this side sees what the leader did, or the leader sees that
        // this ring was consumed, and rings again.
        fence(Ordering::SeqCst);
        // One ring withdraws the requests for both rings; each is made again when it is needed.
        let _ = (self.tasks.disarm(), self.outcomes.disarm());
    }
}

/// Returns the maximum size of the memory that is kept after a payload of `used` bytes.
#[inline]
fn kept(used: usize) -> usize {
    used.saturating_mul(2).clamp(KEEP_SMALL, KEEP_LARGE)
}

/// Runs a task, and leaves its output or the text of its error in `output`.
fn call(
    runner: &mut impl Runner,
    task: &mut Result<TaskBytes<'_>, String>,
    output: &mut OutputBuf,
    phases: Option<&mut PhaseTimes>,
) -> Tag {
    let called = catch_panic(|| match task {
        Ok(task) => runner.call(task, output, phases),
        Err(reason) => Err(CallError::Task(std::mem::take(reason))),
    });
    let (tag, text) = match called {
        Ok(Ok(())) => return Tag::Inline,
        Ok(Err(CallError::Task(text))) => (Tag::BadTask, text),
        Ok(Err(CallError::Output(text))) => (Tag::BadOutput, text),
        Err(panic) => {
            output.clear();
            match encode(&panic, output) {
                Ok(()) => return Tag::Panicked,
                Err(e) => (Tag::BadOutput, format!("cannot encode the panic: {e}")),
            }
        }
    };
    output.clear();
    output.extend_from_slice(text.as_bytes());
    tag
}
