//! [`Processes`]: ops in worker processes, one model in shared memory for all.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log_bridge::Filter;
use proc_pool::{Pool, PoolError, Stats, Workers};
use progress::Bar;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shm_buffers::{Backing, Image};

use crate::builder::Source;
use crate::error::Error;
use crate::settings::{LEVEL_VARIABLE, Settings};
use crate::watch::Watch;
use crate::worker::{Init, ModelWorker, SLOTS};

/// How long workers may take to end when they are asked to.
const END: Duration = Duration::from_secs(5);

/// What only processes can do to tasks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    pub(crate) deadline: Option<Duration>,
    pub(crate) retries: Option<u32>,
}

/// A pool of worker processes that share a model.
pub(crate) struct Processes<M, T, R> {
    /// A view of the shared one.
    pub(crate) model: M,
    pub(crate) image: Image,
    pub(crate) pool: Pool<T, R>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) share: Duration,
    pub(crate) start: Duration,
}

/// What is left when the processes have ended.
pub(crate) struct Ended {
    pub(crate) stats: Result<Stats, PoolError>,
    pub(crate) watch: Arc<Watch>,
}

impl<M, T, R> Processes<M, T, R>
where
    M: Serialize + DeserializeOwned + 'static,
    T: Serialize + DeserializeOwned + 'static,
    R: Serialize + DeserializeOwned + 'static,
{
    pub(crate) fn start<F>(
        settings: &Settings,
        model: Source<M>,
        op: F,
        backing: &Backing,
        logs: Filter,
        limits: Limits,
        bar: Bar,
    ) -> Result<Self, Error>
    where
        F: Fn(&M, T) -> R + Copy + 'static,
    {
        let begun = Instant::now();
        let image = match model {
            Source::Value(model) => shm_buffers::share_move(model, backing)?,
            Source::Image(image) => image,
        };
        let model = image.load()?;
        let share = begun.elapsed();
        let handle = image.handle().map_err(|source| Error::Os {
            step: "share the model",
            source,
        })?;
        let watch = Watch::new(bar)?;
        let begun = Instant::now();
        let mut builder = proc_pool::Builder::new()
            .workers(Workers::Count(settings.workers.value.get()))
            .env(LEVEL_VARIABLE, (settings.level + 1).to_string())
            .slots(SLOTS)
            .observer(watch.clone());
        if let Some(deadline) = limits.deadline {
            builder = builder.deadline(deadline);
        }
        builder = builder.retries(limits.retries.unwrap_or(0));
        let pool = builder.build::<ModelWorker<F, M, T, R>>(op, &Init { image: handle, logs })?;
        Ok(Self {
            model,
            image,
            pool,
            watch,
            share,
            start: begun.elapsed(),
        })
    }

    /// Lets the workers end.
    pub(crate) fn end(self) -> Ended {
        Ended {
            stats: self.pool.shutdown(END),
            watch: self.watch,
        }
    }
}
