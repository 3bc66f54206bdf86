//! [`Runner`]: the workers of an invoker, in processes or in this process.

mod attach;
mod beside_model;
mod local;
mod observer;
mod processes;
mod worker;

use std::num::NonZeroUsize;
use std::sync::Arc;

use proc_pool::{
    Codec, Handle, History, Interrupt, Interrupter, Map, Native, OnInterrupt, TaskError, WorkerId,
};
use progress::{Bar, Total};
use run_journal::{Order, Recorder};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use local::OneShot;
use local::{LocalMap, LocalPool};
pub(crate) use observer::WorkerObserver;
pub(crate) use processes::ProcessRunner;
use processes::StartPool;

use crate::error::Error;
use crate::executor::Options;
use crate::model_source::ModelSource;
use crate::op::Op;
use crate::seed::{Seeded, Seeds};
use crate::settings::Settings;
use crate::task_context::WorkerInfo;
use crate::verify::{Verification, compare};
use worker::ModelWorker;

/// The workers of an invoker.
pub(crate) enum Runner<M, T, R> {
    Processes(ProcessRunner<M, T, R>),
    Local(LocalRunner<M, T, R>),
}

/// Threads, or the calling thread.
pub(crate) struct LocalRunner<M, T, R> {
    model: Arc<M>,
    pool: LocalPool<Seeded<T>, R>,
    /// The calling thread is one worker, and there is no second one.
    start_second: Option<StartPool<LocalPool<Seeded<T>, R>>>,
}

impl<M, T, R> Runner<M, T, R>
where
    M: Send + Sync + 'static,
    T: Serialize + DeserializeOwned + Send + 'static,
    R: Serialize + DeserializeOwned + Send + 'static,
{
    /// Starts the workers, and returns when all are ready. `bar` counts their tasks.
    pub(crate) fn start<F, S>(
        settings: &Settings,
        options: Options,
        model: ModelSource<'_, S>,
        op: F,
        bar: &Bar,
    ) -> Result<Self, Error>
    where
        F: Op<S, T, R, Model = M>,
        S: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let workers = settings.workers.value;
        let on_interrupt = settings.on_interrupt.value;
        let options = match options {
            Options::Processes(options) => {
                let started = ProcessRunner::start(settings, *options, model, op, bar.clone());
                return Ok(Self::Processes(started?));
            }
            local => local,
        };
        let model = Arc::new(op.model(model.load()?));
        let worker = |bar: Bar, workers: NonZeroUsize| {
            let (model, op) = (model.clone(), op.clone());
            move |WorkerId(index)| {
                let info = WorkerInfo::new(index as usize, workers.get(), 0);
                let (model, op, counters) = (model.clone(), op.clone(), bar.counters());
                let mut worker = ModelWorker::<F, S, T, R>::new(model, op, counters, info)?;
                Ok(move |task| worker.call(task))
            }
        };
        let start = worker(bar.clone(), workers);
        let (pool, start_second) = match options {
            Options::Threads => {
                let pool = LocalPool::threads(workers, on_interrupt, start)?;
                let one = NonZeroUsize::MIN;
                let start = worker(Bar::new("", Total::Unknown), one);
                let second = move || LocalPool::threads(one, OnInterrupt::default(), start.clone());
                (pool, Some(Box::new(second) as StartPool<_>))
            }
            _ => (LocalPool::caller(on_interrupt, start)?, None),
        };
        Ok(Self::Local(LocalRunner {
            model,
            pool,
            start_second,
        }))
    }

    /// `recorder` gets the outputs as they arrive.
    pub(crate) fn map<I: Iterator<Item = T>>(
        &self,
        tasks: Seeds<I>,
        order: Order,
        recorder: Option<Arc<Recorder>>,
    ) -> RunnerMap<'_, T, R, I> {
        let mut map = match (self, order) {
            (Self::Processes(it), Order::Ordered) => RunnerMap::Processes(it.pool.map(tasks)),
            (Self::Processes(it), Order::AsCompleted) => RunnerMap::Processes(it.pool.map_unordered(tasks)),
            (Self::Local(it), Order::Ordered) => RunnerMap::Local(it.pool.map(tasks)),
            (Self::Local(it), Order::AsCompleted) => RunnerMap::Local(it.pool.map_unordered(tasks)),
        };
        if let Some(recorder) = recorder {
            map.set_recorder(recorder);
        }
        map
    }

    pub(crate) fn submit(&self, task: Seeded<T>) -> Handle<R> {
        match self {
            Self::Processes(it) => it.pool.submit(task),
            Self::Local(it) => it.pool.submit(task),
        }
    }

    /// Runs the tasks in the workers and, again, in a second worker that it starts; compares the outputs.
    pub(crate) fn verify<I: Iterator<Item = T>>(
        &self,
        first: Seeds<I>,
        second: Seeds<I>,
    ) -> Result<Verification, Error> {
        match self {
            Self::Processes(it) => {
                let pool = (it.start_second)()?;
                Ok(compare(it.pool.map(first), pool.map(second)))
            }
            Self::Local(LocalRunner {
                pool,
                start_second: Some(start_second),
                ..
            }) => Ok(compare(pool.map(first), start_second()?.map(second))),
            Self::Local(_) => Err(Error::Unsupported {
                what: "`verify`",
                needs: "a second worker",
                remedy: "use `Executor::Threads` or `Executor::Processes`",
            }),
        }
    }

    pub(crate) fn interrupter(&self) -> Interrupter {
        match self {
            Self::Processes(it) => it.pool.interrupter(),
            Self::Local(it) => it.pool.interrupter(),
        }
    }

    pub(crate) fn interrupted(&self) -> Option<Interrupt> {
        match self {
            Self::Processes(it) => it.pool.interrupted(),
            Self::Local(it) => it.pool.interrupted(),
        }
    }

    pub(crate) fn model(&self) -> &M {
        match self {
            Self::Processes(it) => &it.model,
            Self::Local(it) => &it.model,
        }
    }

    pub(crate) fn workers(&self) -> usize {
        match self {
            Self::Processes(it) => it.pool.workers(),
            Self::Local(it) => it.pool.workers(),
        }
    }

    pub(crate) fn history(&self) -> History {
        match self {
            Self::Processes(it) => it.pool.history(),
            Self::Local(it) => it.pool.history(),
        }
    }

    pub(crate) fn processes(&self) -> Option<&ProcessRunner<M, T, R>> {
        match self {
            Self::Processes(it) => Some(it),
            Self::Local(_) => None,
        }
    }
}

impl<M, T: Send + 'static, R: Send + 'static> LocalRunner<M, T, R> {
    /// Waits for the submitted tasks and ends the workers.
    pub(crate) fn shut_down(self) {
        self.pool.shutdown();
    }
}

/// The outputs of a run.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each run, and it is moved once"
)]
pub(crate) enum RunnerMap<'a, T, R, I: Iterator<Item = T>> {
    Processes(Map<'a, Seeds<I>, R>),
    Local(LocalMap<'a, Seeded<T>, R, Seeds<I>>),
}

impl<T, R, I> RunnerMap<'_, T, R, I>
where
    T: Send + 'static,
    R: Serialize + DeserializeOwned + Send + 'static,
    I: Iterator<Item = T>,
{
    fn set_recorder(&mut self, recorder: Arc<Recorder>) {
        match self {
            Self::Processes(map) => {
                map.set_tap(Box::new(move |number, encoded| recorder.record(number, encoded)));
            }
            Self::Local(map) => {
                let mut encoded = Vec::new();
                map.set_tap(Box::new(move |number, output| {
                    encoded.clear();
                    // An output without an encoding runs again the next time.
                    if Native::encode(output, &mut encoded).is_ok() {
                        recorder.record(number, &encoded);
                    }
                }));
            }
        }
    }
}

impl<T: Send + 'static, R: Send + 'static, I: Iterator<Item = T>> RunnerMap<'_, T, R, I> {
    /// Returns the number of the task whose output was returned last.
    pub(crate) fn last_task(&self) -> u64 {
        match self {
            Self::Processes(map) => map.last_task(),
            Self::Local(map) => map.last_task(),
        }
    }

    pub(crate) fn set_max_in_flight(&mut self, tasks: usize) {
        match self {
            Self::Processes(map) => map.set_max_in_flight(tasks),
            Self::Local(map) => map.set_max_in_flight(tasks),
        }
    }
}

impl<T: Send + 'static, R: Send + 'static, I: Iterator<Item = T>> Iterator for RunnerMap<'_, T, R, I> {
    type Item = Result<R, TaskError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Processes(map) => map.next(),
            Self::Local(map) => map.next(),
        }
    }
}
