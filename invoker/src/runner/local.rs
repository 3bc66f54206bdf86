//! [`LocalPool`]: the interface of a pool of processes, on threads of this process or in the calling thread. It does not isolate:
//! an op that crashes ends this process.

mod chunk;
mod map;
mod one_shot;
#[cfg(test)]
mod tests;
mod threads;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender};
use proc_pool::facade::{Interruptible, Origin, Subscription};
use proc_pool::{
    BoxError, Fault, Handle, History, Interrupt, Interrupter, OnInterrupt, Panic, PoolError, Stopwatch,
    WorkerId, catch_panic,
};
use run_journal::Order;

pub(crate) use map::LocalMap;
pub use one_shot::OneShot;
use threads::{Busy, Job, Running, Thread};

/// A pool with the interface of a [`Pool`](proc_pool::Pool), but without processes: with the same outputs, errors of tasks,
/// handles and interruptions.
pub(crate) struct LocalPool<T, R> {
    shared: Arc<Shared<T, R>>,
    backend: Backend<T, R>,
    /// Number of tasks that were submitted by themselves.
    submitted: AtomicU64,
    history: History,
    _subscription: Option<Subscription>,
}

/// The function of one worker.
type WorkFn<T, R> = Box<dyn FnMut(T) -> R + Send>;
/// Makes the function of one worker.
type StartFn<T, R> = Box<dyn Fn() -> Result<WorkFn<T, R>, PoolError> + Send + Sync>;

/// The threads that run tasks.
enum Backend<T, R> {
    Threads {
        jobs: Option<Sender<Job<T, R>>>,
        threads: Vec<JoinHandle<()>>,
    },
    /// The calling threads. Each uses an idle worker, or starts a new one.
    Caller {
        start: StartFn<T, R>,
        idle: Mutex<Vec<(WorkFn<T, R>, Stopwatch)>>,
    },
}

/// The part of a pool that an [`Interrupter`] and the threads share.
struct Shared<T, R> {
    origin: Origin,
    /// The [`rank`] of the interruption; 0 for none.
    interrupted: AtomicU8,
    /// Tasks that no thread has taken.
    waiting: Receiver<Job<T, R>>,
    busy: Busy,
}

fn rank(interrupt: Interrupt) -> u8 {
    match interrupt {
        Interrupt::Finish => 1,
        Interrupt::Cancel => 2,
        // Threads cannot be killed.
        _ => 3,
    }
}

impl<T, R> Shared<T, R> {
    /// Ends the tasks that no thread has taken with `error`.
    fn fail_waiting(&self, error: &PoolError) {
        self.waiting.try_iter().for_each(|job| job.fail(error));
    }
}

impl<T: Send, R: Send> Interruptible for Shared<T, R> {
    fn interrupt(&self, how: Interrupt) {
        self.interrupted.fetch_max(rank(how), Ordering::SeqCst);
        if how >= Interrupt::Cancel && self.origin.is_surely_here() {
            self.fail_waiting(&PoolError::Interrupted);
        }
    }

    #[inline]
    fn interrupted(&self) -> Option<Interrupt> {
        match self.interrupted.load(Ordering::SeqCst) {
            0 => None,
            found => {
                let all = [Interrupt::Finish, Interrupt::Cancel, Interrupt::Kill];
                all.into_iter().find(|how| rank(*how) == found)
            }
        }
    }
}

/// Runs a task. Its panic becomes its error, as in a worker process.
#[inline(always)]
fn call<T, R>(worker: WorkerId, work: &mut impl FnMut(T) -> R, task: T) -> Result<R, Box<Fault>> {
    catch_panic(|| work(task)).map_err(|panic| Box::new(panicked(worker, panic)))
}

#[cold]
fn panicked(worker: WorkerId, panic: Panic) -> Fault {
    let Panic {
        message,
        location,
        backtrace,
    } = panic;
    Fault::Panicked {
        worker,
        message,
        location,
        backtrace,
    }
}

/// Starts a worker. The error for a failure is the same as that for a worker process.
fn start_worker<W>(
    worker: WorkerId,
    start: impl Fn(WorkerId) -> Result<W, BoxError>,
) -> Result<W, PoolError> {
    let reason = match catch_panic(|| start(worker)) {
        Ok(Ok(work)) => return Ok(work),
        Ok(Err(e)) => format!("failed to start: {:#}", shm_buffers::WithCauses(&*e)),
        Err(panic) => panic.to_string(),
    };
    Err(PoolError::Start {
        worker,
        attempts: 1,
        reason,
    })
}

impl<T, R> std::fmt::Debug for LocalPool<T, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalPool")
            .field("workers", &self.workers())
            .finish_non_exhaustive()
    }
}

impl<T, R> LocalPool<T, R> {
    /// Returns the number of workers; it is 1 for a pool that runs tasks in the caller.
    pub(crate) fn workers(&self) -> usize {
        match &self.backend {
            Backend::Threads { threads, .. } => threads.len(),
            Backend::Caller { .. } => 1,
        }
    }

    /// Returns whether this is in a forked copy of the process: the threads do not exist there. A pool that runs tasks in the caller works
    /// in a copy as well.
    #[inline]
    fn is_forked(&self) -> bool {
        !self.shared.origin.is_here() && matches!(self.backend, Backend::Threads { .. })
    }

    /// Returns the error for a forked copy of the process.
    fn forked(&self) -> Option<PoolError> {
        let pid = self.shared.origin.pid();
        self.is_forked().then_some(PoolError::Forked { pid })
    }
}

impl<T: Send + 'static, R: Send + 'static> LocalPool<T, R> {
    /// Starts a pool of threads. Each thread calls `start` to make a function of its own, and runs tasks with it.
    ///
    /// # Errors
    /// [`PoolError::WorkerCount`] for an invalid number; [`PoolError::Start`] with the error of `start`, after one attempt.
    pub(crate) fn threads<W>(
        workers: NonZeroUsize,
        reaction: OnInterrupt,
        start: impl Fn(WorkerId) -> Result<W, BoxError> + Send + Sync + 'static,
    ) -> Result<Self, PoolError>
    where
        W: FnMut(T) -> R + 'static,
    {
        let (jobs, waiting) = crossbeam_channel::unbounded::<Job<T, R>>();
        let shared = Arc::new(Shared {
            origin: Origin::here(),
            interrupted: AtomicU8::new(0),
            waiting,
            busy: Busy::default(),
        });
        let start = Arc::new(start);
        let running = Arc::new(Running::new(workers.get()));
        let (report, reports) = crossbeam_channel::unbounded();
        let history = History::new();
        let mut threads = Vec::new();
        for index in 0..workers.get() {
            let (start, shared, report) = (start.clone(), shared.clone(), report.clone());
            let running = running.clone();
            let worker = WorkerId(index as u32);
            let history = history.clone();
            let run = move || {
                let work = start_worker(worker, &*start);
                let (work, reported) = match work {
                    Ok(work) => (work, report.send(Ok(()))),
                    Err(error) => return drop(report.send(Err(error))),
                };
                drop((report, reported));
                let watch = history.stopwatch(worker);
                Thread {
                    worker,
                    work,
                    watch,
                    shared,
                    running,
                }
                .run();
            };
            let thread = thread::Builder::new().name(format!("worker {index}")).spawn(run);
            threads.push(thread.map_err(PoolError::io("start a thread"))?);
        }
        drop(report);
        // From here on, a drop of `pool` ends what has been started.
        let pool = Self {
            _subscription: reaction.subscribe(Interrupter::new(&shared), None::<fn()>)?,
            shared,
            backend: Backend::Threads {
                jobs: Some(jobs),
                threads,
            },
            submitted: AtomicU64::new(0),
            history,
        };
        reports.iter().collect::<Result<(), _>>()?;
        Ok(pool)
    }

    /// Makes a pool that runs tasks in the calling thread: those of a map when its outputs are requested, a submitted one
    /// immediately. Threads that call at the same time have a function each, made by `start`; the first one is made here.
    ///
    /// # Errors
    /// [`PoolError::Start`] with the error of `start`.
    pub(crate) fn caller<W>(
        reaction: OnInterrupt,
        start: impl Fn(WorkerId) -> Result<W, BoxError> + Send + Sync + 'static,
    ) -> Result<Self, PoolError>
    where
        W: FnMut(T) -> R + Send + 'static,
    {
        let start: StartFn<T, R> =
            Box::new(move || start_worker(WorkerId(0), &start).map(|work| Box::new(work) as WorkFn<T, R>));
        let history = History::new();
        let idle = Mutex::new(vec![(start()?, history.stopwatch(WorkerId(0)))]);
        let shared = Arc::new(Shared {
            origin: Origin::here(),
            interrupted: AtomicU8::new(0),
            waiting: crossbeam_channel::never(),
            busy: Busy::default(),
        });
        Ok(Self {
            _subscription: reaction.subscribe(Interrupter::new(&shared), None::<fn()>)?,
            shared,
            backend: Backend::Caller { start, idle },
            submitted: AtomicU64::new(0),
            history,
        })
    }

    /// Runs all tasks: see [`Pool::map`](proc_pool::Pool::map).
    pub(crate) fn map<I: IntoIterator<Item = T>>(&self, tasks: I) -> LocalMap<'_, T, R, I::IntoIter> {
        LocalMap::new(self, tasks.into_iter(), Order::Ordered)
    }

    /// Runs all tasks: see [`Pool::map_unordered`](proc_pool::Pool::map_unordered).
    pub(crate) fn map_unordered<I: IntoIterator<Item = T>>(
        &self,
        tasks: I,
    ) -> LocalMap<'_, T, R, I::IntoIter> {
        LocalMap::new(self, tasks.into_iter(), Order::AsCompleted)
    }

    /// Submits one task: see [`Pool::submit`](proc_pool::Pool::submit). A pool that runs tasks in the caller runs it before this
    /// returns.
    pub(crate) fn submit(&self, task: T) -> Handle<R> {
        let index = self.submitted.fetch_add(1, Ordering::Relaxed);
        let one_shot = Arc::new(OneShot::default());
        if let Some(error) = self.forked() {
            one_shot.finish(Err(Fault::Pool(error)));
        } else if self.interrupted().is_some() {
            one_shot.finish(Err(Fault::Pool(PoolError::Interrupted)));
        } else if let Backend::Caller { .. } = self.backend {
            one_shot.finish(self.call_here(task).map_err(|fault| *fault));
        } else {
            let reply = one_shot.clone();
            self.send(Job::OneShot { task, reply });
        }
        Handle::from_source(index, one_shot)
    }

    /// Sends a job to the threads.
    fn send(&self, job: Job<T, R>) {
        if let Backend::Threads { jobs: Some(jobs), .. } = &self.backend {
            // It does not fail: the threads receive as long as `jobs` exists.
            let _ = jobs.send(job);
        }
    }

    /// Runs a task in this thread.
    fn call_here(&self, task: T) -> Result<R, Box<Fault>> {
        let Backend::Caller { start, idle } = &self.backend else {
            return Err(Box::new(Fault::Pool(PoolError::ShutDown)));
        };
        let idle = || idle.lock().unwrap_or_else(PoisonError::into_inner);
        // The lock is not held while a function is made or runs.
        let worker = idle().pop();
        let (mut work, mut watch) = match worker {
            Some(worker) => worker,
            None => {
                let work = start().map_err(|e| Box::new(Fault::Pool(e)))?;
                (work, self.history.stopwatch(WorkerId(0)))
            }
        };
        let output = watch.measure(|| call(WorkerId(0), &mut work, task));
        watch.rest();
        idle().push((work, watch));
        output
    }

    /// Returns a handle that interrupts the pool, without a borrow of it. Threads can't be killed, so [`Interrupt::Kill`] has the
    /// same effect as [`Interrupt::Cancel`].
    pub(crate) fn interrupter(&self) -> Interrupter {
        Interrupter::new(&self.shared)
    }

    /// Returns the history of the pool's workers: see [`BytePool::history`](proc_pool::BytePool::history).
    pub(crate) fn history(&self) -> History {
        self.history.clone()
    }

    /// Returns how the pool was interrupted, if it was.
    pub(crate) fn interrupted(&self) -> Option<Interrupt> {
        self.shared.interrupted()
    }

    /// Waits for the tasks that were submitted, and ends the threads.
    pub(crate) fn shutdown(mut self) {
        if self.forked().is_none() {
            self.backend.join();
        }
    }
}

impl<T, R> Backend<T, R> {
    /// Ends the threads after all tasks that were sent, and waits for them.
    fn join(&mut self) {
        if let Self::Threads { jobs, threads } = self {
            // The threads end when the channel is closed and empty.
            *jobs = None;
            for thread in threads.drain(..) {
                let _ = thread.join();
            }
        }
    }
}

impl<T, R> Drop for LocalPool<T, R> {
    /// Waits for the tasks that run. The error of tasks that have not started is [`PoolError::ShutDown`].
    fn drop(&mut self) {
        if self.forked().is_some() {
            if let Backend::Threads { jobs, threads } = &mut self.backend {
                std::mem::forget((jobs.take(), std::mem::take(threads)));
            }
            return;
        }
        self.shared.fail_waiting(&PoolError::ShutDown);
        self.backend.join();
    }
}
