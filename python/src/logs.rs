//! Log records of workers: the worker's end of a ring in shared memory, and the leader's [`Hub`], which hands them to `logging`.
//!
//! `log-bridge` does this for events of `tracing`, whose fields are known at compile time; records of `logging` have a text, a traceback
//! and any attributes. The promises are the same: nothing blocks a worker for long, everything that is lost is counted, warnings have
//! room of their own, and what a worker wrote before it was killed arrives.
//!
//! A frame is a byte for its kind, the length and the text of a line for errors of tasks, and the record as Python encoded it. The slots
//! are for each kind of record: emitted, then dropped. One more is for the part of the running task that is done.

mod hub;
mod sink;

pub(crate) use hub::{Hub, STACK_MARK};
pub(crate) use sink::{LogSink, StackWriter};

/// Kinds of records: debug, info, warning, error. Also the number of slots of a count.
const KINDS: usize = 4;
/// The kind of a frame that is no record: the stacks at a deadline.
const STACK: u8 = 0xff;
/// The number of slots of a worker.
pub(crate) const SLOTS: usize = 2 * KINDS + 1;
/// The slot with the part of the running task that is done, in [`WHOLE`] parts.
pub(crate) const STEP: usize = 2 * KINDS;
/// A whole task.
pub(crate) const WHOLE: u64 = 1 << 20;
/// Kinds from this one on have the last quarter of the ring, and wait for room.
const WARNING: usize = 2;

/// Returns the kind of a level of `logging`.
fn kind(level: i64) -> usize {
    match level {
        ..20 => 0,
        20..30 => 1,
        30..40 => WARNING,
        40.. => 3,
    }
}
