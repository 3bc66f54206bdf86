//! Where ops run.

mod in_process;
mod processes;
mod threads;

pub(crate) use in_process::{InProcess, Run as InProcessRun};
pub(crate) use processes::{Ended, Limits, Processes};
pub(crate) use threads::{Run as ThreadsRun, Threads};

use proc_pool::{Fault, Panic, WorkerId, catch_panic};

/// Where ops run. Outputs are the same everywhere; what differs is what a bug costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Executor {
    /// In processes of their own: an op that crashes, exits or is killed costs its own task.
    #[default]
    Processes,
    /// In threads of this process: an op that panics costs its own task; one that crashes ends the program.
    Threads,
    /// In the caller's thread, when the output is asked for.
    InProcess,
}

impl Executor {
    const ALL: [Self; 3] = [Self::Processes, Self::Threads, Self::InProcess];

    /// Its name: `processes`, `threads` or `in-process`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Processes => "processes",
            Self::Threads => "threads",
            Self::InProcess => "in-process",
        }
    }

    /// The executor of that name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|executor| executor.name() == name)
    }
}

/// Runs an op in this process; its panic is its task's fault, as it would be in a worker process.
fn call<R>(worker: WorkerId, op: impl FnOnce() -> R) -> Result<R, Fault> {
    catch_panic(op).map_err(|panic| {
        let Panic {
            message,
            location,
            backtrace,
        } = panic;
        Fault::Panicked {
            worker,
            message,
            location,
            backtrace,
        }
    })
}
