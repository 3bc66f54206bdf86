//! [`Handle`]: a task that was submitted by itself.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::error::{Fault, PoolError, TaskError};
use crate::leader::event_loop::EventLoop;
use crate::leader::scheduler::InProgress;
use crate::leader::tasks::batch::{Batch, TaskWriter};
use crate::leader::tasks::decode::Decode;
use crate::leader::tasks::in_flight::RetainedPayload;
use crate::leader::tasks::jobs::{Completions, JobKey, Noted};
use crate::leader::withdrawal::CancelOutcome;
use crate::wire::payload::Payload;

/// A handle to a task that was [submitted](crate::Pool::submit). Wait for its output, await it in any async runtime, or cancel
/// it.
///
/// A handle may outlive its pool; a task that has not run by then has the pool's error. Dropping the handle withdraws the task
/// unless a worker has started it. The worker finishes a task that it has started, and the output is dropped.
#[must_use = "dropping the handle withdraws the task"]
pub struct Handle<R> {
    task: u64,
    source: Source<R>,
    inspector: Option<Inspector<R>>,
}

/// The user's callback for the output.
type Inspector<R> = Box<dyn FnOnce(&Result<R, TaskError>) + Send + Sync>;

/// Where the output comes from.
enum Source<R> {
    Pool(PoolTask<R>),
    Other(Arc<dyn TaskSource<R>>),
}

/// A task that is not of a pool of processes.
pub trait TaskSource<R>: Send + Sync {
    /// Returns the error for a forked copy of the process, which cannot run the task.
    fn forked(&self) -> Option<PoolError>;

    /// Returns whether the output is available.
    fn is_finished(&self) -> bool;

    /// Returns whether the task has started, and has no output yet.
    fn is_running(&self) -> bool {
        false
    }

    /// Waits for the output. Returns `None` if the deadline passes first.
    fn take(&self, deadline: Option<Instant>) -> Option<Result<R, Fault>>;

    /// Returns the output if it is available, and otherwise registers the waker.
    fn poll(&self, context: &mut Context<'_>) -> Poll<Result<R, Fault>>;

    /// Withdraws the task unless it has started.
    fn withdraw(&self) -> CancelOutcome;
}

/// A task of a pool of processes.
struct PoolTask<R> {
    event_loop: Arc<EventLoop>,
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
        event_loop: &Arc<EventLoop>,
        encode: impl FnOnce(&mut TaskWriter<'_>) -> Result<(), String>,
        decode: Decode<R>,
    ) -> Self {
        let mut batch = Batch::default();
        let payload = batch.push(0, encode).map(|()| match batch.front() {
            Some((_, Payload::Large(large))) => RetainedPayload::Large(large.clone()),
            Some((_, Payload::Inline(frame))) => RetainedPayload::Frame(frame.to_vec()),
            None => RetainedPayload::Frame(Vec::new()),
        });
        // Checked after the encoder has run, because that may have forked. The handles of a copy return an error later.
        let (job, index) = match event_loop.is_here() {
            true => event_loop.scheduler().submit_one(payload, decode.form),
            false => (JobKey::NONE, 0),
        };
        let source = Source::Pool(PoolTask {
            event_loop: event_loop.clone(),
            job,
            index,
            decode,
        });
        Self::new(index, source)
    }

    /// Makes the handle of a task that is not of a pool of processes.
    #[doc(hidden)]
    pub fn from_source(task: u64, source: Arc<dyn TaskSource<R>>) -> Self {
        Self::new(task, Source::Other(source))
    }

    fn new(task: u64, source: Source<R>) -> Self {
        let inspector = None;
        Self {
            task,
            source,
            inspector,
        }
    }

    /// Returns the error of a handle in a forked copy of its leader.
    fn forked(&self) -> Option<Fault> {
        match &self.source {
            Source::Pool(task) if !task.event_loop.is_here() => Some(Fault::Pool(task.event_loop.forked())),
            Source::Other(task) => task.forked().map(Fault::Pool),
            Source::Pool(_) => None,
        }
    }

    /// Returns the task's number (also in [`TaskError::task`]): its index among the tasks submitted to its pool, from 0, or
    /// the number set with [`with_task`](Self::with_task).
    pub fn task(&self) -> u64 {
        self.task
    }

    /// Replaces the task's number, for callers that count tasks themselves.
    pub fn with_task(mut self, task: u64) -> Self {
        self.task = task;
        self
    }

    /// Calls `inspector` with the output, in the thread that waits for it or awaits it.
    pub fn inspect(mut self, inspector: impl FnOnce(&Result<R, TaskError>) + Send + Sync + 'static) -> Self {
        self.inspector = Some(Box::new(inspector));
        self
    }

    /// Returns whether the task's output or error is available.
    pub fn is_finished(&self) -> bool {
        match &self.source {
            _ if self.forked().is_some() => true,
            Source::Pool(task) => task.is_finished(),
            Source::Other(task) => task.is_finished(),
        }
    }

    /// Returns whether a worker has started the task and not answered it: [`cancel`](Self::cancel) would be too late, and
    /// [`kill`](Self::kill) would kill that worker.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # proc_pool::init();
    /// let pool = proc_pool::Builder::new().workers(1).build_op(|n: u64| n * n)?;
    /// let square = pool.submit(7);
    /// println!("{}", if square.is_running() { "runs" } else { "waits, or has ended" });
    /// # Ok(()) }
    /// ```
    pub fn is_running(&self) -> bool {
        match &self.source {
            _ if self.forked().is_some() => false,
            Source::Pool(task) => task.event_loop.fresh_scheduler().is_running(task.job),
            Source::Other(task) => task.is_running(),
        }
    }

    /// Waits for the output.
    ///
    /// # Errors
    /// The error of the task.
    pub fn wait(mut self) -> Result<R, TaskError> {
        // Without a deadline, `take` always returns an output.
        let output = self.take(None).unwrap_or(Err(Fault::Cancelled));
        self.finish(output)
    }

    /// Waits for the output, for at most `timeout`.
    ///
    /// # Errors
    /// The handle itself if the timeout has passed. The task continues.
    pub fn wait_timeout(mut self, timeout: Duration) -> Result<Result<R, TaskError>, Self> {
        match self.take(Instant::now().checked_add(timeout)) {
            None => Err(self),
            Some(output) => Ok(self.finish(output)),
        }
    }

    /// Waits for the output. Returns `None` if the deadline passes first.
    fn take(&self, deadline: Option<Instant>) -> Option<Result<R, Fault>> {
        if let Some(fault) = self.forked() {
            return Some(Err(fault));
        }
        match &self.source {
            Source::Pool(task) => task.take(deadline),
            Source::Other(task) => task.take(deadline),
        }
    }

    /// Makes the public result, and calls the inspector with it.
    fn finish(&mut self, output: Result<R, Fault>) -> Result<R, TaskError> {
        let task = self.task;
        let output = output.map_err(|fault| TaskError { task, fault });
        if let Some(inspector) = self.inspector.take() {
            inspector(&output);
        }
        output
    }

    /// Cancels the task if it has not started. A task that runs continues.
    pub fn cancel(&self) -> CancelOutcome {
        self.stop(InProgress::Continue)
    }

    /// Cancels the task. If it runs, its worker is killed and replaced. No other task is lost, because the pool recalls the tasks
    /// that the worker has not started before it kills the worker. The task's error is [`Fault::Cancelled`] even if the task
    /// finishes before the kill.
    pub fn kill(&self) -> CancelOutcome {
        self.stop(InProgress::Kill)
    }

    fn stop(&self, running: InProgress) -> CancelOutcome {
        match &self.source {
            _ if self.forked().is_some() => CancelOutcome::Finished,
            Source::Pool(task) => task.stop(running),
            Source::Other(task) => task.withdraw(),
        }
    }
}

impl<R> PoolTask<R> {
    fn is_finished(&self) -> bool {
        self.event_loop.fresh_scheduler().is_done(self.job)
    }

    fn take(&self, deadline: Option<Instant>) -> Option<Result<R, Fault>> {
        let done = self
            .event_loop
            .wait(deadline, |scheduler| scheduler.take_done(self.job));
        match (done, deadline) {
            (None, Some(_)) => None,
            (done, _) => Some(self.read(done)),
        }
    }

    fn stop(&self, running: InProgress) -> CancelOutcome {
        let outcome = self
            .event_loop
            .fresh_scheduler()
            .cancel(self.job, self.index, running);
        self.event_loop.nudge();
        outcome
    }

    fn read(&self, done: Option<Completions>) -> Result<R, Fault> {
        let mut done = done.unwrap_or_default();
        let result = match done.take_next().map(|first| first.outcome) {
            Some(outcome) => self.decode.outcome(outcome, &done.bytes).0,
            // The output was taken before: this future is polled again after it was ready.
            None => Err(Box::new(Fault::Cancelled)),
        };
        result.map_err(|fault| *fault)
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Result<R, Fault>> {
        // Cloning and dropping a waker is user code, which must not run under the lock.
        let mut clone = None;
        loop {
            let mut scheduler = self.event_loop.fresh_scheduler();
            let done = scheduler.take_done(self.job);
            if done.is_some() {
                drop(scheduler);
                return Poll::Ready(self.read(done));
            }
            let noted = scheduler.jobs.note_waker(self.job, context.waker(), &mut clone);
            drop(scheduler);
            match noted {
                Noted::Yes => break,
                Noted::NeedsClone => clone = Some(context.waker().clone()),
            }
        }
        self.event_loop.request_standby();
        Poll::Pending
    }
}

impl<R> Drop for PoolTask<R> {
    fn drop(&mut self) {
        if !self.event_loop.is_here() {
            // The drop of the copied event loop would touch resources of the leader.
            std::mem::forget(self.event_loop.clone());
        }
        self.event_loop.abandon(self.job);
    }
}

impl<R> Future for Handle<R> {
    type Output = Result<R, TaskError>;

    /// Works with any runtime: a thread of the pool wakes the future.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let output = match (self.forked(), &self.source) {
            (Some(fault), _) => Poll::Ready(Err(fault)),
            (None, Source::Pool(task)) => task.poll(context),
            (None, Source::Other(task)) => task.poll(context),
        };
        output.map(|output| self.finish(output))
    }
}

impl<R> Drop for Handle<R> {
    fn drop(&mut self) {
        if let Source::Other(task) = &self.source
            && task.forked().is_none()
        {
            task.withdraw();
        }
    }
}
