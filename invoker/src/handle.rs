//! [`Handle`]: the output of one task to come.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use proc_pool::{Cancelled, TaskError};

use crate::journal::Journal;

/// The output of a task that was [submitted](crate::Invoker::submit): to be waited for, or awaited in any async runtime,
/// or none.
///
/// It outlives its invoker: what was not run then has its error. Dropping it withdraws the task unless that has begun.
/// Its task counts as done or failed when the output is taken.
#[must_use = "dropping it withdraws the task"]
pub struct Handle<R> {
    inner: proc_pool::Handle<R>,
    task: u64,
    journal: Arc<Journal>,
}

impl<R> std::fmt::Debug for Handle<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle")
            .field("task", &self.task)
            .finish_non_exhaustive()
    }
}

/// Whose task it was.
fn of<R>(task: u64, output: Result<R, TaskError>) -> Result<R, TaskError> {
    output.map_err(|TaskError { fault, .. }| TaskError { task, fault })
}

impl<R> Handle<R> {
    pub(crate) fn new(inner: proc_pool::Handle<R>, task: u64, journal: Arc<Journal>) -> Self {
        Self { inner, task, journal }
    }

    /// The task's number among those submitted to its invoker, from 0: [`TaskError::task`].
    pub fn task(&self) -> u64 {
        self.task
    }

    /// Whether its output, or its error, is there.
    pub fn is_finished(&self) -> bool {
        self.inner.is_finished()
    }

    /// Waits for the output.
    ///
    /// # Errors
    /// What happened to the task.
    pub fn wait(self) -> Result<R, TaskError> {
        let output = of(self.task, self.inner.wait());
        self.journal.end(&output);
        output
    }

    /// Waits for the output, for `timeout` at most.
    ///
    /// # Errors
    /// The handle itself when the time is over; the task goes on.
    pub fn wait_timeout(self, timeout: Duration) -> Result<Result<R, TaskError>, Self> {
        let Self { inner, task, journal } = self;
        match inner.wait_timeout(timeout) {
            Ok(output) => {
                let output = of(task, output);
                journal.end(&output);
                Ok(output)
            }
            Err(inner) => Err(Self { inner, task, journal }),
        }
    }

    /// Cancels the task if it has not begun. A task that runs goes on.
    pub fn cancel(&self) -> Cancelled {
        self.inner.cancel()
    }

    /// Cancels the task; if it runs, its worker process is killed and replaced. No other task is lost by that. A thread
    /// can't be killed: there it is as [`cancel`](Self::cancel).
    pub fn kill(&self) -> Cancelled {
        self.inner.kill()
    }
}

impl<R> Future for Handle<R> {
    type Output = Result<R, TaskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let output = Pin::new(&mut self.inner).poll(context);
        output.map(|output| {
            let output = of(self.task, output);
            self.journal.end(&output);
            output
        })
    }
}
