//! [`Builder`]: the options of a pool. Its submodule `build` starts the pool; `process_hooks` has the options that call the program for
//! each process.

mod build;
mod process_hooks;

pub use build::Runnable;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shm_buffers::Backing;
use shm_buffers::descriptors::Descriptors;

use crate::leader::limits::Limits;
use crate::leader::snapshot::Snapshot;
use crate::leader::supervisor::RestartPolicy;
use crate::metrics::{Timing, worker_metrics};
use crate::observer::Redirect;
use crate::observer::{NoopObserver, Observer, OnWorkerEnd};
use crate::pool::interrupt::{OnInterrupt, Reactions};
use crate::pool::workers::Workers;
use crate::process::launch::Launch;
use crate::process::threads::NativeThreads;
use crate::process::worker_hooks::WorkerHooks;
use crate::wire::handshake::Inherited;
use crate::wire::layout::RegionSizes;
use crate::wire::pieces::Trust;

/// Maximum size, in bytes, of the shared memory for large tasks of one worker, and of that for its large outputs. Only what is in use at a
/// time takes memory: half of it at most by buffers that are held, and a few megabytes by other payloads.
const ARENA: usize = match usize::BITS {
    64 => 64 << 20,
    _ => 4 << 20,
};
/// Default of the maximum size of an output, in bytes.
const MAX_OUTPUT: u64 = 4 << 30;

/// The options of a pool, and its start.
///
/// ```no_run
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = proc_pool::Builder::new()
///     .workers(4)
///     .deadline(Duration::from_secs(10))
///     .retries(1)
///     .build_op(|n: u64| n * n)?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until it builds a pool"]
pub struct Builder {
    workers: Workers,
    restart_policy: RestartPolicy,
    limits: Limits,
    max_tasks: Option<u64>,
    sizes: RegionSizes,
    backing: Backing,
    /// The descriptors that handles in the initial value refer to.
    descriptors: Vec<Arc<Descriptors>>,
    inherited: Inherited,
    trust: Trust,
    observer: Arc<dyn Observer>,
    on_worker_end: Vec<Arc<OnWorkerEnd>>,
    hooks: WorkerHooks,
    launch: Launch,
    /// For the workers, for the workers of their pools, and so on.
    native_threads: Vec<NativeThreads>,
    reactions: Reactions,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            workers: Workers::All,
            restart_policy: RestartPolicy {
                start_timeout: Duration::from_secs(60),
                start_attempts: 3,
                backoff: Duration::from_millis(100),
                own_program: true,
            },
            limits: Limits::default(),
            max_tasks: None,
            sizes: RegionSizes {
                ring: 256 << 10,
                user_ring: 256 << 10,
                slots: 0,
                stack: 0,
                timing: worker_metrics::slots(Timing::default()),
                arena: ARENA,
                output: MAX_OUTPUT,
            },
            backing: Backing::Auto,
            descriptors: Vec::new(),
            inherited: Inherited::default(),
            trust: Trust::default(),
            observer: Arc::new(NoopObserver),
            on_worker_end: Vec::new(),
            hooks: WorkerHooks::default(),
            launch: Launch::default(),
            native_threads: Vec::new(),
            reactions: Reactions::default(),
        }
    }
}

impl Builder {
    /// Makes a builder with the default options: a pool with one worker for each core.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the number of workers (default: [`Workers::All`]).
    pub fn workers(mut self, workers: impl Into<Workers>) -> Self {
        self.workers = workers.into();
        self
    }

    /// Sets which open files of this process each worker keeps (default: [`Inherited::Nothing`]).
    pub fn inherited(mut self, inherited: Inherited) -> Self {
        self.inherited = inherited;
        self
    }

    /// Passes descriptors to every worker, which can then attach the handles that belong to them. This is needed only for
    /// handles that the program has serialized itself, for example for an
    /// [`EntryPoint::service`](crate::EntryPoint::service). For the handles in other initial values, the descriptors are found
    /// when the value is encoded.
    pub fn pass_descriptors(mut self, descriptors: Descriptors) -> Self {
        if !descriptors.is_empty() {
            self.descriptors.push(Arc::new(descriptors));
        }
        self
    }

    /// Sets the time within which a worker must be ready (default: 60 s).
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.restart_policy.start_timeout = timeout;
        self
    }

    /// Sets the longest time that a task may run (default: no limit). When it has passed, the task's worker is killed, and the
    /// task's error is [`Fault::TimedOut`](crate::Fault). The pool checks eight times within the deadline, but at least every
    /// 250 ms. Time during which this process itself was stopped (for example by its terminal) does not count.
    ///
    /// No other task is lost, because the pool recalls the tasks that the worker has not started before it kills the worker. If
    /// the late task finishes before the kill, its output counts; the worker is replaced nevertheless.
    ///
    /// Programs that an op has started are killed with their worker, as at the end of the pool, unless they lead a process
    /// group of their own (on Windows: unless they have left the worker's job).
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.limits.deadline = Some(deadline);
        self
    }

    /// Sets how often a task is retried after its worker has died, or after its deadline has passed (default: 0). A retry runs
    /// the task again from the start, so the op must be idempotent.
    ///
    /// | when a worker dies, a task that | is run again | error of the task |
    /// |---|---|---|
    /// | was answered | no: its output is kept | none |
    /// | was sent and not started | always: it has done nothing yet, and this is not a retry | none |
    /// | was running, up to `retries` times | yes; no other task waits behind it during a retry | none yet |
    /// | was running, once more | no | [`Fault`](crate::Fault) `WorkerDied` or `TimedOut`, with the number of `deaths` |
    ///
    /// A task whose op returns an error or panics is answered, and so it is not retried.
    pub fn retries(mut self, retries: u32) -> Self {
        self.limits.retries = retries;
        self
    }

    /// Replaces each worker process after `tasks` tasks, to bound leaks of ops (default: never). In Python's pools, this is
    /// `maxtasksperchild` (`multiprocessing`) or a worker's lifespan (`mpire`).
    ///
    /// No process gets more tasks than that; with 1, each task has a new process. The process ends by an ordinary exit, with
    /// `atexit` handlers, and is killed after 5 s. The first processes get fewer tasks, so that not all workers are replaced
    /// at the same time. The state of a [`Worker`](crate::Worker) ends with its process.
    pub fn recycle_after(mut self, tasks: u64) -> Self {
        self.max_tasks = Some(tasks);
        self
    }

    /// Replaces each worker process whose private memory exceeds `bytes`, after it has finished the tasks that it has (default:
    /// never). `joblib` does the same with workers that leak. The other workers continue: of four workers, one is replaced at a
    /// time. Linux only: on other systems, [`build`](Self::build) fails with
    /// [`PoolError::Unsupported`](crate::PoolError::Unsupported).
    ///
    /// Private memory is memory that the process has allocated and touched, including the bytes of a large task. Shared memory
    /// does not count. It is sampled up to five times a second, only while there are tasks and for a moment afterwards. A
    /// process that has not run a task is never replaced.
    pub fn recycle_above(mut self, bytes: u64) -> Self {
        self.limits.recycle_above = Some(bytes);
        self
    }

    /// Kills each worker process whose private memory exceeds `bytes` (default: no limit). The error of the task that it was
    /// running is `WorkerDied` with [`KillReason::MemoryLimit`](crate::KillReason). Linux only, like
    /// [`recycle_above`](Self::recycle_above).
    ///
    /// The memory is measured and sampled as described there. So this is a safety net, not a hard limit: a task may exceed it
    /// for up to a fifth of a second.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.limits.memory = Some(bytes);
        self
    }

    /// Lets buffers of outputs be read where the worker has written them (default: they are copied when their elements are looked at).
    ///
    /// That concerns each [`Buffer`](shm_buffers::Buffer) of an output that has at least 8 KiB, and at most a quarter of the memory that
    /// the worker shares for outputs (16 MiB of 64 MiB on Linux). A buffer that is kept keeps its bytes of that memory, also beyond
    /// the end of the worker and the pool. When half of it is kept, the buffers of further outputs are copied.
    ///
    /// # Safety
    /// No worker writes the memory of an output that it has sent: neither an op, nor a library that it calls, nor a program that is
    /// the worker. This crate does not. Memory that is written nevertheless, by a stray pointer for example, is undefined behaviour
    /// in this process, from which a copy protects.
    #[allow(unsafe_code, reason = "its caller makes a promise")]
    pub unsafe fn trust_workers(mut self) -> Self {
        self.trust = Trust::Sender;
        self
    }

    /// Sets the maximum size of an encoded output (default: 4 GiB). The error of a task with a larger output is
    /// [`Fault::Output`](crate::Fault), and its worker continues. A corrupted worker that sends more nevertheless is killed with
    /// [`KillReason::Corrupt`](crate::KillReason), so that no worker can make this process allocate more for an output.
    pub fn max_output(mut self, bytes: u64) -> Self {
        self.sizes.output = bytes;
        self
    }

    /// Sets the size of each worker's user ring (default: 256 KiB, maximum: 1 GiB). It carries byte frames from the user's code
    /// in the worker ([`WorkerContext::take_user_ring`](crate::WorkerContext::take_user_ring)) to the pool's
    /// [`observer`](Self::observer).
    pub fn user_ring(mut self, bytes: usize) -> Self {
        self.sizes.user_ring = bytes;
        self
    }

    /// Sets the number of each worker's user slots (default: 0, maximum: 2^20). Each slot is a number that the user's code in
    /// the worker writes ([`WorkerContext::slots`](crate::WorkerContext::slots)), and that the pool's
    /// [`observer`](Self::observer) reads.
    pub fn slots(mut self, count: usize) -> Self {
        self.sizes.slots = count;
        self
    }

    /// Sets which times the workers measure for the pool's [`History`](crate::History) (default: [`Timing::Totals`]).
    pub fn timing(mut self, timing: Timing) -> Self {
        self.sizes.timing = worker_metrics::slots(timing);
        self
    }

    /// Sets where the memory that is shared with each worker comes from (default: [`Backing::Auto`]).
    pub fn backing(mut self, backing: Backing) -> Self {
        self.backing = backing;
        self
    }

    /// Captures the stack of a worker before it is killed because its task has passed the [`deadline`](Self::deadline)
    /// (default: off). The stack is part of [`Fault::TimedOut`](crate::Fault): the calls of the thread that runs tasks,
    /// innermost first, as far as they can be determined, up to 64. Names and lines come from this program's debug
    /// information; at the first timeout, the leader needs some time to read it.
    ///
    /// If a worker does not respond within half a second, it is killed without a stack. The pool uses the signal `SIGRTMAX - 5`,
    /// on Linux only; on other systems there is no stack.
    #[cfg(feature = "stacks")]
    pub fn stack_on_deadline(mut self) -> Self {
        #[cfg(target_os = "linux")]
        use crate::os::stack::SLOTS;
        #[cfg(not(target_os = "linux"))]
        const SLOTS: usize = 0;

        self.sizes.stack = SLOTS;
        self
    }

    /// Sets how the pool reacts to Ctrl-C and SIGTERM while it exists (default: [`OnInterrupt::Default`]).
    ///
    /// The workers of any pool leave Ctrl-C and SIGTERM to this process. Each leads a process group, so signals for the group of
    /// this process do not reach workers or the programs that they start.
    ///
    /// If the program has a handler installed when the pool starts, that handler is called after the pool's.
    pub fn on_interrupt(mut self, reaction: OnInterrupt) -> Self {
        self.reactions.interrupt = reaction;
        self
    }

    /// Calls `dump` with a [`Snapshot`] for each SIGUSR1 (on Windows: Ctrl-Break) that this process receives while the pool
    /// exists (default: no reaction). The calls come from a thread of their own.
    ///
    /// ```
    /// let builder = proc_pool::Builder::new().on_dump(|snapshot| eprintln!("{snapshot}"));
    /// ```
    pub fn on_dump(mut self, dump: impl Fn(&Snapshot) + Send + Sync + 'static) -> Self {
        self.reactions.dump = Some(Arc::new(dump));
        self
    }

    /// Sets an environment variable of the workers. By default they have the environment of this process, with limits for their
    /// [native threads](Self::native_threads).
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.launch.environment.set(name.into(), value.into());
        self
    }

    /// Removes an environment variable from the workers: one of this process, or a limit for
    /// [native threads](Self::native_threads).
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Self {
        self.launch.environment.remove(name.into());
        self
    }

    /// Removes all environment variables of this process from the workers, and those that [`env`](Self::env) has set so far.
    pub fn env_clear(mut self) -> Self {
        self.launch.environment.clear();
        self
    }

    /// Sets the working directory of the workers (default: that of this process).
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.launch.directory = Some(directory.into());
        self
    }

    /// Sets where the workers' standard output goes (default: [`Redirect::Inherit`]). Their standard input is always empty.
    pub fn stdout(mut self, redirect: Redirect) -> Self {
        self.launch.stdout = redirect;
        self
    }

    /// Sets where the workers' standard error goes (default: [`Redirect::Inherit`]).
    pub fn stderr(mut self, redirect: Redirect) -> Self {
        self.launch.stderr = redirect;
        self
    }

    /// Sets how many threads the numeric libraries in each worker may use (default: [`NativeThreads::Share`]).
    pub fn native_threads(self, threads: NativeThreads) -> Self {
        self.native_threads_by_level([threads])
    }

    /// Does the same as [`native_threads`](Self::native_threads), also for pools that the ops build, unless those pools have
    /// an option of their own. The first level is for the workers, the second for the workers of their pools, and so on;
    /// [`NativeThreads::Share`] follows the last level.
    ///
    /// ```
    /// use proc_pool::{Builder, NativeThreads};
    ///
    /// // Two threads for each worker. A pool that an op builds divides those two among its workers.
    /// let builder = Builder::new().native_threads(NativeThreads::Count(2));
    /// // No limit for the workers, and one thread for each worker of their pools.
    /// let builder = Builder::new().native_threads_by_level([NativeThreads::Unlimited, NativeThreads::Count(1)]);
    /// ```
    pub fn native_threads_by_level(mut self, levels: impl IntoIterator<Item = NativeThreads>) -> Self {
        self.native_threads = levels.into_iter().collect();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::PoolError;
    use crate::pool::workers::{MAX_WORKERS, cores};
    use crate::worker::entry_point::EntryPoint;

    /// No test of this binary calls `init`.
    #[test]
    fn build_fails_without_init() {
        let pool = Builder::new().workers(1).build_op(|n: u64| n);
        let Err(error) = pool else {
            panic!("the pool has started")
        };
        assert!(matches!(error, PoolError::NotInitialized));
        assert!(error.to_string().contains("init()"), "{error}");
        // A separate worker program needs no `init`.
        let pool = Builder::new().build(
            EntryPoint::named::<(), u64, u64>("no/such/program", "square"),
            &(),
        );
        assert!(matches!(pool, Err(PoolError::Program { .. })), "{pool:?}");
    }

    #[test]
    fn defaults_are_as_documented() {
        let Builder {
            workers,
            restart_policy,
            limits,
            max_tasks,
            sizes,
            backing,
            launch,
            native_threads,
            ..
        } = Builder::new();
        assert_eq!(workers, Workers::All);
        assert_eq!(workers.resolve().unwrap().get(), cores().min(MAX_WORKERS));
        assert_eq!(restart_policy.start_timeout, Duration::from_secs(60));
        assert_eq!((limits.deadline, limits.retries), (None, 0));
        assert!(max_tasks.is_none() && !limits.watches_memory());
        assert_eq!((sizes.user_ring, sizes.slots), (256 << 10, 0));
        assert_eq!((sizes.arena, sizes.output), (64 << 20, 4 << 30));
        // The worker waits when two large blocks, of up to a quarter of the arena, are not taken.
        assert!(crate::leader::connection::BOUNDED_BYTES >= 2 * (sizes.ring + sizes.arena / 4));
        assert_eq!(backing, Backing::Auto);
        assert!(launch.environment.inherits() && launch.directory.is_none());
        assert_eq!(
            (launch.stdout, launch.stderr),
            (Redirect::Inherit, Redirect::Inherit)
        );
        assert!(native_threads.is_empty());
        assert_eq!(NativeThreads::default(), NativeThreads::Share);
    }
}
