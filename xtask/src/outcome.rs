//! How a verb or a step ends: done, skipped for a reason, or an error with its exit status.

use std::fmt;
use std::process::ExitCode;

/// Why a verb did not succeed.
#[derive(Debug)]
pub(crate) enum Error {
    /// A check ran and failed; exit status 1.
    Failed(String),
    /// The request makes no sense, or there is nothing to run; exit status 2.
    Usage(String),
}

impl Error {
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Failed(_) => ExitCode::from(1),
            Self::Usage(_) => ExitCode::from(2),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(message) | Self::Usage(message) => f.write_str(message),
        }
    }
}

impl From<lexopt::Error> for Error {
    fn from(error: lexopt::Error) -> Self {
        Self::Usage(error.to_string())
    }
}

/// What a step that did not fail came to.
#[derive(Debug, PartialEq)]
pub(crate) enum Done {
    /// It ran and passed.
    Passed,
    /// It could not run here; the reason is shown in the summary.
    Skipped(String),
}
