//! [`Processes`]: the options of worker processes.

use std::ffi::OsString;
use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use log_bridge::Filter;
use proc_pool::{NativeThreads, Redirect, Snapshot, Timing, WorkerId};
use serde::{Deserialize, Serialize};
use shm_buffers::Backing;

use crate::copies::Copies;

/// The options of [`Executor::Processes`](crate::Executor::Processes), for [`Builder::executor`](crate::Builder::executor).
///
/// Only worker processes have these options, and only this type can set them:
///
/// ```no_run
/// use std::time::Duration;
/// use invoker::{Invoker, Processes};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// invoker::init();
/// let invoker = Invoker::builder(|_: &(), n: u32| n)
///     .model(())
///     .workers(2)
///     .executor(Processes::new().deadline(Duration::from_secs(10)).retries(1))
///     .build()?;
/// # Ok(()) }
/// ```
///
/// ```compile_fail,E0599
/// # use invoker::{Executor, Invoker};
/// Invoker::builder(|_: &(), n: u32| n).model(()).executor(Executor::Threads).retries(1);
/// ```
#[derive(Debug, Clone)]
#[must_use = "pass it to `Builder::executor`"]
pub struct Processes {
    pub(crate) pool: proc_pool::Builder,
    pub(crate) backing: Backing,
    pub(crate) copies: Copies,
    pub(crate) logs: Option<Filter>,
    pub(crate) panic_logs: PanicLogs,
    /// The options that were set: method and value. `env` may be there several times.
    set: Vec<(&'static str, String)>,
}

/// Whether worker processes log panics, besides reporting them as the error of their task.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum PanicLogs {
    Off,
    On,
}

/// All options, by method, with the text of their defaults.
const DEFAULTS: [(&str, &str); 19] = [
    ("backing", "Auto"),
    ("copies", "warn"),
    ("deadline", "none"),
    ("retries", "0"),
    ("start_timeout", "60s"),
    ("recycle_after", "never"),
    ("recycle_above_bytes", "never"),
    ("memory_limit_bytes", "none"),
    ("native_threads", "Share"),
    ("env", "inherited"),
    ("worker_env", "none"),
    ("current_dir", "inherited"),
    ("stdout", "Inherit"),
    ("stderr", "Inherit"),
    ("logs", "follow subscriber"),
    ("log_panics", "no"),
    ("on_dump", "none"),
    ("stack_on_deadline", "no"),
    ("timing", "Totals"),
];

impl Default for Processes {
    fn default() -> Self {
        Self::new()
    }
}

impl Processes {
    /// Worker processes with the default options.
    pub fn new() -> Self {
        Self {
            pool: proc_pool::Builder::new(),
            backing: Backing::Auto,
            copies: Copies::default(),
            logs: None,
            panic_logs: PanicLogs::Off,
            set: Vec::new(),
        }
    }

    /// Sets where the shared model is stored (default: [`Backing::Auto`]). An [image](crate::OpBuilder::image) is in shared
    /// memory already: [`build`](crate::Builder::build) refuses a backing for it.
    pub fn backing(mut self, backing: Backing) -> Self {
        self.record("backing", format!("{backing:?}"));
        self.backing = backing;
        self
    }

    /// Sets what happens if more than 1 MiB of the model is copied, because it is not in [`Buffer`](crate::Buffer)s (default: the
    /// value of [`COPIES_VARIABLE`](crate::COPIES_VARIABLE), or [`Copies::Warn`]).
    pub fn copies(mut self, copies: Copies) -> Self {
        self.record("copies", copies.to_string());
        self.copies = copies;
        self
    }

    /// Sets how long a task may run (default: no limit). After that its worker process is killed, and the task's error is
    /// [`Fault::TimedOut`](crate::Fault::TimedOut).
    pub fn deadline(self, deadline: Duration) -> Self {
        self.set("deadline", deadline, |pool| pool.deadline(deadline))
    }

    /// Sets the maximum number of retries after a task kills its worker (default: 0). Each retry runs the task from the
    /// start, so the op must be idempotent.
    pub fn retries(self, retries: u32) -> Self {
        self.set("retries", retries, |pool| pool.retries(retries))
    }

    /// Sets how long a worker process may take to get ready (default: 60 s).
    pub fn start_timeout(self, timeout: Duration) -> Self {
        self.set("start_timeout", timeout, |pool| pool.start_timeout(timeout))
    }

    /// Replaces each worker process after `tasks` tasks, to bound leaks (default: never). The first processes are replaced
    /// earlier, so that not all of them restart at the same time.
    pub fn recycle_after(self, tasks: u64) -> Self {
        self.set("recycle_after", tasks, |pool| pool.recycle_after(tasks))
    }

    /// Replaces each worker process that uses more than `bytes` of private memory, after it has finished its tasks
    /// (default: never). The shared model does not count. Linux only.
    pub fn recycle_above_bytes(self, bytes: u64) -> Self {
        self.set("recycle_above_bytes", bytes, |pool| pool.recycle_above(bytes))
    }

    /// Kills each worker process that uses more than `bytes` of private memory (default: no limit); its task's error is
    /// [`Fault::WorkerDied`](crate::Fault::WorkerDied). The shared model does not count. Linux only.
    ///
    /// This is a safety net, not a hard limit: a task may exceed it for a fifth of a second.
    pub fn memory_limit_bytes(self, bytes: u64) -> Self {
        self.set("memory_limit_bytes", bytes, |pool| pool.memory_limit(bytes))
    }

    /// Sets how many threads the native numeric libraries (OpenMP, BLAS, rayon …) may use in each worker process (default:
    /// [`NativeThreads::Share`](crate::NativeThreads::Share)).
    pub fn native_threads(self, threads: NativeThreads) -> Self {
        self.native_threads_by_level([threads])
    }

    /// Like [`native_threads`](Self::native_threads), also for invokers within ops: the first value is for the workers, the
    /// second for their workers, and so on. Levels after the last value use [`NativeThreads::Share`](crate::NativeThreads::Share).
    pub fn native_threads_by_level(self, levels: impl IntoIterator<Item = NativeThreads>) -> Self {
        let levels: Vec<NativeThreads> = levels.into_iter().collect();
        let text: Vec<String> = levels.iter().map(|threads| format!("{threads:?}")).collect();
        let mut options = self;
        options.record("native_threads", text.join(", "));
        options.configure(|pool| pool.native_threads_by_level(levels))
    }

    /// Sets an environment variable of the worker processes. They inherit all others from this process.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        let name = name.into();
        // The value may be a secret.
        self.record("env", format!("{}=…", name.display()));
        self.configure(|pool| pool.env(name, value))
    }

    /// Removes an environment variable from the worker processes.
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Self {
        let name = name.into();
        self.record("env", format!("no {}", name.display()));
        self.configure(|pool| pool.env_remove(name))
    }

    /// Starts worker processes with an empty environment, and drops every variable that [`env`](Self::env) has set so far.
    pub fn env_clear(mut self) -> Self {
        self.set.retain(|(option, _)| *option != "env");
        self.record("env", "cleared".to_owned());
        self.configure(proc_pool::Builder::env_clear)
    }

    /// Sets environment variables that differ by worker, beside those of [`env`](Self::env), over which they have precedence: for
    /// libraries that read a device or a port from the environment. Several calls add up.
    ///
    /// `variables` is called before each start of a process. If it panics, that start fails.
    ///
    /// ```
    /// use invoker::Processes;
    ///
    /// const GPUS: u32 = 2;
    /// let gpu = |worker: invoker::WorkerId| [("CUDA_VISIBLE_DEVICES", (worker.0 % GPUS).to_string())];
    /// let processes = Processes::new().worker_env(gpu);
    /// ```
    pub fn worker_env<I, N, V>(self, variables: impl Fn(WorkerId) -> I + Send + Sync + 'static) -> Self
    where
        I: IntoIterator<Item = (N, V)>,
        N: Into<OsString>,
        V: Into<OsString>,
    {
        let mut options = self;
        options.record("worker_env", "yes".to_owned());
        options.configure(|pool| pool.worker_env(variables))
    }

    /// Sets the working directory of the worker processes (default: this process's).
    pub fn current_dir(self, directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        self.set("current_dir", directory.clone(), |pool| {
            pool.current_dir(directory)
        })
    }

    /// Sets where the standard output of worker processes goes (default: [`Redirect::Inherit`]). With
    /// [`Redirect::Capture`], each line becomes a log event of this process, with target `stdout`, at INFO, in the
    /// worker's span; the error of a task that kills its worker holds the last lines.
    pub fn stdout(self, redirect: Redirect) -> Self {
        self.set("stdout", redirect, |pool| pool.stdout(redirect))
    }

    /// Like [`stdout`](Self::stdout), for standard error; its events have target `stderr`, at WARN.
    pub fn stderr(self, redirect: Redirect) -> Self {
        self.set("stderr", redirect, |pool| pool.stderr(redirect))
    }

    /// Sets which log events worker processes send. By default they send the levels that this process's subscribers enable,
    /// and follow when a subscriber is installed or reloaded later; without a subscriber, INFO and above.
    ///
    /// A subscriber reports only its maximum level. If it has an `EnvFilter` with directives, pass them, so that workers do
    /// not send events which the filter rejects:
    ///
    /// ```
    /// use invoker::{Filter, Processes};
    ///
    /// let directives = std::env::var("RUST_LOG").unwrap_or_default();
    /// let processes = Processes::new().logs(Filter::covering(&directives));
    /// ```
    pub fn logs(mut self, filter: Filter) -> Self {
        self.record("logs", filter.to_string());
        self.logs = Some(filter);
        self
    }

    /// Logs every panic in worker processes, on any thread, at ERROR with target `panic`. By default a panic of an op is
    /// only the error of its task.
    pub fn log_panics(mut self) -> Self {
        self.record("log_panics", "yes".to_owned());
        self.panic_logs = PanicLogs::On;
        self
    }

    /// Calls `dump` with the state of all workers when this process receives SIGUSR1 (on Windows: Ctrl-Break). By default
    /// no handler is installed.
    pub fn on_dump(mut self, dump: impl Fn(&Snapshot) + Send + Sync + 'static) -> Self {
        self.record("on_dump", "yes".to_owned());
        self.configure(|pool| pool.on_dump(dump))
    }

    /// Adds the worker's stack to the error of a task that exceeds its [`deadline`](Self::deadline). Linux only.
    #[cfg(feature = "stacks")]
    pub fn stack_on_deadline(mut self) -> Self {
        self.record("stack_on_deadline", "yes".to_owned());
        self.configure(proc_pool::Builder::stack_on_deadline)
    }

    /// Sets how much worker processes measure for the report (default: [`Timing::Totals`], or [`Timing::Samples`] with
    /// [`Builder::trace`](crate::Builder::trace)). With [`Timing::Off`] the report has neither latencies nor times of
    /// workers. `cargo xtask bench invoker` measures the cost: on the main job it is below the noise.
    pub fn timing(self, timing: Timing) -> Self {
        self.set("timing", timing, |pool| pool.timing(timing))
    }

    /// Measures enough for a trace, unless the caller has chosen.
    pub(crate) fn sample_for_trace(self) -> Self {
        match self.is_set("timing") {
            true => self,
            false => self.timing(Timing::Samples),
        }
    }

    pub(crate) fn is_set(&self, option: &str) -> bool {
        self.set.iter().any(|(name, _)| *name == option)
    }

    /// All options: name, value if it was set, text of the default.
    pub(crate) fn values(&self) -> impl Iterator<Item = (&'static str, Option<String>, &'static str)> {
        DEFAULTS.into_iter().map(|(option, default)| {
            let of_option = self.set.iter().filter(|(name, _)| *name == option);
            let values: Vec<&str> = of_option.map(|(_, value)| &**value).collect();
            let value = (!values.is_empty()).then(|| values.join(", "));
            (option, value, default)
        })
    }

    /// Records the value of an option for [`values`](Self::values); only `env` accumulates.
    fn record(&mut self, option: &'static str, value: String) {
        if option != "env" {
            self.set.retain(|(name, _)| *name != option);
        }
        self.set.push((option, value));
    }

    fn configure(mut self, change: impl FnOnce(proc_pool::Builder) -> proc_pool::Builder) -> Self {
        self.pool = change(self.pool);
        self
    }

    fn set(
        mut self,
        option: &'static str,
        value: impl Debug,
        change: impl FnOnce(proc_pool::Builder) -> proc_pool::Builder,
    ) -> Self {
        self.record(option, format!("{value:?}"));
        self.configure(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_listed_with_its_value() {
        let dir = std::env::temp_dir();
        let options = Processes::new()
            .backing(Backing::Named)
            .copies(Copies::Refuse)
            .deadline(Duration::from_secs(1))
            .retries(1)
            .retries(2)
            .start_timeout(Duration::from_secs(3))
            .recycle_after(4)
            .recycle_above_bytes(5)
            .memory_limit_bytes(6)
            .native_threads_by_level([NativeThreads::Count(3), NativeThreads::Unlimited])
            .env("GONE", "1")
            .env_clear()
            .env("A", "secret")
            .env_remove("B")
            .worker_env(|worker| [("C", worker.0.to_string())])
            .current_dir(&dir)
            .stdout(Redirect::Null)
            .stderr(Redirect::Capture)
            .logs(Filter::off())
            .log_panics()
            .on_dump(|_| {})
            .timing(Timing::Off)
            .sample_for_trace();
        #[cfg(feature = "stacks")]
        let options = options.stack_on_deadline();
        let value = |option: &str| {
            let found = options.values().find(|(name, ..)| *name == option);
            found.and_then(|(_, value, _)| value)
        };
        for (option, ..) in options.values() {
            let expected = option != "stack_on_deadline" || cfg!(feature = "stacks");
            assert_eq!(value(option).is_some(), expected, "{option}");
        }
        assert_eq!(value("retries").as_deref(), Some("2"));
        assert_eq!(value("env").as_deref(), Some("cleared, A=…, no B"));
        assert_eq!(value("native_threads").as_deref(), Some("Count(3), Unlimited"));
        assert_eq!(value("timing").as_deref(), Some("Off"));
        let listed = |name: &&str| DEFAULTS.iter().any(|(option, _)| option == name);
        assert!(options.set.iter().all(|(name, _)| listed(name)));
        let traced = Processes::new().sample_for_trace();
        assert_eq!(traced.values().filter(|(_, value, _)| value.is_some()).count(), 1);
    }
}
