//! [`run_isolated`]: one call in a process of its own.

use std::error::Error;
use std::fmt;

use proc_pool::{BoxError, Fault, PoolError, Worker, WorkerContext, Workers};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why an isolated call gave nothing.
#[non_exhaustive]
pub enum IsolatedError {
    /// There was no process for it.
    Start(PoolError),
    /// The call itself came to nothing. The fault is displayed as well; its cause is the [`source`](Error::source).
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
            // Its message is in this one's.
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

/// Calls `op(task)` in a process of its own and waits for the output: for a single call that may crash, leak or need
/// a fresh process. Costs the start of a process.
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
/// What kept the op from giving an output.
pub fn run_isolated<T, R>(op: fn(T) -> R, task: T) -> Result<R, IsolatedError>
where
    T: Serialize + DeserializeOwned + 'static,
    R: Serialize + DeserializeOwned + 'static,
{
    let pool = proc_pool::Builder::new()
        .workers(Workers::Count(1))
        .build::<Isolated<T, R>>(op, &())?;
    let output = pool.map([task]).next();
    // One task has one output.
    let output = output.unwrap_or_else(|| unreachable!("a map gives an output for each task"));
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
        // Whatever the op builds: only the leader draws.
        progress::mute();
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
    fn the_systems_reason_is_kept_and_nothing_is_said_twice() {
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
