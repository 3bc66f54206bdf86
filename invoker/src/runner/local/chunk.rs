//! [`Chunk`]: tasks of a map that go to a thread together, and [`Exchange`], where the map and the threads meet.
//!
//! A task alone would cost two transfers between threads. The tasks of a chunk are not bound to its thread: another one that has
//! nothing to do takes half of those that were not started.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proc_pool::facade::guarded;
use proc_pool::{Fault, PoolError};

/// The output of a task, or its error, with the task's index. The error is boxed, because it is large and most outputs have none.
pub(super) type Indexed<R> = (u64, Result<R, Box<Fault>>);

/// Tasks of a map that no thread has taken.
pub(super) struct Chunk<T, R> {
    tasks: VecDeque<(u64, T)>,
    exchange: Arc<Exchange<T, R>>,
}

impl<T, R> Chunk<T, R> {
    pub(super) fn new(tasks: VecDeque<(u64, T)>, exchange: Arc<Exchange<T, R>>) -> Self {
        Self { tasks, exchange }
    }

    /// Moves the tasks to the list of a thread that has none; the thread takes them from there one by one.
    pub(super) fn give_to(self, thread: usize) -> Arc<Exchange<T, R>> {
        let mut list = self.exchange.lists[thread].lock();
        debug_assert!(list.tasks.is_empty(), "the thread has finished its tasks");
        list.tasks = self.tasks;
        drop(list);
        self.exchange
    }

    /// Ends all tasks with `error`.
    pub(super) fn fail(self, error: &PoolError) {
        for (index, task) in self.tasks {
            // A panic in the user's drop must not keep the other tasks from their error.
            let _ = guarded(|| drop(task));
            let fault = Box::new(Fault::Pool(error.clone()));
            self.exchange.push(0, (index, Err(fault)));
        }
    }
}

/// The tasks of a map that threads have, and the outputs that the map has not taken, in the order of completion at each thread.
///
/// Each thread has a list of its own, so that threads don't wait for one another.
pub(super) struct Exchange<T, R> {
    lists: Box<[List<T, R>]>,
    /// Number of outputs that are missing until the map is woken; not positive while it does not wait.
    missing: AtomicIsize,
    sleep: Mutex<()>,
    arrived: Condvar,
    /// The map was dropped: its tasks need not run.
    withdrawn: AtomicBool,
}

/// What one thread has, on cache lines of its own.
#[repr(align(128))]
struct List<T, R>(Mutex<Items<T, R>>);

struct Items<T, R> {
    /// Tasks that were not started.
    tasks: VecDeque<(u64, T)>,
    outputs: Vec<Indexed<R>>,
}

impl<T, R> List<T, R> {
    fn lock(&self) -> MutexGuard<'_, Items<T, R>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T, R> Exchange<T, R> {
    pub(super) fn new(threads: usize) -> Self {
        let list = || {
            List(Mutex::new(Items {
                tasks: VecDeque::new(),
                outputs: Vec::new(),
            }))
        };
        Self {
            lists: (0..threads.max(1)).map(|_| list()).collect(),
            missing: AtomicIsize::new(0),
            sleep: Mutex::new(()),
            arrived: Condvar::new(),
            withdrawn: AtomicBool::new(false),
        }
    }

    /// Adds the output of a thread's last task, if there is one, and removes the thread's next task: both under one lock.
    #[inline]
    pub(super) fn advance(&self, thread: usize, output: Option<Indexed<R>>) -> Option<(u64, T)> {
        let has_output = output.is_some();
        let task = {
            let mut list = self.lists[thread].lock();
            list.outputs.extend(output);
            list.tasks.pop_front()
        };
        if has_output {
            self.wake_map();
        }
        task
    }

    /// Adds an output of a thread.
    fn push(&self, thread: usize, output: Indexed<R>) {
        self.lists[thread].lock().outputs.push(output);
        self.wake_map();
    }

    /// Removes the later half of the tasks of a thread, or the only one.
    pub(super) fn split(self: &Arc<Self>, thread: usize) -> Option<Chunk<T, R>> {
        let mut list = self.lists[thread].lock();
        let at = list.tasks.len() / 2;
        let later = list.tasks.split_off(at);
        (!later.is_empty()).then(|| Chunk::new(later, self.clone()))
    }

    /// Wakes the map after an output was added, if it waits for no more than that.
    #[inline]
    fn wake_map(&self) {
        // The lock orders this after `wait` has set the number, or the output before `wait` counts it.
        if self.missing.load(Ordering::Relaxed) > 0 && self.missing.fetch_sub(1, Ordering::Relaxed) == 1 {
            // The map has the lock until it sleeps.
            drop(self.sleep.lock());
            self.arrived.notify_one();
        }
    }

    /// Appends the outputs that have arrived to `list`.
    pub(super) fn take(&self, list: &mut Vec<Indexed<R>>) {
        for items in &self.lists {
            let outputs = &mut items.lock().outputs;
            match list.is_empty() {
                true => std::mem::swap(outputs, list),
                false => list.append(outputs),
            }
        }
    }

    /// Returns the number of outputs that have arrived.
    pub(super) fn len(&self) -> usize {
        self.lists.iter().map(|list| list.lock().outputs.len()).sum()
    }

    /// Waits until `wanted` outputs are there, or for `timeout`. Returns whether there is one.
    pub(super) fn wait(&self, wanted: usize, timeout: Duration) -> bool {
        let sleep = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        self.missing.store(wanted as isize, Ordering::Relaxed);
        let here = self.len();
        // An output that has arrived in between is counted twice, which only ends the wait earlier.
        if self.missing.fetch_sub(here as isize, Ordering::Relaxed) > here as isize {
            let waited = self
                .arrived
                .wait_timeout_while(sleep, timeout, |()| self.missing.load(Ordering::Relaxed) > 0);
            drop(waited);
        }
        self.missing.store(0, Ordering::Relaxed);
        here > 0 || self.len() > 0
    }

    /// Has the tasks that were not started dropped, and drops the outputs that have arrived.
    pub(super) fn withdraw(&self) {
        self.withdrawn.store(true, Ordering::Relaxed);
        for list in &self.lists {
            let outputs = std::mem::take(&mut list.lock().outputs);
            drop(outputs);
        }
    }

    pub(super) fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tasks_of_a_thread_split_until_nothing_is_left() {
        let exchange: Arc<Exchange<u64, ()>> = Arc::new(Exchange::new(2));
        Chunk::new((0..5).map(|n| (n, n)).collect(), exchange.clone()).give_to(0);
        let indices = |thread| {
            std::iter::from_fn(|| exchange.advance(thread, None))
                .map(|(n, _)| n)
                .collect::<Vec<_>>()
        };
        let later = exchange.split(0).expect("it has tasks");
        later.give_to(1);
        assert_eq!((indices(0), indices(1)), (vec![0, 1], vec![2, 3, 4]));
        Chunk::new(VecDeque::from([(7, 7)]), exchange.clone()).give_to(0);
        exchange.split(0).expect("the only one").give_to(1);
        assert_eq!((indices(0), indices(1)), (vec![], vec![7]));
        assert!(exchange.split(0).is_none());
    }

    #[test]
    fn an_output_is_there_before_the_next_task_is_taken() {
        let exchange: Arc<Exchange<u64, u64>> = Arc::new(Exchange::new(1));
        Chunk::new(VecDeque::from([(0, 10), (1, 11)]), exchange.clone()).give_to(0);
        let mut output = None;
        for index in 0..2 {
            assert_eq!(exchange.advance(0, output), Some((index, index + 10)));
            assert_eq!(exchange.len() as u64, index);
            output = Some((index, Ok(index)));
        }
        assert!(exchange.advance(0, output).is_none() && exchange.len() == 2);
    }

    #[test]
    fn a_wait_ends_with_the_wanted_number_or_after_its_time() {
        let outputs: Arc<Exchange<(), ()>> = Arc::new(Exchange::new(2));
        assert!(!outputs.wait(1, Duration::from_millis(1)));
        outputs.push(0, (0, Ok(())));
        assert!(outputs.wait(2, Duration::from_millis(1)), "there is one");
        let pusher = outputs.clone();
        let thread = std::thread::spawn(move || pusher.push(1, (1, Ok(()))));
        assert!(outputs.wait(2, Duration::from_secs(60)));
        thread.join().expect("it ends");
        let mut list = Vec::new();
        outputs.take(&mut list);
        assert_eq!(list.len(), 2);
    }
}
