//! [`Builder`]: how a pool is to be, and its start.

mod build;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shm_buffers::Backing;
use shm_buffers::descriptors::Descriptors;

use crate::interrupt::{OnInterrupt, Reactions};
use crate::launch::Launch;
use crate::limits::Limits;
use crate::observer::{Nobody, Observer};
use crate::printed::Redirect;
use crate::protocol::{Inherited, Sizes};
use crate::snapshot::Snapshot;
use crate::supervisor::Patience;
use crate::threads::Threads;
use crate::timing::{Timing, tally};
use crate::workers::Workers;

/// Shared memory for large tasks of a worker's, and for its large outputs, in bytes.
const ARENA: usize = 8 << 20;
/// Bytes of an output, unless the user has another limit.
const MAX_OUTPUT: u64 = 4 << 30;

/// Sets a pool up.
#[derive(Clone)]
pub struct Builder {
    workers: Workers,
    patience: Patience,
    limits: Limits,
    lifespan: Option<u64>,
    sizes: Sizes,
    backing: Backing,
    /// What handles in the initial value lead to.
    descriptors: Vec<Arc<Descriptors>>,
    inherited: Inherited,
    observer: Arc<dyn Observer>,
    launch: Launch,
    /// For the workers, theirs, and so on.
    threads: Vec<Threads>,
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
            patience: Patience {
                start_timeout: Duration::from_secs(60),
                start_attempts: 3,
                backoff: Duration::from_millis(100),
            },
            limits: Limits::default(),
            lifespan: None,
            sizes: Sizes {
                ring: 256 << 10,
                side: 256 << 10,
                slots: 0,
                stack: 0,
                timing: tally::slots(Timing::default()),
                arena: ARENA,
                output: MAX_OUTPUT,
            },
            backing: Backing::Auto,
            descriptors: Vec::new(),
            inherited: Inherited::default(),
            observer: Arc::new(Nobody),
            launch: Launch::default(),
            threads: Vec::new(),
            reactions: Reactions::default(),
        }
    }
}

impl Builder {
    /// A pool of a worker for each core.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many workers (default: [`Workers::All`]).
    pub fn workers(mut self, workers: Workers) -> Self {
        self.workers = workers;
        self
    }

    /// Which of this process's open files each worker keeps (default: [`Inherited::Nothing`]).
    pub fn inherited(mut self, inherited: Inherited) -> Self {
        self.inherited = inherited;
        self
    }

    /// Hands descriptors to every worker, which attaches the handles that they belong to through them. It is needed only for
    /// handles that were serialized by the program itself, as for [`build_bytes`](Self::build_bytes): what handles in other
    /// initial values lead to is found when they are encoded.
    pub fn pass(mut self, descriptors: Descriptors) -> Self {
        if !descriptors.is_empty() {
            self.descriptors.push(Arc::new(descriptors));
        }
        self
    }

    /// How long a worker may take to get ready (default: 60 s).
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.patience.start_timeout = timeout;
        self
    }

    /// How long a task may run (default: for ever). Then its worker is killed, and [`Fault::TimedOut`](crate::Fault)
    /// is the task's error. It is looked at eight times in that time, at least every 250 ms. Time during which this
    /// process was stopped as well (by its terminal, say) does not count.
    ///
    /// No other task is lost: the pool takes back those that the worker has not started before it kills it. If the late
    /// task finishes before the kill comes, its output counts; the worker is replaced all the same.
    ///
    /// Programs that an op has started end with their worker, here as at the end of the pool, unless they lead a process
    /// group of their own (on Windows: unless they have left the worker's job).
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.limits.deadline = Some(deadline);
        self
    }

    /// How many workers a task may cost, by their death or its deadline, before that is its error (default: none).
    /// Each time it is run again from the start: for tasks that may be run twice.
    ///
    /// | a worker dies, and the task | is run again | the task's error |
    /// |---|---|---|
    /// | was answered | no: its output is kept | none |
    /// | was sent and not started | always: it did nothing yet; not counted | none |
    /// | was running, for the first to the `retries`-th time | yes, and no other task waits behind it meanwhile | none yet |
    /// | was running, once more | no: it is given up | [`Fault`](crate::Fault) `WorkerDied` or `TimedOut`, with `deaths` |
    ///
    /// An op that returns an error or panics is answered, and so not run again.
    pub fn retries(mut self, retries: u32) -> Self {
        self.limits.retries = retries;
        self
    }

    /// Replaces each worker process when it has run so many tasks (default: never), against what ops leave behind.
    /// Other pools know this as a worker's lifespan (`mpire`) or `maxtasksperchild` (`multiprocessing`).
    ///
    /// No process gets more tasks than that; with 1, each task has a new process. It ends in the ordinary way,
    /// `atexit` handlers included, within 5 s. The first processes get fewer, so that not all workers are replaced
    /// at the same time. A [`Worker`](crate::Worker)'s state goes with its process.
    pub fn recycle_after(mut self, tasks: u64) -> Self {
        self.lifespan = Some(tasks);
        self
    }

    /// Replaces each worker process that has more than so many bytes of its own, once it has done the tasks that it
    /// has (default: never), as `joblib` does with workers that leak. Meanwhile the others go on: of four workers, one
    /// is replaced at a time. Linux only: elsewhere the pool is refused with [`PoolError`](crate::PoolError)
    /// `Unsupported`.
    ///
    /// A process's own memory is what it has allocated and touched, the bytes of a large task included; the model that all share
    /// does not count. It is
    /// looked at up to five times a second, and only while there are tasks and for a moment after. One that has not
    /// run a task is not replaced, however large.
    pub fn recycle_above(mut self, bytes: u64) -> Self {
        self.limits.recycle_above = Some(bytes);
        self
    }

    /// Kills each worker process that has more than so many bytes of its own (default: none is killed). The task that
    /// it was running gets the error `WorkerDied`, with [`KillReason::MemoryLimit`](crate::KillReason). Linux only, as
    /// [`recycle_above`](Self::recycle_above) is.
    ///
    /// What counts, and when it is looked at, is as there: a task may take
    /// more for a fifth of a second. It keeps one task from taking the machine's memory, not from taking any.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.limits.memory = Some(bytes);
        self
    }

    /// How many bytes an output may have, as it is encoded (default: 4 GiB). One that has more is its task's error,
    /// [`Fault::Output`](crate::Fault), and its worker goes on. A worker that sends more nevertheless is killed, with
    /// [`KillReason::Corrupt`](crate::KillReason): no worker makes this process take more memory for an output than that.
    pub fn max_output(mut self, bytes: u64) -> Self {
        self.sizes.output = bytes;
        self
    }

    /// Bytes of each worker's side ring (default: 256 KiB; 1 GiB at most).
    pub fn side_ring(mut self, bytes: usize) -> Self {
        self.sizes.side = bytes;
        self
    }

    /// How many slots each worker has for numbers of its own (default: 0; 2^20 at most).
    pub fn slots(mut self, count: usize) -> Self {
        self.sizes.slots = count;
        self
    }

    /// How much workers tell of their time (default: [`Timing::Totals`]), for a [`Chronicle`](crate::Chronicle).
    pub fn timing(mut self, timing: Timing) -> Self {
        self.sizes.timing = tally::slots(timing);
        self
    }

    /// Where the memory shared with each worker is (default: [`Backing::Auto`]).
    pub fn backing(mut self, backing: Backing) -> Self {
        self.backing = backing;
        self
    }

    /// Who watches side rings and slots, and what workers print if that is captured (default: nobody).
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Asks a worker for its stack before it is killed because its task ran longer than the
    /// [`deadline`](Self::deadline) (default: it isn't asked). It is in [`Fault::TimedOut`](crate::Fault): the calls of
    /// the thread that runs tasks, innermost first, as far as they can be told; 64 at most. Names and lines come
    /// from this program's debug information, which takes the leader a while to read at the first time.
    ///
    /// A worker that doesn't answer within half a second is killed without. On Linux it is asked by the signal `SIGRTMAX - 5`;
    /// elsewhere it isn't.
    #[cfg(feature = "stacks")]
    pub fn stack_on_deadline(mut self) -> Self {
        #[cfg(target_os = "linux")]
        use crate::stack::SLOTS;
        #[cfg(not(target_os = "linux"))]
        const SLOTS: usize = 0;

        self.sizes.stack = SLOTS;
        self
    }

    /// What Ctrl-C and SIGTERM do to the pool while it exists (default: [`OnInterrupt::Ignore`]).
    ///
    /// The workers of any pool leave Ctrl-C and SIGTERM to this process. Each leads a process group, so that signals for
    /// the group of this process do not reach workers or the programs that they start.
    ///
    /// A handler of the program's that is installed when the pool starts is called as well, after the pool's.
    pub fn on_interrupt(mut self, reaction: OnInterrupt) -> Self {
        self.reactions.interrupt = reaction;
        self
    }

    /// Calls `dump` with a [`Snapshot`] when this process is asked what it is doing, while the pool exists: by SIGUSR1,
    /// on Windows by Ctrl-Break (default: nobody listens). Calls come from a thread of their own.
    ///
    /// ```
    /// let builder = proc_pool::Builder::new().on_dump(|snapshot| eprintln!("{snapshot}"));
    /// ```
    pub fn on_dump(mut self, dump: impl Fn(&Snapshot) + Send + Sync + 'static) -> Self {
        self.reactions.dump = Some(Arc::new(dump));
        self
    }

    /// Sets an environment variable of the workers. Otherwise they have this process's, and limits for their
    /// [`threads`](Self::threads).
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.launch.environment.set(name.into(), value.into());
        self
    }

    /// Keeps an environment variable of this process, or a limit of [`threads`](Self::threads), from the workers.
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Self {
        self.launch.environment.remove(name.into());
        self
    }

    /// Keeps all of this process's environment variables from the workers, and forgets what [`env`](Self::env) has
    /// set up to now.
    pub fn env_clear(mut self) -> Self {
        self.launch.environment.clear();
        self
    }

    /// The directory that workers are started in (default: this process's).
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.launch.directory = Some(directory.into());
        self
    }

    /// Where the workers' standard output goes (default: [`Redirect::Inherit`]). Their standard input is always
    /// empty.
    pub fn stdout(mut self, redirect: Redirect) -> Self {
        self.launch.stdout = redirect;
        self
    }

    /// Where the workers' standard error goes (default: [`Redirect::Inherit`]).
    pub fn stderr(mut self, redirect: Redirect) -> Self {
        self.launch.stderr = redirect;
        self
    }

    /// How many threads the numeric libraries in each worker may use (default: [`Threads::Share`]).
    pub fn threads(self, threads: Threads) -> Self {
        self.threads_by_level([threads])
    }

    /// As [`threads`](Self::threads), also for pools within the workers, if those pools don't choose themselves: the
    /// first for the workers, the second for their workers, and so on; [`Threads::Share`] after the last.
    ///
    /// ```
    /// use proc_pool::{Builder, Threads};
    ///
    /// // Two threads for the ops; pools that an op makes divide those two.
    /// let builder = Builder::new().threads(Threads::Count(2));
    /// // Workers may use all there is, their workers one thread each.
    /// let builder = Builder::new().threads_by_level([Threads::Unlimited, Threads::Count(1)]);
    /// ```
    pub fn threads_by_level(mut self, levels: impl IntoIterator<Item = Threads>) -> Self {
        self.threads = levels.into_iter().collect();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::PoolError;
    use crate::workers::{MAX_WORKERS, cores};

    /// No test of this binary calls `init`.
    #[test]
    fn without_init_there_is_no_pool() {
        let pool = Builder::new().workers(Workers::Count(1)).build_op(|n: u64| n);
        let Err(error) = pool else { panic!("it started") };
        assert!(matches!(error, PoolError::NotInitialized));
        assert!(error.to_string().contains("init()"), "{error}");
        // Another program can't be mistaken for this one.
        let pool = Builder::new().build_named::<u64, u64, _>("no/such/program", "square", &());
        assert!(matches!(pool, Err(PoolError::Program { .. })), "{pool:?}");
    }

    #[test]
    fn defaults_are_as_documented() {
        let Builder {
            workers,
            patience,
            limits,
            lifespan,
            sizes,
            backing,
            launch,
            threads,
            ..
        } = Builder::new();
        assert_eq!(workers, Workers::All);
        assert_eq!(workers.resolve().unwrap().get(), cores().min(MAX_WORKERS));
        assert_eq!(patience.start_timeout, Duration::from_secs(60));
        assert_eq!((limits.deadline, limits.retries), (None, 0));
        assert!(lifespan.is_none() && !limits.weighs());
        assert_eq!((sizes.side, sizes.slots), (256 << 10, 0));
        assert_eq!((sizes.arena, sizes.output), (8 << 20, 4 << 30));
        assert_eq!(backing, Backing::Auto);
        assert!(launch.environment.inherits() && launch.directory.is_none());
        assert_eq!(
            (launch.stdout, launch.stderr),
            (Redirect::Inherit, Redirect::Inherit)
        );
        assert!(threads.is_empty());
        assert_eq!(Threads::default(), Threads::Share);
    }
}
