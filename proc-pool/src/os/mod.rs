//! Operating system calls of the pool, one module a platform, with one face.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub(crate) use unix::{
    Group, Kept, Listener, Notes, Waker, arguments, cause, check_executable, die_with, end_group, exit_now,
    ignore_broken_pipes, introduction, is_kill, is_no_program, is_privileged, now_ns, pipes, program,
};
#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub(crate) use windows::{
    Group, Kept, Listener, Notes, Waker, arguments, cause, check_executable, die_with, end_group, exit_now,
    ignore_broken_pipes, introduction, is_kill, is_no_program, is_privileged, now_ns, pipes, program,
};

/// How a leader wakes a worker, and asks it to end.
#[cfg(target_os = "linux")]
#[path = "futex.rs"]
pub(crate) mod doorbell;
#[cfg(all(unix, not(target_os = "linux")))]
pub(crate) use unix::doorbell;
#[cfg(windows)]
pub(crate) use windows::doorbell;

#[cfg(unix)]
mod signals;
#[cfg(unix)]
pub(crate) use signals::{Handlers, leave_signals_to_leader, raise};
#[cfg(windows)]
mod console;
#[cfg(windows)]
pub(crate) use console::{Handlers, leave_signals_to_leader, raise};

#[cfg(all(feature = "stacks", target_os = "linux"))]
pub(crate) mod stack;

mod fork;
pub(crate) use fork::Origin;

mod oom;
pub(crate) use oom::OomKills;

pub(crate) mod object;

mod memory;
pub use memory::Memory;
pub(crate) use memory::own_memory;

/// What a process may be told from outside, by whatever means the system has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// The terminal's Ctrl-C.
    Interrupt,
    /// To end soon: SIGTERM; a console that is closed.
    Terminate,
    /// To tell what it is doing: SIGUSR1; Ctrl-Break.
    Dump,
}

/// What comes from a worker's process, beside its rings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    Note(crate::protocol::Note),
    /// Nothing will come any more.
    Closed,
}
