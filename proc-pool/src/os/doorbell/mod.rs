//! The doorbell: how a leader wakes a worker that sleeps, and asks it to end. There is no system call while the worker is
//! awake, because the leader rings only for a worker that has asked for it (see `shm_buffers::ring`).
//!
//! The implementation depends on what a process can sleep on. On Linux that is a futex in the shared memory, which needs
//! neither memory nor a descriptor, and wakes faster than the others. On other Unix systems it is a socket, and on Windows a
//! channel of `ipc-channel`. All have the same interface:
//!
//! - [`Doorbell`] is the leader's end. Dropping it asks the worker to end.
//! - [`WakeListener`] is the worker's end. It can wait for some time only, except on Windows.
//! - `channel`, `adopt` and `from_leader` (on Unix) transport what both ends need, if anything.
//! - [`MAX_UNSEEN`] is the number of rings that a worker may have left unseen when the leader rings again.

#[cfg(windows)]
mod channel;
#[cfg(target_os = "linux")]
mod futex;
#[cfg(all(unix, not(target_os = "linux")))]
mod socket;

#[cfg(windows)]
pub(crate) use channel::{Doorbell, FromLeader, MAX_UNSEEN, ToWorker, WakeListener};
#[cfg(target_os = "linux")]
pub(crate) use futex::{
    Doorbell, FromLeader, MAX_UNSEEN, ToWorker, WakeListener, adopt, channel, from_leader,
};
#[cfg(all(unix, not(target_os = "linux")))]
pub(crate) use socket::{
    Doorbell, FromLeader, MAX_UNSEEN, ToWorker, WakeListener, adopt, channel, from_leader,
};

/// The leader has ended, or asks this worker to end.
#[derive(Debug)]
pub(crate) struct DoorbellClosed;
