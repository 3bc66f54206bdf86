//! [`Builder`]: what an invoker is made of.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use log_bridge::Filter;
use proc_pool::Workers;
use progress::{Bar, Reporter, Total};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shm_buffers::{Backing, Image};

use crate::error::Error;
use crate::executor::{Executor, InProcess, Limits, Processes, Threads};
use crate::invoker::{Invoker, Place};
use crate::journal::Journal;
use crate::settings::{self, Choices, Settings};

/// An op that still needs its model. Made by [`Invoker::builder`](crate::Invoker::builder).
#[derive(Debug)]
#[must_use = "an op without a model does nothing"]
pub struct OpBuilder<F, M, T, R> {
    op: F,
    types: PhantomData<fn(&M, T) -> R>,
}

impl<F, M, T, R> OpBuilder<F, M, T, R> {
    pub(crate) fn new(op: F) -> Self {
        Self {
            op,
            types: PhantomData,
        }
    }

    /// The model, given away: with worker processes it is moved into shared memory, and its pages are given back
    /// to the system on the way. Serialize its big parts as [`Buffer`](shm_buffers::Buffer)s.
    pub fn model(self, model: M) -> Builder<F, M, T, R> {
        self.with(Source::Value(model))
    }

    /// The model as an image: one that was shared before ([`share`](crate::share) copies a model that you want to
    /// keep), or a file ([`Image::open`] maps it, [`Image::load_shared`] loads it, compressed or not).
    pub fn image(self, image: Image) -> Builder<F, M, T, R> {
        self.with(Source::Image(image))
    }

    fn with(self, model: Source<M>) -> Builder<F, M, T, R> {
        Builder {
            op: self.op,
            model,
            choices: Choices::default(),
            backing: Backing::Auto,
            logs: None,
            limits: Limits::default(),
            progress: None,
            types: PhantomData,
        }
    }
}

/// Where a model comes from.
pub(crate) enum Source<M> {
    Value(M),
    Image(Image),
}

impl<M: DeserializeOwned> Source<M> {
    fn load(self) -> Result<M, Error> {
        match self {
            Self::Value(model) => Ok(model),
            Self::Image(image) => Ok(image.load()?),
        }
    }
}

/// Sets an [`Invoker`](crate::Invoker) up.
#[must_use = "call `build`"]
pub struct Builder<F, M, T, R> {
    op: F,
    model: Source<M>,
    choices: Choices,
    backing: Backing,
    logs: Option<Filter>,
    limits: Limits,
    progress: Option<(String, Option<Arc<Reporter>>)>,
    types: PhantomData<fn(T) -> R>,
}

impl<F, M, T, R> std::fmt::Debug for Builder<F, M, T, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { choices, backing, .. } = self;
        f.debug_struct("Builder")
            .field("choices", choices)
            .field("backing", backing)
            .finish_non_exhaustive()
    }
}

impl<F, M, T, R> Builder<F, M, T, R>
where
    F: Fn(&M, T) -> R + Copy + Send + Sync + 'static,
    M: Serialize + DeserializeOwned + Send + Sync + 'static,
    T: Serialize + DeserializeOwned + Send + 'static,
    R: Serialize + DeserializeOwned + Send + 'static,
{
    /// Where ops run (default: as [`EXECUTOR_VARIABLE`](crate::EXECUTOR_VARIABLE) says, or
    /// [`Executor::Processes`]).
    pub fn executor(mut self, executor: Executor) -> Self {
        self.choices.executor = Some(executor);
        self
    }

    /// How many workers (default: as [`WORKERS_VARIABLE`](crate::WORKERS_VARIABLE) says, or [`Workers::All`], and one
    /// inside another invoker's op; with [`Executor::InProcess`] there is one, the caller).
    pub fn workers(mut self, workers: Workers) -> Self {
        self.choices.workers = Some(workers);
        self
    }

    /// Where the shared model is (default: [`Backing::Auto`]). For [`Executor::Processes`].
    pub fn backing(mut self, backing: Backing) -> Self {
        self.backing = backing;
        self
    }

    /// How long a task may run (default: for ever); then its worker process is killed and
    /// [`Fault::TimedOut`](crate::Fault::TimedOut) is its error. For [`Executor::Processes`].
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.limits.deadline = Some(deadline);
        self
    }

    /// How many worker processes a task may cost before that is its error (default: none): each time it is run again
    /// from the start, so that the op must not mind. For [`Executor::Processes`].
    pub fn retries(mut self, retries: u32) -> Self {
        self.limits.retries = Some(retries);
        self
    }

    /// Which log events worker processes send (default: those at levels that this process's subscriber wants when
    /// the invoker is built).
    pub fn logs(mut self, filter: Filter) -> Self {
        self.logs = Some(filter);
        self
    }

    /// Shows progress under this label: a bar where standard error is a terminal, lines elsewhere.
    pub fn progress(mut self, label: impl Into<String>) -> Self {
        self.progress = Some((label.into(), None));
        self
    }

    /// Shows progress under this label by a reporter of yours; through its
    /// [`writer`](progress::Reporter::writer) your logs and its bars go well together.
    pub fn progress_by(mut self, reporter: Arc<Reporter>, label: impl Into<String>) -> Self {
        self.progress = Some((label.into(), Some(reporter)));
        self
    }

    /// What [`build`](Self::build) would use, and why.
    ///
    /// # Errors
    /// [`Error::Environment`], and choices that don't go together.
    pub fn settings(&self) -> Result<Settings, Error> {
        settings::resolve(self.choices, &settings::environment)
    }

    /// Shares the model and starts the workers; returns when all are ready.
    ///
    /// # Errors
    /// When there is no room for the model, or workers can't start.
    pub fn build(self) -> Result<Invoker<M, T, R>, Error> {
        let settings = self.settings()?;
        let Self {
            op,
            model,
            choices: _,
            backing,
            logs,
            limits,
            progress,
            types: _,
        } = self;
        let (executor, count) = (settings.executor.value, settings.workers.value.get());
        if backing != Backing::Auto && matches!(model, Source::Image(_)) {
            let what = "a backing for a model that is shared already";
            return Err(Error::Unsupported { executor, what });
        }
        if executor != Executor::Processes {
            let asked = [
                (backing != Backing::Auto, "a shared model, with a backing"),
                (limits.deadline.is_some(), "a deadline"),
                (limits.retries.is_some(), "retries"),
            ];
            if let Some((_, what)) = asked.into_iter().find(|(asked, _)| *asked) {
                return Err(Error::Unsupported { executor, what });
            }
        }
        let (label, reporter) = match progress {
            None => (String::new(), None),
            Some((label, Some(reporter))) => (label, Some(reporter)),
            Some((label, None)) => {
                let reporter = Reporter::builder().render(settings.progress.value).start()?;
                (label, Some(Arc::new(reporter)))
            }
        };
        let bar = Bar::new(label, Total::Known(0));
        let place = match executor {
            Executor::Processes => {
                let logs = logs.unwrap_or_else(Filter::wanted);
                Place::Processes(Processes::start(
                    &settings,
                    model,
                    op,
                    &backing,
                    logs,
                    limits,
                    bar.clone(),
                )?)
            }
            Executor::Threads => Place::Threads(Threads::start(count, model.load()?, op, &bar)?),
            Executor::InProcess => Place::InProcess(InProcess::new(model.load()?, op, bar.clone())),
        };
        Ok(Invoker {
            workers: count,
            journal: Journal::new(bar, reporter),
            place,
        })
    }
}
