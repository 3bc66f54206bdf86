//! The run: every task through an [`Invoker`], whichever executor.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use invoker::{Executor, Invoker, Report, Reporter, TaskError, Workers};
use serde::Serialize;

use crate::op::{EvalModel, Outcome, Task, evaluate_user};

/// How to run.
pub(crate) struct Plan {
    pub(crate) executor: Executor,
    /// The executor's default if `None`.
    pub(crate) workers: Option<Workers>,
    /// The file of outcomes, if they are kept.
    pub(crate) journal: Option<PathBuf>,
    pub(crate) reporter: Arc<Reporter>,
}

/// The report of a run.
#[derive(Debug, Serialize)]
pub(crate) struct RunReport {
    /// Users per second, over all passes.
    users_per_second: f64,
    #[serde(flatten)]
    report: Report,
}

/// Runs the op for all tasks. Calls `sink` with the position of each task and its outcome or error, in the order of tasks.
///
/// # Errors
/// If the run cannot be started or finished. (The error of a task goes to `sink`.)
pub(crate) fn evaluate(
    model: EvalModel,
    tasks: impl Iterator<Item = Task>,
    plan: Plan,
    mut sink: impl FnMut(u64, Result<Outcome, TaskError>),
) -> Result<RunReport, invoker::Error> {
    let mut builder = Invoker::builder(evaluate_user)
        .model(model)
        .executor(plan.executor)
        .progress_by(plan.reporter, "evaluate");
    if let Some(workers) = plan.workers {
        builder = builder.workers(workers);
    }
    if let Some(path) = plan.journal {
        builder = builder.journal(path);
    }
    let invoker = builder.build()?;
    for (index, outcome) in (0..).zip(invoker.map(tasks)) {
        sink(index, outcome);
    }
    let report = invoker.finish()?;
    Ok(RunReport {
        users_per_second: report.tasks.per_second,
        report,
    })
}

impl fmt::Display for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "users/s   {:.0}\n{}", self.users_per_second, self.report)
    }
}
