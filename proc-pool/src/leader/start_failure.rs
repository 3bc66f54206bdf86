//! [`StartFailure`]: why a process did not become ready, and whether another attempt can help.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{ExitCause, KillReason, PoolError, Shared, WorkerId, chain};
use crate::message::REFUSED;

/// Why a process did not become ready.
#[derive(Debug, Clone)]
pub(crate) enum StartFailure {
    /// For a reason that may pass: a limit of the system, a crash, an error of the user's code. The text says what the attempt did.
    Failed(String),
    /// The worker cannot run what its leader asks for: no such op, another type, another version. The text says why.
    Refused(String),
    /// The process ended, or did not become ready in time, without a message to its leader: its `main` did not get as far as
    /// `Registry::serve` or `init`.
    NotConnected(ExitCause),
    /// The system cannot execute the program.
    Program {
        path: PathBuf,
        source: Shared<io::Error>,
    },
}

impl StartFailure {
    /// Returns the failure of a process that ended before it was ready. `introduced` is whether it had called `init`, and
    /// `failure` what was reported before its end.
    pub(crate) fn of_end(introduced: bool, failure: Option<Self>, cause: ExitCause) -> Self {
        let refused = cause == ExitCause::Exited { code: REFUSED };
        match (failure, cause) {
            (Some(Self::Failed(reason)), _) if introduced && refused => Self::Refused(reason),
            (_, cause @ ExitCause::Exited { .. }) if !introduced => Self::NotConnected(cause),
            (Some(failure), _) => failure,
            (
                None,
                cause @ ExitCause::Killed {
                    reason: KillReason::StartTimeout | KillReason::Disconnected,
                },
            ) if !introduced => Self::NotConnected(cause),
            (None, cause) => Self::Failed(cause.to_string()),
        }
    }

    /// Returns whether the next attempt would fail in the same way. This is so until a first worker of the pool has been ready. Later,
    /// the program may be about to be replaced, or the machine overloaded.
    ///
    /// The leader's own program has called `init` in this process, so another attempt can get there, too.
    pub(crate) fn is_permanent(&self, own_program: bool) -> bool {
        match self {
            Self::Failed(_) => false,
            Self::NotConnected(_) => !own_program,
            Self::Refused(_) | Self::Program { .. } => true,
        }
    }

    /// Returns the pool's error, after the last attempt. `program` is the path of the worker program.
    pub(crate) fn into_error(self, worker: WorkerId, attempts: u32, program: &Path) -> PoolError {
        let program = program.to_owned();
        match self {
            Self::Failed(reason) => PoolError::Start {
                worker,
                attempts,
                reason,
            },
            Self::Refused(reason) => PoolError::Refused { program, reason },
            Self::NotConnected(cause) => PoolError::NotAWorker { program, cause },
            Self::Program { path, source } => PoolError::Program { path, source },
        }
    }
}

impl From<PoolError> for StartFailure {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Program { path, source } => Self::Program { path, source },
            error => Self::Failed(chain(&error)),
        }
    }
}

/// Compares system errors by their kinds.
impl PartialEq for StartFailure {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Failed(one), Self::Failed(other)) | (Self::Refused(one), Self::Refused(other)) => {
                one == other
            }
            (Self::NotConnected(one), Self::NotConnected(other)) => one == other,
            (Self::Program { path, source }, Self::Program { path: p, source: s }) => {
                path == p && source.kind() == s.kind()
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exit_code_of_a_refusal_makes_a_reported_reason_permanent() {
        let reason = || Some(StartFailure::Failed("has no op".to_owned()));
        let exited = |code| ExitCause::Exited { code };
        let refused = StartFailure::of_end(true, reason(), exited(REFUSED));
        assert_eq!(refused, StartFailure::Refused("has no op".to_owned()));
        assert!(refused.is_permanent(true) && refused.is_permanent(false));
        let failed = StartFailure::of_end(true, reason(), exited(crate::message::NOT_STARTED));
        assert_eq!(Some(&failed), reason().as_ref());
        assert!(!failed.is_permanent(true) && !failed.is_permanent(false));
        // A program that is no worker may use any code.
        let other = StartFailure::of_end(false, None, exited(REFUSED));
        assert_eq!(other, StartFailure::NotConnected(exited(REFUSED)));
        assert!(other.is_permanent(false) && !other.is_permanent(true));
    }

    #[test]
    fn crash_without_a_message_may_pass() {
        let cause = ExitCause::OutOfMemory { cgroup: None };
        let failure = StartFailure::of_end(false, None, cause.clone());
        assert_eq!(failure, StartFailure::Failed(cause.to_string()));
        // The leader could not send the handshake, and killed the process.
        let reason = KillReason::Disconnected;
        let reported = StartFailure::Failed("did not connect: no room".to_owned());
        let failure = StartFailure::of_end(false, Some(reported.clone()), ExitCause::Killed { reason });
        assert_eq!(failure, reported);
    }
}
