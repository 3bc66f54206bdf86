//! [`BytePool`] and [`Pool`]: a number of worker processes, on bytes and on values.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::batch::Draft;
use crate::bytes::Bytes;
use crate::codec::Codec;
use crate::decode::Decode;
use crate::driver::{Driver, Held};
use crate::error::{PoolError, WorkerId};
use crate::handle::Handle;
use crate::interrupt::{Interrupt, Interrupter, Reactions};
use crate::keeper::{Keeper, Order, Seat};
use crate::map::{Encode, Map, Order as MapOrder};
use crate::os::Memory;
use crate::signals::Subscription;
use crate::snapshot::Snapshot;
use crate::stats::Stats;
use crate::timing::Chronicle;
use crate::workers::Workers;

/// A number of worker processes that turn bytes into bytes.
///
/// Dropping it kills the workers; [`shutdown`](Self::shutdown) lets them end.
///
/// It belongs to the process that built it. A copy in a forked child refuses with [`PoolError::Forked`]: a map returns that
/// one error and ends, counts are zero, and a drop does nothing.
#[derive(Debug)]
pub struct BytePool {
    driver: Arc<Driver>,
    keeper: Sender<Order>,
    threads: Vec<JoinHandle<()>>,
    /// To signals.
    _subscription: Option<Subscription>,
}

impl BytePool {
    /// Starts the pool's threads and waits until all workers are ready.
    pub(crate) fn start(
        driver: Arc<Driver>,
        keeper: Sender<Order>,
        (seat, keeping): (Seat, Keeper),
        reactions: Reactions,
    ) -> Result<Self, PoolError> {
        // From here on, dropping it ends what was begun.
        let mut pool = Self {
            driver: driver.clone(),
            keeper,
            threads: Vec::new(),
            _subscription: reactions.subscribe(&driver)?,
        };
        pool.threads.push(seat.begin(keeping));
        let started = thread::Builder::new()
            .name("proc-pool standby".into())
            .spawn(move || driver.stand_by());
        pool.threads
            .push(started.map_err(PoolError::io("start a thread"))?);
        pool.wait_ready()?;
        Ok(pool)
    }

    /// The core, unless this process is a forked copy of the leader.
    fn core(&self) -> Result<Held<'_>, PoolError> {
        self.driver.check()?;
        Ok(self.driver.core())
    }

    /// How many workers are wanted: those it was built with, or of the last [`resize`](Self::resize).
    pub fn workers(&self) -> usize {
        self.core().map_or(0, |core| core.wanted())
    }

    /// Makes the pool larger or smaller, also from another thread in the middle of maps. It returns at once.
    ///
    /// New workers take tasks as soon as they are ready ([`wait_ready`](Self::wait_ready) waits for that). Of more than
    /// are wanted, those with the highest ids get no new tasks, finish what they have, and end: no task is lost or
    /// run twice. Workers that were there before are as they were: `OMP_NUM_THREADS` and the like, and what
    /// [`WorkerContext::workers`](crate::WorkerContext::workers) tells, are from a worker's start.
    ///
    /// # Errors
    /// [`PoolError::WorkerCount`], as when a pool is built; the pool's failure, if it has failed.
    pub fn resize(&self, workers: Workers) -> Result<(), PoolError> {
        let workers = workers.resolve()?.get();
        let mut core = self.core()?;
        if let Some(error) = core.failure() {
            return Err(error.clone());
        }
        core.resize(workers);
        drop(core);
        self.driver.nudge();
        Ok(())
    }

    /// Waits until all workers that are wanted are ready at once.
    ///
    /// # Errors
    /// [`PoolError::Start`] when they can't start, after a few attempts; any other failure of the pool.
    pub fn wait_ready(&self) -> Result<(), PoolError> {
        self.driver.check()?;
        let ready = self.driver.wait(None, |core| match core.failure() {
            Some(error) => Some(Err(error.clone())),
            None if core.interrupted().is_some() => Some(Err(PoolError::Interrupted)),
            None => core.all_ready().then_some(Ok(())),
        });
        ready.unwrap_or(Err(PoolError::ShutDown))
    }

    /// The counts up to now.
    pub fn stats(&self) -> Stats {
        self.core().map_or_else(|_| Stats::default(), |core| core.stats)
    }

    /// Ends its maps early. May be called while other threads use it; what they wait for comes to its end.
    pub fn interrupt(&self, how: Interrupt) {
        self.interrupter().interrupt(how);
    }

    /// What interrupts it from elsewhere: it needs not live as long.
    pub fn interrupter(&self) -> Interrupter {
        Interrupter::new(&self.driver)
    }

    /// How it was interrupted, if it was: then its maps may have ended before their inputs did, and new ones give
    /// nothing.
    pub fn interrupted(&self) -> Option<Interrupt> {
        self.core().ok().and_then(|core| core.interrupted())
    }

    /// What it knows of its processes' times, also when it is gone.
    pub fn chronicle(&self) -> Chronicle {
        self.core()
            .map_or_else(|_| Chronicle::new(), |core| core.chronicle.clone())
    }

    /// What its workers are doing now. Costs a look at each, and some files of the system's.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.driver)
    }

    /// Process ids of the workers that are there now.
    pub fn pids(&self) -> Vec<(WorkerId, u32)> {
        self.core().map_or_else(|_| Vec::new(), |core| core.pids())
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
    pub fn map<I>(&self, tasks: I) -> impl Iterator<Item = Result<Bytes, crate::TaskError>>
    where
        I: IntoIterator<Item: AsRef<[u8]>>,
    {
        self.bytes_map(tasks, MapOrder::Ordered)
    }

    /// As [`map`](Self::map), with outputs as they come.
    pub fn map_unordered<I>(&self, tasks: I) -> impl Iterator<Item = Result<Bytes, crate::TaskError>>
    where
        I: IntoIterator<Item: AsRef<[u8]>>,
    {
        self.bytes_map(tasks, MapOrder::AsCompleted)
    }

    fn bytes_map<I>(&self, tasks: I, order: MapOrder) -> impl Iterator<Item = Result<Bytes, crate::TaskError>>
    where
        I: IntoIterator<Item: AsRef<[u8]>>,
    {
        let put = |task: I::Item, draft: &mut Draft<'_>| {
            draft.put(task.as_ref());
            Ok(())
        };
        Map::new(&self.driver, tasks.into_iter(), order, put, Decode::BYTES)
    }

    /// Gives one task to the pool. It waits in this process until a worker has room, whatever others wait for already:
    /// [`map`](Self::map) takes tasks only as there is room for them.
    pub fn submit(&self, task: impl AsRef<[u8]>) -> Handle<Bytes> {
        let put = |draft: &mut Draft<'_>| {
            draft.put(task.as_ref());
            Ok(())
        };
        Handle::submit(&self.driver, put, Decode::BYTES)
    }

    /// Waits for the tasks that were submitted, lets the workers end by themselves, and kills those that have not at
    /// `deadline` from now.
    ///
    /// # Errors
    /// The pool's failure, if it has failed, before or during the call; [`PoolError::Forked`].
    pub fn shutdown(self, deadline: Duration) -> Result<Stats, PoolError> {
        self.driver.check()?;
        let deadline = Instant::now().checked_add(deadline);
        self.driver.wait(deadline, |core| {
            (core.is_idle() || core.failure().is_some()).then_some(())
        });
        self.driver.core().close();
        self.driver.wait(deadline, |core| core.all_gone().then_some(()));
        let core = self.driver.core();
        match core.failure() {
            Some(error) => Err(error.clone()),
            None => Ok(core.stats),
        }
    }
}

impl Drop for BytePool {
    fn drop(&mut self) {
        if self.driver.check().is_err() {
            // Its threads are not here, and the end of a copied driver would touch what is the leader's.
            std::mem::forget((self.driver.clone(), std::mem::take(&mut self.threads)));
            return;
        }
        self.driver.core().close();
        // Keeper and standby end by themselves if they have to: each wait of theirs is bounded.
        let _ = self.keeper.send(Order::Stop);
        self.driver.stop();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        // Handles may outlive it.
        self.driver.core().fail(PoolError::ShutDown);
        self.driver.nudge();
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
    encode: Encode<T>,
    decode: Decode<R>,
}

impl<T, R> std::fmt::Debug for Pool<T, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Pool").field(&self.bytes).finish()
    }
}

impl<T, R> Pool<T, R> {
    /// Whose workers decode tasks by `CT` and encode outputs by `CR`.
    pub(crate) fn new<CT: Codec<T>, CR: Codec<R>>(bytes: BytePool) -> Self {
        Self {
            bytes,
            encode: |task, draft| match CT::as_bytes(&task) {
                Some(bytes) => {
                    draft.put(bytes);
                    Ok(())
                }
                None => CT::encode(&task, draft.bytes).map_err(|e| e.to_string()),
            },
            decode: Decode::by::<CR>(),
        }
    }

    /// The pool below, on bytes.
    pub fn bytes(&self) -> &BytePool {
        &self.bytes
    }

    /// What its workers are doing now, as [`BytePool::snapshot`].
    pub fn snapshot(&self) -> Snapshot {
        self.bytes.snapshot()
    }

    /// Makes the pool larger or smaller: see [`BytePool::resize`].
    ///
    /// # Errors
    /// [`PoolError::WorkerCount`], as when a pool is built; the pool's failure, if it has failed.
    pub fn resize(&self, workers: Workers) -> Result<(), PoolError> {
        self.bytes.resize(workers)
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
        let tasks = tasks.into_iter();
        Map::new(&self.bytes.driver, tasks, order, self.encode, self.decode)
    }

    /// Gives one task to the pool; [`Handle`] waits for its output, awaits it, or cancels it. The task waits in this
    /// process until a worker has room, whatever others wait for already: [`map`](Self::map) takes tasks only as there is
    /// room for them.
    ///
    /// ```no_run
    /// # use proc_pool::{Builder, TaskError};
    /// # use std::time::Duration;
    /// # let pool = Builder::new().build_op(|n: u64| n * n)?;
    /// let square = pool.submit(7);
    /// match square.wait_timeout(Duration::from_secs(1)) {
    ///     Ok(square) => println!("{}", square?),
    ///     Err(slow) => drop(slow.kill()),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn submit(&self, task: T) -> Handle<R> {
        Handle::submit(
            &self.bytes.driver,
            |draft| (self.encode)(task, draft),
            self.decode,
        )
    }

    /// Waits for the tasks that were submitted, lets the workers end by themselves, and kills those that have not at
    /// `deadline` from now.
    ///
    /// # Errors
    /// The pool's failure, if it has failed, before or during the call; [`PoolError::Forked`].
    pub fn shutdown(self, deadline: Duration) -> Result<Stats, PoolError> {
        self.bytes.shutdown(deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<BytePool>();
        shared::<Pool<u64, String>>();
    }
}
