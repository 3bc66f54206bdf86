//! The leader of a run: takes tasks from its input, and returns their outputs.

mod actor;
mod builder;
mod outputs;
mod shared;

pub use builder::LeaderBuilder;
pub(crate) use builder::random;
pub use outputs::Outputs;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use invoker::facade::{OneShot, RunProgress};
use invoker::{Handle, TaskError};
use proc_pool::{Fault, PoolError};
use run_journal::Order;

use crate::batcher::Draft;
use crate::error::Error;
use crate::hidden_thread::HiddenThread;
use crate::link::Link;
use crate::report::ClusterReport;
use crate::value::Value;
use shared::{Output, Shared};

/// The job of all submitted tasks.
const SUBMITTED: u32 = 0;
/// The most bytes of a message with tasks besides these.
const HEADER: usize = 64;

/// The leader of a run on several machines. Made by [`Cluster::lead`](crate::Cluster::lead).
///
/// Its methods are those of an [`Invoker`](invoker::Invoker). Dropping it ends the run, unless it is
/// [resumable](LeaderBuilder::resumable): then nodes wait for the next leader.
pub struct Leader<T, R> {
    shared: Arc<Shared>,
    link: Link,
    thread: HiddenThread,
    progress: RunProgress,
    /// Submitted tasks without an output.
    submitted: Arc<Mutex<HashMap<u64, Arc<OneShot<R>>>>>,
    started: Instant,
    finished: bool,
    types: std::marker::PhantomData<fn(T) -> R>,
}

impl<T, R> std::fmt::Debug for Leader<T, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Leader({:?})", self.shared.manifest)
    }
}

impl<T: Value, R: Value> Leader<T, R> {
    fn new(shared: Arc<Shared>, link: Link, thread: HiddenThread, progress: RunProgress) -> Self {
        let submitted = Arc::<Mutex<HashMap<u64, Arc<OneShot<R>>>>>::default();
        let tasks = submitted.clone();
        shared.core().add_job(shared::deliver(move |index, output, _| {
            let task = lock(&tasks).remove(&index);
            if let Some(task) = task {
                finish(&task, output);
            }
        }));
        Self {
            shared,
            link,
            thread,
            progress,
            submitted,
            started: Instant::now(),
            finished: false,
            types: std::marker::PhantomData,
        }
    }

    /// Runs the op for every task and returns an iterator over the outputs, in the order of the tasks.
    ///
    /// Tasks are taken from `tasks` while few batches are open, three for each node and two, so it may be infinite.
    pub fn map<I: IntoIterator<Item = T>>(&self, tasks: I) -> Outputs<'_, T, R, I::IntoIter> {
        self.run(tasks.into_iter(), Order::Ordered)
    }

    /// Like [`map`](Self::map), with outputs in the order of their completion.
    pub fn map_unordered<I: IntoIterator<Item = T>>(&self, tasks: I) -> Outputs<'_, T, R, I::IntoIter> {
        self.run(tasks.into_iter(), Order::AsCompleted)
    }

    fn run<I: Iterator<Item = T>>(&self, tasks: I, order: Order) -> Outputs<'_, T, R, I> {
        let (low, high) = tasks.size_hint();
        self.progress.start_run(high.filter(|high| *high == low));
        Outputs::new(self, tasks, order)
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
        self.progress.start_run(Some(1));
        let one_shot = Arc::new(OneShot::default());
        // One after the other: the accounting numbers tasks as they come.
        let mut core = self.shared.core();
        let index = core.accounting.taken(SUBMITTED);
        let (mut encoded, mut draft) = (Vec::new(), Draft::default());
        let found = |task: &[u8]| core.take_found(SUBMITTED, index, task);
        match self.shared.encode(index, task, &mut encoded, found) {
            Some(output) => {
                core.accounting.skip(SUBMITTED);
                drop(core);
                finish(&one_shot, output);
            }
            None => {
                lock(&self.submitted).insert(index, one_shot.clone());
                draft.push(&mut encoded);
                core.accounting.open(SUBMITTED, draft);
                self.shared.changed(core);
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
        while core.accounting.is_open(SUBMITTED) {
            core = self.shared.wait(core);
        }
        drop(core);
        self.end();
        self.progress.close(None);
        let mut report = self.shared.core().accounting.report.clone();
        report.elapsed = self.started.elapsed();
        Ok(report)
    }
}

impl<T, R> Leader<T, R> {
    /// Returns the number of nodes that are present.
    pub fn nodes(&self) -> usize {
        self.shared.core().accounting.present_nodes()
    }

    fn end(&mut self) {
        self.finished = true;
        self.thread.wait(actor::end(&self.link, &self.shared));
    }
}

impl<T, R> Drop for Leader<T, R> {
    /// Ends the run, unless it can be resumed. Submitted tasks without an output have the error that the pool was shut down.
    fn drop(&mut self) {
        if !self.finished && !self.shared.manifest.resumable {
            self.end();
        }
        self.shared.core().ended = true;
        for (_, task) in lock(&self.submitted).drain() {
            finish(&task, Err(Box::new(Fault::Pool(PoolError::ShutDown))));
        }
    }
}

fn lock<V>(mutex: &Mutex<V>) -> MutexGuard<'_, V> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the wait for an output, unless it was cancelled.
fn finish<R>(task: &OneShot<R>, output: Output<R>) {
    if task.begin() {
        task.finish(output.map_err(|fault| *fault));
    }
}
