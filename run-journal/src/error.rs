//! [`JournalError`]: why a journal cannot be used.

use std::io;
use std::path::{Path, PathBuf};

use proc_pool::Shared;

/// Why a journal cannot be opened, written, or used for an input.
///
/// During a run it is the [`Fault::Other`](proc_pool::Fault::Other) of a task:
///
/// ```
/// use proc_pool::{Fault, TaskError};
/// use run_journal::JournalError;
///
/// fn journal_error(error: &TaskError) -> Option<&JournalError> {
///     match &error.fault {
///         Fault::Other(reason) => reason.downcast_ref(),
///         _ => None,
///     }
/// }
/// ```
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// A call of the operating system failed.
    #[error("cannot {step} the journal `{}`", path.display())]
    Os {
        /// The purpose of the call, as in "cannot open the journal".
        step: &'static str,
        /// The journal.
        path: PathBuf,
        /// The system's error.
        source: Shared<io::Error>,
    },
    /// The file is not a journal.
    #[error("`{}` is not a journal: {reason}; use the path of a journal, or of a new file", path.display())]
    NotAJournal {
        /// The file.
        path: PathBuf,
        /// The contents that were found instead.
        reason: String,
    },
    /// The journal is of a version of the format that this program does not know.
    #[error(
        "the journal `{}` has version {found} of the format, and this program knows version {known}; use the program that wrote it",
        path.display()
    )]
    Version {
        /// The journal.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version of this program.
        known: u32,
    },
    /// Another leader has the journal open.
    #[error("the journal `{}` is used by {}; wait for its end, or use another path", path.display(), holder(*pid))]
    InUse {
        /// The journal.
        path: PathBuf,
        /// The process id of the leader; 0 if it is not known.
        pid: u32,
    },
    /// The journal belongs to another job.
    #[error(
        "the journal `{}` is of another job: {what} was {stored}, and now is {current}; {remedy}, or use another path",
        path.display()
    )]
    Differs {
        /// The journal.
        path: PathBuf,
        /// The part that differs: the op, the model, the seed, the context, a type or a codec.
        what: &'static str,
        /// Its description in the journal.
        stored: String,
        /// Its description in this program.
        current: String,
        /// The remedy, if it should be the same.
        remedy: &'static str,
    },
    /// Bytes before the end of the journal have changed since they were written.
    #[error(
        "the journal `{}` is damaged at byte {offset}; `invoker-journal salvage` copies what is intact into a new journal",
        path.display()
    )]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// The position of the first damaged block, in bytes from the start.
        offset: u64,
    },
    /// The input has other tasks than that of the run that wrote the journal.
    #[error(
        "{} not in the journal `{}`: the hash was {stored:016x}, and now is {found:016x}; start again with the same input, or use \
         another path", tasks(*first, *last), path.display()
    )]
    TaskDiffers {
        /// The journal.
        path: PathBuf,
        /// The index of the first task that differs; of small outputs, the first of up to 128 tasks that share a hash.
        first: u64,
        /// The index of the last task with the same hash.
        last: u64,
        /// The hash in the journal.
        stored: u64,
        /// The hash of the input's task.
        found: u64,
    },
    /// The input has fewer tasks than the journal has outputs.
    #[error(
        "the input ends after {tasks} tasks, but the journal `{}` has an output of task {stored}; start again with the same input, or \
         use another path", path.display()
    )]
    InputEnds {
        /// The journal.
        path: PathBuf,
        /// Number of tasks of the input.
        tasks: u64,
        /// The index of a task with an output in the journal.
        stored: u64,
    },
    /// A task or an output cannot be encoded or decoded.
    #[error("cannot {step} {task} for the journal `{}`: {reason}", path.display())]
    Codec {
        /// The failed step, as in "cannot decode the output of task".
        step: &'static str,
        /// The journal.
        path: PathBuf,
        /// The index of the task.
        task: u64,
        /// The reason of the codec.
        reason: String,
    },
    /// The journal could not be written, for example because the disk is full. The outputs before that stay readable.
    #[error("cannot write the journal `{}`; make room and start again: the outputs before that are in the journal", path.display())]
    Write {
        /// The journal.
        path: PathBuf,
        /// The system's error.
        source: Shared<io::Error>,
    },
    /// A task failed in an earlier run, and [faults are kept](crate::Journal::faults).
    #[error("an earlier run had this error, which the journal keeps: {0}")]
    Kept(
        /// The message of the fault.
        String,
    ),
    /// The call is not possible with a journal.
    #[error(
        "{0} has no order that another run could repeat, so it does not work with a journal: use `map`, or leave `journal` out"
    )]
    Unsupported(
        /// The call.
        &'static str,
    ),
}

impl JournalError {
    /// Returns a function that makes the error of a failed step.
    pub(crate) fn os<'a>(step: &'static str, path: &'a Path) -> impl Fn(io::Error) -> Self + 'a {
        move |source| Self::Os {
            step,
            path: path.to_owned(),
            source: source.into(),
        }
    }
}

fn holder(pid: u32) -> String {
    match pid {
        0 => "another process".to_owned(),
        pid => format!("process {pid}"),
    }
}

fn tasks(first: u64, last: u64) -> String {
    match first == last {
        true => format!("task {first} is"),
        false => format!("tasks {first} to {last} are"),
    }
}

shm_buffers::debug_with_causes!(JournalError);
