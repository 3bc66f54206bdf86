//! [`Processes`]: ops in worker processes, one model in shared memory for all.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log_bridge::Filter;
use proc_pool::{Pool, PoolError, Postcard, Stats, Workers};
use progress::Bar;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shm_buffers::{Backing, Image};

use crate::builder::Source;
use crate::error::Error;
use crate::op::Op;
use crate::seed::{Bare, SeedFirst, Seeded};
use crate::settings::{LEVEL_VARIABLE, Settings};
use crate::verify::Another;
use crate::watch::Watch;
use crate::worker::{Init, ModelWorker, Panics, SLOTS};

/// How long workers may take to end when they are asked to.
const END: Duration = Duration::from_secs(5);

/// What a builder was told that only processes can do.
#[derive(Debug)]
pub(crate) struct Wishes {
    /// What it was told of them.
    pub(crate) pool: proc_pool::Builder,
    pub(crate) backing: Backing,
    pub(crate) logs: Option<Filter>,
    pub(crate) panics: Panics,
}

/// A pool of worker processes that share a model.
pub(crate) struct Processes<M, T, R> {
    /// A view of the shared one.
    pub(crate) model: M,
    pub(crate) image: Image,
    pub(crate) pool: Pool<Seeded<T>, R>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) share: Duration,
    pub(crate) start: Duration,
    /// Taken by the invoker.
    pub(crate) another: Option<Another<T, R>>,
}

impl<M, T, R> Processes<M, T, R>
where
    M: Serialize + DeserializeOwned + 'static,
    T: Serialize + DeserializeOwned + 'static,
    R: Serialize + DeserializeOwned + 'static,
{
    pub(crate) fn start<F: Op<M, T, R>>(
        settings: &Settings,
        model: Source<'_, M>,
        op: F,
        wishes: Wishes,
        bar: Bar,
    ) -> Result<Self, Error> {
        let begun = Instant::now();
        let image = model.share(&wishes.backing)?;
        let model = image.load()?;
        let share = begun.elapsed();
        let handle = image.handle().map_err(|source| Error::Os {
            step: "share the model",
            source,
        })?;
        let watch = Watch::new(bar, wishes.logs.as_ref())?;
        let begun = Instant::now();
        let init = Init {
            image: handle,
            logs: wishes.logs.unwrap_or_else(Filter::wanted),
            panics: wishes.panics,
        };
        let seeded = settings.seed.value.is_some();
        let op = op.functions();
        let build = move |builder: proc_pool::Builder, init: &Init| match seeded {
            false => builder.build_with_codecs::<ModelWorker<F, M, T, R>, _, _>(op, init, Bare, Postcard),
            true => builder.build_with_codecs::<ModelWorker<F, M, T, R>, _, _>(op, init, SeedFirst, Postcard),
        };
        let level = (settings.level + 1).to_string();
        let builder = wishes.pool.env(LEVEL_VARIABLE, level).slots(SLOTS);
        let another = builder.clone().workers(Workers::Count(1));
        let builder = builder
            .workers(Workers::Count(settings.workers.value.get()))
            .on_interrupt(settings.on_interrupt.value)
            .observer(watch.clone());
        let pool = build(builder, &init);
        let another = Another::Process(Box::new(move || build(another.clone(), &init)));
        Ok(Self {
            model,
            image,
            pool: pool?,
            watch,
            share,
            start: begun.elapsed(),
            another: Some(another),
        })
    }

    /// Lets the workers end.
    pub(crate) fn end(self) -> (Result<Stats, PoolError>, Arc<Watch>) {
        let stats = self.pool.bytes().stats();
        let ended = match self.pool.shutdown(END) {
            // As asked for: there is something to tell all the same.
            Err(PoolError::Interrupted) => Ok(stats),
            ended => ended,
        };
        (ended, self.watch)
    }
}
