//! What leader and worker say to each other.
//!
//! Over `ipc-channel`, one channel a direction: the introduction ([`Hello`], [`Welcome`]), then the worker's one-byte notes. How
//! it is woken is the [doorbell](crate::os::doorbell)'s.
//! Over the rings: tasks and outcomes, as a tag byte and a payload.

use std::io;

use ipc_channel::IpcError;
use ipc_channel::ipc::{IpcBytesReceiver, IpcBytesSender, IpcSender};
use serde::{Deserialize, Serialize};
use shm_buffers::{Layout, RegionHandle, SegmentHandle, Span};

use crate::entry::Entry;
use crate::error::WorkerId;
use crate::service::{decode, encode};

/// What leader and worker must have in common: a worker program may have been built at another time. What tells
/// that they have not is the same in all versions: the ticket, [`Hello`], and the order of [`Note`]'s variants.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The worker's first and only message of this type.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) token: u128,
    pub(crate) pid: u32,
    /// For the [`Welcome`].
    pub(crate) to_worker: IpcBytesSender,
    /// Nothing is ever sent here: that it closes tells of the leader's end.
    pub(crate) liveness: IpcSender<()>,
}

/// From the worker, after its `Hello`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Note {
    /// There is something for the leader to look at.
    Bell,
    /// Ready for tasks.
    Ready,
    /// The worker gives up starting.
    Failed(String),
}

/// Bytes of a reason at most: notes have to fit one fragment of a channel's message.
pub(crate) const MAX_REASON: usize = 4096;

/// From the leader, after the worker's `Hello`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) worker: WorkerId,
    pub(crate) workers: u32,
    pub(crate) entry: Entry,
    pub(crate) region: RegionHandle,
    pub(crate) sizes: Sizes,
    pub(crate) init: Carried,
    pub(crate) spin: Spin,
}

impl Welcome {
    pub(crate) fn send(&self, channel: &IpcBytesSender) -> io::Result<()> {
        let mut bytes = Vec::new();
        encode(self, &mut bytes).map_err(io::Error::other)?;
        channel.send(&bytes)
    }

    pub(crate) fn receive(channel: &IpcBytesReceiver) -> Result<Self, IpcError> {
        let bytes = channel.recv()?;
        decode(&bytes).map_err(|e| IpcError::Io(io::Error::other(e)))
    }
}

/// Whether a side may spin before it sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Spin {
    /// There are cores to spare.
    Briefly,
    /// Spinning would take the core from who is waited for.
    Never,
}

/// A payload: by value, or in a segment of its own when it is large.
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
    pub(crate) const COUNT: usize = 5;
}

/// The leader's control slots.
pub(crate) mod leader {
    /// Large outputs that it has attached.
    pub(crate) const TAKEN: usize = 0;
    /// Tasks that it takes back, as its `Giver` says.
    pub(crate) const RECALLED: usize = 1;
    /// The [doorbell](crate::os::doorbell)'s.
    pub(crate) const DOORBELL: std::ops::Range<usize> = 2..4;
    pub(crate) const COUNT: usize = 4;
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
        Map {
            tasks,
            outcomes,
            side,
            control,
            leader,
            slots,
            stack,
            timing,
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
    /// A [`SegmentHandle`].
    Segment = 1,
    /// A [`Panic`](crate::Panic).
    Panicked = 2,
    /// Text: the worker could not decode the task.
    BadTask = 3,
    /// Text: the worker could not encode the output.
    BadOutput = 4,
    /// Nothing: the task was taken back before it began.
    Recalled = 5,
}

impl Tag {
    pub(crate) fn of(byte: u8) -> Option<Self> {
        [
            Self::Inline,
            Self::Segment,
            Self::Panicked,
            Self::BadTask,
            Self::BadOutput,
            Self::Recalled,
        ]
        .into_iter()
        .find(|tag| *tag as u8 == byte)
    }
}
