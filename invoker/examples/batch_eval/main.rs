//! Batch evaluation of a recommender: one model shared by all workers, one small task per user.
//!
//! Trains item-item kNN on movie ratings, recommends for every user, judges the lists against held-out ratings, and prints
//! the metrics and the report of the run. The modules, in the order of the data flow:
//!
//! | module | duty |
//! |---|---|
//! | `args` | the command line |
//! | `ratings` | the ratings file |
//! | `split` | training and held-out ratings |
//! | `knn` | the recommender |
//! | `op` | the op: evaluates one user |
//! | `run` | the invoker |
//! | `gather` | outcomes in user order, failures |
//! | `metrics` | quality of lists and predictions |
//! | `output` | recommendations and report |

mod args;
mod csr;
mod gather;
mod knn;
mod metrics;
mod op;
mod output;
mod ratings;
mod run;
mod split;

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use invoker::{BarWriter, Reporter};

use crate::args::{Args, ReportFormat};
use crate::gather::Gathered;
use crate::knn::ItemKnn;
use crate::op::EvalModel;
use crate::output::{Data, Holdout, Model, Report};
use crate::ratings::{Ratings, RatingsError};
use crate::run::Plan;

/// The error of a job without a report.
#[derive(Debug, thiserror::Error)]
enum EvalError {
    #[error(transparent)]
    Ratings(#[from] RatingsError),
    #[error("--crash-user: the ratings have no user {0}; use the id of a user in the ratings")]
    UnknownUser(u32),
    #[error("--recs: `{}` is the ratings file and would be overwritten; use another path", .0.display())]
    RecsAreRatings(PathBuf),
    #[error("--recs: cannot create `{}`: {source}; use a writable path", path.display())]
    CreateRecs { path: PathBuf, source: io::Error },
    #[error("--recs: cannot write `{}`: {source}", path.display())]
    WriteRecs { path: PathBuf, source: io::Error },
    #[error("cannot write to standard output: {0}")]
    Stdout(io::Error),
    #[error("cannot show progress: {0}")]
    Progress(#[from] invoker::ProgressError),
    #[error("{}", .0.in_full())]
    Run(#[from] invoker::Error),
}

impl EvalError {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Ratings(_) | Self::UnknownUser(_) | Self::RecsAreRatings(_) | Self::CreateRecs { .. } => {
                ExitCode::from(2)
            }
            Self::WriteRecs { .. } | Self::Stdout(_) | Self::Progress(_) | Self::Run(_) => ExitCode::FAILURE,
        }
    }
}

fn main() -> ExitCode {
    invoker::init();
    batch_eval(args::parse()).unwrap_or_else(|error| {
        print_error(&error);
        error.exit_code()
    })
}

/// Runs the whole job. The exit code is a failure if a task failed.
fn batch_eval(args: Args) -> Result<ExitCode, EvalError> {
    let reporter = Arc::new(Reporter::builder().render(args.progress).start()?);
    let _ = CONSOLE.set(reporter.writer());
    // Through the reporter, so that log lines appear above the bar.
    tracing_subscriber::fmt()
        .with_writer(reporter.writer())
        .with_ansi(io::stderr().is_terminal())
        .with_max_level(args.log)
        .init();

    let (ratings, source) = match &args.ratings {
        Some(path) => (Ratings::read(path)?, path.display().to_string()),
        None => (
            Ratings::bundled()?,
            "MovieLens ml-latest-small, October 2016 (built in)".to_owned(),
        ),
    };
    let data = Data {
        source,
        ratings: ratings.len(),
        users: ratings.users.len(),
        items: ratings.items.len(),
    };
    let crash_at = match args.crash_user {
        Some(id) => Some(
            ratings
                .users
                .binary_search(&id)
                .map_err(|_| EvalError::UnknownUser(id))? as u32,
        ),
        None => None,
    };
    // Before any work, so that a wrong path does not cost a run.
    let recs = match &args.recs {
        Some(path) => Some((create(path, args.ratings.as_deref())?, path)),
        None => None,
    };

    // Only now, so that the error of bad input is the only line.
    tracing::info!(
        ratings = data.ratings,
        users = data.users,
        items = data.items,
        "read the ratings"
    );
    let split = match args.holdout() {
        Some(fraction) => split::hold_out(&ratings, fraction, args.seed),
        None => split::keep_all(&ratings),
    };
    let holdout = args.holdout().map(|fraction| Holdout {
        fraction,
        seed: args.seed,
        ratings: split.held_out.entries(),
    });
    let Ratings { users, items, .. } = ratings;
    let started = Instant::now();
    let knn = ItemKnn::train(items, &split.train);
    let train_seconds = started.elapsed().as_secs_f64();
    tracing::info!(pairs = knn.pairs(), seconds = train_seconds, "trained the model");
    let model = EvalModel::new(knn, users.clone(), split, args.top.get());
    let model_info = Model {
        neighbour_pairs: model.knn().pairs(),
        bytes: model.bytes(),
        train_seconds,
    };

    let tasks = gather::tasks(users.len() as u32, args.repeat.get(), crash_at);
    let plan = Plan {
        executor: args.executor,
        workers: args.workers,
        journal: args.resume,
        reporter,
    };
    let mut gathered = Gathered::new(users);
    let run = run::evaluate(model, tasks, plan, |index, result| gathered.add(index, result))?;

    if let Some((file, path)) = recs {
        output::write_recs(BufWriter::new(file), gathered.recs()).map_err(|source| EvalError::WriteRecs {
            path: path.clone(),
            source,
        })?;
    }
    let report = Report {
        data,
        holdout,
        model: model_info,
        top: args.top.get(),
        metrics: gathered.summary().map(Into::into),
        run,
        failures: gathered.failures(),
    };
    stdout(|out| match args.report {
        ReportFormat::Text => output::write_text(out, &report),
        ReportFormat::Json => output::write_json(out, &report),
    })?;
    for failure in gathered.failures() {
        print_error(failure);
    }
    if gathered.failures().is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    print_error(&format_args!(
        "{} of {} tasks failed",
        gathered.failures().len(),
        gathered.tasks()
    ));
    Ok(ExitCode::FAILURE)
}

/// Creates the file of recommendations. Refuses to overwrite the ratings file.
fn create(path: &Path, ratings: Option<&Path>) -> Result<File, EvalError> {
    if let (Ok(path), Some(Ok(ratings))) = (fs::canonicalize(path), ratings.map(fs::canonicalize))
        && path == ratings
    {
        return Err(EvalError::RecsAreRatings(path));
    }
    File::create(path).map_err(|source| EvalError::CreateRecs {
        path: path.to_owned(),
        source,
    })
}

/// Writes to standard output. It is not an error if the reader closes the pipe, as `head` does.
fn stdout(write: impl FnOnce(&mut io::StdoutLock<'_>) -> io::Result<()>) -> Result<(), EvalError> {
    match write(&mut io::stdout().lock()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(EvalError::Stdout(error)),
        _ => Ok(()),
    }
}

/// The destination of errors while there are bars. Unlike standard error, it does not wait for a stopped terminal.
static CONSOLE: OnceLock<BarWriter> = OnceLock::new();

/// Writes one line to standard error.
fn print_error(error: &impl std::fmt::Display) {
    let _ = match CONSOLE.get() {
        Some(console) => writeln!(console.clone(), "batch_eval: {error}"),
        None => writeln!(io::stderr(), "batch_eval: {error}"),
    };
}
