//! The task that runs on this thread, for its op: [`step`], [`task_seed`] and [`worker`].

use std::cell::RefCell;

use progress::{Counters, Outcome, Total};
use serde::{Deserialize, Serialize};

thread_local! {
    // Boxed, because it moves here and back for each task.
    static CURRENT: RefCell<Option<Box<CurrentTask>>> = const { RefCell::new(None) };
}

struct CurrentTask {
    counters: Counters,
    seed: Option<u64>,
    worker: WorkerInfo,
}

/// Describes a worker to its op: see [`worker`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// The worker's index, from 0. Two workers that exist at the same time have different ones, except for several callers of an
    /// invoker with [`Executor::Inline`](crate::Executor::Inline).
    pub index: usize,
    /// The number of workers of the invoker; of a worker process, the number when it was started.
    pub workers: usize,
    /// How often the worker's process was replaced: 0 for the first process, and always with other executors. Processes that failed
    /// to start count.
    pub generation: u32,
}

impl WorkerInfo {
    pub(crate) fn new(index: usize, workers: usize, generation: u32) -> Self {
        Self {
            index,
            workers,
            generation,
        }
    }
}

/// Returns which worker runs the op, or makes its state or [`View`](crate::View), on this thread; `None` outside of these.
///
/// For a device, a port or a file of its own for each worker. Outputs should not depend on it.
///
/// ```
/// use invoker::{Executor, Invoker, worker};
///
/// const GPUS: usize = 2;
/// let gpu = |_: &()| Ok(worker().map_or(0, |worker| worker.index % GPUS));
/// let builder = Invoker::builder_with_state(gpu, |_: &(), gpu: &mut usize, _: u32| *gpu).model(());
/// let invoker = builder.executor(Executor::Threads).workers(4).build()?;
/// assert!(invoker.map(0..100).all(|gpu| gpu.is_ok_and(|gpu| gpu < GPUS)));
/// assert_eq!(worker(), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn worker() -> Option<WorkerInfo> {
    CURRENT.with_borrow(|task| task.as_ref().map(|task| task.worker))
}

/// Reports how much of the running task is done: `done` of `total`, in any unit. The leader's bar moves by that part of the
/// task. A call costs a few nanoseconds, and has no effect outside an op.
///
/// ```
/// use invoker::{Total, step};
///
/// fn train(_: &(), epochs: u64) -> f64 {
///     for epoch in 1..=epochs {
///         // learn
///         step(epoch, Total::Known(epochs));
///     }
///     0.5
/// }
/// # assert_eq!(train(&(), 3), 0.5);
/// ```
pub fn step(done: u64, total: Total) {
    CURRENT.with_borrow(|task| {
        if let Some(task) = task {
            task.counters.step(done, total);
        }
    });
}

/// Returns the seed of the running task, for a random number generator; `None` outside an op, and if the builder has no
/// root seed ([`Builder::seed`](crate::Builder::seed)).
///
/// The seed depends only on the root and on the task's position in its input (for a submitted task, its
/// [number](crate::Handle::task)). Executor, number of workers, restarts and retries do not change it. It is output number
/// `position`, from 0, of the generator [SplitMix64](https://doi.org/10.1145/2660193.2660195) seeded with the root.
///
/// ```
/// use invoker::{Executor, Invoker, task_seed};
///
/// let noise = |_: &(), scale: f64| match task_seed() {
///     Some(seed) => scale * (seed >> 11) as f64 / (1u64 << 53) as f64,
///     None => 0.0,
/// };
/// let build = |executor| Invoker::builder(noise).model(()).executor(executor).seed(7).build();
/// let one: Vec<f64> = build(Executor::Inline)?.map([1.0; 9]).collect::<Result<_, _>>()?;
/// let other: Vec<f64> = build(Executor::Threads)?.map([1.0; 9]).collect::<Result<_, _>>()?;
/// assert_eq!(one, other);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn task_seed() -> Option<u64> {
    CURRENT.with_borrow(|task| task.as_ref().and_then(|task| task.seed))
}

/// Resets the steps of the running task, for another attempt.
pub(crate) fn reset_steps() {
    step(0, Total::Unknown);
}

/// Returns whether an op runs on this thread.
pub(crate) fn in_op() -> bool {
    CURRENT.with_borrow(Option::is_some)
}

/// Runs the tasks of one worker, one after the other, and counts them.
pub(crate) struct TaskScope {
    /// `None` while the worker's code runs.
    task: Option<Box<CurrentTask>>,
}

impl TaskScope {
    pub(crate) fn new(counters: Counters, worker: WorkerInfo) -> Self {
        let task = Some(Box::new(CurrentTask {
            counters,
            seed: None,
            worker,
        }));
        Self { task }
    }

    /// Runs the op for one task and counts it as done when the op returns. The receiver of a panic counts the failure.
    pub(crate) fn run<R>(&mut self, seed: Option<u64>, op: impl FnOnce() -> R) -> R {
        let mut guard = self.enter(seed);
        let output = op();
        guard.done = true;
        output
    }

    /// Runs code of the worker that is no task: it is not counted.
    pub(crate) fn run_uncounted<R>(&mut self, code: impl FnOnce() -> R) -> R {
        let _guard = self.enter(None);
        code()
    }

    fn enter(&mut self, seed: Option<u64>) -> LeaveTask<'_> {
        if let Some(task) = &mut self.task {
            task.seed = seed;
        }
        let outer = CURRENT.replace(self.task.take());
        LeaveTask {
            scope: self,
            outer,
            done: false,
        }
    }
}

/// Restores the outer task, also when the op panics.
struct LeaveTask<'a> {
    scope: &'a mut TaskScope,
    outer: Option<Box<CurrentTask>>,
    done: bool,
}

impl Drop for LeaveTask<'_> {
    fn drop(&mut self) {
        let task = CURRENT.replace(self.outer.take());
        if let Some(task) = &task {
            match self.done {
                true => task.counters.counter(Outcome::Done).inc(),
                // The leader counts a failure in its own counters, so the steps must be reset here.
                false => task.counters.step(0, Total::Unknown),
            }
        }
        self.scope.task = task;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tasks_that_return_are_done_and_ops_nest() {
        let bar = progress::Bar::new("test", Total::Known(3));
        let mut tasks = TaskScope::new(bar.counters(), WorkerInfo::new(1, 2, 3));
        let mut inner = TaskScope::new(bar.counters(), WorkerInfo::new(0, 1, 0));
        assert_eq!(
            tasks.run(Some(1), || inner.run(None, || (task_seed(), 7)).1
                + task_seed().unwrap_or(0)),
            8
        );
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            tasks.run(None, || {
                step(1, Total::Known(2));
                std::panic::resume_unwind(Box::new(()))
            })
        }));
        assert!(panicked.is_err());
        assert_eq!(bar.counts().done, 2);
        tasks.run(None, || step(1, Total::Known(2)));
        assert_eq!(bar.counts().done, 3);
        let index = |scope: &mut TaskScope| scope.run_uncounted(|| worker().map(|worker| worker.index));
        assert_eq!((index(&mut tasks), index(&mut inner)), (Some(1), Some(0)));
        assert_eq!(bar.counts().done, 3);
        // Outside an op there is nothing to report.
        step(5, Total::Known(5));
        assert_eq!((task_seed(), worker()), (None, None));
    }
}
