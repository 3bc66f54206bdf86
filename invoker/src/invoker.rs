//! [`Invoker`]: an op on a model, for many tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use log_bridge::Filter;
use proc_pool::{
    BoxError, Chronicle, Handle, Interrupt, Interrupter, LocalPool, Snapshot, TaskError, WorkerId, Workers,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::builder::OpBuilder;
use crate::error::Error;
use crate::journal::Journal;
use crate::op::{PlainOp, WithState};
use crate::outputs::{Order, Outputs, Run};
use crate::processes::Processes;
use crate::report::Since;
use crate::seed::{Seeded, Seeds};
use crate::settings::Settings;
use crate::verify::Another;

/// Runs an op on one model for any number of tasks: `op(&model, task)`.
///
/// ```no_run
/// use invoker::{Buffer, Invoker};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Scores(Buffer<f64>);
///
/// fn score(model: &Scores, item: u32) -> f64 {
///     model.0[item as usize]
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     invoker::init(); // the first line of main
///     let model = Scores(vec![0.5; 1_000_000].into());
///     let invoker = Invoker::builder(score).model(model).build()?;
///     for score in invoker.map(0..1000) {
///         println!("{}", score?);
///     }
///     println!("{}", invoker.finish()?);
///     Ok(())
/// }
/// ```
pub struct Invoker<M, T, R> {
    pub(crate) settings: Settings,
    pub(crate) journal: Arc<Journal>,
    pub(crate) place: Place<M, T, R>,
    /// Tasks that were submitted alone.
    singles: AtomicU64,
    pub(crate) since: Since,
    pub(crate) another: Option<Another<T, R>>,
}

/// How many they are, if that is known.
fn exactly(tasks: &impl Iterator) -> Option<usize> {
    let (low, high) = tasks.size_hint();
    high.filter(|high| *high == low)
}

/// Where the ops of an invoker run.
pub(crate) enum Place<M, T, R> {
    Processes(Processes<M, T, R>),
    Local {
        model: Arc<M>,
        pool: LocalPool<Seeded<T>, R>,
    },
}

impl<M, T: Send + 'static, R: Send + 'static> Place<M, T, R> {
    pub(crate) fn chronicle(&self) -> Chronicle {
        match self {
            Self::Processes(processes) => processes.pool.bytes().chronicle(),
            Self::Local { pool, .. } => pool.chronicle(),
        }
    }
}

impl<M, T, R> std::fmt::Debug for Invoker<M, T, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invoker")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl<M, T, R> Invoker<M, T, R>
where
    M: Serialize + DeserializeOwned + Send + Sync + 'static,
    T: Serialize + DeserializeOwned + Send + 'static,
    R: Serialize + DeserializeOwned + Send + 'static,
{
    pub(crate) fn new(
        settings: Settings,
        journal: Arc<Journal>,
        place: Place<M, T, R>,
        since: Since,
        another: Option<Another<T, R>>,
    ) -> Self {
        Self {
            settings,
            journal,
            place,
            singles: AtomicU64::new(0),
            since,
            another,
        }
    }

    /// Begins with the op: a plain `fn(&M, T) -> R`, or a closure that captures nothing.
    ///
    /// A closure that captures is not a `fn`: a worker process has its code, but not the values. They belong in the model or
    /// in the task:
    ///
    /// ```compile_fail,E0308
    /// let factor = 3.0;
    /// let builder = invoker::Invoker::builder(move |scale: &f64, n: f64| factor * scale * n).model(2.0);
    /// ```
    pub fn builder(op: fn(&M, T) -> R) -> OpBuilder<PlainOp<M, T, R>, M, T, R> {
        OpBuilder::new(op)
    }

    /// As [`builder`](Self::builder), for an op with a state of its worker's: buffers that are used again, a cache, a
    /// connection. `state` makes it once in each worker, from the model; both are plain `fn`s or closures that capture
    /// nothing.
    ///
    /// A worker is a process, a thread, or the caller (callers at the same time have a state each). A state lives as long as
    /// its worker: with processes, the next one begins with a fresh state. After a panic it is as the op left it. So an
    /// output should not depend on what a state has gone through.
    ///
    /// ```
    /// use invoker::{Executor, Invoker};
    ///
    /// let state = |_: &Vec<f64>| Ok(Vec::new());
    /// let median = |model: &Vec<f64>, sorted: &mut Vec<f64>, most: f64| {
    ///     sorted.clear(); // and not allocated again
    ///     sorted.extend(model.iter().filter(|value| **value <= most));
    ///     sorted.sort_by(f64::total_cmp);
    ///     sorted.get(sorted.len() / 2).copied()
    /// };
    /// let builder = Invoker::builder_with_state(state, median).model(vec![3.0, 1.0, 2.0]);
    /// let invoker = builder.executor(Executor::Threads).build()?;
    /// let medians: Vec<Option<f64>> = invoker.map([3.0, 1.0, 0.0]).collect::<Result<_, _>>()?;
    /// assert_eq!(medians, [Some(2.0), Some(1.0), None]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder_with_state<S: Send + 'static>(
        state: fn(&M) -> Result<S, BoxError>,
        op: fn(&M, &mut S, T) -> R,
    ) -> OpBuilder<WithState<M, S, T, R>, M, T, R> {
        OpBuilder::new(WithState::new(state, op))
    }

    /// Runs the op for every task and gives the outputs in the tasks' order.
    ///
    /// Tasks are taken from `tasks` as workers have room for them: it may be infinite.
    pub fn map<I: IntoIterator<Item = T>>(&self, tasks: I) -> Outputs<'_, T, R, I::IntoIter> {
        self.run(tasks.into_iter(), Order::Ordered)
    }

    /// As [`map`](Self::map), with outputs as they come.
    pub fn map_unordered<I: IntoIterator<Item = T>>(&self, tasks: I) -> Outputs<'_, T, R, I::IntoIter> {
        self.run(tasks.into_iter(), Order::AsCompleted)
    }

    fn run<I: Iterator<Item = T>>(&self, tasks: I, order: Order) -> Outputs<'_, T, R, I> {
        let total = exactly(&tasks);
        self.journal.begin(total);
        let tasks = Seeds {
            root: self.settings.seed.value,
            tasks: tasks.enumerate(),
        };
        let run = match (&self.place, order) {
            (Place::Processes(it), Order::Ordered) => Run::Processes(it.pool.map(tasks)),
            (Place::Processes(it), Order::AsCompleted) => Run::Processes(it.pool.map_unordered(tasks)),
            (Place::Local { pool, .. }, Order::Ordered) => Run::Local(pool.map(tasks)),
            (Place::Local { pool, .. }, Order::AsCompleted) => Run::Local(pool.map_unordered(tasks)),
        };
        let watch = match &self.place {
            Place::Processes(processes) => Some(&*processes.watch),
            Place::Local { .. } => None,
        };
        Outputs::new(run, &self.journal, watch, total)
    }

    /// Runs the op for every task, and `use_output` here for every output as it comes.
    pub fn for_each<I: IntoIterator<Item = T>>(
        &self,
        tasks: I,
        use_output: impl FnMut(Result<R, TaskError>),
    ) {
        self.map_unordered(tasks).for_each(use_output);
    }

    /// As [`map`](Self::map), for async programs: a `Stream` of the crate `futures-core`.
    ///
    /// Eight tasks for each worker are under way at most, and each is handed over by itself, which costs some
    /// microseconds: for many tiny tasks `map` is faster. With [`Executor::InProcess`](crate::Executor) tasks run where it
    /// is polled.
    ///
    /// ```
    /// use futures_core::Stream;
    /// # use std::{future::poll_fn, pin::Pin};
    ///
    /// async fn total(invoker: &invoker::Invoker<f64, u32, f64>) -> Result<f64, invoker::TaskError> {
    ///     let mut total = 0.0;
    ///     let mut outputs = invoker.stream(0..1000);
    ///     // With `futures::StreamExt`, `outputs.next()`.
    ///     while let Some(output) = poll_fn(|cx| Pin::new(&mut outputs).poll_next(cx)).await {
    ///         total += output?;
    ///     }
    ///     Ok(total)
    /// }
    /// ```
    #[cfg(feature = "stream")]
    pub fn stream<I>(&self, tasks: I) -> proc_pool::OutputStream<impl Iterator<Item = Handle<R>>>
    where
        I: IntoIterator<Item = T>,
    {
        proc_pool::OutputStream::ordered(self.handles(tasks), self.window())
    }

    /// As [`stream`](Self::stream), with outputs as they come.
    #[cfg(feature = "stream")]
    pub fn stream_unordered<I>(&self, tasks: I) -> proc_pool::OutputStream<impl Iterator<Item = Handle<R>>>
    where
        I: IntoIterator<Item = T>,
    {
        proc_pool::OutputStream::as_completed(self.handles(tasks), self.window())
    }

    /// Tasks under way in a stream.
    #[cfg(feature = "stream")]
    fn window(&self) -> usize {
        match self.settings.executor.value {
            // It runs here and now.
            crate::Executor::InProcess => 1,
            _ => 8 * self.workers(),
        }
    }

    #[cfg(feature = "stream")]
    fn handles<I: IntoIterator<Item = T>>(&self, tasks: I) -> impl Iterator<Item = Handle<R>> {
        let tasks = tasks.into_iter();
        self.journal.begin(exactly(&tasks));
        let mut tasks = (0..).zip(tasks);
        std::iter::from_fn(move || match self.interrupted() {
            None => tasks.next().map(|(index, task)| self.submit_as(index, task)),
            Some(_) => None,
        })
    }

    /// Runs the op for one task; [`Handle`] waits for the output, awaits it, or cancels the task. It waits until a worker
    /// has room, whatever others wait for already: for many tasks there is [`map`](Self::map). It counts as done or failed
    /// when its output is taken. With
    /// [`Executor::InProcess`](crate::Executor) it runs at once, and returns with its output there.
    ///
    /// ```
    /// use invoker::{Executor, Invoker};
    /// # use std::time::Duration;
    ///
    /// let builder = Invoker::builder(|_: &(), n: u64| n * n).model(());
    /// let invoker = builder.executor(Executor::Threads).build()?;
    /// let (one, other) = (invoker.submit(2), invoker.submit(3));
    /// assert_eq!(other.wait()?, 9);
    /// match one.wait_timeout(Duration::from_secs(60)) {
    ///     Ok(square) => assert_eq!(square?, 4), // or in an `async fn`: `one.await?`
    ///     Err(slow) => drop(slow.kill()),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn submit(&self, task: T) -> Handle<R> {
        self.journal.begin(Some(1));
        self.submit_as(self.singles.fetch_add(1, Ordering::Relaxed), task)
    }

    pub(crate) fn submit_as(&self, index: u64, task: T) -> Handle<R> {
        let task = Seeded::new(self.settings.seed.value, index, task);
        let (handle, watch) = match &self.place {
            Place::Processes(processes) => (
                processes.pool.submit(task),
                Some(Arc::downgrade(&processes.watch)),
            ),
            Place::Local { pool, .. } => (pool.submit(task), None),
        };
        let journal = self.journal.clone();
        handle.numbered(index).inspect(move |output| {
            if let Some(watch) = watch.and_then(|watch| watch.upgrade()) {
                watch.task_ended();
            }
            journal.end(output);
        })
    }

    /// What interrupts it from any thread, for as long as it exists: runs end early, and tasks that are not run have
    /// [`Fault::Pool`](crate::Fault) as their error. Only processes can be killed: elsewhere [`Interrupt::Kill`] is as
    /// [`Interrupt::Cancel`]. For Ctrl-C there is [`on_interrupt`](crate::Builder::on_interrupt).
    ///
    /// ```
    /// use invoker::{Executor, Interrupt, Invoker};
    ///
    /// let builder = Invoker::builder(|_: &(), n: u64| n).model(());
    /// let invoker = builder.executor(Executor::InProcess).build()?;
    /// let interrupter = invoker.interrupter();
    /// let mut outputs = invoker.map(0..); // would never end
    /// assert_eq!(outputs.next().expect("the first")?, 0);
    /// std::thread::spawn(move || interrupter.interrupt(Interrupt::Finish)).join().expect("no panic");
    /// assert_eq!(outputs.count(), 0);
    /// assert_eq!(invoker.finish()?.interrupted, Some("finish"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn interrupter(&self) -> Interrupter {
        match &self.place {
            Place::Processes(processes) => processes.pool.bytes().interrupter(),
            Place::Local { pool, .. } => pool.interrupter(),
        }
    }

    /// How it was interrupted, if it was: then runs may have ended before their inputs did, and new ones give nothing.
    pub fn interrupted(&self) -> Option<Interrupt> {
        match &self.place {
            Place::Processes(processes) => processes.pool.bytes().interrupted(),
            Place::Local { pool, .. } => pool.interrupted(),
        }
    }

    /// The model; with worker processes a view of the shared one.
    pub fn model(&self) -> &M {
        match &self.place {
            Place::Processes(processes) => &processes.model,
            Place::Local { model, .. } => model,
        }
    }

    /// What it was built with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        match &self.place {
            Place::Processes(processes) => processes.pool.bytes().workers(),
            Place::Local { pool, .. } => pool.workers(),
        }
    }

    /// Makes it have more or fewer worker processes, also in the middle of runs. It returns at once; no task is lost or run
    /// twice.
    ///
    /// # Errors
    /// [`Error::Unsupported`] unless there are processes; a number of workers that makes no sense.
    pub fn resize(&self, workers: Workers) -> Result<(), Error> {
        Ok(self
            .processes("another number of workers")?
            .pool
            .resize(workers)?)
    }

    /// Sends the worker processes another filter of their logs than they were built with; it is in force within 100 ms.
    ///
    /// # Errors
    /// [`Error::Unsupported`] unless there are processes; a filter of too many targets.
    pub fn set_filter(&self, filter: &Filter) -> Result<(), Error> {
        Ok(self
            .processes("a filter of workers' logs")?
            .watch
            .set_filter(filter)?)
    }

    fn processes(&self, what: &'static str) -> Result<&Processes<M, T, R>, Error> {
        match &self.place {
            Place::Processes(processes) => Ok(processes),
            Place::Local { .. } => Err(Error::Unsupported {
                executor: self.settings.executor.value,
                what,
            }),
        }
    }

    /// What the worker processes are doing now, as a table when printed; `None` unless there are processes.
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.processes("").ok().map(|processes| processes.pool.snapshot())
    }

    /// Process ids of the worker processes that are there now.
    pub fn pids(&self) -> Vec<(WorkerId, u32)> {
        let processes = self.processes("").ok();
        processes.map_or_else(Vec::new, |processes| processes.pool.bytes().pids())
    }
}
