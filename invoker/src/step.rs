//! [`step`]: how far an op is with its task, told from inside.

use std::cell::RefCell;

use progress::{Counters, Outcome, Total};

thread_local! {
    /// The counters of the op that runs on this thread.
    static RUNNING: RefCell<Option<Counters>> = const { RefCell::new(None) };
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
        if let Some(counters) = running {
            counters.step(done, total);
        }
    });
}

/// Who counts the tasks of one worker, one after the other.
pub(crate) struct Tasks(Option<Counters>);

impl Tasks {
    pub(crate) fn new(counters: Counters) -> Self {
        Self(Some(counters))
    }

    /// Runs the op for one task, which is done when the op returns; its panic is counted by whoever is told of it.
    pub(crate) fn run<R>(&mut self, op: impl FnOnce() -> R) -> R {
        let outer = RUNNING.replace(self.0.take());
        let mut running = Running {
            tasks: self,
            outer,
            done: false,
        };
        let output = op();
        running.done = true;
        output
    }
}

/// Puts things back, however the op ends.
struct Running<'a> {
    tasks: &'a mut Tasks,
    outer: Option<Counters>,
    done: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let counters = RUNNING.replace(self.outer.take());
        if let Some(counters) = &counters {
            match self.done {
                true => counters.counter(Outcome::Done).inc(),
                // Whoever counts the failure can't reach these counters: the task's steps have to be forgotten here.
                false => counters.step(0, Total::Unknown),
            }
        }
        self.tasks.0 = counters;
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
        assert_eq!(tasks.run(|| inner.run(|| 7)), 7);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            tasks.run(|| {
                step(1, Total::Known(2));
                std::panic::resume_unwind(Box::new(()))
            })
        }));
        assert!(panicked.is_err());
        assert_eq!(bar.counts().get(Outcome::Done), 2);
        tasks.run(|| step(1, Total::Known(2)));
        assert_eq!(bar.counts().get(Outcome::Done), 3);
        // Outside an op it goes nowhere.
        step(5, Total::Known(5));
    }
}
