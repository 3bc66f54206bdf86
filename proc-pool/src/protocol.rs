//! What leader and worker say to each other.
//!
//! The worker inherits its end of a connection, on which the leader sends the introduction ([`Welcome`]); then only the worker
//! sends, one [`Note`] after the other. Wakeups of the worker are the [doorbell](crate::os::doorbell)'s.
//! Over the rings: tasks and outcomes, as a tag byte and a payload.

use serde::{Deserialize, Serialize};
use shm_buffers::descriptors::{Descriptors, collect};
use shm_buffers::{Layout, RegionHandle, SegmentHandle, Span};

use crate::entry::Entry;
use crate::error::WorkerId;
use crate::last_panics;
use crate::service::{decode, encode};

/// What leader and worker must have in common: a worker program may have been built at another time. The greeting, which
/// reports the leader's version, and the notes of a worker that gives up are the same in all versions.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// From the worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Note {
    /// There is something for the leader to look at.
    Bell,
    /// Ready for tasks.
    Ready,
    /// The worker gives up starting.
    Failed(String),
    /// No correct worker says that.
    Nonsense,
}

/// Bytes of a reason, at most.
pub(crate) const MAX_REASON: usize = 4096;

/// The introduction, from the leader.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) worker: WorkerId,
    pub(crate) workers: u32,
    pub(crate) entry: Entry,
    pub(crate) region: RegionHandle,
    pub(crate) sizes: Sizes,
    pub(crate) init: Carried,
    pub(crate) spin: Spin,
    pub(crate) inherited: Inherited,
}

impl Welcome {
    /// Its bytes, with the descriptors that its handles lead to.
    pub(crate) fn encoded(&self) -> Result<(Vec<u8>, Descriptors), String> {
        let mut bytes = Vec::new();
        let (encoded, descriptors) = collect(|| encode(self, &mut bytes));
        encoded.map_err(|e| e.to_string())?;
        Ok((bytes, descriptors))
    }

    pub(crate) fn decoded(bytes: &[u8]) -> Result<Self, String> {
        decode(bytes).map_err(|e| e.to_string())
    }
}

/// What a worker process keeps of the open files of its leader's, beside its standard streams. It matters only for files that
/// a library has opened without close-on-exec: everything else is closed when the worker is executed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Inherited {
    /// None: the worker closes them before it runs anything. On Windows, where inherited handles can't be told apart, it
    /// keeps them.
    #[default]
    Nothing,
    /// All: for ops that need one, such as the job server of `make`, or a profiler's output.
    Everything,
}

/// Whether a side may spin before it sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Spin {
    /// There are cores to spare.
    Briefly,
    /// Spinning would take the core from who is waited for.
    Never,
}

/// An initial value: in the introduction, or in a segment of the leader's when it is large.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Carried {
    Inline(Vec<u8>),
    Segment(SegmentHandle),
}

/// Sizes of the memory that a worker shares with its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sizes {
    pub(crate) ring: usize,
    pub(crate) side: usize,
    pub(crate) slots: usize,
    /// For the stack of one that is stuck.
    pub(crate) stack: usize,
    /// For where its time goes.
    pub(crate) timing: usize,
    /// For pieces, in each direction.
    pub(crate) arena: usize,
    /// Bytes of an output, at most.
    pub(crate) output: u64,
}

/// Where everything is in that memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Map {
    pub(crate) tasks: Span,
    pub(crate) outcomes: Span,
    pub(crate) side: Span,
    /// Written by the worker: see [`slot`].
    pub(crate) control: Span,
    /// Written by the leader: see [`leader`].
    pub(crate) leader: Span,
    /// The user's.
    pub(crate) slots: Span,
    /// Written by the worker.
    #[cfg_attr(not(all(feature = "stacks", target_os = "linux")), expect(dead_code))]
    pub(crate) stack: Span,
    /// Written by the worker, as its [`Tally`](crate::timing::tally::Tally).
    pub(crate) timing: Span,
    /// Written by the worker, see [`last_panics`].
    pub(crate) last_panics: Span,
    /// Pieces of tasks, written by the leader.
    pub(crate) large_tasks: Span,
    /// Pieces of outputs, written by the worker.
    pub(crate) large_outputs: Span,
    pub(crate) bytes: usize,
}

/// The worker's control slots.
pub(crate) mod slot {
    /// Tasks started by this process: the one in progress is the last of them.
    pub(crate) const STARTED: usize = 0;
    /// Nanoseconds spent on `BUSY_TASKS` tasks.
    pub(crate) const BUSY_NS: usize = 1;
    pub(crate) const BUSY_TASKS: usize = 2;
    /// Bells that the worker has heard.
    pub(crate) const BELLS: usize = 3;
    /// When the task in progress began, at most: [`now_ns`](crate::os::now_ns) as last read before it.
    pub(crate) const SINCE_NS: usize = 4;
    /// Pieces of tasks that the worker has copied.
    pub(crate) const TAKEN: usize = 5;
    /// The number of pieces of outputs that it waits for the leader to copy.
    pub(crate) const WANTED: usize = 6;
    pub(crate) const COUNT: usize = 7;
}

/// The leader's control slots.
pub(crate) mod leader {
    /// Pieces of outputs that it has copied.
    pub(crate) const TAKEN: usize = 0;
    /// Tasks that it takes back, as its `Giver` says.
    pub(crate) const RECALLED: usize = 1;
    /// The [doorbell](crate::os::doorbell)'s.
    pub(crate) const DOORBELL: std::ops::Range<usize> = 2..4;
    /// The number of pieces of tasks that it waits for the worker to copy.
    pub(crate) const WANTED: usize = 4;
    pub(crate) const COUNT: usize = 5;
}

impl Sizes {
    pub(crate) fn map(self) -> Map {
        let mut layout = Layout::new();
        let tasks = layout.ring(self.ring);
        let outcomes = layout.ring(self.ring);
        let side = layout.ring(self.side);
        let control = layout.slots(slot::COUNT);
        let leader = layout.slots(leader::COUNT);
        let slots = layout.slots(self.slots);
        let stack = layout.slots(self.stack);
        let timing = layout.slots(self.timing);
        let last_panics = layout.slots(last_panics::SLOTS);
        // Last: of these, the first pages are touched at most.
        let large_tasks = layout.arena(self.arena);
        let large_outputs = layout.arena(self.arena);
        Map {
            tasks,
            outcomes,
            side,
            control,
            leader,
            slots,
            stack,
            timing,
            last_panics,
            large_tasks,
            large_outputs,
            bytes: layout.bytes(),
        }
    }
}

/// A frame's first byte: what the rest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Tag {
    /// The bytes themselves.
    Inline = 0,
    /// A [piece](crate::pieces) of the bytes.
    Piece = 1,
    /// A [`Panic`](crate::Panic).
    Panicked = 2,
    /// Text: the worker could not decode the task.
    BadTask = 3,
    /// Text: the worker could not encode the output.
    BadOutput = 4,
    /// Nothing: the task was taken back before it began.
    Recalled = 5,
    /// Text: the rest of the task that came in pieces, which may be all of it, does not come. It was taken back, or this is why.
    Withdrawn = 6,
}

impl Tag {
    pub(crate) fn of(byte: u8) -> Option<Self> {
        [
            Self::Inline,
            Self::Piece,
            Self::Panicked,
            Self::BadTask,
            Self::BadOutput,
            Self::Recalled,
            Self::Withdrawn,
        ]
        .into_iter()
        .find(|tag| *tag as u8 == byte)
    }
}
