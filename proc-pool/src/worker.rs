//! The worker process: introduction, then the loop over tasks.

use std::any::Any;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use ipc_channel::IpcError;
use ipc_channel::ipc::{self, IpcReceiver, IpcSender};
use shm_buffers::ring::{Arm, Bell, Consumer, Producer, PushError};
use shm_buffers::slots::Slots;
use shm_buffers::{Backing, Region, Segment, SegmentHandle, SegmentMut};

use crate::init::Ticket;
use crate::os;
use crate::protocol::{
    Carried, Hello, MAX_INLINE, MAX_REASON, Map, Note, Panic, Spin, Tag, ToWorker, Welcome, slot,
};
use crate::service::{CallError, Service, WorkerContext, decode, encode};

/// Exit status of a worker that lost its leader, or never found it.
const ORPHANED: i32 = 70;
/// Exit status of a worker that could not start; the reason went to the leader.
const NOT_STARTED: i32 = 71;

/// How long a worker looks for a task before it sleeps.
const SPIN: Duration = Duration::from_micros(50);

/// A worker that knows its leader, for the entry point.
pub(crate) struct Bootstrap {
    welcome: Welcome,
    from_leader: IpcReceiver<ToWorker>,
    to_leader: IpcSender<Note>,
}

/// What `init` does in a worker process.
pub(crate) fn main(ticket: &Ticket) -> ! {
    let connected = IpcSender::<Hello>::connect(ticket.server.clone());
    remove_server(&ticket.server);
    let child = os::die_with(ticket.leader);
    let (Ok(to_leader), true) = (connected, child) else {
        os::exit_now(ORPHANED)
    };
    let Ok((from_leader, to_leader)) = introduce(ticket, to_leader) else {
        os::exit_now(ORPHANED)
    };
    match from_leader.recv() {
        Ok(ToWorker::Welcome(welcome)) => {
            let bootstrap = Bootstrap {
                welcome: *welcome,
                from_leader,
                to_leader,
            };
            match bootstrap.welcome.entry.resolve() {
                Some(entry) => entry(bootstrap),
                None => bootstrap.give_up("runs another executable than its leader; was it replaced?"),
            }
        }
        _ => os::exit_now(ORPHANED),
    }
}

/// The leader removes its one-shot server's socket once we are connected. If it died meanwhile, nobody else will.
fn remove_server(server: &str) {
    if cfg!(unix) {
        let socket = Path::new(server);
        let _ = std::fs::remove_file(socket);
        let _ = socket.parent().map(std::fs::remove_dir);
    }
}

fn introduce(
    ticket: &Ticket,
    to_leader: IpcSender<Hello>,
) -> Result<(IpcReceiver<ToWorker>, IpcSender<Note>), Box<dyn std::error::Error>> {
    let (to_worker, from_leader) = ipc::channel()?;
    let (liveness, leader_alive) = ipc::channel::<()>()?;
    thread::Builder::new()
        .name("proc-pool liveness".into())
        .spawn(move || {
            loop {
                // Nothing is ever sent; an error other than an interruption means that the leader has gone.
                match leader_alive.recv() {
                    Err(IpcError::Io(e)) if e.kind() == std::io::ErrorKind::Interrupted => {}
                    Ok(()) => {}
                    Err(_) => os::exit_now(ORPHANED),
                }
            }
        })?;
    to_leader.send(Hello {
        token: ticket.token,
        pid: std::process::id(),
        to_worker,
        liveness,
    })?;
    Ok((from_leader, to_leader.to_opaque().to()))
}

impl Bootstrap {
    fn give_up(&self, reason: &str) -> ! {
        let end = (0..=reason.len().min(MAX_REASON))
            .rev()
            .find(|&i| reason.is_char_boundary(i))
            .unwrap_or(0);
        let _ = self.to_leader.send(Note::Failed(reason[..end].to_owned()));
        os::exit_now(NOT_STARTED)
    }
}

/// The entry point of a worker that runs `S`.
pub(crate) fn serve<S: Service>(bootstrap: Bootstrap) -> ! {
    let welcome = &bootstrap.welcome;
    let region = match Region::attach(&welcome.region) {
        Ok(region) => region,
        Err(e) => bootstrap.give_up(&chain(&e)),
    };
    let map = welcome.sizes.map();
    let mut context = WorkerContext {
        worker: welcome.worker,
        workers: welcome.workers as usize,
        side: Some(Producer::new(&region, map.side)),
        slots: Slots::new(&region, map.slots),
    };
    capture_panics();
    let started = panic::catch_unwind(AssertUnwindSafe(|| {
        with_carried(&welcome.init, |init| S::start(&mut context, init)).unwrap_or_else(|e| Err(e.into()))
    }));
    let service = match started {
        Ok(Ok(service)) => service,
        Ok(Err(e)) => bootstrap.give_up(&format!("failed to start: {}", chain(&*e))),
        Err(payload) => {
            let panic = take_panic(&*payload);
            bootstrap.give_up(&format!("panicked at {}: {}", panic.location, panic.message))
        }
    };
    if bootstrap.to_leader.send(Note::Ready).is_err() {
        os::exit_now(ORPHANED);
    }
    let mut process = Process::new(&region, map, bootstrap);
    process.run(service);
    // The end of a worker is an ordinary exit, so that `atexit` handlers, profilers and the like get their turn.
    std::process::exit(0)
}

/// An error with its sources, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
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

/// The leader has gone, or wants this worker to end.
struct Ended;

/// The loop over tasks.
struct Process {
    tasks: Consumer,
    outcomes: Producer,
    control: Slots,
    taken: Slots,
    from_leader: IpcReceiver<ToWorker>,
    to_leader: IpcSender<Note>,
    spin: Spin,
    /// Large outputs that the leader has not attached yet, with their numbers.
    outputs: VecDeque<(u64, Segment)>,
    outputs_made: u64,
    clock: Clock,
}

impl Process {
    fn new(region: &Region, map: Map, bootstrap: Bootstrap) -> Self {
        Self {
            tasks: Consumer::new(region, map.tasks),
            outcomes: Producer::new(region, map.outcomes),
            control: Slots::new(region, map.control),
            taken: Slots::new(region, map.taken),
            from_leader: bootstrap.from_leader,
            to_leader: bootstrap.to_leader,
            spin: bootstrap.welcome.spin,
            outputs: VecDeque::new(),
            outputs_made: 0,
            clock: Clock::new(),
        }
    }

    fn run(&mut self, mut service: impl Service) {
        let mut task = Vec::new();
        let mut output = Vec::new();
        loop {
            task.clear();
            match self.tasks.pop(&mut task) {
                Ok(Some(_)) => {}
                Ok(None) => {
                    self.clock.stop(&self.control);
                    match self.wait_for_task() {
                        Ok(()) => continue,
                        Err(Ended) => return,
                    }
                }
                // Our own leader's memory is broken: nothing sensible can follow.
                Err(_) => os::exit_now(ORPHANED),
            }
            self.clock.start();
            self.control.slot(slot::STARTED).add(1);
            // What the op does must not be moved before that: should it kill us, the leader has to know.
            std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
            output.clear();
            let tag = call(&mut service, &task, &mut output);
            if self.send(tag, &mut output).is_err() {
                return;
            }
            self.clock.task_done(&self.control);
        }
    }

    fn send(&mut self, mut tag: Tag, output: &mut Vec<u8>) -> Result<(), Ended> {
        self.release_taken();
        if output.len() > MAX_INLINE {
            let handle = to_segment(output).map(|(segment, handle)| {
                self.outputs_made += 1;
                self.outputs.push_back((self.outputs_made, segment));
                handle
            });
            output.clear();
            tag = match handle {
                Ok(handle) if tag == Tag::Inline && encode(&handle, output).is_ok() => Tag::Segment,
                Ok(_) => tag,
                Err(reason) => {
                    output.extend_from_slice(reason.as_bytes());
                    Tag::BadOutput
                }
            };
            output.truncate(MAX_INLINE);
        }
        loop {
            match self.outcomes.stage_parts(&[&[tag as u8], output]) {
                Ok(()) => break,
                Err(PushError::Full) => self.wait_for_room(output.len() + 1)?,
                Err(_) => os::exit_now(ORPHANED),
            }
        }
        if self.outcomes.publish() == Bell::Ring {
            self.ring()?;
        }
        Ok(())
    }

    fn ring(&self) -> Result<(), Ended> {
        loop {
            match self.to_leader.send(Note::Bell) {
                Ok(()) => return Ok(()),
                Err(IpcError::Io(e)) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Ended),
            }
        }
    }

    fn release_taken(&mut self) {
        let taken = self.taken.slot(0).get();
        while self.outputs.front().is_some_and(|(number, _)| *number <= taken) {
            self.outputs.pop_front();
        }
    }

    fn wait_for_task(&mut self) -> Result<(), Ended> {
        if self.spin == Spin::Briefly {
            let until = Instant::now() + SPIN;
            while Instant::now() < until {
                for _ in 0..32 {
                    if !self.tasks.is_empty().unwrap_or(false) {
                        return Ok(());
                    }
                    std::hint::spin_loop();
                }
            }
        }
        self.release_taken();
        match self.tasks.arm(1) {
            Arm::Ready => Ok(()),
            // Heard in any case, so that at most one is ever under way.
            Arm::Sleep | Arm::BellComing => self.hear(),
        }
    }

    fn wait_for_room(&mut self, len: usize) -> Result<(), Ended> {
        match self.outcomes.arm(len) {
            Ok(Arm::Ready) => Ok(()),
            Ok(Arm::Sleep | Arm::BellComing) => self.hear(),
            Err(_) => os::exit_now(ORPHANED),
        }
    }

    /// Sleeps until the leader rings. It may ring for another reason than the one waited for.
    fn hear(&mut self) -> Result<(), Ended> {
        loop {
            match self.from_leader.recv() {
                Ok(_) => {
                    self.control.slot(slot::BELLS).add(1);
                    // A bell for one wish withdraws the other as well: both are made anew when needed.
                    let _ = (self.tasks.disarm(), self.outcomes.disarm());
                    self.release_taken();
                    return Ok(());
                }
                Err(IpcError::Io(e)) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Ended),
            }
        }
    }
}

fn call(service: &mut impl Service, task: &[u8], output: &mut Vec<u8>) -> Tag {
    let called = panic::catch_unwind(AssertUnwindSafe(|| match task.split_first() {
        Some((&tag, bytes)) => match Tag::of(tag) {
            Some(Tag::Inline) => service.call(bytes, output),
            Some(Tag::Segment) => {
                let handle: SegmentHandle = decode(bytes).map_err(|e| CallError::Task(e.to_string()))?;
                let segment = Segment::attach(&handle).map_err(|e| CallError::Task(chain(&e)))?;
                service.call(&segment, output)
            }
            _ => Err(CallError::Task(format!("unknown tag {tag}"))),
        },
        None => Err(CallError::Task("empty frame".to_owned())),
    }));
    let (tag, text) = match called {
        Ok(Ok(())) => return Tag::Inline,
        Ok(Err(CallError::Task(text))) => (Tag::BadTask, text),
        Ok(Err(CallError::Output(text))) => (Tag::BadOutput, text),
        Err(payload) => {
            let panic = take_panic(&*payload);
            output.clear();
            let encoded = encode(&panic, output);
            // A payload's own drop may panic, too.
            std::mem::forget(payload);
            match encoded {
                Ok(()) => return Tag::Panicked,
                Err(e) => (Tag::BadOutput, format!("panic could not be told: {e}")),
            }
        }
    };
    output.clear();
    output.extend_from_slice(text.as_bytes());
    tag
}

/// A payload too large for a ring, in a segment of its own.
pub(crate) fn to_segment(bytes: &[u8]) -> Result<(Segment, SegmentHandle), String> {
    let mut segment = SegmentMut::create(&Backing::Auto, bytes.len()).map_err(|e| chain(&e))?;
    segment.copy_from_slice(bytes);
    let segment = segment.freeze().map_err(|e| chain(&e))?;
    let handle = segment.handle().map_err(|e| chain(&e))?;
    Ok((segment, handle))
}

thread_local! {
    /// What the hook saw of a panic on this thread, until `take_panic` asks.
    static LAST_PANIC: RefCell<Option<Panic>> = const { RefCell::new(None) };
}

/// Panics of ops are errors of their tasks, told by the leader; those of other threads are printed as ever.
fn capture_panics() {
    let worker = thread::current().id();
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if thread::current().id() != worker {
            default(info);
            return;
        }
        let backtrace = std::backtrace::Backtrace::capture();
        let captured = backtrace.status() == std::backtrace::BacktraceStatus::Captured;
        let seen = Panic {
            message: String::new(),
            location: info.location().map(ToString::to_string).unwrap_or_default(),
            backtrace: captured.then(|| bounded(backtrace.to_string(), MAX_INLINE / 2)),
        };
        LAST_PANIC.with_borrow_mut(|last| *last = Some(seen));
    }));
}

fn take_panic(payload: &(dyn Any + Send)) -> Panic {
    let message = payload
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a value that is no string".to_owned());
    let mut panic = LAST_PANIC.with_borrow_mut(Option::take).unwrap_or_default();
    panic.message = bounded(message, MAX_INLINE / 4);
    panic
}

fn bounded(mut text: String, max: usize) -> String {
    if text.len() > max {
        let end = (0..=max).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Tells the leader how long tasks take, without asking the time for each tiny one.
struct Clock {
    since: Option<Instant>,
    tasks: u64,
    /// Tasks until the clock is read.
    every: u64,
}

impl Clock {
    fn new() -> Self {
        Self {
            since: None,
            tasks: 0,
            every: 1,
        }
    }

    #[inline]
    fn start(&mut self) {
        if self.since.is_none() {
            self.since = Some(Instant::now());
        }
    }

    #[inline]
    fn task_done(&mut self, control: &Slots) {
        self.tasks += 1;
        if self.tasks >= self.every {
            self.read(control);
            self.since = Some(Instant::now());
        }
    }

    fn stop(&mut self, control: &Slots) {
        self.read(control);
        self.since = None;
    }

    fn read(&mut self, control: &Slots) {
        if let (Some(since), 1..) = (self.since, self.tasks) {
            let ns = since.elapsed().as_nanos() as u64;
            control.slot(slot::BUSY_NS).add(ns);
            control.slot(slot::BUSY_TASKS).add(self.tasks);
            // About every 20 µs.
            self.every = (20_000 * self.tasks / ns.max(1)).clamp(1, 64);
            self.tasks = 0;
        }
    }
}
