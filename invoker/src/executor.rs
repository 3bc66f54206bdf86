//! Where ops run.

/// Where ops run. Outputs are the same everywhere; what differs is what a bug costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Executor {
    /// In processes of their own: an op that crashes, exits or is killed costs its own task.
    #[default]
    Processes,
    /// In threads of this process: an op that panics costs its own task; one that crashes ends the program. It is for running the
    /// same job without processes: under a debugger or a sanitizer, in tests, where no process may be started. It is not a
    /// faster path: where ops need no isolation, use rayon.
    Threads,
    /// In the caller's thread: when the output is asked for, or at once when the task is
    /// [submitted](crate::Invoker::submit).
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
