//! [`Chunk`]: tasks of a map that go to a thread together, and [`Exchange`], where the map and the threads meet.
//!
//! A task alone would cost two transfers between threads. The tasks of a chunk are not bound to its thread: another one that has
//! nothing to do takes some of those that were not started.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_deque::{Steal, Stealer, Worker};
use proc_pool::facade::guarded;
use proc_pool::{Fault, PoolError};
use rtrb::{Consumer, Producer, RingBuffer};

/// The output of a task, or its error, with the task's index. The error is boxed, because it is large and most outputs have none.
pub(super) type Indexed<R> = (u64, Result<R, Box<Fault>>);

/// Tasks of a map with consecutive indices, which no thread has taken. Without the index of each, fewer bytes go to another core.
pub(super) struct Chunk<T, R> {
    /// The index of the first task.
    pub(super) first: u64,
    pub(super) tasks: Vec<T>,
    pub(super) exchange: Arc<Exchange<T, R>>,
}

impl<T, R> Chunk<T, R> {
    /// Returns a chunk without tasks, for a thread that has taken some of another thread.
    pub(super) fn stolen(exchange: Arc<Exchange<T, R>>) -> Self {
        Self {
            first: 0,
            tasks: Vec::new(),
            exchange,
        }
    }

    /// Ends all tasks with `error`.
    pub(super) fn fail(self, error: &PoolError) {
        for (index, task) in (self.first..).zip(self.tasks) {
            // A panic in the user's drop must not keep the other tasks from their error.
            let _ = guarded(|| drop(task));
            let fault = Box::new(Fault::Pool(error.clone()));
            self.exchange.push_other((index, Err(fault)));
        }
        self.exchange.wake_map();
    }
}

/// The tasks of a map that threads have, and the outputs that the map has not taken.
///
/// Each thread has a place of its own, so that threads don't wait for one another, nor for the map.
pub(super) struct Exchange<T, R> {
    places: Box<[Place<T, R>]>,
    arrivals: Mutex<Vec<Consumer<(u64, R)>>>,
    /// Outputs for which a thread's queue had no room, and errors.
    others: Mutex<Vec<Indexed<R>>>,
    /// Number of outputs for which the map waits; 0 while it does not.
    wanted: AtomicUsize,
    sleep: Mutex<()>,
    arrived: Condvar,
    /// The map was dropped: its tasks need not run.
    withdrawn: AtomicBool,
}

/// What one thread has, on cache lines of its own.
#[repr(align(128))]
struct Place<T, R> {
    /// The ends of the thread, which locks them while it runs tasks of the map. No other thread does.
    own: Mutex<Own<T, R>>,
    /// Takes tasks that were not started.
    tasks: Stealer<(u64, T)>,
}

/// A thread's ends of what it shares with the map and other threads.
pub(super) struct Own<T, R> {
    tasks: Worker<(u64, T)>,
    outputs: Producer<(u64, R)>,
    /// Number of outputs since the thread last looked whether the map has what it waits for.
    unseen: usize,
}

impl<T, R> Own<T, R> {
    /// Appends tasks to those that the thread has not started.
    pub(super) fn extend(&self, first: u64, tasks: Vec<T>) {
        (first..).zip(tasks).for_each(|task| self.tasks.push(task));
    }

    /// Takes the next task.
    #[inline]
    pub(super) fn next(&self) -> Option<(u64, T)> {
        self.tasks.pop()
    }
}

fn lock<V>(mutex: &Mutex<V>) -> MutexGuard<'_, V> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T, R> Exchange<T, R> {
    /// Returns the number of outputs for which a thread's queue has room.
    pub(super) fn capacity() -> usize {
        (192 << 10) / size_of::<(u64, R)>().clamp(24, 8192)
    }

    pub(super) fn new(threads: usize) -> Self {
        let mut arrivals = Vec::new();
        let place = |_| {
            let (outputs, arriving) = RingBuffer::new(Self::capacity());
            arrivals.push(arriving);
            let tasks = Worker::new_fifo();
            Place {
                tasks: tasks.stealer(),
                own: Mutex::new(Own {
                    tasks,
                    outputs,
                    unseen: 0,
                }),
            }
        };
        Self {
            places: (0..threads.max(1)).map(place).collect(),
            arrivals: Mutex::new(arrivals),
            others: Mutex::new(Vec::new()),
            wanted: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            arrived: Condvar::new(),
            withdrawn: AtomicBool::new(false),
        }
    }

    /// Returns the ends of a thread, for the thread itself.
    pub(super) fn own(&self, thread: usize) -> MutexGuard<'_, Own<T, R>> {
        lock(&self.places[thread].own)
    }

    /// Adds an output of the thread with these ends, and wakes the map if it has what it waits for.
    ///
    /// There is no fence, for which a processor would wait until the output is visible to all. So a map that begins to wait at this moment
    /// may not see the output, nor this thread the map: then the next output wakes it, [`wake_map`](Self::wake_map) or its timeout.
    #[inline]
    pub(super) fn push(&self, own: &mut Own<T, R>, index: u64, output: Result<R, Box<Fault>>) {
        match output {
            Ok(output) => {
                if let Err(rtrb::PushError::Full((index, output))) = own.outputs.push((index, output)) {
                    self.push_other((index, Ok(output)));
                }
            }
            Err(fault) => self.push_other((index, Err(fault))),
        }
        own.unseen += 1;
        let wanted = self.wanted.load(Ordering::Relaxed);
        // Each thread has its share of them.
        if wanted > 0 && own.unseen * self.places.len() >= wanted {
            own.unseen = self.wake_map();
        }
    }

    #[cold]
    fn push_other(&self, output: Indexed<R>) {
        lock(&self.others).push(output);
    }

    /// Moves tasks that another thread has not started to those of the thread with these ends. Returns whether there were any.
    pub(super) fn steal(&self, from: usize, own: &Own<T, R>) -> bool {
        loop {
            match self.places[from].tasks.steal_batch(&own.tasks) {
                Steal::Success(()) => return true,
                Steal::Empty => return false,
                Steal::Retry => std::hint::spin_loop(),
            }
        }
    }

    /// Wakes the map if it has what it waits for. Returns how many outputs of the caller may count as seen until it looks again.
    pub(super) fn wake_map(&self) -> usize {
        // Pairs with the fence in `wait`: either this thread sees the number, or the map sees the outputs.
        fence(Ordering::SeqCst);
        let wanted = self.wanted.load(Ordering::Relaxed);
        if wanted == 0 {
            return 0;
        }
        let missing = wanted.saturating_sub(self.len());
        if missing == 0 && self.wanted.swap(0, Ordering::Relaxed) > 0 {
            // The map has the lock until it sleeps.
            drop(lock(&self.sleep));
            self.arrived.notify_one();
        }
        (wanted - missing) / self.places.len()
    }

    /// Appends the outputs that have arrived to `list`.
    pub(super) fn take(&self, list: &mut Vec<Indexed<R>>) {
        for arriving in lock(&self.arrivals).iter_mut() {
            if let Ok(outputs) = arriving.read_chunk(arriving.slots()) {
                list.extend(outputs.into_iter().map(|(index, output)| (index, Ok(output))));
            }
        }
        list.append(&mut lock(&self.others));
    }

    /// Returns the number of outputs that have arrived.
    pub(super) fn len(&self) -> usize {
        let arrived: usize = lock(&self.arrivals).iter().map(Consumer::slots).sum();
        arrived + lock(&self.others).len()
    }

    /// Waits until `wanted` outputs are there, or for `timeout`. Returns whether there is one.
    pub(super) fn wait(&self, wanted: usize, timeout: Duration) -> bool {
        let sleep = lock(&self.sleep);
        self.wanted.store(wanted, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.len() < wanted {
            let waited = self
                .arrived
                .wait_timeout_while(sleep, timeout, |()| self.wanted.load(Ordering::Relaxed) > 0);
            drop(waited);
        }
        self.wanted.store(0, Ordering::Relaxed);
        self.len() > 0
    }

    /// Has the tasks that were not started dropped, and drops the outputs that have arrived.
    pub(super) fn withdraw(&self) {
        self.withdrawn.store(true, Ordering::Relaxed);
        let mut outputs = Vec::new();
        self.take(&mut outputs);
        drop(outputs);
    }

    pub(super) fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn give(exchange: &Exchange<u64, u64>, thread: usize, tasks: std::ops::Range<u64>) {
        exchange.own(thread).extend(tasks.start, tasks.collect());
    }

    fn indices(exchange: &Exchange<u64, u64>, thread: usize) -> Vec<u64> {
        let own = exchange.own(thread);
        std::iter::from_fn(|| own.next()).map(|(n, _)| n).collect()
    }

    #[test]
    fn another_thread_takes_tasks_that_were_not_started() {
        let exchange = Exchange::new(2);
        give(&exchange, 0, 0..5);
        assert!(exchange.steal(0, &exchange.own(1)));
        let (stolen, kept) = (indices(&exchange, 1), indices(&exchange, 0));
        assert!(!stolen.is_empty() && !kept.is_empty());
        assert_eq!([stolen, kept].concat(), [0, 1, 2, 3, 4]);
        give(&exchange, 0, 7..8);
        assert!(exchange.steal(0, &exchange.own(1)), "the only one");
        assert_eq!((indices(&exchange, 0), indices(&exchange, 1)), (vec![], vec![7]));
        assert!(!exchange.steal(0, &exchange.own(1)));
    }

    #[test]
    fn outputs_for_which_a_queue_has_no_room_are_not_lost() {
        let exchange: Exchange<(), u64> = Exchange::new(1);
        let outputs = Exchange::<(), u64>::capacity() as u64 + 10;
        for index in 0..outputs {
            exchange.push(&mut exchange.own(0), index, Ok(index));
        }
        assert_eq!(exchange.len() as u64, outputs);
        let mut list = Vec::new();
        exchange.take(&mut list);
        assert!(list.iter().map(|(index, _)| *index).eq(0..outputs));
        assert_eq!(exchange.len(), 0);
    }

    #[test]
    fn a_wait_ends_with_the_wanted_number_or_after_its_time() {
        let outputs: Arc<Exchange<(), ()>> = Arc::new(Exchange::new(2));
        assert!(!outputs.wait(1, Duration::from_millis(1)));
        outputs.push(&mut outputs.own(0), 0, Ok(()));
        assert!(outputs.wait(2, Duration::from_millis(1)), "there is one");
        let pusher = outputs.clone();
        let thread = std::thread::spawn(move || pusher.push(&mut pusher.own(1), 1, Ok(())));
        assert!(outputs.wait(2, Duration::from_secs(60)));
        thread.join().expect("it ends");
        let mut list = Vec::new();
        outputs.take(&mut list);
        assert_eq!(list.len(), 2);
    }
}
