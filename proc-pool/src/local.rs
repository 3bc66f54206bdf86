//! [`LocalPool`]: what a pool does, in threads of this process or in the caller.

mod map;
mod single;

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, TryRecvError};

pub use map::LocalMap;
pub(crate) use single::Single;

use crate::error::{Fault, PoolError, WorkerId};
use crate::handle::Handle;
use crate::interrupt::{Interrupt, Interrupter, Interruptible, OnInterrupt};
use crate::map::Order;
use crate::os::Origin;
use crate::panics::{Panic, catch_panic, guarded};
use crate::payload::chain;
use crate::service::BoxError;
use crate::signals::Subscription;
use crate::timing::{Chronicle, Stopwatch};
use crate::workers::Workers;

/// The interface of a [`Pool`](crate::Pool) without its processes: the same outputs, the same errors of tasks, the same
/// handles and interruptions. What an op does to its process, it does to this one.
///
/// ```
/// use proc_pool::{LocalPool, OnInterrupt, Workers};
///
/// let pool = LocalPool::threads(Workers::Count(2), OnInterrupt::Ignore, |_| {
///     let mut calls = 0; // each worker's own
///     Ok(move |n: u64| {
///         calls += 1;
///         n * n
///     })
/// })?;
/// let squares: Result<Vec<u64>, _> = pool.map(0..4).collect();
/// assert_eq!(squares?, [0, 1, 4, 9]);
/// assert_eq!(pool.submit(5).wait()?, 25);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct LocalPool<T, R> {
    shared: Arc<Shared<T, R>>,
    hands: Hands<T, R>,
    /// Tasks that were submitted alone.
    singles: AtomicU64,
    chronicle: Chronicle,
    /// To signals.
    _subscription: Option<Subscription>,
}

type Work<T, R> = Box<dyn FnMut(T) -> R + Send>;
type Start<T, R> = Box<dyn Fn() -> Result<Work<T, R>, PoolError> + Send + Sync>;

/// Who runs tasks.
enum Hands<T, R> {
    Threads {
        jobs: Option<Sender<Job<T, R>>>,
        threads: Vec<JoinHandle<()>>,
    },
    /// Each caller with a worker of those that nobody uses, or a new one.
    Caller {
        start: Start<T, R>,
        idle: Mutex<Vec<(Work<T, R>, Stopwatch)>>,
    },
}

/// What who interrupts needs of a pool.
struct Shared<T, R> {
    origin: Origin,
    /// As [`rank`] says.
    interrupted: AtomicU8,
    /// Tasks that no thread has taken.
    waiting: Receiver<Job<T, R>>,
}

/// A task for a thread.
struct Job<T, R> {
    index: u64,
    task: T,
    reply: Reply<R>,
}

enum Reply<R> {
    Map(Sender<(u64, Result<R, Fault>)>),
    Single(Arc<Single<R>>),
}

impl<R> Reply<R> {
    /// Whether the task is still wanted; from now on it runs.
    fn begin(&self) -> bool {
        match self {
            Self::Map(_) => true,
            Self::Single(single) => single.begin(),
        }
    }

    /// The task will not run.
    fn refuse(self, index: u64, error: &PoolError) {
        if self.begin() {
            self.give(index, Err(Fault::Pool(error.clone())));
        }
    }

    fn give(self, index: u64, output: Result<R, Fault>) {
        match self {
            // Nobody listens any more when the outputs were dropped.
            Self::Map(outputs) => drop(outputs.send((index, output))),
            Self::Single(single) => single.give(output),
        }
    }
}

fn rank(interrupt: Interrupt) -> u8 {
    match interrupt {
        Interrupt::Finish => 1,
        Interrupt::Cancel => 2,
        Interrupt::Kill => 3,
    }
}

impl<T: Send, R: Send> Shared<T, R> {
    /// Refuses the tasks that no thread has taken.
    fn refuse(&self, error: &PoolError) {
        for Job { index, task, reply } in self.waiting.try_iter() {
            // A drop of the user's must not keep the other tasks from their error.
            let _ = guarded(|| drop(task));
            reply.refuse(index, error);
        }
    }
}

impl<T: Send, R: Send> Interruptible for Shared<T, R> {
    fn interrupt(&self, how: Interrupt) {
        self.interrupted.fetch_max(rank(how), Ordering::SeqCst);
        if how >= Interrupt::Cancel && self.origin.is_surely_here() {
            self.refuse(&PoolError::Interrupted);
        }
    }

    fn interrupted(&self) -> Option<Interrupt> {
        let all = [Interrupt::Finish, Interrupt::Cancel, Interrupt::Kill];
        let rank_now = self.interrupted.load(Ordering::SeqCst);
        all.into_iter().find(|how| rank(*how) == rank_now)
    }
}

/// Runs a task; its panic is its fault, as it would be in a worker process.
fn call<T, R>(worker: WorkerId, work: &mut impl FnMut(T) -> R, task: T) -> Result<R, Fault> {
    catch_panic(|| work(task)).map_err(|panic| {
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
    })
}

/// Makes a worker; why it can't be is told as a worker process tells it.
fn begin<W>(worker: WorkerId, start: impl Fn(WorkerId) -> Result<W, BoxError>) -> Result<W, PoolError> {
    let reason = match catch_panic(|| start(worker)) {
        Ok(Ok(work)) => return Ok(work),
        Ok(Err(e)) => format!("failed to start: {}", chain(&*e)),
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
    /// How many workers it has; the caller is one.
    pub fn workers(&self) -> usize {
        match &self.hands {
            Hands::Threads { threads, .. } => threads.len(),
            Hands::Caller { .. } => 1,
        }
    }

    /// The error in a forked copy of the process, whose threads are not there. A caller runs tasks there as well.
    fn forked(&self) -> Option<PoolError> {
        let threads = matches!(self.hands, Hands::Threads { .. });
        let pid = self.shared.origin.pid();
        (threads && !self.shared.origin.is_here()).then_some(PoolError::Forked { pid })
    }
}

impl<T: Send + 'static, R: Send + 'static> LocalPool<T, R> {
    /// Starts threads that each run a function of their own, which `start` makes there.
    ///
    /// # Errors
    /// [`PoolError::WorkerCount`]; [`PoolError::Start`] with the reason that `start` gives, at the first time.
    pub fn threads<W>(
        workers: Workers,
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
        });
        let start = Arc::new(start);
        let (told, started) = crossbeam_channel::unbounded();
        let chronicle = Chronicle::new();
        let mut threads = Vec::new();
        for index in 0..workers.resolve()?.get() {
            let (start, shared, told) = (start.clone(), shared.clone(), told.clone());
            let worker = WorkerId(index as u32);
            let chronicle = chronicle.clone();
            let run = move || {
                let work = begin(worker, &*start);
                let (mut work, told_so) = match work {
                    Ok(work) => (work, told.send(Ok(()))),
                    Err(error) => return drop(told.send(Err(error))),
                };
                drop((told, told_so));
                let mut watch = chronicle.stopwatch(worker);
                let next = |watch: &mut Stopwatch| match shared.waiting.try_recv() {
                    Err(TryRecvError::Empty) => {
                        watch.rest();
                        shared.waiting.recv().ok()
                    }
                    job => job.ok(),
                };
                while let Some(job) = next(&mut watch) {
                    // An output or a task that is dropped here may panic.
                    let _ = guarded(|| {
                        let Job { index, task, reply } = job;
                        if reply.begin() {
                            let output = match shared.interrupted() {
                                Some(Interrupt::Cancel | Interrupt::Kill) => {
                                    Err(Fault::Pool(PoolError::Interrupted))
                                }
                                _ => watch.measure(|| call(worker, &mut work, task)),
                            };
                            reply.give(index, output);
                        }
                    });
                }
            };
            let thread = thread::Builder::new().name(format!("worker {index}")).spawn(run);
            threads.push(thread.map_err(PoolError::io("start a thread"))?);
        }
        drop(told);
        // From here on, dropping it ends what was begun.
        let pool = Self {
            _subscription: reaction.subscribe(Interrupter::new(&shared), None::<fn()>)?,
            shared,
            hands: Hands::Threads {
                jobs: Some(jobs),
                threads,
            },
            singles: AtomicU64::new(0),
            chronicle,
        };
        started.iter().collect::<Result<(), _>>()?;
        Ok(pool)
    }

    /// Has tasks run by whoever asks for their outputs: those of maps when they are asked for, submitted ones at once.
    /// Callers at the same time have a function each, which `start` makes; one is made here.
    ///
    /// # Errors
    /// [`PoolError::Start`] with the reason that `start` gives.
    pub fn caller<W>(
        reaction: OnInterrupt,
        start: impl Fn(WorkerId) -> Result<W, BoxError> + Send + Sync + 'static,
    ) -> Result<Self, PoolError>
    where
        W: FnMut(T) -> R + Send + 'static,
    {
        let start: Start<T, R> =
            Box::new(move || begin(WorkerId(0), &start).map(|work| Box::new(work) as Work<T, R>));
        let chronicle = Chronicle::new();
        let idle = Mutex::new(vec![(start()?, chronicle.stopwatch(WorkerId(0)))]);
        let shared = Arc::new(Shared {
            origin: Origin::here(),
            interrupted: AtomicU8::new(0),
            waiting: crossbeam_channel::never(),
        });
        Ok(Self {
            _subscription: reaction.subscribe(Interrupter::new(&shared), None::<fn()>)?,
            shared,
            hands: Hands::Caller { start, idle },
            singles: AtomicU64::new(0),
            chronicle,
        })
    }

    /// As [`Pool::map`](crate::Pool::map).
    pub fn map<I: IntoIterator<Item = T>>(&self, tasks: I) -> LocalMap<'_, T, R, I::IntoIter> {
        LocalMap::new(self, tasks.into_iter(), Order::Ordered)
    }

    /// As [`Pool::map_unordered`](crate::Pool::map_unordered).
    pub fn map_unordered<I: IntoIterator<Item = T>>(&self, tasks: I) -> LocalMap<'_, T, R, I::IntoIter> {
        LocalMap::new(self, tasks.into_iter(), Order::AsCompleted)
    }

    /// As [`Pool::submit`](crate::Pool::submit). Where the caller is the worker it runs now, and the handle has its output.
    pub fn submit(&self, task: T) -> Handle<R> {
        let index = self.singles.fetch_add(1, Ordering::Relaxed);
        let single = Arc::new(Single::default());
        if let Some(error) = self.forked() {
            single.give(Err(Fault::Pool(error)));
        } else if self.interrupted().is_some() {
            single.give(Err(Fault::Pool(PoolError::Interrupted)));
        } else if let Some(task) = self.send(Job {
            index,
            task,
            reply: Reply::Single(single.clone()),
        }) {
            single.give(self.call_here(task));
        }
        Handle::local(index, single)
    }

    /// Gives a task to the threads, or back if there are none.
    fn send(&self, job: Job<T, R>) -> Option<T> {
        match &self.hands {
            Hands::Threads { jobs: Some(jobs), .. } => {
                // The threads listen as long as `jobs` is there.
                let _ = jobs.send(job);
                None
            }
            _ => Some(job.task),
        }
    }

    /// Runs a task in this thread.
    fn call_here(&self, task: T) -> Result<R, Fault> {
        let Hands::Caller { start, idle } = &self.hands else {
            return Err(Fault::Pool(PoolError::ShutDown));
        };
        let idle = || idle.lock().unwrap_or_else(PoisonError::into_inner);
        // Not locked while it is made or runs.
        let free = idle().pop();
        let (mut work, mut watch) = match free {
            Some(free) => free,
            None => {
                let work = start().map_err(Fault::Pool)?;
                (work, self.chronicle.stopwatch(WorkerId(0)))
            }
        };
        let output = watch.measure(|| call(WorkerId(0), &mut work, task));
        watch.rest();
        idle().push((work, watch));
        output
    }

    /// What interrupts it from elsewhere: it needs not live as long. Nothing can kill a thread:
    /// [`Interrupt::Kill`] is as [`Interrupt::Cancel`].
    pub fn interrupter(&self) -> Interrupter {
        Interrupter::new(&self.shared)
    }

    /// What it knows of its workers' times, as [`BytePool::chronicle`](crate::BytePool::chronicle); also when it is gone.
    pub fn chronicle(&self) -> Chronicle {
        self.chronicle.clone()
    }

    /// How it was interrupted, if it was.
    pub fn interrupted(&self) -> Option<Interrupt> {
        self.shared.interrupted()
    }

    /// Waits for the tasks that were submitted.
    pub fn shutdown(mut self) {
        if self.forked().is_none() {
            self.hands.end();
        }
    }
}

impl<T, R> Hands<T, R> {
    fn end(&mut self) {
        if let Self::Threads { jobs, threads } = self {
            // Hanging up is what ends them.
            *jobs = None;
            for thread in threads.drain(..) {
                let _ = thread.join();
            }
        }
    }
}

impl<T, R> Drop for LocalPool<T, R> {
    /// Waits for the tasks that run; those that wait have [`PoolError::ShutDown`] as their error.
    fn drop(&mut self) {
        if self.forked().is_some() {
            if let Hands::Threads { jobs, threads } = &mut self.hands {
                std::mem::forget((jobs.take(), std::mem::take(threads)));
            }
            return;
        }
        for Job { index, task, reply } in self.shared.waiting.try_iter() {
            let _ = guarded(|| drop(task));
            reply.refuse(index, &PoolError::ShutDown);
        }
        self.hands.end();
    }
}
