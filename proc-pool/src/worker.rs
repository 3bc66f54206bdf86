//! The worker process: introduction, then the loop over tasks.

use std::ops::ControlFlow;
use std::sync::atomic::{Ordering, fence};

use shm_buffers::claims::{Begin, Taker};
use shm_buffers::ring::{Arm, Bell, Consumer, Producer, PushError};
use shm_buffers::slots::Slots;
use shm_buffers::{Region, Segment, SegmentHandle};

use crate::bytes::OutputBuf;
use crate::clock::Clock;
use crate::entry::Routine;
use crate::op::Code;
use crate::os;
use crate::os::doorbell::{Ear, Ended, FromLeader};
use crate::os::introduction::{Invited, ReceiveError, ToLeader};
use crate::panics::catch_panic;
use crate::payload::{MAX_INLINE, chain};
use crate::protocol::{Carried, Inherited, MAX_REASON, Map, Note, Spin, Tag, VERSION, Welcome, leader, slot};
use crate::registry::Registry;
use crate::service::{CallError, Service, WorkerContext, decode, encode};
use crate::spin::Spinner;
use crate::timing::Laps;
use crate::timing::tally::Tally;

/// Exit status of a worker that lost its leader, or never found it.
pub(crate) const ORPHANED: i32 = 70;
/// Exit status of a worker that could not start; the reason went to the leader.
pub(crate) const NOT_STARTED: i32 = 71;

/// Looks for a task before a worker gives way.
const LOOKS: u32 = 32;
/// Memory for outputs that is kept between tasks, at most.
const KEEP: usize = 1 << 20;

/// A worker that knows its leader, for the entry point.
pub(crate) struct Bootstrap {
    welcome: Welcome,
    from_leader: FromLeader,
    to_leader: ToLeader,
    code: Code,
    /// When this process came to `init`, by [`now_ns`](os::now_ns).
    born: u64,
}

/// What `init` does in a worker process that has the ops of `registry` by name.
pub(crate) fn main(mut invited: Invited, registry: Option<&Registry>) -> ! {
    let born = os::now_ns();
    // As in every Rust program, but `init` may run before Rust's own start.
    os::ignore_broken_pipes();
    os::leave_interrupts_to_leader();
    // Between its recognition and the request to end with it, the leader may have ended.
    if !os::die_with(invited.leader()) {
        os::exit_now(ORPHANED);
    }
    let to_leader = invited.to_leader();
    if invited.version() != VERSION {
        let leaders = invited.version();
        let reason =
            format!("has proc-pool {VERSION} and its leader {leaders}; build both with the same version");
        give_up(&to_leader, &reason);
    }
    if let Err(e) = invited.release_stdin() {
        give_up(
            &to_leader,
            &format!("cannot have an empty standard input ({e}); raise the limit of open files"),
        );
    }
    let welcome = match invited.receive() {
        Ok(bytes) => Welcome::decoded(&bytes),
        Err(ReceiveError::Gone) => os::exit_now(ORPHANED),
        Err(ReceiveError::Descriptors { sent, received }) => Err(format!(
            "received {received} of {sent} descriptors; raise the limit of open files"
        )),
    };
    let welcome = welcome.unwrap_or_else(|reason| give_up(&to_leader, &reason));
    if welcome.inherited == Inherited::Nothing {
        os::introduction::close_inherited();
    }
    let from_leader = invited.live_with_leader(|| os::exit_now(ORPHANED));
    let from_leader =
        from_leader.unwrap_or_else(|e| give_up(&to_leader, &format!("cannot start a thread: {e}")));
    match welcome.entry.resolve(registry) {
        Ok(Routine { main, code }) => main(Bootstrap {
            welcome,
            from_leader,
            to_leader,
            code,
            born,
        }),
        Err(refusal) => give_up(&to_leader, &refusal.to_string()),
    }
}

fn give_up(to_leader: &ToLeader, reason: &str) -> ! {
    let end = (0..=reason.len().min(MAX_REASON))
        .rev()
        .find(|&i| reason.is_char_boundary(i))
        .unwrap_or(0);
    let _ = to_leader.send(&Note::Failed(reason[..end].to_owned()));
    os::exit_now(NOT_STARTED)
}

/// The entry point of a worker that runs `S`.
pub(crate) fn serve<S: Service>(bootstrap: Bootstrap) -> ! {
    let welcome = &bootstrap.welcome;
    let region = match Region::attach(&welcome.region) {
        Ok(region) => region,
        Err(e) => give_up(&bootstrap.to_leader, &chain(&e)),
    };
    let map = welcome.sizes.map();
    #[cfg(all(feature = "stacks", target_os = "linux"))]
    if welcome.sizes.stack > 0 {
        // Without it, there will be no answer.
        let _ = os::stack::answer_into(Slots::new(&region, map.stack));
    }
    let mut context = WorkerContext {
        worker: welcome.worker,
        workers: welcome.workers as usize,
        side: Some(Producer::new(&region, map.side)),
        slots: Slots::new(&region, map.slots),
        code: bootstrap.code.clone(),
    };
    let started = catch_panic(|| {
        with_carried(&welcome.init, |init| S::start(&mut context, init)).unwrap_or_else(|e| Err(e.into()))
    });
    let service = match started {
        Ok(Ok(service)) => service,
        Ok(Err(e)) => give_up(&bootstrap.to_leader, &format!("failed to start: {}", chain(&*e))),
        Err(panic) => give_up(
            &bootstrap.to_leader,
            &format!("panicked at {}: {}", panic.location, panic.message),
        ),
    };
    let tally = Tally::new(Slots::new(&region, map.timing), bootstrap.born, os::now_ns());
    if bootstrap.to_leader.send(&Note::Ready).is_err() {
        os::exit_now(ORPHANED);
    }
    let mut process = Process::new(&region, map, bootstrap, tally);
    process.run(service);
    // The end of a worker is an ordinary exit, so that `atexit` handlers, profilers and the like get their turn.
    std::process::exit(0)
}

fn with_carried<R>(
    carried: &Carried,
    use_it: impl FnOnce(&[u8]) -> R,
) -> Result<R, shm_buffers::AttachError> {
    Ok(match carried {
        Carried::Inline(bytes) => use_it(bytes),
        Carried::Segment(handle) => use_it(&Segment::attach(handle)?),
    })
}

/// The loop over tasks.
struct Process {
    tasks: Consumer,
    outcomes: Producer,
    control: Slots,
    leader: Slots,
    claims: Taker,
    ear: Ear,
    to_leader: ToLeader,
    /// Where it may look on before it sleeps.
    spinner: Option<Spinner>,
    /// A large output that the leader may not have attached yet.
    output: Option<Segment>,
    /// Large outputs made.
    outputs: u64,
    clock: Clock,
}

impl Process {
    fn new(region: &Region, map: Map, bootstrap: Bootstrap, tally: Option<Tally>) -> Self {
        let control = Slots::new(region, map.control);
        let leader = Slots::new(region, map.leader);
        Self {
            tasks: Consumer::new(region, map.tasks),
            outcomes: Producer::new(region, map.outcomes),
            claims: Taker::new(
                control.part(slot::STARTED..slot::STARTED + 1),
                leader.part(leader::RECALLED..leader::RECALLED + 1),
            ),
            clock: Clock::new(control.clone(), tally),
            ear: Ear::new(leader.part(leader::DOORBELL), bootstrap.from_leader),
            control,
            leader,
            to_leader: bootstrap.to_leader,
            spinner: (bootstrap.welcome.spin == Spin::Briefly).then(Spinner::default),
            output: None,
            outputs: 0,
        }
    }

    fn run(&mut self, mut service: impl Service) {
        let mut task = Vec::new();
        let mut output = OutputBuf::default();
        loop {
            task.clear();
            match self.tasks.pop(&mut task) {
                Ok(Some(_)) => {}
                Ok(None) => {
                    self.clock.stop();
                    match self.wait_for_task() {
                        Ok(()) => continue,
                        Err(Ended) => return,
                    }
                }
                // Our own leader's memory is broken: nothing sensible can follow.
                Err(_) => os::exit_now(ORPHANED),
            }
            self.clock.start();
            output.clear();
            // What the op does stays behind that: should it kill us, the leader knows.
            if self.claims.begin() == Begin::Recalled {
                if self.send(Tag::Recalled, &mut output).is_err() {
                    return;
                }
                continue;
            }
            let mut laps = Laps::default();
            let sampling = self.clock.is_sampling();
            let tag = call(&mut service, &task, &mut output, sampling.then_some(&mut laps));
            if self.send(tag, &mut output).is_err() {
                return;
            }
            match sampling {
                false => self.clock.task_done(),
                true => self.clock.sample_done(laps),
            }
            if self.output.is_some() {
                output.shrink_to(KEEP);
                if self.hand_over().is_err() {
                    return;
                }
            }
        }
    }

    fn send(&mut self, mut tag: Tag, output: &mut OutputBuf) -> Result<(), Ended> {
        if tag == Tag::Inline
            && let Some(large) = output.take_large()
        {
            let made = large.and_then(|(segment, handle)| {
                output.clear();
                encode(&handle, output).map_err(|e| e.to_string())?;
                Ok(segment)
            });
            match made {
                Ok(segment) => {
                    tag = Tag::Segment;
                    self.output = Some(segment);
                    self.outputs += 1;
                }
                Err(reason) => {
                    tag = Tag::BadOutput;
                    output.clear();
                    output.extend_from_slice(reason.as_bytes());
                }
            }
        }
        // Of texts, the beginning is enough.
        output.truncate(MAX_INLINE);
        loop {
            match self.outcomes.stage_parts(&[&[tag as u8], output]) {
                Ok(()) => break,
                Err(PushError::Full) => self.wait_for_room(output.len() + 1)?,
                Err(_) => os::exit_now(ORPHANED),
            }
        }
        // A large output is always told: we wait for the leader then.
        if self.outcomes.publish() == Bell::Ring || tag == Tag::Segment {
            self.ring()?;
        }
        Ok(())
    }

    /// Waits until the leader has the large output: ours would go with us, should the next task kill us.
    fn hand_over(&mut self) -> Result<(), Ended> {
        self.clock.stop();
        loop {
            if self.leader.slot(leader::TAKEN).get() >= self.outputs {
                self.output = None;
                return Ok(());
            }
            self.hear()?;
        }
    }

    fn ring(&self) -> Result<(), Ended> {
        self.to_leader.send(&Note::Bell).map_err(|_| Ended)
    }

    fn wait_for_task(&mut self) -> Result<(), Ended> {
        if let Some(spinner) = &mut self.spinner {
            let tasks = &mut self.tasks;
            // The leader may wait for this core, and for nothing else: it has it after the first look.
            let mut looks = 1;
            let found = spinner.look_on(|| {
                for _ in 0..std::mem::replace(&mut looks, LOOKS) {
                    if tasks.is_empty() == Ok(false) {
                        return ControlFlow::Break(());
                    }
                    std::hint::spin_loop();
                }
                ControlFlow::Continue(())
            });
            if found.is_some() {
                return Ok(());
            }
        }
        match self.tasks.arm(1) {
            Arm::Ready => Ok(()),
            // Heard in any case, so that at most one is ever under way.
            Arm::Sleep | Arm::BellComing => self.hear(),
        }
    }

    fn wait_for_room(&mut self, len: usize) -> Result<(), Ended> {
        match self.outcomes.arm(len) {
            Ok(Arm::Ready) => Ok(()),
            Ok(Arm::Sleep | Arm::BellComing) => {
                let begun = os::now_ns();
                self.hear()?;
                self.clock.excuse(begun);
                Ok(())
            }
            Err(_) => os::exit_now(ORPHANED),
        }
    }

    /// Sleeps until the leader rings. It may ring for another reason than the one waited for.
    fn hear(&mut self) -> Result<(), Ended> {
        let bells = self.ear.hear()?;
        self.control.slot(slot::BELLS).set(bells);
        // With the fence in the leader's `ring`: either we see what it did, or it sees that this bell was heard and
        // rings again.
        fence(Ordering::SeqCst);
        // A bell for one wish withdraws the other as well: both are made anew when needed.
        let _ = (self.tasks.disarm(), self.outcomes.disarm());
        Ok(())
    }
}

fn call(service: &mut impl Service, task: &[u8], output: &mut OutputBuf, laps: Option<&mut Laps>) -> Tag {
    let serve = |bytes: &[u8], output: &mut OutputBuf| match laps {
        None => service.call(bytes, output),
        Some(laps) => service.call_timed(bytes, output, laps),
    };
    let called = catch_panic(|| match task.split_first() {
        Some((&tag, bytes)) => match Tag::of(tag) {
            Some(Tag::Inline) => serve(bytes, output),
            Some(Tag::Segment) => {
                let handle: SegmentHandle = decode(bytes).map_err(|e| CallError::Task(e.to_string()))?;
                let segment = Segment::attach(&handle).map_err(|e| CallError::Task(chain(&e)))?;
                serve(&segment, output)
            }
            _ => Err(CallError::Task(format!("unknown tag {tag}"))),
        },
        None => Err(CallError::Task("empty frame".to_owned())),
    });
    let (tag, text) = match called {
        Ok(Ok(())) => return Tag::Inline,
        Ok(Err(CallError::Task(text))) => (Tag::BadTask, text),
        Ok(Err(CallError::Output(text))) => (Tag::BadOutput, text),
        Err(panic) => {
            output.clear();
            match encode(&panic, output) {
                Ok(()) => return Tag::Panicked,
                Err(e) => (Tag::BadOutput, format!("panic could not be told: {e}")),
            }
        }
    };
    output.clear();
    output.extend_from_slice(text.as_bytes());
    tag
}
