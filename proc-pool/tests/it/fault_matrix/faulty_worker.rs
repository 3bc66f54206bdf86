//! Injects faults: a task, an output and a worker that fail in a given phase.

use std::fs::File;
use std::io::Read;
use std::os::unix::net::UnixStream;

use proc_pool::{BoxError, Worker, WorkerContext};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shm_buffers::Layout;
use shm_buffers::ring::Producer;

use super::{Fault, Phase};
use crate::support::{Crash, arena, fault_injection};

/// The phase and fault of workers that fail before their first task, for example `spawn/KILL`.
pub(super) const INJECT: &str = "IT_INJECT";
/// A path: only the process that creates this file fails.
pub(super) const ONCE: &str = "IT_INJECT_ONCE";

/// The length of a payload that takes several pages of a ring.
pub(super) const PAGES: usize = 12_000;
/// The length of a payload that still is one frame, and reaches the first page that lies in a ring as a whole.
pub(super) const FRAME: usize = 4_040;
/// The length of a payload that is sent through an arena.
pub(super) const LARGE: usize = 100_000;

impl Fault {
    /// Returns the crash that this fault is; `None` for a resource that runs out.
    pub(super) fn crash(self) -> Option<Crash> {
        Some(match self {
            Self::Panic => Crash::Panic,
            Self::Exit0 => Crash::Exit0,
            Self::Exit3 => Crash::Exit3,
            Self::Abort => Crash::Abort,
            Self::Kill => Crash::KillSelf,
            Self::Segv => Crash::Segfault,
            Self::Stop => Crash::StopSelf,
            Self::Alloc => Crash::AllocationFailure,
            _ => return None,
        })
    }

    /// Fails in user code: crashes, or returns the error of a file that cannot be opened or written.
    fn fail_now(self) -> std::io::Error {
        match self.crash() {
            Some(crash) => crash.run(""),
            None => {
                self.exhaust();
                match self {
                    Self::Enospc => File::create("/dev/full")
                        .and_then(|mut file| std::io::Write::write_all(&mut file, b"no room")),
                    _ => File::open("/dev/null").map(drop),
                }
                .expect_err("the resource has run out")
            }
        }
    }

    /// Makes a resource run out.
    pub(super) fn exhaust(self) {
        match self {
            Self::Emfile => fault_injection::no_more_files(),
            Self::Enospc => fault_injection::no_space_for_memory(fault_injection::Reach::Process),
            Self::Alloc => fault_injection::no_more_memory(),
            _ => unreachable!("other faults exhaust nothing"),
        }
    }

    /// Fails in the pool's code, at the next access to these bytes of the shared region.
    fn fail_on_access(self, bytes: std::ops::Range<usize>) {
        match self {
            Self::Alloc | Self::Emfile | Self::Enospc => self.exhaust(),
            _ => fault_injection::crash_on_access(bytes, self.crash().expect("the fault is a crash")),
        }
    }

    /// Does the same for the arena of tasks (0) or outputs (1).
    fn fail_on_arena_access(self, which: usize) {
        match self {
            // Without resources, the arena could not be located in the process's maps.
            Self::Alloc | Self::Emfile | Self::Enospc => self.exhaust(),
            _ => {
                let start = arena(which).start + 4096;
                self.fail_on_access(start..start + LARGE / 2);
            }
        }
    }
}

/// Returns the phase and fault of [`INJECT`].
fn requested() -> Option<(Phase, Fault)> {
    let request = std::env::var(INJECT).ok()?;
    let (phase, fault) = request.split_once('/')?;
    Some((Phase::of(phase)?, Fault::of(fault)?))
}

/// Returns the fault that this process must inject in this phase. With [`ONCE`], only the first process that asks for
/// `worker` receives it.
fn claim_fault(phase: Phase, worker: &str) -> Option<Fault> {
    let (requested, fault) = requested()?;
    let once = |path: String| File::create_new(path + worker).is_ok();
    (requested == phase && std::env::var(ONCE).map_or(true, once)).then_some(fault)
}

/// Injects the faults of phases up to [`Phase::Attach`]. Runs in workers, before `init`.
pub(crate) fn before_init() {
    if let Some(fault) = claim_fault(Phase::Spawn, "") {
        fault.fail_now();
    }
    if let Some(fault) = claim_fault(Phase::Connect, "") {
        match fault {
            Fault::Emfile => fault_injection::no_more_files(),
            _ => fault_injection::crash_on_call(
                libc::SYS_recvfrom,
                fault.crash().expect("the fault is a crash"),
            ),
        }
    }
    if matches!(requested(), Some((Phase::Attach, Fault::Emfile))) && claim_fault(Phase::Attach, "").is_some()
    {
        fault_injection::no_file_for_the_handshake();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Injection {
    pub(super) phase: Phase,
    pub(super) fault: Fault,
}

/// Injects the fault when it is decoded.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct FailingDecode(pub(super) Option<Fault>);

impl<'de> Deserialize<'de> for FailingDecode {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Option::<Fault>::deserialize(from)? {
            Some(fault) => Err(serde::de::Error::custom(fault.fail_now())),
            None => Ok(Self(None)),
        }
    }
}

/// Injects the fault when it is encoded.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct FailingEncode(Option<Fault>);

impl Serialize for FailingEncode {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(fault) => Err(serde::ser::Error::custom(fault.fail_now())),
            None => self.0.serialize(to),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) number: u64,
    pub(super) failing: FailingDecode,
    pub(super) injection: Option<Injection>,
    /// The length of the output's padding.
    pub(super) output: usize,
    pub(super) padding: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Output {
    pub(super) number: u64,
    failing: FailingEncode,
    pub(super) padding: String,
}

pub(super) struct FaultyWorker {
    side: Producer,
}

/// Returns where the rings are in the shared memory: tasks, outcomes, side.
pub(super) fn rings() -> [std::ops::Range<usize>; 3] {
    // Positions and marks come first.
    const HEAD: usize = 512;
    let mut layout = Layout::new();
    [0; 3].map(|_| {
        let start = layout.byte_len() + HEAD;
        let _ = layout.ring(256 << 10);
        start..layout.byte_len()
    })
}

impl Worker for FaultyWorker {
    type Op = ();
    /// The address of the rendezvous that releases the fault of [`Phase::Idle`].
    type Init = Option<String>;
    type Task = Task;
    type Output = Output;

    fn start(context: &mut WorkerContext, (): (), rendezvous: Option<String>) -> Result<Self, BoxError> {
        let worker = context.worker().to_string();
        if let Some(fault) = claim_fault(Phase::Attach, &worker) {
            Err(fault.fail_now())?;
        }
        if let (Some(rendezvous), Some(fault)) = (rendezvous, claim_fault(Phase::Idle, &worker)) {
            std::thread::spawn(move || {
                // The connection stays open until the process ends: its closing shows that the fault has occurred.
                let mut leader = UnixStream::connect(rendezvous).expect("the leader listens");
                leader
                    .read_exact(&mut [0])
                    .expect("the leader releases the fault");
                match fault.crash() {
                    Some(crash) => crash.run(""),
                    None => fault.exhaust(),
                }
            });
        }
        Ok(Self {
            side: context.take_user_ring().ok_or("no side ring")?,
        })
    }

    fn run(&mut self, task: Task) -> Output {
        // If the ring is full, its content must stay readable.
        let _ = self.side.push(&task.number.to_le_bytes());
        let mut failing = FailingEncode(None);
        if let Some(Injection { phase, fault }) = task.injection {
            let [tasks, outcomes, side] = rings();
            match phase {
                Phase::Receive => fault.fail_on_access(tasks),
                Phase::ReceiveLarge => fault.fail_on_arena_access(0),
                Phase::Run => drop(fault.fail_now()),
                Phase::Encode => failing = FailingEncode(Some(fault)),
                Phase::SendSmall => fault.fail_on_access(outcomes),
                Phase::SendLarge => fault.fail_on_arena_access(1),
                Phase::Log if fault == Fault::Panic => {
                    let _ = self.side.stage(&[7; PAGES]);
                    panic!("as asked")
                }
                Phase::Log => {
                    fault.fail_on_access(side);
                    let _ = self.side.push(&[7; PAGES]);
                }
                _ => {}
            }
        }
        Output {
            number: task.number,
            failing,
            padding: "x".repeat(task.output),
        }
    }
}
