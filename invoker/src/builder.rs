//! [`Builder`]: configures and starts an invoker.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use proc_pool::OnInterrupt;
use progress::{Bar, Render, Reporter, Total};
use run_journal::Journal;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::executor::{ExecutorOptions, Options};
use crate::invoker::Invoker;
use crate::journal;
use crate::model_source::ModelSource;
use crate::op::Op;
use crate::report::ReportBase;
use crate::run_progress::RunProgress;
use crate::runner::Runner;
use crate::settings::{self, Choices, Settings};
use crate::task_context::in_op;
use proc_pool::Workers;

/// Configures an [`Invoker`]: made by the methods of an [`OpBuilder`](crate::OpBuilder) that set the model. The options of worker processes are in [`Processes`](crate::Processes).
#[must_use = "call `build`"]
pub struct Builder<'m, F, M, T, R> {
    op: F,
    model: ModelSource<'m, M>,
    choices: Choices,
    progress: Option<ProgressBar>,
    trace: Option<PathBuf>,
    journal: Option<Journal>,
    types: PhantomData<fn(T) -> R>,
}

/// The progress that a builder requests.
struct ProgressBar {
    label: String,
    /// The caller's reporter; without one, the invoker starts its own.
    reporter: Option<Arc<Reporter>>,
}

impl<'m, F, M, T, R> Builder<'m, F, M, T, R> {
    pub(crate) fn new(op: F, model: ModelSource<'m, M>) -> Self {
        Self {
            op,
            model,
            choices: Choices::default(),
            progress: None,
            trace: None,
            journal: None,
            types: PhantomData,
        }
    }

    pub(crate) fn map_op(self, map: impl FnOnce(F) -> F) -> Self {
        Self {
            op: map(self.op),
            ..self
        }
    }
}

impl<F, M, T, R> Debug for Builder<'_, F, M, T, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("choices", &self.choices)
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
    /// Sets where ops run: an [`Executor`](crate::Executor), or [`Processes`](crate::Processes) with options. The default is
    /// the value of [`EXECUTOR_VARIABLE`](crate::EXECUTOR_VARIABLE), or [`Executor::Processes`](crate::Executor::Processes).
    pub fn executor(mut self, executor: impl Into<ExecutorOptions>) -> Self {
        self.choices.executor = Some(executor.into());
        self
    }

    /// Sets the number of workers, as a number or [`Workers::All`]. The default is the value of
    /// [`WORKERS_VARIABLE`](crate::WORKERS_VARIABLE), or [`Workers::All`]; 1 inside an op of another invoker. With
    /// [`Executor::Inline`](crate::Executor::Inline) the calling thread is the only worker.
    pub fn workers(mut self, workers: impl Into<Workers>) -> Self {
        self.choices.workers = Some(workers.into());
        self
    }

    /// Derives a seed for each task from `root`; the op reads it with [`task_seed`](crate::task_seed). By default tasks have no
    /// seeds.
    pub fn seed(mut self, root: u64) -> Self {
        self.choices.seed = Some(root);
        self
    }

    /// Like [`seed`](Self::seed), for a part of a larger input, of which the first task of each run is at position `first`: its tasks
    /// have the seeds that they would have in the whole input. For programs that are started once per part, such as those of a job
    /// array.
    pub fn seed_from(self, root: u64, first: u64) -> Self {
        self.seed(crate::seed::root_from(root, first))
    }

    /// Sets the reaction to Ctrl-C and SIGTERM while the invoker exists. By default they end the program, and its workers with
    /// it. With any other reaction, runs end early and the program goes on, up to its report, which says that the run was
    /// interrupted.
    pub fn on_interrupt(mut self, reaction: OnInterrupt) -> Self {
        self.choices.on_interrupt = Some(reaction);
        self
    }

    /// Shows progress under this label: a bar if standard error is a terminal, otherwise lines. Inside an op of another
    /// invoker nothing is shown, because only the leader draws.
    ///
    /// The bar is hidden while a panic of any thread is printed ([`install_panic_hook`](progress::Reporter::install_panic_hook)). Other
    /// code that writes to the terminal needs a reporter of the program ([`progress_by`](Self::progress_by),
    /// [`suspend`](progress::Reporter::suspend)).
    pub fn progress(mut self, label: impl Into<String>) -> Self {
        let label = label.into();
        let reporter = None;
        self.progress = Some(ProgressBar { label, reporter });
        self
    }

    /// Shows progress under this label with the given reporter. Log lines that go through its
    /// [`writer`](progress::Reporter::writer) do not garble the bar.
    pub fn progress_by(mut self, reporter: Arc<Reporter>, label: impl Into<String>) -> Self {
        let label = label.into();
        let reporter = Some(reporter);
        self.progress = Some(ProgressBar { label, reporter });
        self
    }

    /// Writes the timeline of the run to this file when the invoker [finishes](Invoker::finish), with samples of each worker
    /// process's tasks: see [`Report::write_trace`](crate::Report::write_trace).
    pub fn trace(mut self, path: impl Into<PathBuf>) -> Self {
        self.trace = Some(path.into());
        self.choices.trace = true;
        self
    }

    /// Keeps the outputs of [`map`](Invoker::map) and the methods like it in a file, so that a run that has ended early, in any way, goes
    /// on where it was: the same program with the same input gets the outputs that are in the file, in order and without running their
    /// tasks, and runs the others. [`Journal`] has options; the guide has a [chapter](crate::guide::journal).
    ///
    /// The runs of an invoker are distinguished by their order. [`submit`](Invoker::submit) and streams refuse a journal. Until a run
    /// has returned what the file has, it may take up to 128 tasks from its input before it returns their outputs.
    pub fn journal(mut self, journal: impl Into<Journal>) -> Self {
        self.journal = Some(journal.into());
        self
    }

    /// Returns the settings that [`build`](Self::build) would use, and where each comes from.
    ///
    /// # Errors
    /// [`Error::Environment`] if a variable is invalid, [`Error::Unsupported`] if choices exclude each other.
    pub fn settings(&self) -> Result<Settings, Error> {
        Ok(self.resolve()?.0)
    }

    fn resolve(&self) -> Result<(Settings, Options), Error> {
        let (settings, options) = settings::resolve(&self.choices, &settings::environment)?;
        if let (Options::Processes(processes), ModelSource::Image(_)) = (&options, &self.model)
            && processes.is_set("backing")
        {
            return Err(Error::Unsupported {
                what: "`backing`",
                needs: "a model by value or by reference",
                remedy: "leave it out: an image is in shared memory already",
            });
        }
        Ok((settings, options))
    }

    /// Shares the model and starts the workers. Returns when all of them are ready.
    ///
    /// # Errors
    /// [`Error::Share`] if there is no room for the model, [`Error::Pool`] if workers cannot start, [`Error::Os`] if the path of
    /// the [`trace`](Self::trace) exists and is not a regular file, [`Error::Journal`] if the [`journal`](Self::journal) is used by
    /// another process, belongs to another job or is damaged, and those of [`settings`](Self::settings).
    pub fn build(self) -> Result<Invoker<F::Model, T, R>, Error> {
        let started = Instant::now();
        let (mut settings, options) = self.resolve()?;
        let Self {
            op,
            model,
            progress,
            trace,
            journal,
            ..
        } = self;
        // Now, not after hours of work.
        if let Some(path) = &trace {
            shm_buffers::check_replaceable(path).map_err(|error| Error::Os {
                step: "write the trace",
                source: error.into(),
            })?;
        }
        let journal = match journal {
            Some(journal) => {
                let seed = settings.seed.value;
                Some(journal::open::<F, M, T, R>(journal, &op, &model, seed)?)
            }
            None => None,
        };
        let (label, reporter) = match progress {
            None => (String::new(), None),
            Some(ProgressBar { label, reporter }) => match reporter {
                Some(reporter) => (label, Some(reporter)),
                None => (label, own_reporter(settings.progress.value)?),
            },
        };
        let bar = Bar::new(label, Total::Known(0));
        let runner = Runner::start(&settings, options, model, op, &bar)?;
        settings.model = runner.processes().map(|processes| processes.image.memory());
        let report_base = ReportBase {
            started,
            history: runner.history(),
            trace,
            journal,
        };
        Ok(Invoker::new(
            settings,
            RunProgress::new(bar, reporter),
            runner,
            report_base,
        ))
    }
}

/// Starts the reporter of an invoker whose caller has none.
fn own_reporter(render: Render) -> Result<Option<Arc<Reporter>>, Error> {
    // An op that runs in the leader's process has the leader's terminal, but must not draw.
    if in_op() {
        return Ok(None);
    }
    let reporter = Reporter::builder().render(render).start()?;
    reporter.install_panic_hook();
    Ok(Some(Arc::new(reporter)))
}
