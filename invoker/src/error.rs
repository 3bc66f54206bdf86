//! [`Error`]: why an invoker could not be built or changed.

/// The error of building, changing or finishing an invoker. (The error of a single task is a
/// [`TaskError`](crate::TaskError).)
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model could not be moved into shared memory.
    #[error("cannot share the model")]
    Share(#[from] shm_buffers::ShareError),
    /// The model could not be deserialized from shared memory: its `Serialize` and `Deserialize` disagree.
    #[error("cannot use the shared model")]
    Load(#[from] shm_buffers::LoadError),
    /// More than 1 MiB of the model would be copied, and [`Copies::Refuse`](crate::Copies::Refuse) is set.
    #[error(transparent)]
    Copied(#[from] crate::copies::CopiedError),
    /// The workers could not be started.
    #[error("cannot start the workers")]
    Pool(#[from] proc_pool::PoolError),
    /// The [journal](crate::Builder::journal) cannot be used.
    #[error(transparent)]
    Journal(#[from] run_journal::JournalError),
    /// Progress cannot be shown.
    #[error("cannot show progress")]
    Progress(#[from] progress::StartError),
    /// The worker processes did not receive a new log filter.
    #[error("cannot change the log filter of the workers")]
    Filter(#[from] log_bridge::SetFilterError),
    /// An operating system call failed.
    #[error("cannot {step}")]
    Os {
        /// The purpose of the call.
        step: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
    /// The value of an environment variable is invalid.
    #[error("{variable} is `{value}`; it must be {wanted}")]
    Environment {
        /// The name of the variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// The valid values.
        wanted: &'static str,
    },
    /// The executor, or the source of the model, does not support a setting or a call.
    #[error("{what} needs {needs}: {remedy}")]
    Unsupported {
        /// The setting or the call.
        what: &'static str,
        /// The missing capability.
        needs: &'static str,
        /// The remedy.
        remedy: &'static str,
    },
}

impl Error {
    /// Returns the error with all its causes, in one line.
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
    fn a_main_that_returns_the_error_prints_the_remedy_for_a_missing_init() {
        let error: Box<dyn std::error::Error> = Error::from(proc_pool::PoolError::NotInitialized).into();
        let printed = format!("Error: {error:?}");
        let expected = "Error: cannot start the workers\n\nCaused by:\n    `init()` was not called; make it the first line";
        assert!(printed.starts_with(expected), "{printed}");
    }

    #[test]
    fn every_message_of_a_chain_appears_once_and_the_last_is_the_systems() {
        let system = || io::Error::from_raw_os_error(12);
        let program = || proc_pool::PoolError::Program {
            path: "worker".into(),
            source: system().into(),
        };
        let image = shm_buffers::Image::load_shared("no/such/file", &shm_buffers::Backing::Auto)
            .expect_err("no such file");
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
