//! The leader of a run: takes tasks from its input, and returns their outputs.

mod actor;
mod builder;
mod job;
mod outputs;
mod shared;

pub use builder::LeaderBuilder;
pub(crate) use builder::random;
pub use outputs::Outputs;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use invoker::facade::OneShot;
use invoker::{Handle, Reporter, TaskError};
use proc_pool::{Fault, PoolError};
use progress::Total;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::batcher::Draft;
use crate::error::Error;
use crate::hidden_thread::HiddenThread;
use crate::link::Link;
use crate::report::ClusterReport;
use job::Job;
use shared::Shared;

/// The leader of a run on several machines. Made by [`Cluster::lead`](crate::Cluster::lead).
///
/// Its methods are those of an [`Invoker`](invoker::Invoker). Dropping it ends the run, unless it is
/// [resumable](LeaderBuilder::resumable): then nodes wait for the next leader.
pub struct Leader<T, R> {
    shared: Arc<Shared>,
    link: Link,
    thread: HiddenThread,
    reporter: Option<Reporter>,
    /// The job of all submitted tasks.
    single: Arc<Job<R>>,
    single_job: u32,
    /// The number of tasks of all runs.
    total: Mutex<Total>,
    window: Option<usize>,
    started: Instant,
    finished: bool,
    types: std::marker::PhantomData<fn(T) -> R>,
}

impl<T, R> std::fmt::Debug for Leader<T, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leader")
            .field("manifest", &self.shared.manifest)
            .finish_non_exhaustive()
    }
}

impl<T, R> Leader<T, R>
where
    T: Serialize + DeserializeOwned + Send + 'static,
    R: Serialize + DeserializeOwned + Send + 'static,
{
    fn new(
        shared: Arc<Shared>,
        link: Link,
        thread: HiddenThread,
        reporter: Option<Reporter>,
        window: Option<usize>,
    ) -> Self {
        let single = Job::new(job::Outputs::Single(HashMap::new()));
        let single_job = shared.core().add_job(single.clone());
        Self {
            shared,
            link,
            thread,
            reporter,
            single,
            single_job,
            total: Mutex::new(Total::Known(0)),
            window,
            started: Instant::now(),
            finished: false,
            types: std::marker::PhantomData,
        }
    }

    /// Runs the op for every task and returns an iterator over the outputs, in the order of the tasks.
    ///
    /// Tasks are taken from `tasks` while few batches are [open](LeaderBuilder::window), so it may be infinite.
    pub fn map<I: IntoIterator<Item = T>>(&self, tasks: I) -> Outputs<'_, T, R, I::IntoIter> {
        let (next, waiting) = (0, Default::default());
        self.run(tasks.into_iter(), job::Outputs::Ordered { next, waiting })
    }

    /// Like [`map`](Self::map), with outputs in the order of their completion.
    pub fn map_unordered<I: IntoIterator<Item = T>>(&self, tasks: I) -> Outputs<'_, T, R, I::IntoIter> {
        self.run(tasks.into_iter(), job::Outputs::AsCompleted(Default::default()))
    }

    fn run<I: Iterator<Item = T>>(&self, tasks: I, outputs: job::Outputs<R>) -> Outputs<'_, T, R, I> {
        let total = match tasks.size_hint() {
            (low, Some(high)) if low == high => Total::Known(high as u64),
            _ => Total::Unknown,
        };
        self.show(total);
        let job = Job::new(outputs);
        let number = self.shared.core().add_job(job.clone());
        Outputs::new(self, tasks, number, job)
    }

    /// Adds tasks to the bar; their number is unknown as soon as one run's is.
    fn show(&self, tasks: Total) {
        let mut total = self.total.lock().unwrap_or_else(PoisonError::into_inner);
        *total = match (*total, tasks) {
            (Total::Known(before), Total::Known(tasks)) => Total::Known(before.saturating_add(tasks)),
            _ => Total::Unknown,
        };
        self.shared.bar.set_total(*total);
        drop(total);
        if let Some(reporter) = &self.reporter {
            reporter.add(&self.shared.bar);
        }
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
        self.show(Total::Known(1));
        let one_shot = Arc::new(OneShot::default());
        // One after the other: the accounting numbers tasks as they come.
        let (mut core, job) = (self.shared.core(), self.single_job);
        let index = core.accounting.taken(job);
        let mut draft = Draft::default();
        let found = |task: &[u8]| core.take_found(job, index, task);
        match self.shared.add(&mut draft, index, task, found) {
            Some(output) => {
                core.accounting.skip(job);
                drop(core);
                job::finish(&one_shot, output);
            }
            None => {
                self.single.expect(index, one_shot.clone());
                self.shared.open(core, job, draft);
            }
        }
        Handle::from_source(index, one_shot)
    }

    /// Ends the run: nodes leave, its streams are deleted. Waits for submitted tasks, and returns the report, with a row for each node.
    ///
    /// # Errors
    /// None yet: a server that is away now keeps the streams of the run, which its next leader deletes.
    pub fn finish(mut self) -> Result<ClusterReport, Error> {
        let mut core = self.shared.core();
        while core.accounting.is_open(self.single_job) {
            core = self.shared.wait(core);
        }
        drop(core);
        self.end();
        self.shared.bar.finish();
        drop(self.reporter.take());
        Ok(ClusterReport::new(
            &self.shared.core().accounting,
            self.started.elapsed(),
        ))
    }
}

impl<T, R> Leader<T, R> {
    /// Returns the number of nodes that are present.
    pub fn nodes(&self) -> usize {
        self.shared.core().accounting.present_nodes()
    }

    /// The number of ranges of tasks that may be open.
    fn window(&self) -> usize {
        let per_node = || 3 * self.shared.nodes() + 2;
        self.window.unwrap_or_else(per_node)
    }

    fn end(&mut self) {
        self.finished = true;
        let (link, shared) = (self.link.clone(), self.shared.clone());
        self.thread.run(async move { actor::end(&link, &shared).await });
    }
}

impl<T, R> Drop for Leader<T, R> {
    /// Ends the run, unless it can be resumed. Submitted tasks without an output have the error that the pool was shut down.
    fn drop(&mut self) {
        if !self.finished && !self.shared.resumable {
            self.end();
        }
        self.shared.core().ended = true;
        self.single.end(&Fault::Pool(PoolError::ShutDown));
    }
}
