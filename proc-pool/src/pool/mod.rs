//! The public interface of a leader: [`BytePool`] and [`Pool`], their builder, and what they return. It starts the
//! scheduler and the event loop (`leader`) and the process manager (`process`), and calls them.
//!
//! | module | contents |
//! |---|---|
//! | `builder`, `workers` | the options and the start of a pool |
//! | `map`, `loop_ref`, `with_inputs` | the iterators over the outputs of many tasks, and over the tasks beside them |
//! | `handle`, `stream` | tasks that are submitted one by one, and their outputs in async programs |
//! | `interrupt`, `signals` | ends maps early, by the program or by a signal |
//! | `local`, `one_shot` | the same interface on threads of this process |
//! | `system_info` | what the system offers to a pool |

pub(crate) mod builder;
pub(crate) mod handle;
pub(crate) mod interrupt;
pub(crate) mod loop_ref;
pub(crate) mod map;
pub(crate) mod signals;
#[cfg(feature = "stream")]
pub(crate) mod stream;
pub(crate) mod system_info;
pub(crate) mod with_inputs;
pub(crate) mod workers;

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::error::{PoolError, WorkerId};
use crate::leader::command::Command;
use crate::leader::event_loop::{EventLoop, SchedulerGuard};
use crate::leader::interrupt::Interrupt;
use crate::leader::snapshot::Snapshot;
use crate::leader::stats::Stats;
use crate::leader::tasks::batch::TaskWriter;
use crate::leader::tasks::decode::Decode;
use crate::metrics::History;
use crate::os::ProcessMemory;
use crate::pool::handle::Handle;
use crate::pool::interrupt::{Interrupter, Reactions};
use crate::pool::loop_ref::LoopRef;
use crate::pool::map::{Encode, Map, OutputOrder};
use crate::pool::signals::Subscription;
use crate::pool::workers::Workers;
use crate::process::manager::{PendingThread, ProcessManager};
use crate::wire::bytes::Bytes;
use crate::wire::codec::Codec;

/// A pool of worker processes that turn bytes into bytes, by a [`Service`](crate::Service).
///
/// Dropping the pool kills the workers; [`shutdown`](Self::shutdown) lets them finish.
///
/// A pool belongs to the process that has built it. A copy in a forked child fails with [`PoolError::Forked`]: a map returns
/// that one error and ends, counts are zero, and a drop does nothing.
#[derive(Debug)]
pub struct BytePool {
    event_loop: Arc<EventLoop>,
    manager: Sender<Command>,
    /// The process manager's thread and the standby thread.
    threads: Vec<JoinHandle<()>>,
    _subscription: Option<Subscription>,
}

impl BytePool {
    /// Starts the pool's threads and waits until all workers are ready.
    pub(crate) fn start(
        event_loop: Arc<EventLoop>,
        manager: Sender<Command>,
        (pending_thread, process_manager): (PendingThread, ProcessManager),
        reactions: Reactions,
    ) -> Result<Self, PoolError> {
        // From here on, a drop of `pool` ends what has been started.
        let mut pool = Self {
            event_loop: event_loop.clone(),
            manager,
            threads: Vec::new(),
            _subscription: reactions.subscribe(&event_loop)?,
        };
        pool.threads.push(pending_thread.start(process_manager));
        let started = thread::Builder::new()
            .name("proc-pool standby".into())
            .spawn(move || event_loop.run_standby());
        pool.threads
            .push(started.map_err(PoolError::io("start a thread"))?);
        pool.wait_ready()?;
        Ok(pool)
    }

    /// Locks the scheduler, unless this process is a forked copy of the leader.
    fn scheduler(&self) -> Result<SchedulerGuard<'_>, PoolError> {
        self.event_loop.check()?;
        Ok(self.event_loop.scheduler())
    }

    /// Returns the number of workers: that with which the pool was built, or that of the last [`resize`](Self::resize).
    pub fn workers(&self) -> usize {
        self.scheduler().map_or(0, |scheduler| scheduler.wanted())
    }

    /// Changes the number of workers. Any thread may call this at any time, also while maps run. It returns immediately.
    ///
    /// New workers take tasks as soon as they are ready ([`wait_ready`](Self::wait_ready) waits for that). If there are too
    /// many workers, those with the highest ids get no new tasks, finish the tasks that they have, and end: no task is lost or
    /// run twice. The other workers do not change: `OMP_NUM_THREADS` and the like, and
    /// [`WorkerContext::workers`](crate::WorkerContext::workers), keep the values from the worker's start.
    ///
    /// # Errors
    /// [`PoolError::WorkerCount`] for an invalid number; the pool's failure, if it has failed.
    pub fn resize(&self, workers: impl Into<Workers>) -> Result<(), PoolError> {
        let workers = workers.into().resolve()?.get();
        let mut scheduler = self.scheduler()?;
        if let Some(error) = scheduler.failure() {
            return Err(error.clone());
        }
        scheduler.resize(workers);
        drop(scheduler);
        self.event_loop.nudge();
        Ok(())
    }

    /// Waits until all workers are ready at the same time.
    ///
    /// # Errors
    /// [`PoolError::Start`] if workers can't start, after a few attempts; [`PoolError::Refused`] and the like, after one attempt, if no
    /// attempt can succeed; any other failure of the pool.
    pub fn wait_ready(&self) -> Result<(), PoolError> {
        self.event_loop.check()?;
        let ready = self.event_loop.wait(None, |scheduler| match scheduler.failure() {
            Some(error) => Some(Err(error.clone())),
            None if scheduler.interrupted().is_some() => Some(Err(PoolError::Interrupted)),
            None => scheduler.all_ready().then_some(Ok(())),
        });
        ready.unwrap_or(Err(PoolError::ShutDown))
    }

    /// Returns the counts since the pool was built.
    pub fn stats(&self) -> Stats {
        self.scheduler()
            .map_or_else(|_| Stats::default(), |scheduler| scheduler.stats)
    }

    /// Ends the pool's maps early. Other threads may be using the pool; their waits end.
    pub fn interrupt(&self, how: Interrupt) {
        self.interrupter().interrupt(how);
    }

    /// Returns a handle that interrupts the pool, without a borrow of it.
    pub fn interrupter(&self) -> Interrupter {
        Interrupter::new(&self.event_loop)
    }

    /// Returns how the pool was interrupted, if it was. Then its maps may have ended before their inputs did, and new maps
    /// return no outputs.
    pub fn interrupted(&self) -> Option<Interrupt> {
        self.scheduler()
            .ok()
            .and_then(|scheduler| scheduler.interrupted())
    }

    /// Returns the history of the pool's worker processes, which remains usable after the pool is dropped.
    pub fn history(&self) -> History {
        self.scheduler()
            .map_or_else(|_| History::new(), |scheduler| scheduler.history.clone())
    }

    /// Returns what the pool and its workers are doing now. It reads a few slots of shared memory and a few files of the system
    /// for each worker.
    pub fn snapshot(&self) -> Snapshot {
        self.event_loop.snapshot()
    }

    /// Returns the process ids of the workers that are alive now.
    pub fn pids(&self) -> Vec<(WorkerId, u32)> {
        self.scheduler()
            .map_or_else(|_| Vec::new(), |scheduler| scheduler.pids())
    }

    /// Returns the memory of the workers that are alive now, if the system reports it.
    pub fn memory(&self) -> Vec<(WorkerId, ProcessMemory)> {
        let pids = self.pids();
        pids.into_iter()
            .filter_map(|(worker, pid)| Some((worker, ProcessMemory::of(pid)?)))
            .collect()
    }

    /// Runs all tasks. Returns an iterator over the outputs, in the order of the tasks. It takes tasks from `tasks` as workers
    /// have room for them, so `tasks` may be infinite. A large task that is a `Vec<u8>` is not copied before it is sent.
    pub fn map<I>(&self, tasks: I) -> Map<'_, I::IntoIter, Bytes>
    where
        I: IntoIterator<Item: AsRef<[u8]>>,
    {
        self.run(tasks, OutputOrder::Ordered)
    }

    /// Does the same as [`map`](Self::map), but returns outputs as they complete.
    pub fn map_unordered<I>(&self, tasks: I) -> Map<'_, I::IntoIter, Bytes>
    where
        I: IntoIterator<Item: AsRef<[u8]>>,
    {
        self.run(tasks, OutputOrder::AsCompleted)
    }

    fn run<I>(&self, tasks: I, order: OutputOrder) -> Map<'_, I::IntoIter, Bytes>
    where
        I: IntoIterator<Item: AsRef<[u8]>>,
    {
        let encode = Encode {
            borrowed: |task: &I::Item, writer| {
                writer.put(task.as_ref());
                Ok(())
            },
            owned: |task, writer| {
                writer.put_owned(task);
                Ok(())
            },
        };
        let event_loop = LoopRef::Borrowed(&self.event_loop);
        Map::new(event_loop, tasks.into_iter(), order, encode, Decode::BYTES)
    }

    /// Submits one task. This returns immediately; the task is queued in this process until a worker has room. (A
    /// [`map`](Self::map), on the other hand, takes tasks only as there is room for them.)
    pub fn submit(&self, task: impl AsRef<[u8]>) -> Handle<Bytes> {
        let encode = |writer: &mut TaskWriter<'_>| {
            writer.put_owned(task);
            Ok(())
        };
        Handle::submit(&self.event_loop, encode, Decode::BYTES)
    }

    /// Makes a pool of values from this pool: tasks are encoded and outputs decoded in this process, and the service sees bytes as before.
    /// Only the types of the two arguments matter. For leaders whose values exist in their process only, such as the objects of an
    /// interpreter.
    ///
    /// ```no_run
    /// use proc_pool::{Builder, EntryPoint, Pool, PodVec};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let bytes = Builder::new().build(EntryPoint::named_service("path/to/worker", "sort"), &[])?;
    /// let pool: Pool<Vec<u32>, Vec<u32>> = bytes.with_codecs(PodVec, PodVec);
    /// let sorted = pool.map([vec![3, 1, 2]]).next();
    /// # Ok(()) }
    /// ```
    pub fn with_codecs<T, R, CT: Codec<T>, CR: Codec<R>>(self, tasks: CT, outputs: CR) -> Pool<T, R> {
        let _ = (tasks, outputs);
        Pool {
            bytes: self,
            encode: Encode::whole_by::<CT>(),
            decode: Decode::by::<CR>(),
        }
    }

    /// Waits for the tasks that were submitted, and lets the workers end. Workers that have not ended when the time `timeout` has
    /// passed are killed.
    ///
    /// # Errors
    /// The pool's failure, if it has failed before or during the call; [`PoolError::Forked`].
    pub fn shutdown(self, timeout: Duration) -> Result<Stats, PoolError> {
        self.event_loop.check()?;
        let deadline = Instant::now().checked_add(timeout);
        self.event_loop.wait(deadline, |scheduler| {
            (scheduler.is_idle() || scheduler.failure().is_some()).then_some(())
        });
        self.event_loop.scheduler().close();
        self.event_loop
            .wait(deadline, |scheduler| scheduler.all_gone().then_some(()));
        let scheduler = self.event_loop.scheduler();
        match scheduler.failure() {
            Some(error) => Err(error.clone()),
            None => Ok(scheduler.stats),
        }
    }
}

impl Drop for BytePool {
    fn drop(&mut self) {
        if self.event_loop.check().is_err() {
            // The threads do not exist in this process, and the drop of a copied event loop would touch resources of the leader.
            std::mem::forget((self.event_loop.clone(), std::mem::take(&mut self.threads)));
            return;
        }
        self.event_loop.scheduler().close();
        // Even without these requests, both threads would end: all of their waits are bounded.
        let _ = self.manager.send(Command::Stop);
        self.event_loop.stop();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        // Handles may outlive the pool.
        self.event_loop.scheduler().fail(PoolError::ShutDown);
        self.event_loop.nudge();
    }
}

/// A pool of worker processes that turn tasks of type `T` into outputs of type `R`.
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
    /// Makes a pool whose workers decode tasks with `CT` and encode outputs with `CR`.
    pub(crate) fn new<CT: Codec<T>, CR: Codec<R>>(bytes: BytePool) -> Self {
        Self {
            bytes,
            encode: Encode::by::<CT>(),
            decode: Decode::by::<CR>(),
        }
    }

    /// Returns the underlying pool on bytes, for code that handles pools of all types. This type has all of its methods that do not
    /// depend on types, too.
    pub fn bytes(&self) -> &BytePool {
        &self.bytes
    }

    /// Returns the number of workers: that with which the pool was built, or that of the last [`resize`](Self::resize).
    pub fn workers(&self) -> usize {
        self.bytes.workers()
    }

    /// Returns the counts of tasks and processes since the pool was built. In an idle pool, `submitted` is the sum of `answered` and
    /// `failed`.
    ///
    /// ```no_run
    /// # let pool = proc_pool::Builder::new().build_op(|n: u64| n * n)?;
    /// # pool.map(0..100).for_each(drop);
    /// let stats = pool.stats();
    /// println!("{} of {} tasks failed; {} workers died", stats.failed, stats.submitted, stats.deaths);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stats(&self) -> Stats {
        self.bytes.stats()
    }

    /// Returns the history of the pool's worker processes, which remains usable after the pool is dropped.
    pub fn history(&self) -> History {
        self.bytes.history()
    }

    /// Returns what the pool and its workers are doing now. It reads a few slots of shared memory and a few files of the system
    /// for each worker.
    pub fn snapshot(&self) -> Snapshot {
        self.bytes.snapshot()
    }

    /// Returns the process ids of the workers that are alive now.
    pub fn pids(&self) -> Vec<(WorkerId, u32)> {
        self.bytes.pids()
    }

    /// Returns the memory of the workers that are alive now, if the system reports it.
    pub fn memory(&self) -> Vec<(WorkerId, ProcessMemory)> {
        self.bytes.memory()
    }

    /// Waits until all workers are ready at the same time, for example after [`resize`](Self::resize).
    ///
    /// # Errors
    /// [`PoolError::Start`] if workers can't start, after a few attempts; any other failure of the pool.
    pub fn wait_ready(&self) -> Result<(), PoolError> {
        self.bytes.wait_ready()
    }

    /// Ends the pool's maps early. Other threads may be using the pool; their waits end.
    pub fn interrupt(&self, how: Interrupt) {
        self.bytes.interrupt(how);
    }

    /// Returns a handle that interrupts the pool, without a borrow of it.
    pub fn interrupter(&self) -> Interrupter {
        self.bytes.interrupter()
    }

    /// Returns how the pool was interrupted, if it was. Then its maps may have ended before their inputs did, and new maps
    /// return no outputs.
    pub fn interrupted(&self) -> Option<Interrupt> {
        self.bytes.interrupted()
    }

    /// Changes the number of workers: see [`BytePool::resize`].
    ///
    /// # Errors
    /// [`PoolError::WorkerCount`] for an invalid number; the pool's failure, if it has failed.
    pub fn resize(&self, workers: impl Into<Workers>) -> Result<(), PoolError> {
        self.bytes.resize(workers)
    }

    /// Runs all tasks. Returns an iterator over the outputs, in the order of the tasks. It takes tasks from `tasks` as workers
    /// have room for them, so `tasks` may be infinite.
    pub fn map<I: IntoIterator<Item = T>>(&self, tasks: I) -> Map<'_, I::IntoIter, R> {
        self.run(tasks, OutputOrder::Ordered)
    }

    /// Does the same as [`map`](Self::map), but returns outputs as they complete.
    pub fn map_unordered<I: IntoIterator<Item = T>>(&self, tasks: I) -> Map<'_, I::IntoIter, R> {
        self.run(tasks, OutputOrder::AsCompleted)
    }

    /// Does the same as [`map`](Self::map), with an iterator that borrows nothing: for structs that hold a pool and its maps. It may
    /// outlive the pool, as a [`Handle`] may: tasks that have not run by then have the pool's error.
    ///
    /// ```no_run
    /// use proc_pool::{Map, Pool};
    ///
    /// struct Run {
    ///     pool: Pool<u64, u64>,
    ///     outputs: Map<'static, std::ops::Range<u64>, u64>,
    /// }
    ///
    /// fn start(pool: Pool<u64, u64>) -> Run {
    ///     Run { outputs: pool.map_owned(0..100), pool }
    /// }
    /// ```
    pub fn map_owned<I: IntoIterator<Item = T>>(&self, tasks: I) -> Map<'static, I::IntoIter, R> {
        self.run_owned(tasks, OutputOrder::Ordered)
    }

    /// Does the same as [`map_owned`](Self::map_owned), but returns outputs as they complete.
    pub fn map_unordered_owned<I: IntoIterator<Item = T>>(&self, tasks: I) -> Map<'static, I::IntoIter, R> {
        self.run_owned(tasks, OutputOrder::AsCompleted)
    }

    fn run_owned<I: IntoIterator<Item = T>>(
        &self,
        tasks: I,
        order: OutputOrder,
    ) -> Map<'static, I::IntoIter, R> {
        let event_loop = LoopRef::Owned(self.bytes.event_loop.clone());
        Map::new(event_loop, tasks.into_iter(), order, self.encode, self.decode)
    }

    fn run<I: IntoIterator<Item = T>>(&self, tasks: I, order: OutputOrder) -> Map<'_, I::IntoIter, R> {
        let event_loop = LoopRef::Borrowed(&self.bytes.event_loop);
        Map::new(event_loop, tasks.into_iter(), order, self.encode, self.decode)
    }

    /// Submits one task. The returned [`Handle`] waits for its output, awaits it, or cancels it. This returns immediately; the
    /// task is queued in this process until a worker has room. (A [`map`](Self::map), on the other hand, takes tasks only as
    /// there is room for them.)
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
            &self.bytes.event_loop,
            |writer| (self.encode.owned)(task, writer),
            self.decode,
        )
    }

    /// Waits for the tasks that were submitted, and lets the workers end. Workers that have not ended when the time `timeout` has
    /// passed are killed.
    ///
    /// # Errors
    /// The pool's failure, if it has failed before or during the call; [`PoolError::Forked`].
    pub fn shutdown(self, timeout: Duration) -> Result<Stats, PoolError> {
        self.bytes.shutdown(timeout)
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
