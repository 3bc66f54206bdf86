//! The calls to the operating system. Each platform has a module of its own (`unix`, `windows`), with the same names, which
//! are exported from here; the rest of the crate has no `cfg` for them.
//!
//! | module | contents |
//! |---|---|
//! | `introduction` | how a worker process finds its leader |
//! | `doorbell` | how a leader wakes a worker |
//! | `listener`, `poller` | how a leader waits for messages of all its workers |
//! | `pipes` | reads what workers print |
//! | `group`, `job` | a worker together with the processes that it starts |
//! | `signals`, `console` | handlers for Ctrl-C, SIGTERM and the like |
//! | `object` | the executable or library that contains a function |
//! | `pinned_path` | a program or directory that stays the same if its path is replaced |
//! | `memory`, `oom` | the memory of a process, and the kernel's kills for memory |
//! | `scheduling` | a thread that does not interrupt others when it is woken |
//! | `fork`, `stack` | whether this process is a forked copy; the stack of a stuck worker |

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub(crate) use unix::{
    ListenerWaker, MessageListener, MessageReceiver, PinnedPath, ProcessGroup, arguments, check_executable,
    die_with_parent, end_group, exit_cause, exit_now, ignore_broken_pipes, introduction,
    is_exec_format_error, is_kill, is_privileged, now_ns, own_executable, pipes, thread_cpu_ns,
};
#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub(crate) use windows::{
    ListenerWaker, MessageListener, MessageReceiver, PinnedPath, ProcessGroup, arguments, check_executable,
    die_with_parent, end_group, exit_cause, exit_now, ignore_broken_pipes, introduction,
    is_exec_format_error, is_kill, is_privileged, now_ns, own_executable, pipes, thread_cpu_ns,
};

pub(crate) mod doorbell;
pub(crate) mod object;

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
pub use fork::Origin;

mod oom;
pub(crate) use oom::OomKills;

mod memory;
pub use memory::ProcessMemory;
pub(crate) use memory::{append, own_memory};
pub(crate) use shm_buffers::prefer_huge_pages;

mod scheduling;
pub(crate) use scheduling::wake_without_preempting;

/// A request from outside of the process, by whatever means the system has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Ctrl-C in the terminal.
    Interrupt,
    /// A request to end soon: SIGTERM, or a console that is being closed.
    Terminate,
    /// A request to report what the process is doing: SIGUSR1, or Ctrl-Break.
    Dump,
}

/// An event on the connection of a worker process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConnectionEvent {
    Message(crate::message::WorkerMessage),
    /// The connection has closed: no more messages follow.
    Closed,
}
