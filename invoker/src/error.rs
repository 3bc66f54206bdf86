//! Why an invoker could not be built.

/// Why an invoker could not be built. (What happens to single tasks is a [`TaskError`](crate::TaskError).)
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model could not be moved into shared memory.
    #[error("cannot share the model")]
    Share(#[from] shm_buffers::ShareError),
    /// The model could not be rebuilt from shared memory: its `Serialize` and `Deserialize` disagree.
    #[error("cannot use the shared model")]
    Load(#[from] shm_buffers::LoadError),
    /// The workers could not be started.
    #[error("cannot start the workers")]
    Pool(#[from] proc_pool::PoolError),
    /// Progress can't be shown.
    #[error("cannot show progress")]
    Progress(#[from] progress::StartError),
    /// The worker processes did not get another filter of their logs.
    #[error("cannot change the filter of workers' logs")]
    Filter(#[from] log_bridge::SetFilterError),
    /// The operating system refused.
    #[error("cannot {step}")]
    Os {
        /// What was being done.
        step: &'static str,
        /// Its reason.
        source: std::io::Error,
    },
    /// An environment variable makes no sense.
    #[error("{variable} is `{value}`; it has to be {wanted}")]
    Environment {
        /// Which.
        variable: &'static str,
        /// What it is set to.
        value: String,
        /// What it can be.
        wanted: &'static str,
    },
    /// The executor can't do what was asked for.
    #[error(
        "{executor:?} does not support {what}; leave it out, or use `Executor::Processes` on a model by value"
    )]
    Unsupported {
        /// Which executor.
        executor: crate::Executor,
        /// What it can't do.
        what: &'static str,
    },
}

impl Error {
    /// The error with all its causes, in one line.
    pub fn in_full(&self) -> String {
        format!("{:#}", shm_buffers::WithCauses(self))
    }
}

shm_buffers::debug_with_causes!(Error);
