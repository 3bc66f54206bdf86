//! [`run_isolated`]: one call in a process of its own.

use proc_pool::{BoxError, Fault, PoolError, Worker, WorkerContext, Workers};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why an isolated call gave nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IsolatedError {
    /// There was no process for it.
    #[error("cannot start a process for the call")]
    Start(#[from] PoolError),
    /// The call itself came to nothing.
    #[error("the call failed: {0}")]
    Failed(Fault),
}

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
