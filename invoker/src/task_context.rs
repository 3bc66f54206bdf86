//! The task that runs on this thread, for its op: [`step`] and [`task_seed`].

use std::cell::RefCell;

use progress::{Counters, Outcome, Total};

thread_local! {
    static CURRENT: RefCell<Option<CurrentTask>> = const { RefCell::new(None) };
}

struct CurrentTask {
    counters: Counters,
    seed: Option<u64>,
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

/// Returns whether an op runs on this thread.
pub(crate) fn in_op() -> bool {
    CURRENT.with_borrow(Option::is_some)
}

/// Runs the tasks of one worker, one after the other, and counts them.
pub(crate) struct TaskScope(
    /// `None` while a task runs.
    Option<Counters>,
);

impl TaskScope {
    pub(crate) fn new(counters: Counters) -> Self {
        Self(Some(counters))
    }

    /// Runs the op for one task and counts it as done when the op returns. The receiver of a panic counts the failure.
    pub(crate) fn run<R>(&mut self, seed: Option<u64>, op: impl FnOnce() -> R) -> R {
        let task = self.0.take().map(|counters| CurrentTask { counters, seed });
        let outer = CURRENT.replace(task);
        let mut guard = LeaveTask {
            scope: self,
            outer,
            done: false,
        };
        let output = op();
        guard.done = true;
        output
    }
}

/// Restores the outer task, also when the op panics.
struct LeaveTask<'a> {
    scope: &'a mut TaskScope,
    outer: Option<CurrentTask>,
    done: bool,
}

impl Drop for LeaveTask<'_> {
    fn drop(&mut self) {
        let task = CURRENT.replace(self.outer.take());
        if let Some(CurrentTask { counters, .. }) = task {
            match self.done {
                true => counters.counter(Outcome::Done).inc(),
                // The leader counts the failure in its own counters, so the steps must be reset here.
                false => counters.step(0, Total::Unknown),
            }
            self.scope.0 = Some(counters);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tasks_that_return_are_done_and_ops_nest() {
        let bar = progress::Bar::new("test", Total::Known(3));
        let mut tasks = TaskScope::new(bar.counters());
        let mut inner = TaskScope::new(bar.counters());
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
        // Outside an op, both do nothing.
        step(5, Total::Known(5));
        assert_eq!(task_seed(), None);
    }
}
