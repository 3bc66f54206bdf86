//! The layout of the region: the memory that one worker shares with its leader.

use serde::{Deserialize, Serialize};
use shm_buffers::arena::ArenaSpan;
use shm_buffers::{Layout, Span};

use crate::last_panics;

/// The sizes of the parts of a worker's region, and the limit of its outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RegionSizes {
    /// Bytes of the task ring, and of the outcome ring.
    pub(crate) ring: usize,
    /// Bytes of the user ring.
    pub(crate) user_ring: usize,
    /// Number of user slots.
    pub(crate) slots: usize,
    /// Number of slots for the stack of a worker that is stuck in a task.
    pub(crate) stack: usize,
    /// Number of slots for the worker's time measurements.
    pub(crate) timing: usize,
    /// Bytes of the arena for large payloads, in each direction.
    pub(crate) arena: usize,
    /// Maximum size of an output in bytes.
    pub(crate) output: u64,
}

/// Where each part of a region is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RegionLayout {
    pub(crate) tasks: Span,
    pub(crate) outcomes: Span,
    /// Frames that the user's code in the worker writes for the pool's observer.
    pub(crate) user_ring: Span,
    /// Written by the worker: see [`slot`].
    pub(crate) control: Span,
    /// Written by the leader: see [`leader`].
    pub(crate) leader: Span,
    /// Written by the user's code in the worker, read by the pool's observer.
    pub(crate) slots: Span,
    /// Written by the worker.
    #[cfg_attr(
        not(all(feature = "stacks", target_os = "linux")),
        expect(dead_code, reason = "only this feature reads it")
    )]
    pub(crate) stack: Span,
    /// Written by the worker: its `WorkerMetrics`.
    pub(crate) timing: Span,
    /// Written by the worker: see [`last_panics`].
    pub(crate) last_panics: Span,
    /// Pieces of tasks, written by the leader.
    pub(crate) large_tasks: ArenaSpan,
    /// Pieces of outputs, written by the worker.
    pub(crate) large_outputs: ArenaSpan,
    pub(crate) bytes: usize,
}

/// Indices of the control slots that the worker writes.
pub(crate) mod slot {
    use std::ops::Range;

    use crate::wire::pieces::sender;

    /// Number of tasks that this process has started. The task in progress is the last of them.
    pub(crate) const STARTED: usize = 0;
    /// Nanoseconds spent on the first `BUSY_TASKS` tasks.
    pub(crate) const BUSY_NS: usize = 1;
    pub(crate) const BUSY_TASKS: usize = 2;
    /// Number of doorbell rings that the worker has seen.
    pub(crate) const RINGS_SEEN: usize = 3;
    /// When the task in progress started, or a little earlier: [`now_ns`](crate::os::now_ns) as last read before the task.
    pub(crate) const SINCE_NS: usize = 4;
    /// The numbers that the worker waits for as the sender of large outputs.
    pub(crate) const OUTPUTS_OUT: Range<usize> = 5..5 + sender::COUNT;
    pub(crate) const COUNT: usize = OUTPUTS_OUT.end;
}

/// Indices of the control slots that the leader writes.
pub(crate) mod leader {
    use std::ops::Range;

    use crate::wire::pieces::sender;

    /// Which tasks the leader recalls: the leader's slot of `shm_buffers::claims`.
    pub(crate) const RECALLED: usize = 0;
    /// The two slots of the [doorbell](crate::os::doorbell).
    pub(crate) const DOORBELL: Range<usize> = 1..3;
    /// Not 0: outputs must contain their buffers.
    pub(crate) const IN_BAND: usize = 3;
    /// The numbers that the leader waits for as the sender of large tasks.
    pub(crate) const TASKS_OUT: Range<usize> = 4..4 + sender::COUNT;
    pub(crate) const COUNT: usize = TASKS_OUT.end;
}

impl RegionSizes {
    /// Computes where the parts are.
    pub(crate) fn layout(self) -> RegionLayout {
        let mut layout = Layout::new();
        let tasks = layout.ring(self.ring);
        let outcomes = layout.ring(self.ring);
        let user_ring = layout.ring(self.user_ring);
        let control = layout.slots(slot::COUNT);
        let leader = layout.slots(leader::COUNT);
        let slots = layout.slots(self.slots);
        let stack = layout.slots(self.stack);
        let timing = layout.slots(self.timing);
        let last_panics = layout.slots(last_panics::SLOTS);
        // The arenas are last, because usually at most their first pages are touched.
        let large_tasks = layout.arena(self.arena);
        let large_outputs = layout.arena(self.arena);
        RegionLayout {
            tasks,
            outcomes,
            user_ring,
            control,
            leader,
            slots,
            stack,
            timing,
            last_panics,
            large_tasks,
            large_outputs,
            bytes: layout.byte_len(),
        }
    }
}
