//! What can go wrong: with a pool, and with a task.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shm_buffers::Printable;

/// A worker's place in its pool, from 0; it stays the same when the process in it is replaced. Not a pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WorkerId(pub u32);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// How a worker process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// A signal ended it (Unix).
    Signal {
        /// The signal's number.
        number: i32,
        /// Its name, such as `SIGSEGV`; the number again where it has none.
        name: String,
    },
    /// An exception that nothing handled ended it (Windows).
    Exception {
        /// The exception's code, such as `0xC0000005`.
        code: u32,
        /// Its name, such as `STATUS_ACCESS_VIOLATION`; the code again where it has none. `abort` is
        /// `STATUS_STACK_BUFFER_OVERRUN`.
        name: String,
    },
    /// It called `exit`, or returned. On Windows a C library's `abort` is `exit(3)`, and who is ended by another
    /// process has the status that it chose, often 1.
    Exited {
        /// The exit status.
        code: i32,
    },
    /// The system killed it for want of memory (Linux).
    ///
    /// The kernel does not say so of a process, but it counts such kills for each control group: a death by SIGKILL
    /// that the pool did not send is taken for one if the count of the leader's group has grown. When it has grown by
    /// `n`, that is the next `n` such deaths, until a worker is started while no other one is dead: if something else in
    /// the group was killed at the same moment as a worker by somebody's SIGKILL, it is a mistake.
    OutOfMemory {
        /// The control group; `None` when only the whole machine's kills could be counted.
        cgroup: Option<String>,
    },
    /// The pool ended it.
    Killed {
        /// Why.
        reason: KillReason,
    },
    /// The system does not tell.
    Unknown,
}

/// Why a pool ended one of its own workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KillReason {
    /// It did not get ready in time.
    StartTimeout,
    /// It wrote what no correct worker writes.
    Corrupt,
    /// A task ran longer than it may.
    Deadline,
    /// The pool was shut down.
    Shutdown,
    /// Its task was cancelled.
    Cancelled,
    /// It closed its connection without ending.
    Disconnected,
    /// It had tasks and did not begin with them for a long time, stopped by a signal perhaps.
    Unresponsive,
    /// It had more memory of its own than it may.
    MemoryLimit,
    /// It was told to end, and did not.
    EndTimeout,
}

impl Cause {
    /// Whether its memory is what the worker ended for.
    pub(crate) fn is_of_memory(&self) -> bool {
        let reason = KillReason::MemoryLimit;
        matches!(self, Self::OutOfMemory { .. }) || *self == Self::Killed { reason }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal { number, name } => write!(f, "killed by signal {number} ({name})"),
            Self::Exception { code, name } => write!(f, "died of exception {code:#010X} ({name})"),
            Self::Exited { code } => write!(f, "exited with status {code}"),
            Self::OutOfMemory { cgroup: Some(cgroup) } => {
                write!(f, "killed for want of memory in control group {cgroup}")
            }
            Self::OutOfMemory { cgroup: None } => f.write_str("killed for want of memory"),
            Self::Killed { reason } => write!(f, "killed by its pool: {reason}"),
            Self::Unknown => f.write_str("ended for an unknown reason"),
        }
    }
}

impl fmt::Display for KillReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StartTimeout => "it was not ready in time",
            Self::Deadline => "a task ran beyond its deadline",
            Self::Corrupt => "it corrupted its transport",
            Self::Shutdown => "the pool was shut down",
            Self::Cancelled => "its task was cancelled",
            Self::Disconnected => "it closed its connection",
            Self::Unresponsive => "it did not take its tasks",
            Self::MemoryLimit => "its memory grew beyond its limit",
            Self::EndTimeout => "it did not end when it was told to",
        })
    }
}

/// A cause that several clones of an error have. The error's [`source`](std::error::Error::source) is the cause itself, so that it can be
/// downcast, to [`io::Error`] for example.
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

impl<T> From<T> for Shared<T> {
    fn from(cause: T) -> Self {
        Self(Arc::new(cause))
    }
}

/// Why a pool could not be built, or stopped working.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// `init` was not called: a worker process would run `main` and start workers of its own.
    #[error(
        "`init()` was not called; make it the first line of `main` (in tests: `proc_pool::init_in_tests!()`)"
    )]
    NotInitialized,
    /// The number of workers makes no sense.
    #[error("a pool needs 1 to {max} workers, not {asked}")]
    WorkerCount {
        /// What was asked for.
        asked: usize,
        /// The most there can be.
        max: usize,
    },
    /// The op, or other code of a worker, is not in the executable or library that this crate is linked into, but in another
    /// shared library. A closure that calls it is where it is written.
    #[error(
        "the worker's code is in another shared library than the pool; link it statically, or wrap a function of that \
         library in a closure: `|task| function(task)`"
    )]
    EntryOutsideImage,
    /// The initial value for workers can't be encoded.
    #[error("cannot encode the workers' initial value: {}", Printable(.0))]
    Init(String),
    /// The operating system refused something that every pool needs.
    #[error("cannot {step}")]
    Os {
        /// What was being done.
        step: &'static str,
        /// Its reason.
        source: Shared<dyn std::error::Error + Send + Sync>,
    },
    /// Workers failed to start, again and again.
    #[error(
        "worker {worker} did not start in {attempts} attempts; the last one {}",
        Printable(reason)
    )]
    Start {
        /// Which.
        worker: WorkerId,
        /// How often it was tried.
        attempts: u32,
        /// What happened last.
        reason: String,
    },
    /// This program has elevated privileges (set-user-ID, set-group-ID, file capabilities): its workers would have them as
    /// well, and a program with such privileges is never a worker.
    #[error(
        "a program with elevated privileges cannot have workers; give the privileges up for good (setresuid, setresgid) \
         and use a worker program that has none, or do not install this one with them"
    )]
    Privileged,
    /// The worker program can't be executed.
    #[error("cannot execute the worker program {}", path.display())]
    Program {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        source: Shared<io::Error>,
    },
    /// The directory that workers are to be started in is none.
    #[error("cannot start workers in the directory {}", dir.display())]
    CurrentDir {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with it.
        source: Shared<io::Error>,
    },
    /// Workers were to have no threads at all.
    #[error("workers need at least one thread; `Threads::Unlimited` sets no limit")]
    ThreadCount,
    /// Workers that may run no task make no sense.
    #[error("workers that are recycled after 0 tasks can't run any; use 1 for a new process for each task")]
    Lifespan,
    /// This system can't do what was asked for.
    #[error("{what} is not supported on this system")]
    Unsupported {
        /// What.
        what: &'static str,
    },
    /// An environment variable that pools set for their workers makes no sense.
    #[error("{variable} is `{value}`, which is not UTF-8 and no pool's; remove it from the environment")]
    Environment {
        /// Its name.
        variable: &'static str,
        /// Its value; bytes that are not UTF-8 are shown as `\xFF`.
        value: String,
    },
    /// A size makes no sense.
    #[error("{what} of {asked} is too large; {max} at most")]
    Size {
        /// Of what.
        what: &'static str,
        /// What was asked for.
        asked: usize,
        /// The most there can be.
        max: usize,
    },
    /// The thread that keeps the workers has panicked: a bug of this crate. Its message is on standard error.
    #[error("the pool's own thread panicked")]
    Keeper,
    /// The pool was [interrupted](crate::Interrupt), by the program or by a signal.
    #[error("the pool was interrupted")]
    Interrupted,
    /// This process is a forked copy of the pool's leader. Its copies of the pool, of its handles, maps and interrupters do
    /// nothing, silently when they are dropped; the leader's own go on.
    #[error(
        "the pool belongs to process {pid}, of which this one is a forked copy; build a pool of its own here"
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

    pub(crate) fn io(step: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::os(step, source)
    }
}

/// Why a task has no output. The other tasks have theirs.
///
/// It displays its fault as well. Its [`source`](std::error::Error::source) is therefore the fault's cause, so that no message is
/// printed twice.
#[derive(Clone)]
pub struct TaskError {
    /// The task's position in its input, from 0.
    pub task: u64,
    /// What happened.
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

/// How many workers a task cost, where that is worth a word.
struct Toll(u32);

/// Where a panic was, if that is known.
struct At<'a>(&'a str);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => Ok(()),
            location => write!(f, " at {}", Printable(location)),
        }
    }
}

/// The panics before a death.
pub(crate) struct After<'a>(pub(crate) &'a [String]);

impl fmt::Display for After<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, panic) in self.0.iter().enumerate() {
            let words = if number == 0 {
                "; before that, it"
            } else {
                ", then"
            };
            // They are escaped already.
            write!(f, "{words} {panic}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Toll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ..=1 => Ok(()),
            deaths => write!(f, "; the task has cost {deaths} workers"),
        }
    }
}

/// What happened to a task.
#[derive(Clone)]
#[non_exhaustive]
pub enum Fault {
    /// The op panicked; its worker goes on.
    Panicked {
        /// Where it ran.
        worker: WorkerId,
        /// The panic's message, as it was: only what is displayed is [escaped](Printable).
        message: String,
        /// `file:line:column`; empty when it is not known. It is known for panics of the op's thread, and for those of other
        /// threads that the op has passed on, unless a panic hook of the program replaced the pool's.
        location: String,
        /// The stack, when `RUST_BACKTRACE` asks for it.
        backtrace: Option<String>,
    },
    /// The worker process ended while it ran this task.
    #[non_exhaustive]
    WorkerDied {
        /// Which.
        worker: WorkerId,
        /// Its process id.
        pid: u32,
        /// How.
        cause: Cause,
        /// How many workers the task has cost, with this one: more than 1 only if it was retried.
        deaths: u32,
        /// Its panics during this task that were not known to be caught, oldest first, each as `panicked at src/op.rs:7:5: message`:
        /// those that no process survives, in `extern "C"` functions, in drops while it unwinds, and all with
        /// `panic = "abort"`. They are [escaped](Printable).
        last_panics: Box<[String]>,
        /// The last things it logged, oldest first, as its pool's observer tells.
        last_logs: Vec<String>,
        /// The last lines that it printed, if that is [captured](crate::Redirect::Capture): up to 16 of standard
        /// output, then of standard error, each oldest first. They are [escaped](Printable).
        last_printed: Vec<String>,
    },
    /// The task ran longer than it may; its worker was killed.
    #[non_exhaustive]
    TimedOut {
        /// Which.
        worker: WorkerId,
        /// Its process id.
        pid: u32,
        /// How long it may run.
        deadline: Duration,
        /// What it was doing, if that was asked for (`Builder::stack_on_deadline`) and could be told.
        stack: Option<String>,
        /// How many workers the task has cost, with this one: more than 1 only if it was retried.
        deaths: u32,
        /// The last things it logged, oldest first, as its pool's observer tells.
        last_logs: Vec<String>,
        /// The last lines that it printed, if that is [captured](crate::Redirect::Capture): up to 16 of standard
        /// output, then of standard error, each oldest first. They are [escaped](Printable).
        last_printed: Vec<String>,
    },
    /// The task could not be encoded, or not be decoded by the worker.
    Task(String),
    /// The output could not be encoded by the worker, or not be decoded.
    Output(String),
    /// It was cancelled by its [`Handle`](crate::Handle).
    Cancelled,
    /// The pool stopped working before the task was done.
    ///
    /// The pool's error is displayed as well; its cause is the [`source`](std::error::Error::source).
    Pool(PoolError),
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
                let (after, toll) = (After(last_panics), Toll(*deaths));
                write!(f, "worker {worker} (pid {pid}) {cause}{after}{toll}")
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
                Toll(*deaths)
            ),
            Self::Task(reason) => write!(f, "cannot pass the task to a worker: {}", Printable(reason)),
            Self::Output(reason) => write!(f, "cannot pass the output to the leader: {}", Printable(reason)),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Pool(error) => write!(f, "not run: {error}"),
        }
    }
}

impl std::error::Error for Fault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // Its message is in this one's.
            Self::Pool(error) => error.source(),
            _ => None,
        }
    }
}

shm_buffers::debug_with_causes!(PoolError, TaskError, Fault);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_of_a_chain_is_said_once_and_the_systems_reason_is_kept() {
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
            for said in all {
                shm_buffers::assert_said_once(said);
                let source = said
                    .source()
                    .and_then(|source| source.downcast_ref::<io::Error>());
                let source = source.and_then(io::Error::raw_os_error);
                assert_eq!(source, Some(11), "{said}");
                assert!(format!("{said:?}").contains("Caused by"), "{said:?}");
            }
            assert!(
                task.to_string().starts_with(&format!("task 7: not run: {error}")),
                "{task}"
            );
        }
    }

    #[test]
    fn a_panic_without_a_known_location_leaves_it_out() {
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
    fn what_a_worker_says_is_shown_on_one_line_without_controls_and_kept_as_it_was() {
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
