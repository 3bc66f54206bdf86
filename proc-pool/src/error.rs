//! Errors of a pool and of a task, and the ids of workers that they name.
//!
//! This module is the ground of the crate: it imports no other module.

mod exit_cause;

pub use exit_cause::{ExitCause, KillReason};

use std::fmt;
use std::io;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shm_buffers::Printable;

/// The index of a worker in its pool, from 0. It is not a process id, and stays the same when the worker's process is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WorkerId(pub u32);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A cause that clones of an error share. [`source`](std::error::Error::source) of the error returns the cause itself, so it
/// can be downcast, for example to [`io::Error`].
pub struct Shared<T: ?Sized>(Arc<T>);

impl<T: ?Sized> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: ?Sized> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Shared<dyn std::error::Error + Send + Sync> {
    fn from(cause: E) -> Self {
        Self(Arc::new(cause))
    }
}

impl<T> From<T> for Shared<T> {
    fn from(cause: T) -> Self {
        Self(Arc::new(cause))
    }
}

/// Why a pool could not be built, or stopped working.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// `init` was not called. Without it, a worker process would run `main` and start workers of its own.
    #[error(
        "`init()` was not called; make it the first line of `main` (in tests: `proc_pool::init_in_tests!()`)"
    )]
    NotInitialized,
    /// The number of workers is out of range.
    #[error("a pool needs 1 to {max} workers, not {asked}")]
    WorkerCount {
        /// The requested number.
        asked: usize,
        /// The maximum.
        max: usize,
    },
    /// The op, or another function that workers run, is not in the executable or library that this crate is linked into, but in
    /// another shared library. Wrap it in a closure: a closure belongs to the crate that contains it.
    #[error(
        "the worker's code is in another shared library than the pool; link it statically, or wrap a function of that \
         library in a closure: `|task| function(task)`"
    )]
    EntryInOtherLibrary,
    /// The initial value for workers cannot be encoded.
    #[error("cannot encode the workers' initial value: {}", Printable(.0))]
    Init(String),
    /// The operating system refused an operation that the pool needs.
    #[error("cannot {step}")]
    Os {
        /// The operation, as in "cannot start a thread".
        step: &'static str,
        /// The system's error.
        source: Shared<dyn std::error::Error + Send + Sync>,
    },
    /// A worker failed to start several times in a row, for a reason that might have passed.
    #[error(
        "worker {worker} did not start in {attempts} attempts; the last one {}",
        Printable(reason)
    )]
    Start {
        /// The worker's index.
        worker: WorkerId,
        /// Number of attempts.
        attempts: u32,
        /// Why the last attempt failed.
        reason: String,
    },
    /// The worker program cannot run what the pool asks for, and would not at another attempt either: it has no op of that name, the
    /// op has other types or codecs, it cannot decode the initial value, or it was built with another version of this crate. The reason
    /// says which, and what the program has instead. Until a first worker has been ready, the pool makes no second attempt.
    #[error("the worker program {} {}", program.display(), Printable(reason))]
    Refused {
        /// The path of the worker program: that of this program, unless the ops are [named](crate::EntryPoint::named).
        program: PathBuf,
        /// The worker's reason.
        reason: String,
    },
    /// The worker program ended, or was not ready in time, without connecting to the pool. So it is no worker program: its `main` must
    /// call [`Registry::serve`](crate::Registry::serve), or [`init`](crate::init()) if it is the leader's own program, before
    /// anything else that could end or block the process. It must do so in the process that the pool has started: a script must
    /// `exec` the program. Until a first worker has been ready, the pool makes no second attempt with a separate worker program; it
    /// starts the leader's own program, which is known to call `init`, a few times.
    #[error(
        "the worker program {} did not connect to its pool ({cause}); its `main` must first call `Registry::serve`, or \
         `proc_pool::init` if it is the leader's own program",
        program.display()
    )]
    NotAWorker {
        /// The path of the program.
        program: PathBuf,
        /// How its process ended.
        cause: ExitCause,
    },
    /// This program has elevated privileges (set-user-ID, set-group-ID, file capabilities). Its workers would inherit them, and
    /// a program with such privileges never becomes a worker.
    #[error(
        "a program with elevated privileges cannot have workers; give the privileges up for good (setresuid, setresgid) \
         and use a worker program that has none, or do not install this one with them"
    )]
    Privileged,
    /// The worker program cannot be executed.
    #[error("cannot execute the worker program {}", path.display())]
    Program {
        /// The path of the program.
        path: PathBuf,
        /// The system's error.
        source: Shared<io::Error>,
    },
    /// The working directory for workers is not an accessible directory.
    #[error("cannot start workers in the directory {}", dir.display())]
    CurrentDir {
        /// The path of the directory.
        dir: PathBuf,
        /// The system's error.
        source: Shared<io::Error>,
    },
    /// `NativeThreads::Count(0)`: workers need at least one thread.
    #[error("workers need at least one thread; `NativeThreads::Unlimited` sets no limit")]
    ThreadCount,
    /// A limit of 0 tasks for each worker process: such workers could not run any task.
    #[error("workers that are recycled after 0 tasks can't run any; use 1 for a new process for each task")]
    ZeroTaskLimit,
    /// This system does not support a requested feature.
    #[error("{what} is not supported on this system")]
    Unsupported {
        /// The feature.
        what: &'static str,
    },
    /// An environment variable that pools set for their workers has a value that no pool writes.
    #[error(
        "{variable} is `{value}`, which is not UTF-8 and was not set by a pool; remove it from the environment"
    )]
    Environment {
        /// The variable's name.
        variable: &'static str,
        /// The variable's value; bytes that are not UTF-8 are shown as `\xFF`.
        value: String,
    },
    /// A size is too large.
    #[error("{what} of {asked} is too large; the maximum is {max}")]
    Size {
        /// The name of the size.
        what: &'static str,
        /// The requested size.
        asked: usize,
        /// The maximum.
        max: usize,
    },
    /// The pool's process manager thread panicked: a bug of this crate. The panic's message is on standard error.
    #[error("the pool's own thread panicked")]
    Internal,
    /// The pool was [interrupted](crate::Interrupt), by the program or by a signal.
    #[error("the pool was interrupted")]
    Interrupted,
    /// This process is a forked copy of the pool's leader. The copies of the pool and of its handles, maps and interrupters do
    /// nothing here, also when they are dropped; those of the leader keep working.
    #[error(
        "the pool belongs to process {pid}, of which this process is a forked copy; build a separate pool in this process"
    )]
    Forked {
        /// The leader's process id.
        pid: u32,
    },
    /// The pool was shut down while tasks were waiting.
    #[error("the pool was shut down")]
    ShutDown,
}

impl PoolError {
    pub(crate) fn os(step: &'static str, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Os {
            step,
            source: Shared(Arc::new(source)),
        }
    }

    /// Returns a function that makes the error of a failed step.
    #[doc(hidden)]
    pub fn io(step: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::os(step, source)
    }
}

/// Why a task has no output. The other tasks are not affected.
///
/// The message contains the message of the fault. [`source`](std::error::Error::source) therefore returns the fault's cause,
/// so that no message is printed twice.
#[derive(Clone)]
pub struct TaskError {
    /// The task's position in its input, from 0.
    pub task: u64,
    /// Why the task has no output.
    pub fault: Fault,
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { task, fault } = self;
        write!(f, "task {task}: {fault}")
    }
}

impl std::error::Error for TaskError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.fault.source()
    }
}

/// Displays how many workers a task has killed, if that is more than one.
struct DeathCount(u32);

/// Displays the location of a panic, if it is known.
struct At<'a>(&'a str);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => Ok(()),
            location => write!(f, " at {}", Printable(location)),
        }
    }
}

/// Displays the panics that preceded the end of a process.
pub(crate) struct PrecedingPanics<'a>(pub(crate) &'a [String]);

impl fmt::Display for PrecedingPanics<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, panic) in self.0.iter().enumerate() {
            let separator = if number == 0 {
                "; before that, it"
            } else {
                ", then"
            };
            // The panics are already escaped.
            write!(f, "{separator} {panic}")?;
        }
        Ok(())
    }
}

impl fmt::Display for DeathCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ..=1 => Ok(()),
            deaths => write!(f, "; the task has killed {deaths} workers"),
        }
    }
}

/// Why a task has no output.
///
/// It serializes with serde, so that another machine's pool can report it. [`Pool`](Self::Pool) and [`Other`](Self::Other) do not: they
/// are not a task's own.
#[derive(Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Fault {
    /// The op panicked. Its worker runs other tasks.
    Panicked {
        /// The worker that ran the task.
        worker: WorkerId,
        /// The panic's original message; only the displayed message is [escaped](Printable).
        message: String,
        /// `file:line:column`, or empty if unknown. It is known for panics of the op's thread and for those of other threads
        /// that the op has resumed, unless a panic hook of the program replaced the pool's.
        location: String,
        /// The backtrace, if `RUST_BACKTRACE` requests it.
        backtrace: Option<String>,
    },
    /// The worker process ended while it ran this task.
    #[non_exhaustive]
    WorkerDied {
        /// The worker that ran the task.
        worker: WorkerId,
        /// The process id of the worker.
        pid: u32,
        /// How the process ended.
        cause: ExitCause,
        /// Number of workers that the task has killed, this one included: more than 1 only if it was retried.
        deaths: u32,
        /// The uncaught panics of the process during this task, oldest first, each as
        /// `panicked at src/op.rs:7:5: message`: those that end any process, in `extern "C"` functions, in drops during
        /// unwinding, and all of them with `panic = "abort"`. They are [escaped](Printable).
        last_panics: Box<[String]>,
        /// The last log messages of the process, oldest first, as the pool's [observer](crate::Observer) returned them.
        last_logs: Vec<String>,
        /// The last lines that the process printed, if they are [captured](crate::Redirect::Capture): up to 16 of standard
        /// output, then up to 16 of standard error, each oldest first. They are [escaped](Printable).
        last_printed: Vec<String>,
    },
    /// The task ran longer than its deadline, and its worker was killed.
    #[non_exhaustive]
    TimedOut {
        /// The worker that ran the task.
        worker: WorkerId,
        /// The process id of the worker.
        pid: u32,
        /// The deadline: the maximum time that a task may run.
        deadline: Duration,
        /// The stack of the task, if it was requested (`Builder::stack_on_deadline`) and the worker replied in time.
        stack: Option<String>,
        /// Number of workers that the task has killed, this one included: more than 1 only if it was retried.
        deaths: u32,
        /// The last log messages of the process, oldest first, as the pool's [observer](crate::Observer) returned them.
        last_logs: Vec<String>,
        /// The last lines that the process printed, if they are [captured](crate::Redirect::Capture): up to 16 of standard
        /// output, then up to 16 of standard error, each oldest first. They are [escaped](Printable).
        last_printed: Vec<String>,
    },
    /// The task could not be encoded, or the worker could not decode it.
    Task(String),
    /// The worker could not encode the output, or it could not be decoded here.
    Output(String),
    /// The task was cancelled through its [`Handle`](crate::Handle).
    Cancelled,
    /// The task had started on machines that were then lost, as many as a task may cost (of a run on several machines only).
    NodeLost {
        /// The name of the machine that was lost last.
        node: String,
        /// Number of machines that were lost while they had started the task.
        losses: u32,
    },
    /// The pool stopped working before the task was done.
    ///
    /// The message contains the pool's error; [`source`](std::error::Error::source) returns that error's cause.
    #[serde(skip)]
    Pool(PoolError),
    /// The code around the pool has a reason of its own not to run the task, such as a journal of the crate `invoker` with the output
    /// of another task.
    ///
    /// The message is that of the reason, which can be downcast to its type.
    #[serde(skip)]
    Other(Shared<dyn std::error::Error + Send + Sync>),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked {
                worker,
                message,
                location,
                ..
            } => write!(
                f,
                "panicked in worker {worker}{}: {}",
                At(location),
                Printable(message)
            ),
            Self::WorkerDied {
                worker,
                pid,
                cause,
                deaths,
                last_panics,
                ..
            } => {
                let (panics, death_count) = (PrecedingPanics(last_panics), DeathCount(*deaths));
                write!(f, "worker {worker} (pid {pid}) {cause}{panics}{death_count}")
            }
            Self::TimedOut {
                worker,
                pid,
                deadline,
                deaths,
                ..
            } => write!(
                f,
                "worker {worker} (pid {pid}) was killed: the task ran longer than its deadline of {deadline:?}{}",
                DeathCount(*deaths)
            ),
            Self::Task(reason) => write!(f, "cannot pass the task to a worker: {}", Printable(reason)),
            Self::Output(reason) => write!(f, "cannot pass the output to the leader: {}", Printable(reason)),
            Self::Cancelled => f.write_str("cancelled"),
            Self::NodeLost { node, losses } => {
                let node = Printable(node);
                write!(f, "node {node} was lost after it had started the task")?;
                match losses {
                    ..=1 => Ok(()),
                    losses => write!(f, "; {losses} nodes were lost with it"),
                }
            }
            Self::Pool(error) => write!(f, "not run: {error}"),
            Self::Other(reason) => fmt::Display::fmt(&**reason, f),
        }
    }
}

impl std::error::Error for Fault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // The message of the pool's error is part of this one's.
            Self::Pool(error) => error.source(),
            Self::Other(reason) => reason.source(),
            _ => None,
        }
    }
}

shm_buffers::debug_with_causes!(PoolError, TaskError, Fault);

/// The text of the error and its causes, for ops whose own error is a `String`.
impl From<TaskError> for String {
    fn from(error: TaskError) -> Self {
        format!("{:#}", shm_buffers::WithCauses(&error))
    }
}

/// Identifies a process: the index of its worker, and its generation. The worker's first process has generation 1, and each
/// replacement has one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ProcessId {
    pub(crate) worker: WorkerId,
    pub(crate) generation: u32,
}

impl ProcessId {
    /// Returns the number of processes that this worker had before.
    pub(crate) fn restarts(self) -> u32 {
        self.generation.saturating_sub(1)
    }
}

/// Any error that a worker's initialization may return.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Returns the messages of an error and its sources on one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    format!("{:#}", shm_buffers::WithCauses(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_of_a_chain_appears_once_and_the_systems_error_is_kept() {
        let system = || io::Error::from_raw_os_error(11);
        let errors = [
            PoolError::os("start a thread", system()),
            PoolError::Program {
                path: "worker".into(),
                source: system().into(),
            },
            PoolError::CurrentDir {
                dir: "work".into(),
                source: system().into(),
            },
        ];
        for error in errors {
            let fault = Fault::Pool(error.clone());
            let task = TaskError {
                task: 7,
                fault: fault.clone(),
            };
            let all: [&(dyn std::error::Error + 'static); 3] = [&error, &fault, &task];
            for error in all {
                shm_buffers::assert_said_once(error);
                let source = error
                    .source()
                    .and_then(|source| source.downcast_ref::<io::Error>());
                let source = source.and_then(io::Error::raw_os_error);
                assert_eq!(source, Some(11), "{error}");
                assert!(format!("{error:?}").contains("Caused by"), "{error:?}");
            }
            let text = String::from(task.clone());
            assert!(
                text.starts_with(&task.to_string()) && text.len() > task.to_string().len(),
                "{text}"
            );
            assert!(
                task.to_string().starts_with(&format!("task 7: not run: {error}")),
                "{task}"
            );
        }
    }

    #[test]
    fn faults_of_tasks_serialize_and_those_of_pools_do_not() {
        let died = Fault::WorkerDied {
            worker: WorkerId(3),
            pid: 7,
            cause: ExitCause::Killed {
                reason: KillReason::Deadline,
            },
            deaths: 2,
            last_panics: Box::new(["boom".to_owned()]),
            last_logs: vec!["log".to_owned()],
            last_printed: Vec::new(),
        };
        let lost = Fault::NodeLost {
            node: "n2".to_owned(),
            losses: 2,
        };
        let text = lost.to_string();
        assert_eq!(
            text,
            "node n2 was lost after it had started the task; 2 nodes were lost with it"
        );
        for fault in [died, lost, Fault::Cancelled, Fault::Output("no".to_owned())] {
            let bytes = postcard::to_allocvec(&fault).expect("it serializes");
            let back: Fault = postcard::from_bytes(&bytes).expect("just serialized");
            assert_eq!(format!("{back:?}"), format!("{fault:?}"));
        }
        assert!(postcard::to_allocvec(&Fault::Pool(PoolError::ShutDown)).is_err());
    }

    #[test]
    fn an_unknown_panic_location_is_left_out() {
        let panicked = |location: &str| Fault::Panicked {
            worker: WorkerId(2),
            message: "boom".to_owned(),
            location: location.to_owned(),
            backtrace: None,
        };
        assert_eq!(panicked("").to_string(), "panicked in worker 2: boom");
        assert_eq!(
            panicked("op.rs:1:2").to_string(),
            "panicked in worker 2 at op.rs:1:2: boom"
        );
    }

    #[test]
    fn debug_prints_the_remedy() {
        let text = format!("{:?}", PoolError::NotInitialized);
        assert!(text.contains("make it the first line of `main`"), "{text}");
    }

    #[test]
    fn text_from_workers_is_escaped_when_displayed_and_kept_unchanged() {
        let hostile = "boom\r\n\u{1b}[2KINFO forged \u{202e}txt\u{2028}";
        let escaped = r"boom\r\n\u{1b}[2KINFO forged \u{202e}txt\u{2028}";
        let panicked = Fault::Panicked {
            worker: WorkerId(1),
            message: hostile.to_owned(),
            location: "src/op.rs:1:2".to_owned(),
            backtrace: None,
        };
        let expected = format!("panicked in worker 1 at src/op.rs:1:2: {escaped}");
        assert_eq!(panicked.to_string(), expected);
        assert!(matches!(panicked, Fault::Panicked { message, .. } if message == hostile));
        for fault in [Fault::Task(hostile.to_owned()), Fault::Output(hostile.to_owned())] {
            assert!(fault.to_string().ends_with(escaped), "{fault}");
        }
        let start = PoolError::Start {
            worker: WorkerId(0),
            attempts: 3,
            reason: hostile.to_owned(),
        };
        for error in [start, PoolError::Init(hostile.to_owned())] {
            assert!(error.to_string().ends_with(escaped), "{error}");
        }
    }
}
