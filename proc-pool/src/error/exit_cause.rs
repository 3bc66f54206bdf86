//! [`ExitCause`]: how a worker process ended, and [`KillReason`]: why its pool killed it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a worker process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ExitCause {
    /// Killed by a signal (Unix).
    Signal {
        /// The signal's number.
        number: i32,
        /// Its name, such as `SIGSEGV`, or the number if the signal has no name.
        name: String,
    },
    /// Killed by an unhandled exception (Windows).
    Exception {
        /// The exception's code, such as `0xC0000005`.
        code: u32,
        /// Its name, such as `STATUS_ACCESS_VIOLATION`, or the code if the exception has no name. `abort` is
        /// `STATUS_STACK_BUFFER_OVERRUN`.
        name: String,
    },
    /// Called `exit`, or returned from `main`. On Windows, a C library's `abort` is `exit(3)`, and a process terminated by
    /// another process reports the exit code which that process chose, often 1.
    Exited {
        /// The exit status.
        code: i32,
    },
    /// Killed by the OOM killer (Linux).
    ///
    /// The kernel does not report this for a single process, but it counts OOM kills for each cgroup. A death by a SIGKILL
    /// that the pool did not send is reported as an OOM kill if the count of the leader's cgroup has grown. If it has grown
    /// by `n`, the next `n` such deaths are reported so, until a worker is started while no other one is dead. The report
    /// is wrong if the kernel killed another process of the cgroup while some other process sent SIGKILL to a worker.
    OutOfMemory {
        /// The cgroup; `None` if only the OOM kills of the whole machine could be counted.
        cgroup: Option<String>,
    },
    /// Killed by the pool.
    Killed {
        /// Why the pool killed it.
        reason: KillReason,
    },
    /// Unknown: the system did not report an exit status.
    Unknown,
}

/// Why a pool killed one of its own workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum KillReason {
    /// The worker did not become ready within the start timeout.
    StartTimeout,
    /// The worker wrote data that no correct worker writes.
    Corrupt,
    /// A task ran longer than its deadline.
    Deadline,
    /// The pool was shut down.
    Shutdown,
    /// Its task was cancelled.
    Cancelled,
    /// It closed its connection without ending.
    Disconnected,
    /// The worker had tasks and did not start one for a long time; a signal may have stopped it.
    Unresponsive,
    /// The worker's private memory exceeded its limit.
    MemoryLimit,
    /// The worker was asked to stop and did not.
    EndTimeout,
}

impl ExitCause {
    /// Returns whether the process was killed because of its memory.
    pub(crate) fn is_memory_kill(&self) -> bool {
        let reason = KillReason::MemoryLimit;
        matches!(self, Self::OutOfMemory { .. }) || *self == Self::Killed { reason }
    }
}

impl fmt::Display for ExitCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal { number, name } => write!(f, "killed by signal {number} ({name})"),
            Self::Exception { code, name } => write!(f, "killed by exception {code:#010X} ({name})"),
            Self::Exited { code } => write!(f, "exited with status {code}"),
            Self::OutOfMemory { cgroup: Some(cgroup) } => {
                write!(f, "killed by the OOM killer in cgroup {cgroup}")
            }
            Self::OutOfMemory { cgroup: None } => f.write_str("killed by the OOM killer"),
            Self::Killed { reason } => write!(f, "killed by its pool: {reason}"),
            Self::Unknown => f.write_str("ended for an unknown reason"),
        }
    }
}

impl fmt::Display for KillReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StartTimeout => "it was not ready in time",
            Self::Deadline => "a task ran beyond its deadline",
            Self::Corrupt => "it wrote invalid data to its connection",
            Self::Shutdown => "the pool was shut down",
            Self::Cancelled => "its task was cancelled",
            Self::Disconnected => "it closed its connection",
            Self::Unresponsive => "it did not start its tasks",
            Self::MemoryLimit => "its memory exceeded the limit",
            Self::EndTimeout => "it did not stop in time",
        })
    }
}
