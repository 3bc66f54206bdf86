//! [`Handle`]: one task's output to come.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::batch::{Batch, Draft};
use crate::core::Running;
use crate::decode::Decode;
use crate::driver::Driver;
use crate::error::{Fault, TaskError};
use crate::jobs::{Completions, JobKey, Noted};
use crate::ledger::Kept;
use crate::local::Single;
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
/// It outlives its pool; a task that has not run by then has the pool's error. Dropping it withdraws the task unless a worker has started
/// it; the worker finishes such a task, and its output is dropped.
#[must_use = "dropping it withdraws the task"]
pub struct Handle<R> {
    task: u64,
    pending: Pending<R>,
    /// Who is told of the output.
    told: Option<Told<R>>,
}

type Told<R> = Box<dyn FnOnce(&Result<R, TaskError>) + Send + Sync>;

/// Where the output will be.
enum Pending<R> {
    Pool(InPool<R>),
    Local(Arc<Single<R>>),
}

/// A task of a pool of processes.
struct InPool<R> {
    driver: Arc<Driver>,
    job: JobKey,
    index: u64,
    decode: Decode<R>,
}

impl<R> fmt::Debug for Handle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("task", &self.task)
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
        // After the encoder, which may have forked. A copy's handles say so when they are asked.
        let (job, index) = match driver.is_here() {
            true => driver.core().submit_one(payload),
            false => (JobKey::NOBODY, 0),
        };
        let pending = Pending::Pool(InPool {
            driver: driver.clone(),
            job,
            index,
            decode,
        });
        Self::new(index, pending)
    }

    pub(crate) fn local(index: u64, single: Arc<Single<R>>) -> Self {
        Self::new(index, Pending::Local(single))
    }

    fn new(task: u64, pending: Pending<R>) -> Self {
        let told = None;
        Self { task, pending, told }
    }

    /// The error of a handle in a forked copy of its leader.
    fn forked(&self) -> Option<Fault> {
        match &self.pending {
            Pending::Pool(task) if !task.driver.is_here() => Some(Fault::Pool(task.driver.forked())),
            Pending::Local(task) => task.forked().map(Fault::Pool),
            Pending::Pool(_) => None,
        }
    }

    /// The task's number among those submitted to its pool, from 0: [`TaskError::task`].
    pub fn task(&self) -> u64 {
        self.task
    }

    /// Gives the task another number: of those that somebody else counts.
    pub fn numbered(mut self, task: u64) -> Self {
        self.task = task;
        self
    }

    /// Has `told` called with the output when that is taken: by who waits for it, or awaits it.
    pub fn inspect(mut self, told: impl FnOnce(&Result<R, TaskError>) + Send + Sync + 'static) -> Self {
        self.told = Some(Box::new(told));
        self
    }

    /// Whether its output, or its error, is there.
    pub fn is_finished(&self) -> bool {
        match &self.pending {
            _ if self.forked().is_some() => true,
            Pending::Pool(task) => task.is_finished(),
            Pending::Local(task) => task.is_finished(),
        }
    }

    /// Waits for the output.
    ///
    /// # Errors
    /// What happened to the task.
    pub fn wait(mut self) -> Result<R, TaskError> {
        // Without a deadline, there is an output at the end.
        let output = self.take(None).unwrap_or(Err(Fault::Cancelled));
        self.give(output)
    }

    /// Waits for the output, for `timeout` at most.
    ///
    /// # Errors
    /// The handle itself when the time is over; the task goes on.
    pub fn wait_timeout(mut self, timeout: Duration) -> Result<Result<R, TaskError>, Self> {
        match self.take(Instant::now().checked_add(timeout)) {
            None => Err(self),
            Some(output) => Ok(self.give(output)),
        }
    }

    /// The output, if it comes before the deadline.
    fn take(&self, deadline: Option<Instant>) -> Option<Result<R, Fault>> {
        if let Some(fault) = self.forked() {
            return Some(Err(fault));
        }
        match &self.pending {
            Pending::Pool(task) => task.take(deadline),
            Pending::Local(task) => task.take(deadline),
        }
    }

    fn give(&mut self, output: Result<R, Fault>) -> Result<R, TaskError> {
        let task = self.task;
        let output = output.map_err(|fault| TaskError { task, fault });
        if let Some(told) = self.told.take() {
            told(&output);
        }
        output
    }

    /// Cancels the task if it has not begun. A task that runs goes on.
    pub fn cancel(&self) -> Cancelled {
        self.stop(Running::GoesOn)
    }

    /// Cancels the task; if it runs, its worker is killed and replaced. No other task is lost: the pool takes back the tasks
    /// that the worker has not started before it kills it. The task's error is [`Fault::Cancelled`] even if the task ends
    /// before the kill. A thread can't be killed: in a [`LocalPool`](crate::LocalPool) this is [`cancel`](Self::cancel).
    pub fn kill(&self) -> Cancelled {
        self.stop(Running::IsKilled)
    }

    fn stop(&self, running: Running) -> Cancelled {
        match &self.pending {
            _ if self.forked().is_some() => Cancelled::Finished,
            Pending::Pool(task) => task.stop(running),
            Pending::Local(task) => task.withdraw(),
        }
    }
}

impl<R> InPool<R> {
    fn is_finished(&self) -> bool {
        self.driver.fresh_core().is_done(self.job)
    }

    fn take(&self, deadline: Option<Instant>) -> Option<Result<R, Fault>> {
        let done = self.driver.wait(deadline, |core| core.take_done(self.job));
        match (done, deadline) {
            (None, Some(_)) => None,
            (done, _) => Some(self.read(done)),
        }
    }

    fn stop(&self, running: Running) -> Cancelled {
        let cancelled = self.driver.fresh_core().cancel(self.job, self.index, running);
        self.driver.nudge();
        cancelled
    }

    fn read(&self, done: Option<Completions>) -> Result<R, Fault> {
        let mut done = done.unwrap_or_default();
        let result = match done.list.drain(..).next().map(|first| first.outcome) {
            Some(outcome) => self.decode.outcome(outcome, &done.bytes).0,
            // It was taken before: a future that is polled after it was ready.
            None => Err(Box::new(Fault::Cancelled)),
        };
        result.map_err(|fault| *fault)
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Result<R, Fault>> {
        // Cloning and dropping a waker is user code: it runs while nothing is locked.
        let mut clone = None;
        loop {
            let mut core = self.driver.fresh_core();
            let done = core.take_done(self.job);
            if done.is_some() {
                drop(core);
                return Poll::Ready(self.read(done));
            }
            let noted = core.jobs.note_waker(self.job, context.waker(), &mut clone);
            drop(core);
            match noted {
                Noted::Yes => break,
                Noted::NeedsClone => clone = Some(context.waker().clone()),
            }
        }
        self.driver.attend();
        Poll::Pending
    }
}

impl<R> Drop for InPool<R> {
    fn drop(&mut self) {
        if !self.driver.is_here() {
            // The end of the copied driver would touch what is the leader's.
            std::mem::forget(self.driver.clone());
        }
        self.driver.abandon(self.job);
    }
}

impl<R> Future for Handle<R> {
    type Output = Result<R, TaskError>;

    /// Needs no runtime: the pool's own thread wakes the task.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let output = match (self.forked(), &self.pending) {
            (Some(fault), _) => Poll::Ready(Err(fault)),
            (None, Pending::Pool(task)) => task.poll(context),
            (None, Pending::Local(task)) => task.poll(context),
        };
        output.map(|output| self.give(output))
    }
}

impl<R> Drop for Handle<R> {
    fn drop(&mut self) {
        if let Pending::Local(task) = &self.pending
            && task.forked().is_none()
        {
            task.withdraw();
        }
    }
}
