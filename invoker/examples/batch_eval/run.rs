//! The seam to the executor: gives every task to the op and hands back what came out.

use std::fmt;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::args::{Executor, Progress};
use crate::op::{EvalModel, Outcome, Task, evaluate_user};

/// How to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Where the op runs.
    pub(crate) executor: Executor,
    /// Number of workers; the executor's default without one.
    pub(crate) workers: Option<NonZeroUsize>,
    /// How progress is shown.
    pub(crate) progress: Progress,
    /// Number of tasks to come.
    pub(crate) tasks: u64,
}

/// What a run took.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RunReport {
    /// Tasks that came back.
    pub(crate) tasks: u64,
    /// Wall-clock time.
    pub(crate) seconds: f64,
    /// Tasks that came back in a second.
    pub(crate) users_per_second: f64,
}

/// A run that could not be begun or finished. (A failed task is no such error: it goes to the sink.)
pub(crate) type RunError = Box<dyn std::error::Error + Send + Sync>;

/// Gives all tasks to the op. `sink` gets the position of each task and its outcome or error, in task order.
///
/// # Errors
/// When the run could not be begun or finished.
pub(crate) fn evaluate<F>(
    model: EvalModel,
    tasks: impl Iterator<Item = Task>,
    plan: Plan,
    mut sink: F,
) -> Result<RunReport, RunError>
where
    F: FnMut(u64, Result<Outcome, RunError>),
{
    let Plan {
        executor,
        workers,
        progress,
        tasks: total,
    } = plan;
    tracing::debug!(?executor, ?workers, ?progress, total, "running");
    let begun = Instant::now();
    let mut done = 0;
    for task in tasks {
        sink(done, Ok(evaluate_user(&model, task)));
        done += 1;
    }
    Ok(RunReport::new(done, begun.elapsed()))
}

impl RunReport {
    fn new(tasks: u64, took: Duration) -> Self {
        let seconds = took.as_secs_f64();
        Self {
            tasks,
            seconds,
            users_per_second: tasks as f64 / seconds,
        }
    }
}

impl fmt::Display for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "evaluated {} users in {:.3} s ({:.0} users/s)",
            self.tasks, self.seconds, self.users_per_second
        )
    }
}
