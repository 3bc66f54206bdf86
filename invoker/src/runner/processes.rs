//! [`ProcessRunner`]: worker processes that share one model.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log_bridge::Filter;
use proc_pool::{EntryPoint, Native, Pool, PoolError, Stats, Workers};
use progress::Bar;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shm_buffers::Image;

use super::observer::WorkerObserver;
use super::worker::{Init, ModelWorker, SLOTS};
use crate::error::Error;
use crate::executor::Processes;
use crate::model_source::ModelSource;
use crate::op::Op;
use crate::seed::{Bare, SeedFirst, Seeded};
use crate::settings::{LEVEL_VARIABLE, Settings};

/// How long workers may take to end after they were asked to.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// Starts a second pool, of one worker, with the same op and model.
pub(super) type StartPool<P> = Box<dyn Fn() -> Result<P, PoolError> + Send + Sync>;

/// A pool of worker processes that share a model.
pub(crate) struct ProcessRunner<M, T, R> {
    /// A view of the shared model.
    pub(crate) model: M,
    pub(crate) image: Image,
    pub(crate) pool: Pool<Seeded<T>, R>,
    pub(crate) observer: Arc<WorkerObserver>,
    pub(crate) share_time: Duration,
    pub(crate) start_time: Duration,
    pub(crate) start_second: StartPool<Pool<Seeded<T>, R>>,
}

impl<M, T, R> ProcessRunner<M, T, R>
where
    T: Serialize + DeserializeOwned + 'static,
    R: Serialize + DeserializeOwned + 'static,
{
    pub(crate) fn start<F, S>(
        settings: &Settings,
        options: Processes,
        model: ModelSource<'_, S>,
        op: F,
        bar: Bar,
    ) -> Result<Self, Error>
    where
        F: Op<S, T, R, Model = M>,
        S: Serialize + DeserializeOwned + 'static,
    {
        let started = Instant::now();
        let image = model.share(&options.backing)?;
        options
            .copies
            .check(image.memory(), settings.workers.value.get())?;
        let (model, validated) = image.load_validating()?;
        let model = op.model(model);
        let share_time = started.elapsed();
        let handle = image.handle().map_err(|source| Error::Os {
            step: "share the model",
            source,
        })?;
        let observer = WorkerObserver::new(bar, options.logs.as_ref())?;
        let started = Instant::now();
        let (functions, data) = op.split();
        let init = Init {
            image: handle,
            validated,
            logs: options.logs.unwrap_or_else(Filter::current),
            panic_logs: options.panic_logs,
            data,
        };
        let seeded = settings.seed.value.is_some();
        let build = move |builder: proc_pool::Builder, init: &Init<F::Data>| match seeded {
            false => builder.build(
                EntryPoint::worker::<ModelWorker<F, S, T, R>>(functions).codecs(Bare, Native),
                init,
            ),
            true => builder.build(
                EntryPoint::worker::<ModelWorker<F, S, T, R>>(functions).codecs(SeedFirst, Native),
                init,
            ),
        };
        let level = (settings.level + 1).to_string();
        let builder = options.pool.env(LEVEL_VARIABLE, level).slots(SLOTS);
        let second = builder.clone().workers(Workers::Count(1));
        let builder = builder
            .workers(Workers::Count(settings.workers.value.get()))
            .on_interrupt(settings.on_interrupt.value)
            .observer(observer.clone());
        let pool = build(builder, &init)?;
        Ok(Self {
            model,
            image,
            pool,
            observer,
            share_time,
            start_time: started.elapsed(),
            start_second: Box::new(move || build(second.clone(), &init)),
        })
    }

    /// Ends the workers, and returns the counts of the pool.
    pub(crate) fn shut_down(self) -> (Result<Stats, PoolError>, Arc<WorkerObserver>) {
        let stats = self.pool.stats();
        let ended = match self.pool.shutdown(SHUTDOWN) {
            // The program asked for it, and still wants its report.
            Err(PoolError::Interrupted) => Ok(stats),
            ended => ended,
        };
        (ended, self.observer)
    }
}
