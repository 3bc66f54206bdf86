//! The leader of a run: takes tasks from its callers' input, and returns their outputs.

mod outputs;
mod ready;
mod receiver;
mod state;

pub use outputs::Outputs;
pub use state::{LeaderState, Limits};

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use invoker::Handle;
use invoker::facade::{OneShot, RunProgress};
use proc_pool::facade::guarded;
use proc_pool::{Fault, PoolError};
use run_journal::Order;

use crate::batcher::Draft;
use crate::value::Value;
use receiver::{Decoder, Output, Run};

/// The job of all submitted tasks.
const SUBMITTED: u32 = 0;

/// The jobs of a leader: each call of [`map`](Self::map) is one, and all [submitted](Self::submit) tasks together are one.
///
/// There is one `Jobs` for a [`LeaderState`]. Dropping it [ends](LeaderState::end) the run for the engine; submitted tasks without an output
/// have the error that the pool was shut down.
pub struct Jobs<T, R> {
    state: Arc<LeaderState>,
    progress: RunProgress,
    /// Submitted tasks without an output.
    submitted: Arc<Mutex<HashMap<u64, Arc<OneShot<R>>>>>,
    types: PhantomData<fn(T) -> R>,
}

impl<T, R> fmt::Debug for Jobs<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Jobs({:?})", self.state.manifest)
    }
}

impl<T: Value, R: Value> Jobs<T, R> {
    /// Takes the side of the callers. The progress shows the bar of the state.
    pub fn new(state: Arc<LeaderState>, progress: RunProgress) -> Self {
        let submitted = Arc::<Mutex<HashMap<u64, Arc<OneShot<R>>>>>::default();
        let tasks = submitted.clone();
        state.core().add_job(Decoder::new(move |runs: Vec<Run<R>>| {
            for (index, output) in runs.into_iter().flat_map(|run| (run.first..).zip(run.outputs)) {
                let task = lock(&tasks).remove(&index);
                if let Some(task) = task {
                    // A waker may panic, or an output that is dropped because its handle is gone.
                    let _ = guarded(|| finish(&task, output));
                }
            }
        }));
        Self {
            state,
            progress,
            submitted,
            types: PhantomData,
        }
    }

    /// Runs the op for every task and returns an iterator over the outputs, in the order of the tasks.
    ///
    /// Tasks are taken from `tasks` while few batches are open, so it may be infinite.
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
        Outputs::new(&self.state, tasks, order)
    }

    /// Sends one task and returns immediately. The [`Handle`] waits for the output or awaits it. Dropping the handle, or cancelling it,
    /// drops the output: the task may run.
    ///
    /// Each task is a batch of its own: for many tasks use [`map`](Self::map).
    pub fn submit(&self, task: T) -> Handle<R> {
        self.progress.start_run(Some(1));
        let one_shot = Arc::new(OneShot::default());
        // One after the other: the accounting numbers tasks as they come.
        let mut core = self.state.core();
        let index = core.accounting.taken(SUBMITTED);
        let (mut encoded, mut draft) = (Vec::new(), Draft::default());
        let found = |task: &[u8]| core.take_found(SUBMITTED, index, task);
        match self.state.encode(index, task, &mut encoded, found) {
            Some(output) => {
                core.accounting.skip(SUBMITTED);
                drop(core);
                finish(&one_shot, output);
            }
            None => {
                lock(&self.submitted).insert(index, one_shot.clone());
                draft.push(&mut encoded);
                core.accounting.open(SUBMITTED, draft);
                self.state.changed(core, false);
            }
        }
        Handle::from_source(index, one_shot)
    }

    /// Waits until all submitted tasks have an output, and closes the bar.
    pub fn finish(&self) {
        let mut core = self.state.core();
        while !lock(&self.submitted).is_empty() {
            core = self.state.wait(core);
        }
        drop(core);
        self.progress.close(None);
    }
}

impl<T, R> Drop for Jobs<T, R> {
    fn drop(&mut self) {
        self.state.end();
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
