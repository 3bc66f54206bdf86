//! The leader: schedules tasks over its workers, and decides when processes start and end.
//!
//! - [`scheduler`] is the state of a pool behind one lock; [`event_loop`] waits for workers and runs it.
//! - [`connection`] is the leader's side of one worker's shared memory; [`tasks`] holds what is encoded, in flight or finished.
//! - [`supervisor`] decides, without side effects, which processes should exist; `process` carries its decisions out.

pub(crate) mod command;
pub(crate) mod connection;
pub(crate) mod crash_context;
pub(crate) mod event_loop;
pub(crate) mod interrupt;
pub(crate) mod limits;
pub(crate) mod pausable_clock;
pub(crate) mod scheduler;
pub(crate) mod snapshot;
pub(crate) mod start_failure;
pub(crate) mod stats;
pub(crate) mod supervisor;
pub(crate) mod tasks;
pub(crate) mod withdrawal;
