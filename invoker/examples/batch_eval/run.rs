//! The run: every task through an [`Invoker`], whichever executor.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use invoker::{Invoker, Report, Reporter, TaskError, Workers};
use serde::Serialize;

use crate::args::Executor;
use crate::op::{EvalModel, Outcome, Task, evaluate_user};

/// How to run.
pub(crate) struct Plan {
    /// Where the op runs.
    pub(crate) executor: Executor,
    /// Number of workers; the executor's default without one.
    pub(crate) workers: Option<NonZeroUsize>,
    /// Who shows progress.
    pub(crate) reporter: Arc<Reporter>,
}

/// What a run took.
#[derive(Debug, Serialize)]
pub(crate) struct RunReport {
    /// Users evaluated, all passes together, in a second.
    users_per_second: f64,
    #[serde(flatten)]
    report: Report,
}

/// Gives all tasks to the op. `sink` gets the position of each task and its outcome or error, in task order.
///
/// # Errors
/// When the run could not be begun or finished. (A failed task is no such error: it goes to the sink.)
pub(crate) fn evaluate(
    model: EvalModel,
    tasks: impl Iterator<Item = Task>,
    plan: Plan,
    mut sink: impl FnMut(u64, Result<Outcome, TaskError>),
) -> Result<RunReport, invoker::Error> {
    let mut builder = Invoker::builder(evaluate_user)
        .model(model)
        .executor(match plan.executor {
            Executor::Processes => invoker::Executor::Processes,
            Executor::Threads => invoker::Executor::Threads,
            Executor::InProcess => invoker::Executor::InProcess,
        })
        .progress_by(plan.reporter, "evaluate");
    if let Some(workers) = plan.workers {
        builder = builder.workers(Workers::Count(workers.get()));
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
