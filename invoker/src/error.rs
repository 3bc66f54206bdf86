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

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_main_that_returns_it_prints_the_remedy_for_a_forgotten_init() {
        let error: Box<dyn std::error::Error> = Error::from(proc_pool::PoolError::NotInitialized).into();
        let printed = format!("Error: {error:?}");
        let expected = "Error: cannot start the workers\n\nCaused by:\n    `init()` was not called; make it the first line";
        assert!(printed.starts_with(expected), "{printed}");
    }

    #[test]
    fn each_message_of_a_chain_is_said_once_and_ends_with_the_systems_reason() {
        let system = || io::Error::from_raw_os_error(12);
        let program = || proc_pool::PoolError::Program {
            path: "worker".into(),
            source: system().into(),
        };
        let image = shm_buffers::Image::load_shared("no/such/file", &shm_buffers::Backing::Auto)
            .expect_err("there is none");
        shm_buffers::assert_said_once(&image);
        let errors = [
            Error::Pool(program()),
            Error::Progress(progress::StartError::Thread(system())),
            Error::Os {
                step: "open a file",
                source: system(),
            },
            Error::Share(shm_buffers::ShareError::Create(shm_buffers::CreateError::Os {
                step: "map",
                len: 1,
                backing: shm_buffers::BackingKind::Anonymous,
                source: system(),
            })),
            Error::Filter(log_bridge::SetFilterError::Stopped),
        ];
        for error in errors {
            shm_buffers::assert_said_once(&error);
            let chain = std::iter::successors(Some(&error as &(dyn std::error::Error + 'static)), |&e| {
                e.source()
            });
            let last = chain.last().and_then(|last| last.downcast_ref::<io::Error>());
            let expected = (!matches!(error, Error::Filter(_))).then_some(12);
            assert_eq!(last.and_then(io::Error::raw_os_error), expected, "{error:?}");
        }
    }
}
