//! What is struck: a task, an output and a service that suffer a fault in the phase they are told.

use std::fs::File;
use std::io::Read;
use std::os::unix::net::UnixStream;

use proc_pool::{BoxError, Worker, WorkerContext};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shm_buffers::Layout;
use shm_buffers::ring::Producer;

use super::{Fault, Phase};
use crate::crash::Crash;
use crate::trip;

/// Which phase and fault, for workers that are struck before their first task: `spawn/KILL`.
pub(super) const STRIKE: &str = "IT_STRIKE";
/// A file: only the process that makes it is struck.
pub(super) const ONCE: &str = "IT_STRIKE_ONCE";

/// A payload that takes several pages of a ring.
pub(super) const PAGES: usize = 12_000;
/// A payload that takes an arena.
pub(super) const LARGE: usize = 100_000;

impl Fault {
    fn crash(self) -> Option<Crash> {
        Some(match self {
            Self::Panic => Crash::Panic,
            Self::Exit0 => Crash::Exit0,
            Self::Exit3 => Crash::Exit3,
            Self::Abort => Crash::Abort,
            Self::Kill => Crash::KillSelf,
            Self::Segv => Crash::Segfault,
            Self::Stop => Crash::StopSelf,
            Self::Alloc => Crash::AllocationFailure,
            Self::Emfile | Self::Enospc => return None,
        })
    }

    /// In code of the user's: dies, or gives the error of a file that was not to be had.
    fn strike(self) -> std::io::Error {
        match self.crash() {
            Some(crash) => crash.suffer(""),
            None => {
                self.exhaust();
                match self {
                    Self::Enospc => File::create("/dev/full")
                        .and_then(|mut file| std::io::Write::write_all(&mut file, b"no room")),
                    _ => File::open("/dev/null").map(drop),
                }
                .expect_err("nothing is left")
            }
        }
    }

    /// From now on there is nothing more of something.
    fn exhaust(self) {
        match self {
            Self::Emfile => trip::no_more_files(),
            Self::Enospc => trip::no_space_for_memory(trip::Reach::Process),
            Self::Alloc => trip::no_more_memory(),
            _ => unreachable!("the others happen at once"),
        }
    }

    /// In code of the pool's: at the next touch of these bytes of the shared region.
    fn lie_in_wait(self, bytes: std::ops::Range<usize>) {
        match self {
            Self::Alloc | Self::Emfile | Self::Enospc => self.exhaust(),
            _ => trip::on_bytes(bytes, self.crash().expect("a crash")),
        }
    }
}

impl Fault {
    /// The same for the arena of tasks (0) or outputs (1).
    fn lie_in_wait_in_arena(self, which: usize) {
        match self {
            // Where it is can't be found out afterwards.
            Self::Alloc | Self::Emfile | Self::Enospc => self.exhaust(),
            _ => self.lie_in_wait(arenas()[which].clone()),
        }
    }
}

fn wish() -> Option<(Phase, Fault)> {
    let wish = std::env::var(STRIKE).ok()?;
    let (phase, fault) = wish.split_once('/')?;
    Some((Phase::of(phase)?, Fault::of(fault)?))
}

/// Whether this process is to be struck in this phase; it is this one then.
fn struck(phase: Phase, worker: &str) -> Option<Fault> {
    let (wanted, fault) = wish()?;
    let once = |path: String| File::create_new(path + worker).is_ok();
    (wanted == phase && std::env::var(ONCE).map_or(true, once)).then_some(fault)
}

/// Before `init`, in workers.
pub(crate) fn before_init() {
    if !crate::support::is_worker_before_init() {
        return;
    }
    if let Some(fault) = struck(Phase::Spawn, "") {
        fault.strike();
    }
    if let Some(fault) = struck(Phase::Connect, "") {
        match fault {
            Fault::Emfile => trip::no_more_files(),
            _ => trip::on_call(libc::SYS_recvfrom, fault.crash().expect("a crash")),
        }
    }
    if matches!(wish(), Some((Phase::Attach, Fault::Emfile))) && struck(Phase::Attach, "").is_some() {
        trip::no_file_for_an_introduction();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Strike {
    pub(super) phase: Phase,
    pub(super) fault: Fault,
}

/// Strikes when it is decoded.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct DecodeMine(pub(super) Option<Fault>);

impl<'de> Deserialize<'de> for DecodeMine {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Option::<Fault>::deserialize(from)? {
            Some(fault) => Err(serde::de::Error::custom(fault.strike())),
            None => Ok(Self(None)),
        }
    }
}

/// Strikes when it is encoded.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct EncodeMine(Option<Fault>);

impl Serialize for EncodeMine {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(fault) => Err(serde::ser::Error::custom(fault.strike())),
            None => self.0.serialize(to),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) number: u64,
    pub(super) mine: DecodeMine,
    pub(super) strike: Option<Strike>,
    /// Bytes of the output's padding.
    pub(super) output: usize,
    pub(super) padding: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Output {
    pub(super) number: u64,
    mine: EncodeMine,
    pub(super) padding: String,
}

pub(super) struct Victim {
    side: Producer,
}

/// Where the pool's rings are in the memory of worker and leader: tasks, outcomes, side.
fn rings() -> [std::ops::Range<usize>; 3] {
    // Heads and marks come first.
    const HEAD: usize = 512;
    let mut layout = Layout::new();
    [0; 3].map(|_| {
        let start = layout.bytes() + HEAD;
        let _ = layout.ring(256 << 10);
        start..layout.bytes()
    })
}

/// The beginnings of the arenas, which lie at the region's end: tasks, outputs. A payload of [`LARGE`] bytes
/// touches them.
fn arenas() -> [std::ops::Range<usize>; 2] {
    const ARENA: usize = 8 << 20;
    const PAGE: usize = 4096;
    let end = size_of_val(crate::crash::shared_words());
    [2, 1].map(|arenas| {
        let start = end - arenas * ARENA + PAGE;
        start..start + LARGE / 2
    })
}

impl Worker for Victim {
    type Op = ();
    /// Whom to ask for the time to be struck when idle.
    type Init = Option<String>;
    type Task = Task;
    type Output = Output;

    fn start(context: &mut WorkerContext, (): (), ear: Option<String>) -> Result<Self, BoxError> {
        let worker = context.worker().to_string();
        if let Some(fault) = struck(Phase::Attach, &worker) {
            Err(fault.strike())?;
        }
        if let (Some(ear), Some(fault)) = (ear, struck(Phase::Idle, &worker)) {
            std::thread::spawn(move || {
                // Its closing tells that it is done.
                let mut leader = UnixStream::connect(ear).expect("somebody listens");
                leader.read_exact(&mut [0]).expect("it answers");
                match fault.crash() {
                    Some(crash) => crash.suffer(""),
                    None => fault.exhaust(),
                }
            });
        }
        Ok(Self {
            side: context.take_side().ok_or("no side ring")?,
        })
    }

    fn run(&mut self, task: Task) -> Output {
        // Full or not, what it holds must stay readable.
        let _ = self.side.push(&task.number.to_le_bytes());
        let mut mine = EncodeMine(None);
        if let Some(Strike { phase, fault }) = task.strike {
            let [tasks, outcomes, side] = rings();
            match phase {
                Phase::Receive => fault.lie_in_wait(tasks),
                Phase::ReceiveLarge => fault.lie_in_wait_in_arena(0),
                Phase::Run => drop(fault.strike()),
                Phase::Encode => mine = EncodeMine(Some(fault)),
                Phase::SendSmall => fault.lie_in_wait(outcomes),
                Phase::SendLarge => fault.lie_in_wait_in_arena(1),
                Phase::Log if fault == Fault::Panic => {
                    let _ = self.side.stage(&[7; PAGES]);
                    panic!("as asked")
                }
                Phase::Log => {
                    fault.lie_in_wait(side);
                    let _ = self.side.push(&[7; PAGES]);
                }
                Phase::Spawn | Phase::Connect | Phase::Attach | Phase::Decode | Phase::Idle => {}
            }
        }
        Output {
            number: task.number,
            mine,
            padding: "x".repeat(task.output),
        }
    }
}
