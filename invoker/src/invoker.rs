//! [`Invoker`]: runs an op on one model for any number of tasks.

mod whole_runs;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use log_bridge::Filter;
use proc_pool::{BytePool, Codec, Handle, Interrupt, Interrupter, Native, Snapshot, TaskError, WorkerId};
use run_journal::{JournalInput, Order, Replayed, TaskRules};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shm_buffers::Image;

use crate::error::Error;
use crate::journal::refused;
use crate::outputs::Outputs;
use crate::report::{Report, ReportBase};
use crate::run_progress::RunProgress;
use crate::runner::{ProcessRunner, Runner};
use crate::seed::{Indexed, Seeded, Seeds};
use crate::settings::Settings;
use crate::verify::Verification;
use proc_pool::Workers;

/// Runs an op on one model for any number of tasks: `op(&model, task)`. Made by [`Invoker::builder`].
///
/// Dropping an invoker kills its worker processes; [`finish`](Self::finish) waits for submitted tasks and returns the report.
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
    settings: Settings,
    progress: Arc<RunProgress>,
    runner: Runner<M, T, R>,
    /// Number of submitted tasks.
    submitted: AtomicU64,
    report_base: ReportBase,
}

impl<M, T, R> Invoker<M, T, R> {
    /// Counts outputs that were passed on without a look at them.
    pub(crate) fn count_all(&self, done: u64, failed: u64) {
        self.progress.count_all(done, failed);
    }

    /// Counts a run of an unknown number of tasks, which come from elsewhere.
    pub(crate) fn start_run(&self) {
        self.progress.start_run(None);
    }
}

/// Returns the number of tasks, if the iterator knows it.
fn exact_len(tasks: &impl Iterator) -> Option<usize> {
    let (low, high) = tasks.size_hint();
    high.filter(|high| *high == low)
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
    M: Send + Sync + 'static,
    T: Serialize + DeserializeOwned + Send + 'static,
    R: Serialize + DeserializeOwned + Send + 'static,
{
    pub(crate) fn new(
        settings: Settings,
        progress: RunProgress,
        runner: Runner<M, T, R>,
        report_base: ReportBase,
    ) -> Self {
        Self {
            settings,
            progress: Arc::new(progress),
            runner,
            submitted: AtomicU64::new(0),
            report_base,
        }
    }

    /// Runs the op for every task and returns an iterator over the outputs, in the order of the tasks.
    ///
    /// Tasks are taken from `tasks` as workers have room for them, so it may be infinite.
    pub fn map<I: IntoIterator<Item = T>>(&self, tasks: I) -> Outputs<'_, T, R, I::IntoIter> {
        self.run(tasks.into_iter(), Order::Ordered)
    }

    /// Like [`map`](Self::map), with outputs in the order of their completion.
    pub fn map_unordered<I: IntoIterator<Item = T>>(&self, tasks: I) -> Outputs<'_, T, R, I::IntoIter> {
        self.run(tasks.into_iter(), Order::AsCompleted)
    }

    fn run<I: Iterator<Item = T>>(&self, tasks: I, order: Order) -> Outputs<'_, T, R, I> {
        self.run_as(tasks, order, None, self.workers())
    }

    /// Runs the tasks, cut into chunks for this number of workers. With a journal, `runs_again` decides of a stored output, encoded,
    /// whether its task runs again.
    fn run_as<I: Iterator<Item = T>>(
        &self,
        tasks: I,
        order: Order,
        runs_again: Option<fn(&[u8]) -> bool>,
        workers: usize,
    ) -> Outputs<'_, T, R, I> {
        let (_, most) = tasks.size_hint();
        self.progress.start_run(exact_len(&tasks));
        let root = self.settings.seed.value;
        let observer = self.runner.processes().map(|processes| &*processes.observer);
        let Some(journal) = &self.report_base.journal else {
            let tasks = Indexed::All(tasks.enumerate());
            let map = self.runner.map(Seeds { root, tasks }, order, None);
            return Outputs::new(map, None, &self.progress, observer, most);
        };
        let rules = TaskRules {
            encode: <Native as Codec<T>>::encode,
            runs_again,
        };
        let (input, recorder) = JournalInput::start(journal, workers, tasks, rules);
        let tasks = Indexed::Journaled(input.clone());
        let map = self
            .runner
            .map(Seeds { root, tasks }, order, Some(recorder.clone()));
        let decode = <Native as Codec<R>>::decode;
        let replayed = Replayed::new(input, recorder, self.interrupter(), decode, order);
        Outputs::new(map, Some(Box::new(replayed)), &self.progress, observer, most)
    }

    fn seeded<I: Iterator<Item = T>>(&self, tasks: I) -> Seeds<I> {
        Seeds {
            root: self.settings.seed.value,
            tasks: Indexed::All(tasks.enumerate()),
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

    /// Like [`map`](Self::map), for async programs: returns a `Stream` of the crate `futures-core`.
    ///
    /// At most eight tasks per worker are in flight, and each is dispatched separately, which costs some microseconds: for many
    /// tiny tasks `map` is faster. With [`Executor::Inline`](crate::Executor::Inline), tasks run on the polling thread.
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

    /// Like [`stream`](Self::stream), with outputs in the order of their completion.
    #[cfg(feature = "stream")]
    pub fn stream_unordered<I>(&self, tasks: I) -> proc_pool::OutputStream<impl Iterator<Item = Handle<R>>>
    where
        I: IntoIterator<Item = T>,
    {
        proc_pool::OutputStream::as_completed(self.handles(tasks), self.window())
    }

    /// Returns the number of tasks of a stream that may be in flight.
    #[cfg(feature = "stream")]
    fn window(&self) -> usize {
        match self.settings.executor.value {
            // Submitting a task runs it.
            crate::Executor::Inline => 1,
            _ => 8 * self.workers(),
        }
    }

    #[cfg(feature = "stream")]
    fn handles<I: IntoIterator<Item = T>>(&self, tasks: I) -> impl Iterator<Item = Handle<R>> {
        let tasks = tasks.into_iter();
        self.progress.start_run(exact_len(&tasks));
        let mut tasks = (0..).zip(tasks);
        std::iter::from_fn(move || match self.interrupted() {
            None => tasks.next().map(|(index, task)| self.submit_as(index, task)),
            Some(_) => None,
        })
    }

    /// Queues one task and returns immediately. The [`Handle`] waits for the output, awaits it, or cancels the task.
    ///
    /// The queue is unbounded: for many tasks use [`map`](Self::map). The task counts as done or failed when its output is
    /// taken. With [`Executor::Inline`](crate::Executor::Inline) the task runs before `submit` returns. With a
    /// [journal](crate::Builder::journal) it does not run, and has an error.
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
        self.progress.start_run(Some(1));
        self.submit_as(self.submitted.fetch_add(1, Ordering::Relaxed), task)
    }

    fn submit_as(&self, index: u64, task: T) -> Handle<R> {
        if self.report_base.journal.is_some() {
            let progress = self.progress.clone();
            let refused = refused(index, "a submitted task or a stream");
            return refused.inspect(move |output| progress.end_single(output));
        }
        let task = Seeded::new(self.settings.seed.value, index, task);
        let handle = self.runner.submit(task);
        let observer = self
            .runner
            .processes()
            .map(|processes| Arc::downgrade(&processes.observer));
        let progress = self.progress.clone();
        handle.with_task(index).inspect(move |output| {
            if let Some(observer) = observer.and_then(|observer| observer.upgrade()) {
                observer.flush_task();
            }
            progress.end_single(output);
        })
    }

    /// Returns an [`Interrupter`], which ends runs early, from any thread, for as long as the invoker exists.
    ///
    /// The error of tasks that do not run is [`Fault::Pool`](crate::Fault::Pool). Threads cannot be killed: there
    /// [`Interrupt::Kill`] acts like [`Interrupt::Cancel`]. For Ctrl-C use [`on_interrupt`](crate::Builder::on_interrupt).
    ///
    /// ```
    /// use invoker::{Executor, Interrupt, Invoker};
    ///
    /// let builder = Invoker::builder(|_: &(), n: u64| n).model(());
    /// let invoker = builder.executor(Executor::Inline).build()?;
    /// let interrupter = invoker.interrupter();
    /// let mut outputs = invoker.map(0..); // an endless run
    /// assert_eq!(outputs.next().expect("the first")?, 0);
    /// std::thread::spawn(move || interrupter.interrupt(Interrupt::Finish)).join().expect("no panic");
    /// assert_eq!(outputs.count(), 0);
    /// assert_eq!(invoker.finish()?.interrupted, Some(Interrupt::Finish));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn interrupter(&self) -> Interrupter {
        self.runner.interrupter()
    }

    /// Returns how the invoker was interrupted, if it was. Its runs may then have ended before their inputs did, and new runs
    /// have no outputs.
    pub fn interrupted(&self) -> Option<Interrupt> {
        self.runner.interrupted()
    }

    /// Returns the model; with worker processes, a view of the shared model.
    pub fn model(&self) -> &M {
        self.runner.model()
    }

    /// Returns the effective settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns the number of workers.
    pub fn workers(&self) -> usize {
        self.runner.workers()
    }

    /// Changes the number of worker processes, also during runs. Returns immediately; no task is lost or run twice.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with other executors; [`Error::Pool`] for 0 and for too many workers.
    pub fn resize(&self, workers: impl Into<Workers>) -> Result<(), Error> {
        let workers = workers.into();
        Ok(self.processes("`resize`")?.pool.resize(workers)?)
    }

    /// Changes the log filter of the worker processes. The new filter is in force within 100 ms.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with other executors; [`Error::Filter`] if the filter has too many targets.
    pub fn set_filter(&self, filter: &Filter) -> Result<(), Error> {
        Ok(self.processes("`set_filter`")?.observer.set_filter(filter)?)
    }

    fn processes(&self, what: &'static str) -> Result<&ProcessRunner<M, T, R>, Error> {
        self.runner.processes().ok_or(Error::Unsupported {
            what,
            needs: "worker processes",
            remedy: "use `Executor::Processes`",
        })
    }

    pub(crate) fn pool_and_image(&self) -> Result<(&BytePool, &Image), Error> {
        let processes = self.processes("a node of a cluster")?;
        Ok((processes.pool.bytes(), &processes.image))
    }

    /// Returns the current state of each worker process, which `Display` prints as a table; `None` with other executors.
    pub fn snapshot(&self) -> Option<Snapshot> {
        let processes = self.runner.processes();
        processes.map(|processes| processes.pool.snapshot())
    }

    /// Returns the process ids of the live worker processes.
    pub fn pids(&self) -> Vec<(WorkerId, u32)> {
        let processes = self.runner.processes();
        processes.map_or_else(Vec::new, |processes| processes.pool.pids())
    }

    /// Runs every task in one of the workers and, again, in a second worker that it starts, and compares the encoded outputs
    /// byte for byte.
    ///
    /// Where they differ, the op depends on more than model, task and seed: on its own random generator, the order of tasks,
    /// uninitialized memory. Pass a sample of the input:
    ///
    /// ```no_run
    /// # use invoker::Invoker;
    /// # invoker::init();
    /// let invoker = Invoker::builder(|scale: &f64, n: u32| scale * f64::from(n)).model(2.0).build()?;
    /// let verification = invoker.verify((0..1_000_000).step_by(1000))?;
    /// assert!(verification.different.is_empty(), "{verification}");
    /// # Ok::<(), invoker::Error>(())
    /// ```
    ///
    /// These tasks count neither in the report nor in the bar, and log events of the second worker are discarded.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with [`Executor::Inline`](crate::Executor::Inline); [`Error::Pool`] if the second worker cannot
    /// start.
    pub fn verify<I>(&self, tasks: I) -> Result<Verification, Error>
    where
        I: IntoIterator<Item = T>,
        T: Clone,
    {
        let tasks: Vec<T> = tasks.into_iter().collect();
        let (first, second) = (tasks.clone(), tasks);
        self.runner
            .verify(self.seeded(first.into_iter()), self.seeded(second.into_iter()))
    }

    /// Returns a report of everything so far. It reads the memory use of each process from the system, which takes about a
    /// millisecond per gigabyte that they use.
    pub fn report(&self) -> Report {
        let mut report = self.new_report();
        if let Some(processes) = self.runner.processes() {
            report.add_counts(&processes.pool.stats(), &processes.observer.tally());
        }
        report.add_times(&self.progress, &self.report_base);
        report
    }

    /// Waits for the submitted tasks, ends the workers, and returns a report of everything.
    ///
    /// Worker processes have five seconds to end; after that, this process's subscriber has two seconds to take what they
    /// logged. Later events are dropped, and counted in [`LogCounts`](crate::report::LogCounts).
    ///
    /// # Errors
    /// [`Error::Pool`] if the workers failed; [`Error::Os`] if the [`trace`](crate::Builder::trace), and [`Error::Journal`] if the
    /// [`journal`](crate::Builder::journal) cannot be written.
    pub fn finish(self) -> Result<Report, Error> {
        let mut report = self.new_report();
        let interrupted = self.interrupted();
        let Self {
            progress,
            runner,
            report_base,
            ..
        } = self;
        match runner {
            Runner::Local(local) => local.shut_down(),
            Runner::Processes(processes) => {
                let (stats, observer) = processes.shut_down();
                // Before the error of the shutdown is returned: the logs are still replayed.
                let logs = observer.finish();
                report.add_counts(&stats?, &logs);
            }
        }
        // This precedes the counts, so that they include everything that was written.
        let journal = report_base.journal.as_ref().map(|journal| journal.close());
        report.add_times(&progress, &report_base);
        // Last, so that everything the workers logged appears above the finished bar.
        progress.close(interrupted);
        journal.transpose()?;
        if let Some(path) = &report_base.trace {
            report.write_trace(path).map_err(|source| Error::Os {
                step: "write the trace",
                source,
            })?;
        }
        Ok(report)
    }

    /// Returns a report of what can be read only while the workers exist.
    fn new_report(&self) -> Report {
        Report::new(self.settings.executor.value, &self.runner)
    }
}
