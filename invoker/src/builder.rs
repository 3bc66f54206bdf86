//! [`Builder`]: what an invoker is made of.

use std::ffi::OsString;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log_bridge::Filter;
use proc_pool::{LocalPool, OnInterrupt, Redirect, Snapshot, Threads, Timing, Workers};
use progress::{Bar, Render, Reporter, Total};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shm_buffers::{Backing, Image};

use crate::error::Error;
use crate::executor::Executor;
use crate::invoker::{Invoker, Place};
use crate::journal::Journal;
use crate::op::Op;
use crate::processes::{Processes, Wishes};
use crate::report::Since;
use crate::settings::{self, Choices, Settings};
use crate::verify::Another;
use crate::worker::{ModelWorker, Panics};

/// An op that still needs its model. Made by [`Invoker::builder`](crate::Invoker::builder).
#[derive(Debug)]
#[must_use = "an op without a model does nothing"]
pub struct OpBuilder<F, M, T, R> {
    op: F,
    types: PhantomData<fn(&M, T) -> R>,
}

impl<F, M, T, R> OpBuilder<F, M, T, R> {
    pub(crate) fn new(op: F) -> Self {
        let types = PhantomData;
        Self { op, types }
    }

    /// The model, given away: with worker processes it is moved into shared memory, and its pages are given back
    /// to the system on the way. Serialize its big parts as [`Buffer`](shm_buffers::Buffer)s.
    pub fn model(self, model: M) -> Builder<'static, F, M, T, R> {
        self.with(Source::Value(model))
    }

    /// The model, which stays yours: a copy is made of it when the invoker is built. It takes the room of two models,
    /// unless its buffers were built in shared memory.
    ///
    /// ```
    /// use invoker::{Executor, Invoker};
    ///
    /// let scale = 2.0;
    /// let builder = Invoker::builder(|scale: &f64, n: u32| scale * f64::from(n)).model_ref(&scale);
    /// let invoker = builder.executor(Executor::InProcess).build()?;
    /// assert_eq!(invoker.map([3]).next().expect("one task, one output")?, 3.0 * scale);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn model_ref(self, model: &M) -> Builder<'_, F, M, T, R> {
        self.with(Source::Reference(model))
    }

    /// The model as an image: one that was shared before ([`share`](crate::share)), or a file: [`Image::load_shared`] loads it,
    /// compressed or not, and the `unsafe` [`Image::open`] maps it.
    pub fn image(self, image: Image) -> Builder<'static, F, M, T, R> {
        self.with(Source::Image(image))
    }

    fn with(self, model: Source<'_, M>) -> Builder<'_, F, M, T, R> {
        Builder {
            op: self.op,
            model,
            choices: Choices::default(),
            wishes: Wishes {
                pool: proc_pool::Builder::new(),
                backing: Backing::Auto,
                logs: None,
                panics: Panics::Silent,
            },
            progress: None,
            trace: None,
            types: PhantomData,
        }
    }
}

/// Where a model comes from.
pub(crate) enum Source<'m, M> {
    Value(M),
    Reference(&'m M),
    Image(Image),
}

impl<M: Serialize + DeserializeOwned> Source<'_, M> {
    pub(crate) fn share(self, backing: &Backing) -> Result<Image, Error> {
        Ok(match self {
            Self::Value(model) => shm_buffers::share_move(model, backing)?,
            Self::Reference(model) => shm_buffers::share(model, backing)?,
            Self::Image(image) => image,
        })
    }

    fn load(self) -> Result<M, Error> {
        match self {
            Self::Value(model) => Ok(model),
            shared => Ok(shared.share(&Backing::Auto)?.load()?),
        }
    }
}

/// Sets an [`Invoker`](crate::Invoker) up.
///
/// What says "for processes" is refused by [`build`](Self::build) and [`settings`](Self::settings) with another executor
/// than [`Executor::Processes`], with [`Error::Unsupported`].
#[must_use = "call `build`"]
pub struct Builder<'m, F, M, T, R> {
    op: F,
    model: Source<'m, M>,
    choices: Choices,
    wishes: Wishes,
    progress: Option<(String, Option<Arc<Reporter>>)>,
    trace: Option<PathBuf>,
    types: PhantomData<fn(T) -> R>,
}

impl<F, M, T, R> Debug for Builder<'_, F, M, T, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { choices, wishes, .. } = self;
        f.debug_struct("Builder")
            .field("choices", choices)
            .field("wishes", wishes)
            .finish_non_exhaustive()
    }
}

impl<F, M, T, R> Builder<'_, F, M, T, R>
where
    F: Op<M, T, R>,
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

    /// Gives each task a seed, which its op finds by [`task_seed`](crate::task_seed) (default: there are none).
    pub fn seed(mut self, root: u64) -> Self {
        self.choices.seed = Some(root);
        self
    }

    /// What Ctrl-C and SIGTERM do while the invoker exists (default: [`OnInterrupt::Ignore`]: they end the program, and
    /// with it the workers). Otherwise runs end early, and the program goes on: to its end and its report, which says so;
    /// the bar is cleared.
    pub fn on_interrupt(mut self, reaction: OnInterrupt) -> Self {
        self.choices.on_interrupt = Some(reaction);
        self
    }

    /// Shows progress under this label: a bar where standard error is a terminal, lines elsewhere, and nothing within an op of
    /// another invoker, whose leader draws.
    ///
    /// While a panic of any thread is reported, the bar is taken off the terminal
    /// ([`guard_panics`](progress::Reporter::guard_panics)); other writers ask a reporter of yours for the screen
    /// ([`progress_by`](Self::progress_by), [`suspend`](progress::Reporter::suspend)).
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

    /// Where the shared model is (default: [`Backing::Auto`]). For processes, and for a model that is not an image.
    pub fn backing(mut self, backing: Backing) -> Self {
        self.note("backing", format!("{backing:?}"));
        self.wishes.backing = backing;
        self
    }

    /// How long a task may run (default: for ever); then its worker process is killed and
    /// [`Fault::TimedOut`](crate::Fault) is its error. For processes.
    pub fn deadline(self, deadline: Duration) -> Self {
        self.tell("deadline", deadline, |pool| pool.deadline(deadline))
    }

    /// How many worker processes a task may cost before that is its error (default: none): each time it is run again
    /// from the start, so that the op must not mind. For processes.
    pub fn retries(self, retries: u32) -> Self {
        self.tell("retries", retries, |pool| pool.retries(retries))
    }

    /// How long a worker process may take to get ready (default: 60 s). For processes.
    pub fn start_timeout(self, timeout: Duration) -> Self {
        self.tell("start_timeout", timeout, |pool| pool.start_timeout(timeout))
    }

    /// Replaces each worker process when it has run so many tasks (default: never), against what ops leave behind; the
    /// first ones after fewer, so that not all are replaced at once. For processes.
    pub fn recycle_after(self, tasks: u64) -> Self {
        self.tell("recycle_after", tasks, |pool| pool.recycle_after(tasks))
    }

    /// Replaces each worker process that has more than so many bytes of its own, once it has done the tasks that it
    /// has (default: never). The shared model does not count. For processes, on Linux.
    pub fn recycle_above(self, bytes: u64) -> Self {
        self.tell("recycle_above", bytes, |pool| pool.recycle_above(bytes))
    }

    /// Kills each worker process that has more than so many bytes of its own (default: none is killed): the error of
    /// its task. The shared model does not count. For processes, on Linux.
    pub fn memory_limit(self, bytes: u64) -> Self {
        self.tell("memory_limit", bytes, |pool| pool.memory_limit(bytes))
    }

    /// How many threads the numeric libraries in each worker process may use (default: [`Threads::Share`]). For
    /// processes.
    pub fn threads(self, threads: Threads) -> Self {
        self.threads_by_level([threads])
    }

    /// As [`threads`](Self::threads), also for invokers within ops: the first for the workers, the second for their
    /// workers, and so on; [`Threads::Share`] after the last. For processes.
    pub fn threads_by_level(self, levels: impl IntoIterator<Item = Threads>) -> Self {
        let levels: Vec<Threads> = levels.into_iter().collect();
        self.tell("threads", levels.clone(), |pool| pool.threads_by_level(levels))
    }

    /// Sets an environment variable of the worker processes, which otherwise have this process's. For processes.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        let name = name.into();
        // Not its value: that may be a secret.
        self.note("env", format!("{}=…", name.display()));
        self.pool(|pool| pool.env(name, value))
    }

    /// Keeps an environment variable of this process from the worker processes. For processes.
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Self {
        let name = name.into();
        self.note("env", format!("no {}", name.display()));
        self.pool(|pool| pool.env_remove(name))
    }

    /// Keeps all of this process's environment variables from the worker processes, and forgets what
    /// [`env`](Self::env) has set up to now. For processes.
    pub fn env_clear(mut self) -> Self {
        self.choices.processes.retain(|it| it.0 != "env");
        self.note("env", "cleared".to_owned());
        self.pool(proc_pool::Builder::env_clear)
    }

    /// The directory that worker processes are started in (default: this process's). For processes.
    pub fn current_dir(self, directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        self.tell("current_dir", directory.clone(), |pool| {
            pool.current_dir(directory)
        })
    }

    /// Where worker processes' standard output goes (default: [`Redirect::Inherit`]). Captured, each line is a log event
    /// of this process, with target `stdout` at INFO, below the worker's span; and the last ones are in the error of a
    /// task that costs its worker. For processes.
    pub fn stdout(self, redirect: Redirect) -> Self {
        self.tell("stdout", redirect, |pool| pool.stdout(redirect))
    }

    /// As [`stdout`](Self::stdout), for standard error; its events have target `stderr` at WARN. For processes.
    pub fn stderr(self, redirect: Redirect) -> Self {
        self.tell("stderr", redirect, |pool| pool.stderr(redirect))
    }

    /// Which log events worker processes send (default: those at levels that this process's subscribers want, also when one
    /// is set after the invoker is built, or reloaded; INFO as long as there is none). For processes.
    ///
    /// Subscribers report their maximum level only. A leader whose `EnvFilter` has directives can save the workers the
    /// events that these refuse:
    ///
    /// ```
    /// use invoker::{Filter, Invoker};
    ///
    /// let directives = std::env::var("RUST_LOG").unwrap_or_default();
    /// let builder = Invoker::builder(|_: &(), n: u32| n).model(()).logs(Filter::covering(&directives));
    /// ```
    pub fn logs(mut self, filter: Filter) -> Self {
        self.note("logs", filter.to_string());
        self.wishes.logs = Some(filter);
        self
    }

    /// Logs every panic in worker processes, also of other threads than the op's, at ERROR with target `panic`
    /// (default: what an op panics with is its task's error only). For processes.
    pub fn log_panics(mut self) -> Self {
        self.note("log_panics", "yes".to_owned());
        self.wishes.panics = Panics::Logged;
        self
    }

    /// Calls `dump` with what the workers are doing when this process is asked: by SIGUSR1, on Windows by Ctrl-Break
    /// (default: nobody listens). For processes.
    pub fn on_dump(mut self, dump: impl Fn(&Snapshot) + Send + Sync + 'static) -> Self {
        self.note("on_dump", "yes".to_owned());
        self.pool(|pool| pool.on_dump(dump))
    }

    /// Asks a worker process for its stack before it is killed at its [`deadline`](Self::deadline): it is in the task's
    /// error (default: it isn't asked). For processes, on Linux.
    #[cfg(feature = "stacks")]
    pub fn stack_on_deadline(mut self) -> Self {
        self.note("stack_on_deadline", "yes".to_owned());
        self.pool(proc_pool::Builder::stack_on_deadline)
    }

    /// Notes what was said of what only processes have.
    fn note(&mut self, setting: &'static str, value: String) {
        if setting != "env" {
            self.choices.processes.retain(|it| it.0 != setting);
        }
        self.choices.processes.push((setting, value));
    }

    fn pool(mut self, tell: impl FnOnce(proc_pool::Builder) -> proc_pool::Builder) -> Self {
        self.wishes.pool = tell(self.wishes.pool);
        self
    }

    fn tell(
        mut self,
        setting: &'static str,
        value: impl Debug,
        tell: impl FnOnce(proc_pool::Builder) -> proc_pool::Builder,
    ) -> Self {
        self.note(setting, format!("{value:?}"));
        self.pool(tell)
    }

    /// Writes the run's timeline to this file when the invoker is [finished](Invoker::finish), with samples of each worker
    /// process's tasks: see [`Report::write_trace`](crate::Report::write_trace), which refuses to replace anything but a regular
    /// file.
    pub fn trace(mut self, path: impl Into<PathBuf>) -> Self {
        self.trace = Some(path.into());
        self.pool(|pool| pool.timing(Timing::Samples))
    }

    /// How much worker processes measure for the report (default: [`Timing::Totals`], whose cost `cargo xtask bench
    /// invoker` measures: on the main job it is less than the noise). Without it, there are no latencies and no times of
    /// workers. For processes.
    pub fn timing(self, timing: Timing) -> Self {
        self.tell("timing", timing, |pool| pool.timing(timing))
    }

    /// What [`build`](Self::build) would use, and why.
    ///
    /// # Errors
    /// [`Error::Environment`], and choices that don't go together.
    pub fn settings(&self) -> Result<Settings, Error> {
        let settings = settings::resolve(&self.choices, &settings::environment)?;
        let told = |name| self.choices.processes.iter().any(|it| it.0 == name);
        if told("backing") && matches!(self.model, Source::Image(_)) {
            return Err(Error::Unsupported {
                executor: settings.executor.value,
                what: "a backing for a model that is shared already",
            });
        }
        Ok(settings)
    }

    /// Shares the model and starts the workers; returns when all are ready.
    ///
    /// # Errors
    /// When there is no room for the model, workers can't start, or the path of a [`trace`](Self::trace) leads to anything but a
    /// regular file.
    pub fn build(self) -> Result<Invoker<M, T, R>, Error> {
        let begun = Instant::now();
        let settings = self.settings()?;
        let Self {
            op,
            model,
            wishes,
            progress,
            trace,
            ..
        } = self;
        // Now, not after hours of work.
        if let Some(path) = &trace {
            shm_buffers::check_replaceable(path).map_err(|error| Error::Os {
                step: "write the trace",
                source: error.into(),
            })?;
        }
        let (label, reporter) = match progress {
            None => (String::new(), None),
            Some((label, Some(reporter))) => (label, Some(reporter)),
            Some((label, None)) => (label, own_reporter(settings.progress.value)?),
        };
        let bar = Bar::new(label, Total::Known(0));
        let another;
        let place = match settings.executor.value {
            Executor::Processes => {
                let mut processes = Processes::start(&settings, model, op, wishes, bar.clone())?;
                another = processes.another.take();
                Place::Processes(processes)
            }
            executor => {
                let model = Arc::new(model.load()?);
                let worker = |bar: Bar| {
                    let model = model.clone();
                    move |_| {
                        let mut worker = ModelWorker::new(model.clone(), op, bar.counters())?;
                        Ok(move |task| worker.call(task))
                    }
                };
                let start = worker(bar.clone());
                let other = worker(Bar::new("", Total::Unknown));
                let reaction = settings.on_interrupt.value;
                let pool = match executor {
                    Executor::Threads => {
                        let workers = Workers::Count(settings.workers.value.get());
                        let one = Workers::Count(1);
                        let start_other = move || LocalPool::threads(one, OnInterrupt::Ignore, other.clone());
                        another = Some(Another::Thread(Box::new(start_other)));
                        LocalPool::threads(workers, reaction, start)?
                    }
                    _ => {
                        another = None;
                        LocalPool::caller(reaction, start)?
                    }
                };
                Place::Local { model, pool }
            }
        };
        let journal = Arc::new(Journal::new(bar, reporter));
        let since = Since {
            begun,
            chronicle: place.chronicle(),
            trace,
        };
        Ok(Invoker::new(settings, journal, place, since, another))
    }
}

/// The reporter of an invoker that was given none.
fn own_reporter(render: Render) -> Result<Option<Arc<Reporter>>, Error> {
    // An op that runs in the leader has its terminal, but not its task.
    if crate::step::in_op() {
        return Ok(None);
    }
    let reporter = Reporter::builder().render(render).start()?;
    reporter.guard_panics();
    Ok(Some(Arc::new(reporter)))
}
