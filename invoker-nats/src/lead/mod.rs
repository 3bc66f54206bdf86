//! The leader of a run: takes tasks from its input, and returns their outputs.

mod actor;
mod builder;

pub use builder::LeaderBuilder;
pub(crate) use builder::random;

use std::fmt;
use std::sync::Arc;

use cluster_run::{ClusterReport, Jobs, LeaderState, Outputs, Value};
use invoker::{Handle, TaskError};

use crate::error::Error;
use crate::hidden_thread::HiddenThread;
use crate::link::Link;

/// The leader of a run on several machines. Made by [`Cluster::lead`](crate::Cluster::lead).
///
/// Its methods are those of an [`Invoker`](invoker::Invoker). Dropping it ends the run, unless it is
/// [resumable](LeaderBuilder::resumable): then nodes wait for the next leader.
pub struct Leader<T, R> {
    jobs: Jobs<T, R>,
    state: Arc<LeaderState>,
    link: Link,
    thread: HiddenThread,
    finished: bool,
}

impl<T, R> fmt::Debug for Leader<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Leader({:?})", self.state.manifest())
    }
}

impl<T: Value, R: Value> Leader<T, R> {
    /// Runs the op for every task and returns an iterator over the outputs, in the order of the tasks.
    ///
    /// Tasks are taken from `tasks` while few batches are open, so it may be infinite.
    pub fn map<I: IntoIterator<Item = T>>(&self, tasks: I) -> Outputs<'_, T, R, I::IntoIter> {
        self.jobs.map(tasks)
    }

    /// Like [`map`](Self::map), with outputs in the order of their completion.
    pub fn map_unordered<I: IntoIterator<Item = T>>(&self, tasks: I) -> Outputs<'_, T, R, I::IntoIter> {
        self.jobs.map_unordered(tasks)
    }

    /// Runs the op for every task, and calls `use_output` on this thread with every output, in the order of completion.
    pub fn for_each<I: IntoIterator<Item = T>>(
        &self,
        tasks: I,
        use_output: impl FnMut(Result<R, TaskError>),
    ) {
        self.map_unordered(tasks).for_each(use_output);
    }

    /// Sends one task and returns immediately. The [`Handle`] waits for the output or awaits it. Dropping the handle, or cancelling it,
    /// drops the output: the task may run.
    ///
    /// Each task is a batch of its own: for many tasks use [`map`](Self::map).
    pub fn submit(&self, task: T) -> Handle<R> {
        self.jobs.submit(task)
    }

    /// Ends the run: nodes leave, its streams are deleted. Waits for submitted tasks, and returns the report, with a row for each node.
    ///
    /// # Errors
    /// None yet: a server that is away now keeps the streams of the run, which its next leader deletes.
    pub fn finish(mut self) -> Result<ClusterReport, Error> {
        self.jobs.finish();
        self.end();
        Ok(self.state.report())
    }
}

impl<T, R> Leader<T, R> {
    /// Returns the number of nodes that are present.
    pub fn nodes(&self) -> usize {
        self.state.nodes()
    }

    fn end(&mut self) {
        self.finished = true;
        self.thread.wait(actor::end(&self.link, &self.state));
    }
}

impl<T, R> Drop for Leader<T, R> {
    /// Ends the run, unless it can be resumed. Submitted tasks without an output have the error that the pool was shut down.
    fn drop(&mut self) {
        if !self.finished && !self.state.manifest().resumable {
            self.end();
        }
    }
}
