//! [`Handle`]: one task's output to come.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::batch::{Batch, Draft};
use crate::bytes::Encoded;
use crate::core::Running;
use crate::driver::Driver;
use crate::error::{Fault, TaskError};
use crate::jobs::{Completions, JobKey, Outcome};
use crate::ledger::Kept;
use crate::map::{Decode, decode};
use crate::payload::Payload;

/// What came of cancelling a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cancelled {
    /// It will not run, or not to its end: its error is [`Fault::Cancelled`].
    Withdrawn,
    /// It runs, and goes on.
    Running,
    /// It was finished, or cancelled, before.
    Finished,
}

/// The output of a task that was [submitted](crate::Pool::submit): to be waited for, or awaited in any async runtime.
///
/// It outlives its pool: what was not run then has its error. Dropping it withdraws the task unless that has begun.
#[must_use = "dropping it withdraws the task"]
pub struct Handle<R> {
    driver: Arc<Driver>,
    job: JobKey,
    index: u64,
    decode: Decode<R>,
}

impl<R> fmt::Debug for Handle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("task", &self.index)
            .finish_non_exhaustive()
    }
}

impl<R> Handle<R> {
    pub(crate) fn submit(
        driver: &Arc<Driver>,
        encode: impl FnOnce(&mut Draft<'_>) -> Result<(), String>,
        decode: Decode<R>,
    ) -> Self {
        let mut batch = Batch::default();
        let payload = batch.push(0, encode).map(|()| match batch.front() {
            Some((_, Payload::Large(large))) => Kept::Large(large.clone()),
            Some((_, Payload::Inline(frame))) => Kept::Frame(frame.to_vec()),
            None => Kept::Frame(Vec::new()),
        });
        let (job, index) = driver.core().submit_one(payload);
        Self {
            driver: driver.clone(),
            job,
            index,
            decode,
        }
    }

    /// The task's number among those submitted to its pool, from 0: [`TaskError::task`].
    pub fn task(&self) -> u64 {
        self.index
    }

    /// Whether its output, or its error, is there.
    pub fn is_finished(&self) -> bool {
        let mut core = self.driver.core();
        core.pump();
        core.is_done(self.job)
    }

    /// Waits for the output.
    ///
    /// # Errors
    /// What happened to the task.
    pub fn wait(self) -> Result<R, TaskError> {
        let done = self.driver.wait(None, |core| core.take_done(self.job));
        self.read(done)
    }

    /// Waits for the output, for `timeout` at most.
    ///
    /// # Errors
    /// The handle itself when the time is over; the task goes on.
    pub fn wait_timeout(self, timeout: Duration) -> Result<Result<R, TaskError>, Self> {
        let deadline = Instant::now().checked_add(timeout);
        match self.driver.wait(deadline, |core| core.take_done(self.job)) {
            None if deadline.is_some() => Err(self),
            done => Ok(self.read(done)),
        }
    }

    /// Cancels the task if it has not begun. A task that runs goes on.
    pub fn cancel(&self) -> Cancelled {
        self.stop(Running::GoesOn)
    }

    /// Cancels the task; if it runs, its worker is killed and replaced. No other task is lost by that.
    pub fn kill(&self) -> Cancelled {
        self.stop(Running::IsKilled)
    }

    fn stop(&self, running: Running) -> Cancelled {
        let cancelled = {
            let mut core = self.driver.core();
            core.pump();
            core.cancel(self.job, self.index, running)
        };
        self.driver.nudge();
        cancelled
    }

    fn read(&self, done: Option<Completions>) -> Result<R, TaskError> {
        let mut done = done.unwrap_or_default();
        let result = match done.list.drain(..).next().map(|first| first.outcome) {
            Some(Outcome::Bytes { start, end }) => {
                decode(self.decode, Encoded::Slice(&done.bytes[start..end]))
            }
            Some(Outcome::Segment(segment)) => decode(self.decode, Encoded::Segment(segment)),
            Some(Outcome::Fault(fault)) => Err(fault),
            // It was taken before: a future that is polled after it was ready.
            None => Err(Box::new(Fault::Cancelled)),
        };
        result.map_err(|fault| TaskError {
            task: self.index,
            fault: *fault,
        })
    }
}

impl<R> Future for Handle<R> {
    type Output = Result<R, TaskError>;

    /// Needs no runtime: the pool's own thread wakes the task.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let done = {
            let mut core = self.driver.core();
            core.pump();
            let done = core.take_done(self.job);
            if done.is_none() {
                core.wake_when_done(self.job, context.waker());
            }
            done
        };
        if done.is_none() {
            self.driver.attend();
            return Poll::Pending;
        }
        Poll::Ready(self.read(done))
    }
}

impl<R> Drop for Handle<R> {
    fn drop(&mut self) {
        self.driver.core().jobs.remove(self.job);
    }
}
