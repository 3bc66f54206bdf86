//! The threads of a [`LocalPool`](super::LocalPool): how they find tasks and run them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, TryRecvError};
use proc_pool::facade::{Interruptible, guarded};
use proc_pool::{Fault, Interrupt, PoolError, Stopwatch, WorkerId};

use super::chunk::{Chunk, Exchange};
use super::one_shot::OneShot;
use super::{Shared, call};

/// Tasks for a thread, or a request to it.
pub(super) enum Job<T, R> {
    Chunk(Chunk<T, R>),
    OneShot {
        task: T,
        reply: Arc<OneShot<R>>,
    },
    /// Tasks wait behind a slow one: take some of them.
    Look,
}

impl<T, R> Job<T, R> {
    /// Ends its tasks with `error`.
    pub(super) fn fail(self, error: &PoolError) {
        match self {
            Self::Chunk(chunk) => chunk.fail(error),
            Self::OneShot { task, reply } => {
                // A panic in the user's drop must not keep the other tasks from their error.
                let _ = guarded(|| drop(task));
                if reply.begin() {
                    reply.finish(Err(Fault::Pool(error.clone())));
                }
            }
            Self::Look => {}
        }
    }
}

/// The time that the threads have spent on tasks, for the number of tasks that they are sent.
#[derive(Debug, Default)]
pub(super) struct Busy {
    tasks: AtomicU64,
    ns: AtomicU64,
}

impl Busy {
    fn add(&self, (tasks, ns): (u64, u64)) {
        self.tasks.fetch_add(tasks, Ordering::Relaxed);
        self.ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// Returns the number of tasks and nanoseconds so far.
    pub(super) fn get(&self) -> (u64, u64) {
        (
            self.tasks.load(Ordering::Relaxed),
            self.ns.load(Ordering::Relaxed),
        )
    }
}

/// Where each thread takes its tasks from, and others may take some of them.
pub(super) struct Running<T, R>(Vec<Place<T, R>>);

type Place<T, R> = Mutex<Option<Arc<Exchange<T, R>>>>;

impl<T, R> Running<T, R> {
    pub(super) fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Mutex::new(None)).collect())
    }

    fn of(&self, worker: usize) -> MutexGuard<'_, Option<Arc<Exchange<T, R>>>> {
        self.0[worker].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes tasks that wait at another thread than `worker`. They are those of `worker` then, at the exchange that this returns.
    fn steal(&self, worker: usize) -> Option<Arc<Exchange<T, R>>> {
        let others = (1..self.0.len()).map(|step| (worker + step) % self.0.len());
        others
            .filter_map(|other| Some((other, self.of(other).clone()?)))
            .find_map(|(other, exchange)| {
                let has_stolen = exchange.steal(other, &exchange.own(worker));
                has_stolen.then_some(exchange)
            })
    }
}

/// One thread of a pool.
pub(super) struct Thread<T, R, W> {
    pub(super) worker: WorkerId,
    pub(super) work: W,
    pub(super) watch: Stopwatch,
    pub(super) shared: Arc<Shared<T, R>>,
    pub(super) running: Arc<Running<T, R>>,
}

impl<T: Send, R: Send, W: FnMut(T) -> R> Thread<T, R, W> {
    /// Runs tasks until the channel is closed and empty.
    pub(super) fn run(mut self) {
        let mut before = self.watch.measured();
        while let Some(job) = self.next() {
            match job {
                Job::Chunk(chunk) => self.run_chunk(chunk),
                Job::OneShot { task, reply } => {
                    // The drop of an output or a task is user code, which may panic. So both end in there.
                    let _ = guarded(|| {
                        let reply = reply;
                        if reply.begin() {
                            let output = self.call(task);
                            reply.finish(output.map_err(|fault| *fault));
                        }
                    });
                }
                Job::Look => {}
            }
            let measured = self.watch.measured();
            self.shared
                .busy
                .add((measured.0 - before.0, measured.1 - before.1));
            before = measured;
        }
    }

    /// Returns the next job: one that waits, or tasks of another thread. Without such a job, this waits for one.
    fn next(&mut self) -> Option<Job<T, R>> {
        let waiting: &Receiver<_> = &self.shared.waiting;
        match waiting.try_recv() {
            Ok(Job::Look) | Err(TryRecvError::Empty) => {}
            job => return job.ok(),
        }
        if let Some(exchange) = self.running.steal(self.worker.0 as usize) {
            return Some(Job::Chunk(Chunk::stolen(exchange)));
        }
        self.watch.rest();
        waiting.recv().ok()
    }

    /// Runs the tasks of a chunk, behind those that this thread has of the map.
    fn run_chunk(&mut self, chunk: Chunk<T, R>) {
        let Chunk {
            first,
            tasks,
            exchange,
        } = chunk;
        let place = self.worker.0 as usize;
        let mut own = exchange.own(place);
        own.extend(first, tasks);
        *self.running.of(place) = Some(exchange.clone());
        while let Some((index, task)) = own.next() {
            // The drop of a task that need not run is user code.
            let _ = guarded(|| match exchange.is_withdrawn() {
                true => drop(task),
                false => exchange.push(&mut own, index, self.call(task)),
            });
        }
        *self.running.of(place) = None;
        drop(own);
        exchange.wake_map();
        // If the map was dropped, this may drop outputs.
        let _ = guarded(|| drop(exchange));
    }

    // Copies of a task from function to function would take longer than a null op.
    #[inline(always)]
    fn call(&mut self, task: T) -> Result<R, Box<Fault>> {
        if let Some(Interrupt::Cancel | Interrupt::Kill) = self.shared.interrupted() {
            return Err(Box::new(Fault::Pool(PoolError::Interrupted)));
        }
        let (worker, work) = (self.worker, &mut self.work);
        self.watch.measure(|| call(worker, work, task))
    }
}
