//! [`Builder`]: how a pool is to be, and its start.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shm_buffers::Backing;

use crate::core::Core;
use crate::driver::Driver;
use crate::entry::Entry;
use crate::error::PoolError;
use crate::init;
use crate::keeper::{Keeper, Plan};
use crate::limits::Limits;
use crate::observer::{Nobody, Observer};
use crate::pool::{BytePool, Pool};
use crate::protocol::Sizes;
use crate::service::{Op, Service, Typed, Worker, encode};
use crate::spawn;
use crate::supervisor::{Patience, Supervisor};
use crate::worker::serve;
use crate::workers::{Workers, cores};

const MAX_SIDE_RING: usize = 1 << 30;
const MAX_SLOTS: usize = 1 << 20;

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
        BytePool::start(workers, driver, keeper, keeping)
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
        Ok(Pool::new(self.build_bytes::<Typed<W>>(bytes)?))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workers::MAX_WORKERS;

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
}
