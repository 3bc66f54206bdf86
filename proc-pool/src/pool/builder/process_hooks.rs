//! The options of a [`Builder`] that call the program for each worker process: before its start, while it runs, and at its end.

use std::ffi::OsString;
use std::sync::Arc;

use serde::Serialize;

use super::Builder;
use crate::error::{BoxError, ExitCause, WorkerId};
use crate::observer::Observer;

impl Builder {
    /// Sets the observer of the worker processes, of their user rings and slots, and of what they print if that is captured
    /// (default: none).
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Calls `on_end` when the process of a worker has ended. Returns the last messages of that process, oldest first, for the error of
    /// the task that it was running: a short form of [`Observer::ended`]. Several calls and an [`observer`](Self::observer) add up;
    /// their messages follow each other.
    ///
    /// The call comes from the pool's process manager thread, before that of [`worker_value`](Self::worker_value) for the
    /// replacement. A panic of `on_end` is printed and otherwise ignored.
    ///
    /// ```
    /// let builder = proc_pool::Builder::new().on_worker_end(|worker, cause| {
    ///     eprintln!("worker {worker} {cause}");
    ///     Vec::new()
    /// });
    /// ```
    pub fn on_worker_end(
        mut self,
        on_end: impl Fn(WorkerId, &ExitCause) -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        self.on_worker_end.push(Arc::new(on_end));
        self
    }

    /// Calls `make` before each start of a worker process, replacements and repeated attempts included, and sends the value to that
    /// process, which takes it with [`WorkerContext::worker_value`](crate::WorkerContext::worker_value). The initial value, in contrast,
    /// is the same for all. It is for what differs by process: the handles of its logs and counters, a device's index, a lease.
    ///
    /// ```no_run
    /// use proc_pool::{BoxError, Builder, EntryPoint, WorkerContext};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// const GPUS: u32 = 2;
    /// let start = |context: &mut WorkerContext, (): ()| Ok(context.worker_value::<u32>()?);
    /// let pool = Builder::new()
    ///     .workers(4)
    ///     .worker_value(|worker| Ok::<u32, BoxError>(worker.0 % GPUS))
    ///     .worker_env(|worker| [("CUDA_VISIBLE_DEVICES", (worker.0 % GPUS).to_string())])
    ///     .build(EntryPoint::op_with_state(start, |gpu: &mut u32, n: u32| (*gpu, n)), &())?;
    /// # Ok(()) }
    /// ```
    ///
    /// The descriptors of the shared memory to which handles in the value refer are sent with it. The leader keeps the value until the
    /// process has ended, and drops it before the replacement is started. So a value that returns something when it is dropped can lend
    /// it to the process.
    ///
    /// Values of different types add up; a second call for the same type replaces the first. `make` runs on the pool's process
    /// manager thread, for one process after another: if it blocks, it delays starts, deadlines and kills, not tasks.
    ///
    /// An error or a panic of `make` fails that start, as an error of the worker's `start` does: the pool tries a few more times, and
    /// then fails with [`PoolError::Start`](crate::PoolError::Start), which contains the error's text. A value that cannot be encoded
    /// is such an error, too.
    pub fn worker_value<V, E>(
        mut self,
        make: impl Fn(WorkerId) -> Result<V, E> + Send + Sync + 'static,
    ) -> Self
    where
        V: Serialize + Send + 'static,
        E: Into<BoxError>,
    {
        self.hooks.add_value(make);
        self
    }

    /// Sets environment variables that differ by worker, beside those of [`env`](Self::env), over which they have precedence. Several calls
    /// add up. `variables` is called like the function of [`worker_value`](Self::worker_value), which has an example; a panic fails
    /// that start.
    pub fn worker_env<I, N, V>(mut self, variables: impl Fn(WorkerId) -> I + Send + Sync + 'static) -> Self
    where
        I: IntoIterator<Item = (N, V)>,
        N: Into<OsString>,
        V: Into<OsString>,
    {
        self.hooks.add_variables(move |worker| {
            let variables = variables(worker).into_iter();
            variables
                .map(|(name, value)| (name.into(), value.into()))
                .collect()
        });
        self
    }
}
