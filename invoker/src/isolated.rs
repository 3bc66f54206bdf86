//! [`run_isolated`]: a single call in its own process.

use std::error::Error;
use std::fmt;

use proc_pool::{BoxError, EntryPoint, Fault, PoolError, Worker, WorkerContext, Workers};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The error of [`run_isolated`].
#[non_exhaustive]
pub enum IsolatedError {
    /// The process could not be started.
    Start(PoolError),
    /// The call failed. `Display` includes the fault; [`source`](Error::source) is the cause of the fault.
    Failed(Fault),
}

impl fmt::Display for IsolatedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(_) => f.write_str("cannot start a process for the call"),
            Self::Failed(fault) => write!(f, "the call failed: {fault}"),
        }
    }
}

impl Error for IsolatedError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Start(error) => Some(error),
            // `Display` has the message of the fault already.
            Self::Failed(fault) => fault.source(),
        }
    }
}

impl From<PoolError> for IsolatedError {
    fn from(error: PoolError) -> Self {
        Self::Start(error)
    }
}

shm_buffers::debug_with_causes!(IsolatedError);

/// Runs `op(task)` in its own process and returns the output: for a single call that may crash, leak or need a fresh
/// process. Each call starts a process.
///
/// ```no_run
/// use invoker::{Fault, IsolatedError, run_isolated};
///
/// invoker::init(); // the first line of main
/// let crashed = run_isolated(|_: ()| -> () { std::process::abort() }, ());
/// assert!(matches!(crashed, Err(IsolatedError::Failed(Fault::WorkerDied { .. }))));
/// ```
///
/// # Errors
/// [`IsolatedError::Start`] if the process cannot be started, [`IsolatedError::Failed`] if the call panics or its process
/// dies.
pub fn run_isolated<T, R>(op: fn(T) -> R, task: T) -> Result<R, IsolatedError>
where
    T: Serialize + DeserializeOwned + 'static,
    R: Serialize + DeserializeOwned + 'static,
{
    let pool = proc_pool::Builder::new()
        .workers(Workers::Count(1))
        .build(EntryPoint::worker::<Isolated<T, R>>(op), &())?;
    let output = pool.map([task]).next();
    let output = output.unwrap_or_else(|| unreachable!("a map returns one output per task"));
    output.map_err(|error| IsolatedError::Failed(error.fault))
}

/// The worker of an isolated call.
struct Isolated<T, R>(fn(T) -> R);

impl<T: 'static, R: 'static> Worker for Isolated<T, R> {
    type Op = fn(T) -> R;
    type Init = ();
    type Task = T;
    type Output = R;

    fn start(_: &mut WorkerContext, op: fn(T) -> R, (): ()) -> Result<Self, BoxError> {
        // Only the leader draws, even if the op builds an invoker with progress.
        progress::disable_drawing();
        Ok(Self(op))
    }

    fn run(&mut self, task: T) -> R {
        (self.0)(task)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn the_system_error_is_a_source_and_no_message_appears_twice() {
        let refused = || PoolError::Program {
            path: "worker".into(),
            source: io::Error::from_raw_os_error(13).into(),
        };
        for error in [
            IsolatedError::Start(refused()),
            IsolatedError::Failed(Fault::Pool(refused())),
        ] {
            shm_buffers::assert_said_once(&error);
            let mut chain = std::iter::successors(Some(&error as &(dyn Error + 'static)), |&e| e.source());
            assert!(chain.any(|e| e.is::<io::Error>()), "{error:?}");
        }
    }
}
