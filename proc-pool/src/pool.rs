//! [`BytePool`] and [`Pool`]: a number of worker processes, on bytes and on values.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use shm_buffers::Backing;

use crate::core::Core;
use crate::driver::Driver;
use crate::entry::Entry;
use crate::error::{PoolError, WorkerId};
use crate::init;
use crate::keeper::{Keeper, Order, Plan};
use crate::limits::Limits;
use crate::map::{Map, Order as MapOrder};
use crate::observer::{Nobody, Observer};
use crate::os::Memory;
use crate::protocol::Sizes;
use crate::service::{Op, Service, Typed, Worker, decode, encode};
use crate::spawn;
use crate::stats::Stats;
use crate::supervisor::{Patience, Supervisor};
use crate::worker::serve;

/// The most workers a pool can have.
pub const MAX_WORKERS: usize = 1024;

const MAX_SIDE_RING: usize = 1 << 30;
const MAX_SLOTS: usize = 1 << 20;

/// How many workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Workers {
    /// One for each core that this process may use (its CPU quota and affinity respected).
    #[default]
    All,
    /// That many.
    Count(usize),
}

impl Workers {
    /// The number meant.
    ///
    /// # Errors
    /// [`PoolError::WorkerCount`] for none, or more than [`MAX_WORKERS`].
    pub fn resolve(self) -> Result<NonZeroUsize, PoolError> {
        let count = match self {
            Self::All => cores().min(MAX_WORKERS),
            Self::Count(count) => count,
        };
        NonZeroUsize::new(count)
            .filter(|n| n.get() <= MAX_WORKERS)
            .ok_or(PoolError::WorkerCount {
                asked: count,
                max: MAX_WORKERS,
            })
    }
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Sets a pool up.
#[derive(Clone)]
pub struct Builder {
    workers: Workers,
    patience: Patience,
    limits: Limits,
    sizes: Sizes,
    backing: Backing,
    observer: Arc<dyn Observer>,
    environment: BTreeMap<OsString, OsString>,
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
            sizes: Sizes {
                ring: 256 << 10,
                side: 256 << 10,
                slots: 0,
            },
            backing: Backing::Auto,
            observer: Arc::new(Nobody),
            environment: BTreeMap::new(),
        }
    }
}

/// The variables by which numeric libraries learn how many threads to use.
const THREAD_LIMITS: [&str; 7] = [
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
];

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

    /// How long a worker may take to get ready (default: 60 s).
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.patience.start_timeout = timeout;
        self
    }

    /// How long a task may run (default: for ever). Then its worker is killed, and [`Fault::TimedOut`](crate::Fault)
    /// is the task's error. It is looked at eight times in that time, at least every 250 ms.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.limits.deadline = Some(deadline);
        self
    }

    /// How many workers a task may cost, by their death or its deadline, before that is its error (default: none).
    /// Each time it is run again from the start: for tasks that may be run twice.
    pub fn retries(mut self, retries: u32) -> Self {
        self.limits.retries = retries;
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

    /// Where the memory shared with each worker is (default: [`Backing::Auto`]).
    pub fn backing(mut self, backing: Backing) -> Self {
        self.backing = backing;
        self
    }

    /// Who watches side rings and slots (default: nobody).
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Sets an environment variable of the workers. Otherwise they have this process's, and thread limits for
    /// numeric libraries (`OMP_NUM_THREADS` and the like) of cores divided by workers where none are set.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Starts a pool of workers that run `S`, each made from `init`, and waits until all are ready.
    ///
    /// # Errors
    /// [`PoolError`]; when workers can't start, after a few attempts.
    pub fn build_bytes<S: Service>(self, init: Vec<u8>) -> Result<BytePool, PoolError> {
        if !init::is_initialized() {
            return Err(PoolError::NotInitialized);
        }
        let workers = self.workers.resolve()?.get();
        let sizes = [
            ("a side ring", self.sizes.side, MAX_SIDE_RING),
            ("a number of slots", self.sizes.slots, MAX_SLOTS),
        ];
        for (what, asked, max) in sizes {
            if asked > max {
                return Err(PoolError::Size { what, asked, max });
            }
        }
        spawn::check()?;
        let entry = Entry::of(serve::<S>)?;
        let supervisor = Supervisor::new(workers, self.patience, Instant::now());
        let (keeper, orders) = crossbeam_channel::unbounded();
        let driver = Arc::new(Driver::new(Core::new(
            workers,
            self.limits,
            supervisor,
            keeper.clone(),
        ))?);
        let mut environment = self.environment;
        let threads = (cores() / workers).max(1).to_string();
        for name in THREAD_LIMITS {
            if std::env::var_os(name).is_none() {
                environment
                    .entry(name.into())
                    .or_insert_with(|| threads.clone().into());
            }
        }
        let plan = Plan {
            workers,
            entry,
            sizes: self.sizes,
            init,
            backing: self.backing,
            environment,
        };
        let keeping = Keeper::new(driver.clone(), self.observer, plan, orders, keeper.clone())?;
        let thread = |name: &str| thread::Builder::new().name(name.to_owned());
        let mut pool = BytePool {
            workers,
            driver: driver.clone(),
            keeper,
            threads: Vec::new(),
        };
        let started = thread("proc-pool keeper").spawn(move || keeping.run());
        pool.threads
            .push(started.map_err(PoolError::io("start a thread"))?);
        let started = thread("proc-pool standby").spawn(move || driver.stand_by());
        pool.threads
            .push(started.map_err(PoolError::io("start a thread"))?);
        let ready = pool.driver.wait(None, |core| match core.failure() {
            Some(error) => Some(Err(error.clone())),
            None => core.all_ready().then_some(Ok(())),
        });
        ready.unwrap_or(Err(PoolError::ShutDown))?;
        Ok(pool)
    }

    /// Starts a pool of [`Worker`]s, each made from `op` and `init`, and waits until all are ready.
    ///
    /// # Errors
    /// [`PoolError`]; when workers can't start, after a few attempts.
    pub fn build<W: Worker>(self, op: W::Op, init: &W::Init) -> Result<Pool<W::Task, W::Output>, PoolError> {
        // Its type is all that crosses, as part of the entry point's; that it exists is what `op` shows.
        let _ = op;
        let mut bytes = Vec::new();
        encode(init, &mut bytes).map_err(|e| PoolError::Init(e.to_string()))?;
        Ok(Pool {
            bytes: self.build_bytes::<Typed<W>>(bytes)?,
            types: PhantomData,
        })
    }

    /// Starts a pool that runs `op`: a plain `fn`, or a closure that captures nothing (another one does not
    /// compile).
    ///
    /// # Errors
    /// [`PoolError`]; when workers can't start, after a few attempts.
    pub fn build_op<F, T, R>(self, op: F) -> Result<Pool<T, R>, PoolError>
    where
        F: Fn(T) -> R + Copy + 'static,
        T: serde::Serialize + serde::de::DeserializeOwned + 'static,
        R: serde::Serialize + serde::de::DeserializeOwned + 'static,
    {
        self.build::<Op<F, T, R>>(op, &())
    }
}

/// A number of worker processes that turn bytes into bytes.
///
/// Dropping it kills the workers; [`shutdown`](Self::shutdown) lets them end.
#[derive(Debug)]
pub struct BytePool {
    workers: usize,
    driver: Arc<Driver>,
    keeper: crossbeam_channel::Sender<Order>,
    threads: Vec<JoinHandle<()>>,
}

impl BytePool {
    /// How many workers it has.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The counts up to now.
    pub fn stats(&self) -> Stats {
        self.driver.core().stats
    }

    /// Process ids of the workers that are there now.
    pub fn pids(&self) -> Vec<(WorkerId, u32)> {
        self.driver.core().pids()
    }

    /// Memory of the workers that are there now, where the system tells.
    pub fn memory(&self) -> Vec<(WorkerId, Memory)> {
        let pids = self.pids();
        pids.into_iter()
            .filter_map(|(worker, pid)| Some((worker, Memory::of(pid)?)))
            .collect()
    }

    /// Runs every task and gives the outputs in the tasks' order. Tasks are taken from `tasks` as there is room for
    /// them: it may be infinite.
    pub fn map<I>(&self, tasks: I) -> impl Iterator<Item = Result<Vec<u8>, crate::TaskError>>
    where
        I: IntoIterator<Item: AsRef<[u8]>>,
    {
        self.bytes_map(tasks, MapOrder::Ordered)
    }

    /// As [`map`](Self::map), with outputs as they come.
    pub fn map_unordered<I>(&self, tasks: I) -> impl Iterator<Item = Result<Vec<u8>, crate::TaskError>>
    where
        I: IntoIterator<Item: AsRef<[u8]>>,
    {
        self.bytes_map(tasks, MapOrder::AsCompleted)
    }

    fn bytes_map<I>(
        &self,
        tasks: I,
        order: MapOrder,
    ) -> impl Iterator<Item = Result<Vec<u8>, crate::TaskError>>
    where
        I: IntoIterator<Item: AsRef<[u8]>>,
    {
        let put = |task: I::Item, bytes: &mut Vec<u8>| {
            bytes.extend_from_slice(task.as_ref());
            Ok(())
        };
        Map::new(&self.driver, tasks.into_iter(), order, put, |bytes| {
            Ok(bytes.to_vec())
        })
    }

    /// Lets the workers end by themselves, and kills those that have not at `deadline` from now.
    ///
    /// # Errors
    /// The pool's failure, if it had failed.
    pub fn shutdown(self, deadline: Duration) -> Result<Stats, PoolError> {
        let failure = self.driver.core().failure().cloned();
        self.driver.core().close();
        self.driver.wait(Instant::now().checked_add(deadline), |core| {
            core.all_gone().then_some(())
        });
        let stats = self.stats();
        match failure {
            Some(error) => Err(error),
            None => Ok(stats),
        }
    }
}

impl Drop for BytePool {
    fn drop(&mut self) {
        self.driver.core().close();
        // Keeper and standby end by themselves if they have to: each wait of theirs is bounded.
        let _ = self.keeper.send(Order::Stop);
        self.driver.stop();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A number of worker processes that turn a `T` into an `R`.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// proc_pool::init(); // the first line of main
/// let pool = proc_pool::Builder::new().build_op(|n: u64| n * n)?;
/// for square in pool.map(0..1_000_000) {
///     println!("{}", square?);
/// }
/// # Ok(()) }
/// ```
pub struct Pool<T, R> {
    bytes: BytePool,
    types: PhantomData<fn(T) -> R>,
}

impl<T, R> std::fmt::Debug for Pool<T, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Pool").field(&self.bytes).finish()
    }
}

impl<T: serde::Serialize, R: serde::de::DeserializeOwned> Pool<T, R> {
    /// The pool below, on bytes.
    pub fn bytes(&self) -> &BytePool {
        &self.bytes
    }

    /// Runs every task and gives the outputs in the tasks' order. Tasks are taken from `tasks` as there is room for
    /// them: it may be infinite.
    pub fn map<I: IntoIterator<Item = T>>(&self, tasks: I) -> Map<'_, I::IntoIter, R> {
        self.run(tasks, MapOrder::Ordered)
    }

    /// As [`map`](Self::map), with outputs as they come.
    pub fn map_unordered<I: IntoIterator<Item = T>>(&self, tasks: I) -> Map<'_, I::IntoIter, R> {
        self.run(tasks, MapOrder::AsCompleted)
    }

    fn run<I: IntoIterator<Item = T>>(&self, tasks: I, order: MapOrder) -> Map<'_, I::IntoIter, R> {
        let put = |task: T, bytes: &mut Vec<u8>| encode(&task, bytes).map_err(|e| e.to_string());
        let get = |bytes: &[u8]| decode(bytes).map_err(|e| e.to_string());
        Map::new(&self.bytes.driver, tasks.into_iter(), order, put, get)
    }

    /// Lets the workers end by themselves, and kills those that have not at `deadline` from now.
    ///
    /// # Errors
    /// The pool's failure, if it had failed.
    pub fn shutdown(self, deadline: Duration) -> Result<Stats, PoolError> {
        self.bytes.shutdown(deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No test of this binary calls `init`.
    #[test]
    fn without_init_there_is_no_pool() {
        let pool = Builder::new().workers(Workers::Count(1)).build_op(|n: u64| n);
        let Err(error) = pool else { panic!("it started") };
        assert!(matches!(error, PoolError::NotInitialized));
        assert!(error.to_string().contains("init()"), "{error}");
    }

    #[test]
    fn defaults_are_as_documented() {
        let Builder {
            workers,
            patience,
            sizes,
            backing,
            environment,
            ..
        } = Builder::new();
        assert_eq!(workers, Workers::All);
        assert_eq!(workers.resolve().unwrap().get(), cores().min(MAX_WORKERS));
        assert_eq!(patience.start_timeout, Duration::from_secs(60));
        assert_eq!((sizes.side, sizes.slots), (256 << 10, 0));
        assert_eq!(backing, Backing::Auto);
        assert!(environment.is_empty());
    }

    #[test]
    fn pools_are_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<BytePool>();
        shared::<Pool<u64, String>>();
    }
}
