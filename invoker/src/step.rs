//! What an op can tell and ask of the task that it runs: [`step`] and [`task_seed`].

use std::cell::RefCell;

use progress::{Counters, Outcome, Total};

thread_local! {
    /// The op that runs on this thread.
    static RUNNING: RefCell<Option<Running>> = const { RefCell::new(None) };
}

struct Running {
    counters: Counters,
    seed: Option<u64>,
}

/// Tells how far the running task is, in whatever units the op works: `done` of `total`. The leader's bar moves by that
/// part of the task. It costs a few nanoseconds; outside an op it does nothing.
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
    RUNNING.with_borrow(|running| {
        if let Some(running) = running {
            running.counters.step(done, total);
        }
    });
}

/// The seed of the running task, to start a generator of random numbers with, if the invoker was given a root
/// ([`seed`](crate::Builder::seed)); `None` otherwise, and outside an op.
///
/// It depends on nothing but the root and the task's position in its input (of a submitted one, its
/// [number](crate::Handle::task)): whatever the executor, the number of workers, their restarts, and however often the
/// task is run, it is the same. It is the output with that number, from 0, of the generator
/// [SplitMix64](https://doi.org/10.1145/2660193.2660195) that was started with the root.
///
/// ```
/// use invoker::{Executor, Invoker, task_seed};
///
/// let noise = |_: &(), scale: f64| match task_seed() {
///     Some(seed) => scale * (seed >> 11) as f64 / (1u64 << 53) as f64,
///     None => 0.0,
/// };
/// let build = |executor| Invoker::builder(noise).model(()).executor(executor).seed(7).build();
/// let one: Vec<f64> = build(Executor::InProcess)?.map([1.0; 9]).collect::<Result<_, _>>()?;
/// let other: Vec<f64> = build(Executor::Threads)?.map([1.0; 9]).collect::<Result<_, _>>()?;
/// assert_eq!(one, other);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn task_seed() -> Option<u64> {
    RUNNING.with_borrow(|running| running.as_ref().and_then(|running| running.seed))
}

/// Whether an op runs on this thread.
pub(crate) fn in_op() -> bool {
    RUNNING.with_borrow(Option::is_some)
}

/// Who counts the tasks of one worker, one after the other.
pub(crate) struct Tasks(Option<Counters>);

impl Tasks {
    pub(crate) fn new(counters: Counters) -> Self {
        Self(Some(counters))
    }

    /// Runs the op for one task, which is done when the op returns; its panic is counted by whoever is told of it.
    pub(crate) fn run<R>(&mut self, seed: Option<u64>, op: impl FnOnce() -> R) -> R {
        let running = self.0.take().map(|counters| Running { counters, seed });
        let outer = RUNNING.replace(running);
        let mut until = Until {
            tasks: self,
            outer,
            done: false,
        };
        let output = op();
        until.done = true;
        output
    }
}

/// Puts things back, however the op ends.
struct Until<'a> {
    tasks: &'a mut Tasks,
    outer: Option<Running>,
    done: bool,
}

impl Drop for Until<'_> {
    fn drop(&mut self) {
        let running = RUNNING.replace(self.outer.take());
        if let Some(Running { counters, .. }) = running {
            match self.done {
                true => counters.counter(Outcome::Done).inc(),
                // Whoever counts the failure can't reach these counters: the task's steps have to be forgotten here.
                false => counters.step(0, Total::Unknown),
            }
            self.tasks.0 = Some(counters);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_returned_is_done_and_ops_nest() {
        let bar = progress::Bar::new("test", Total::Known(3));
        let mut tasks = Tasks::new(bar.counters());
        let mut inner = Tasks::new(bar.counters());
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
        assert_eq!(bar.counts().get(Outcome::Done), 2);
        tasks.run(None, || step(1, Total::Known(2)));
        assert_eq!(bar.counts().get(Outcome::Done), 3);
        // Outside an op there is no task.
        step(5, Total::Known(5));
        assert_eq!(task_seed(), None);
    }
}
