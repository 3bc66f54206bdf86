//! The worker process: introduction, then the loop over tasks.

use std::ops::ControlFlow;
use std::sync::atomic::{Ordering, fence};

use shm_buffers::arena::{BlockReader, BlockWriter};
use shm_buffers::claims::{Begin, Taker};
use shm_buffers::ring::{Arm, Bell, Consumer, Producer, PushError};
use shm_buffers::slots::Slots;
use shm_buffers::{Region, Segment};

use crate::bytes::OutputBuf;
use crate::clock::Clock;
use crate::entry::Routine;
use crate::last_panics;
use crate::op::Code;
use crate::os;
use crate::os::doorbell::{Ear, Ended, FromLeader};
use crate::os::introduction::{Invited, ReceiveError, ToLeader};
use crate::panics::catch_panic;
use crate::payload::{MAX_INLINE, chain};
use crate::pieces::{Arrived, Found, Inbound, NO_MEMORY, Outbound, Piece, Wish};
use crate::protocol::{Carried, Inherited, MAX_REASON, Map, Note, Spin, Tag, VERSION, Welcome, leader, slot};
use crate::registry::Registry;
use crate::service::{CallError, Service, WorkerContext, encode};
use crate::spin::Spinner;
use crate::timing::Laps;
use crate::timing::tally::Tally;

/// Exit status of a worker that lost its leader, or never found it.
pub(crate) const ORPHANED: i32 = 70;
/// Exit status of a worker that could not start; the reason went to the leader.
pub(crate) const NOT_STARTED: i32 = 71;

/// Looks for a task before a worker gives way.
const LOOKS: u32 = 32;
/// Memory for a task that is kept for the next one, at most, and for an output.
const KEEP: usize = 4 << 20;

const INLINE: u8 = Tag::Inline as u8;
const PIECE: u8 = Tag::Piece as u8;
const WITHDRAWN: u8 = Tag::Withdrawn as u8;

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
    os::leave_signals_to_leader();
    // Between its recognition and the request to end with it, the leader may have ended.
    if !os::die_with(invited.leader()) {
        os::end_group(ORPHANED);
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
        Err(ReceiveError::Gone) => os::end_group(ORPHANED),
        Err(ReceiveError::Descriptors { sent, received }) => Err(format!(
            "received {received} of {sent} descriptors; raise the limit of open files"
        )),
    };
    let welcome = welcome.unwrap_or_else(|reason| give_up(&to_leader, &reason));
    if welcome.inherited == Inherited::Nothing {
        os::introduction::close_inherited();
    }
    let from_leader = invited.live_with_leader(|| os::end_group(ORPHANED));
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
    last_panics::write_into(Slots::new(&region, map.last_panics));
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
        Err(panic) => give_up(&bootstrap.to_leader, &panic.to_string()),
    };
    let tally = Tally::new(Slots::new(&region, map.timing), bootstrap.born, os::now_ns());
    if bootstrap.to_leader.send(&Note::Ready).is_err() {
        os::end_group(ORPHANED);
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
    /// Pieces of tasks.
    pieces_in: Inbound,
    /// Pieces of outputs.
    pieces_out: Outbound,
    control: Slots,
    claims: Taker,
    ear: Ear,
    to_leader: ToLeader,
    /// Where it may look on before it sleeps.
    spinner: Option<Spinner>,
    /// Bytes of an output, at most.
    most: u64,
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
            pieces_in: Inbound::new(
                BlockReader::new(region, map.large_tasks),
                control.part(slot::TAKEN..slot::TAKEN + 1),
                leader.part(leader::WANTED..leader::WANTED + 1),
                u64::MAX,
            ),
            pieces_out: Outbound::new(
                BlockWriter::new(region, map.large_outputs),
                leader.part(leader::TAKEN..leader::TAKEN + 1),
                control.part(slot::WANTED..slot::WANTED + 1),
            ),
            most: bootstrap.welcome.sizes.output,
            control,
            to_leader: bootstrap.to_leader,
            spinner: (bootstrap.welcome.spin == Spin::Briefly).then(Spinner::default),
        }
    }

    fn run(&mut self, mut service: impl Service) {
        let mut frame = Vec::new();
        let mut output = OutputBuf::default();
        loop {
            frame.clear();
            match self.tasks.pop(&mut frame) {
                Ok(Some(_)) => {}
                Ok(None) => {
                    self.clock.stop();
                    match self.wait_for_task() {
                        Ok(()) => continue,
                        Err(Ended) => return,
                    }
                }
                // Our own leader's memory is broken: nothing sensible can follow.
                Err(_) => os::end_group(ORPHANED),
            }
            let large = match frame.first() {
                Some(&PIECE) => match self.take_piece(&frame[1..]) {
                    Ok(Arrived::Part) => continue,
                    Ok(Arrived::Whole(bytes)) => Some(Ok(bytes)),
                    Ok(Arrived::Lost(reason)) => Some(Err(reason)),
                    Err(Ended) => return,
                },
                Some(&WITHDRAWN) => {
                    self.pieces_in.forget();
                    Some(Err(String::from_utf8_lossy(&frame[1..]).into_owned()))
                }
                _ => None,
            };
            self.clock.start();
            output.clear();
            // What the op does stays behind that: should it kill us, the leader knows.
            if self.claims.begin() == Begin::Recalled {
                if self.send(Tag::Recalled, &mut output).is_err() {
                    return;
                }
                continue;
            }
            let task = match &large {
                None => inline(&frame),
                Some(large) => large.as_deref().map_err(Clone::clone),
            };
            let mut laps = Laps::default();
            let sampling = self.clock.is_sampling();
            let tag = call(&mut service, task, &mut output, sampling.then_some(&mut laps));
            if self.send(tag, &mut output).is_err() {
                return;
            }
            match sampling {
                false => self.clock.task_done(),
                true => self.clock.sample_done(laps),
            }
            if output.capacity() > KEEP {
                output.clear();
                output.shrink_to(KEEP);
            }
            if let Some(Ok(bytes)) = large {
                self.pieces_in.reuse(bytes, KEEP);
            }
        }
    }

    /// Takes a piece of a task, and rings if the leader waits for that.
    fn take_piece(&mut self, payload: &[u8]) -> Result<Arrived, Ended> {
        let Ok(arrived) = self.pieces_in.take(payload) else {
            os::end_group(ORPHANED)
        };
        if self.pieces_in.is_awaited() {
            self.ring()?;
        }
        Ok(arrived)
    }

    fn send(&mut self, mut tag: Tag, output: &mut OutputBuf) -> Result<(), Ended> {
        if tag == Tag::Inline && output.len() as u64 > self.most {
            tag = Tag::BadOutput;
            let (len, most) = (output.len(), self.most);
            let reason = format!(
                "output of {len} bytes exceeds the limit of {most} bytes; raise `Builder::max_output`"
            );
            output.put(reason.as_bytes());
        }
        if tag == Tag::Inline && output.len() > MAX_INLINE {
            return self.send_large(output);
        }
        // Of texts, the beginning is enough.
        output.truncate(MAX_INLINE);
        self.stage(&[&[tag as u8], output])?;
        self.show()
    }

    /// Writes a frame, once there is room for it.
    fn stage(&mut self, parts: &[&[u8]]) -> Result<(), Ended> {
        loop {
            match self.outcomes.stage_parts(parts) {
                Ok(()) => return Ok(()),
                Err(PushError::Full) => self.wait_for_room(parts.iter().map(|part| part.len()).sum())?,
                Err(_) => os::end_group(ORPHANED),
            }
        }
    }

    /// Shows what was staged.
    fn show(&mut self) -> Result<(), Ended> {
        match self.outcomes.publish() {
            Bell::Ring => self.ring(),
            Bell::Silent => Ok(()),
        }
    }

    /// Sends an output in pieces. Each is the leader's from when it is shown, whatever becomes of this process.
    fn send_large(&mut self, output: &[u8]) -> Result<(), Ended> {
        let mut rest = output;
        while !rest.is_empty() {
            // Each time: blocks lie low then, in memory that is warm.
            if self.pieces_out.collect().is_err() {
                os::end_group(ORPHANED);
            }
            let block = match self.pieces_out.find(rest.len()) {
                Found::Block(block) => block,
                Found::NoRoom => {
                    self.wait_for_blocks()?;
                    continue;
                }
                Found::NoMemory => {
                    self.stage(&[&[Tag::BadOutput as u8], NO_MEMORY.as_bytes()])?;
                    return self.show();
                }
            };
            if self.pieces_out.fill(block, rest).is_err() {
                os::end_group(ORPHANED);
            }
            self.stage(&[&Piece::new(block, rest.len()).frame()])?;
            self.show()?;
            rest = &rest[block.len as usize..];
        }
        Ok(())
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
            Err(_) => os::end_group(ORPHANED),
        }
    }

    /// Waits until the leader has taken pieces.
    fn wait_for_blocks(&mut self) -> Result<(), Ended> {
        if self.pieces_out.wish() == Wish::Granted {
            return Ok(());
        }
        // It may wait for more frames than there is room for.
        self.ring()?;
        let begun = os::now_ns();
        self.hear()?;
        self.clock.excuse(begun);
        Ok(())
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

/// The bytes of a task that is a frame.
fn inline(frame: &[u8]) -> Result<&[u8], String> {
    match frame.split_first() {
        Some((&INLINE, bytes)) => Ok(bytes),
        Some((tag, _)) => Err(format!("unknown tag {tag}")),
        None => Err("empty frame".to_owned()),
    }
}

fn call(
    service: &mut impl Service,
    task: Result<&[u8], String>,
    output: &mut OutputBuf,
    laps: Option<&mut Laps>,
) -> Tag {
    let called = catch_panic(|| match (task.map_err(CallError::Task)?, laps) {
        (bytes, None) => service.call(bytes, output),
        (bytes, Some(laps)) => service.call_timed(bytes, output, laps),
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
