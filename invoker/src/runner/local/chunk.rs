//! [`Chunk`]: tasks of a map that go to a thread together, and [`Outputs`], where their outputs meet the map.
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

/// Tasks of a map that no thread has started.
pub(super) struct Chunk<T, R> {
    tasks: Mutex<VecDeque<(u64, T)>>,
    pub(super) outputs: Arc<Outputs<R>>,
}

impl<T, R> Chunk<T, R> {
    pub(super) fn new(tasks: VecDeque<(u64, T)>, outputs: Arc<Outputs<R>>) -> Self {
        Self {
            tasks: Mutex::new(tasks),
            outputs,
        }
    }

    fn tasks(&self) -> MutexGuard<'_, VecDeque<(u64, T)>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the next task.
    pub(super) fn pop(&self) -> Option<(u64, T)> {
        self.tasks().pop_front()
    }

    /// Removes the later half of the tasks, or the only one.
    pub(super) fn split(&self) -> Option<Self> {
        let mut tasks = self.tasks();
        let at = tasks.len() / 2;
        let later = tasks.split_off(at);
        (!later.is_empty()).then(|| Self::new(later, self.outputs.clone()))
    }

    /// Ends all tasks with `error`.
    pub(super) fn fail(&self, error: &PoolError) {
        while let Some((index, task)) = self.pop() {
            // A panic in the user's drop must not keep the other tasks from their error.
            let _ = guarded(|| drop(task));
            let fault = Box::new(Fault::Pool(error.clone()));
            self.outputs.push(0, index, Err(fault));
        }
    }
}

/// The outputs of a map that have not been taken, in the order of completion at each thread.
///
/// Each thread has a list of its own, so that threads don't wait for one another.
pub(super) struct Outputs<R> {
    lists: Box<[List<R>]>,
    /// Number of outputs that are missing until the map is woken; not positive while it does not wait.
    missing: AtomicIsize,
    sleep: Mutex<()>,
    arrived: Condvar,
    /// The map was dropped: its tasks need not run.
    withdrawn: AtomicBool,
}

/// The outputs of one thread, on cache lines of its own.
#[repr(align(128))]
struct List<R>(Mutex<Vec<Indexed<R>>>);

impl<R> List<R> {
    fn lock(&self) -> MutexGuard<'_, Vec<Indexed<R>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R> Outputs<R> {
    pub(super) fn new(threads: usize) -> Self {
        Self {
            lists: (0..threads.max(1)).map(|_| List(Mutex::default())).collect(),
            missing: AtomicIsize::new(0),
            sleep: Mutex::new(()),
            arrived: Condvar::new(),
            withdrawn: AtomicBool::new(false),
        }
    }

    /// Adds an output of a thread.
    #[inline]
    pub(super) fn push(&self, thread: usize, index: u64, output: Result<R, Box<Fault>>) {
        self.lists[thread].lock().push((index, output));
        // The lock orders this after `wait` has set the number, or the output before `wait` counts it.
        if self.missing.load(Ordering::Relaxed) > 0 && self.missing.fetch_sub(1, Ordering::Relaxed) == 1 {
            // The map has the lock until it sleeps.
            drop(self.sleep.lock());
            self.arrived.notify_one();
        }
    }

    /// Appends the outputs that have arrived to `list`.
    pub(super) fn take(&self, list: &mut Vec<Indexed<R>>) {
        for outputs in &self.lists {
            let mut outputs = outputs.lock();
            match list.is_empty() {
                true => std::mem::swap(&mut *outputs, list),
                false => list.append(&mut outputs),
            }
        }
    }

    /// Returns the number of outputs that have arrived.
    pub(super) fn len(&self) -> usize {
        self.lists.iter().map(|outputs| outputs.lock().len()).sum()
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
        for outputs in &self.lists {
            let list = std::mem::take(&mut *outputs.lock());
            drop(list);
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
    fn a_chunk_splits_until_nothing_is_left() {
        let chunk: Chunk<u64, ()> = Chunk::new((0..5).map(|n| (n, n)).collect(), Arc::new(Outputs::new(1)));
        let later = chunk.split().expect("it has tasks");
        let indices = |chunk: &Chunk<u64, ()>| {
            std::iter::from_fn(|| chunk.pop())
                .map(|(n, _)| n)
                .collect::<Vec<_>>()
        };
        assert_eq!((indices(&chunk), indices(&later)), (vec![0, 1], vec![2, 3, 4]));
        let last: Chunk<u64, ()> = Chunk::new(VecDeque::from([(7, 7)]), Arc::new(Outputs::new(1)));
        assert_eq!(last.split().map(|last| indices(&last)), Some(vec![7]));
        assert!(last.split().is_none());
    }

    #[test]
    fn a_wait_ends_with_the_wanted_number_or_after_its_time() {
        let outputs = Arc::new(Outputs::new(2));
        assert!(!outputs.wait(1, Duration::from_millis(1)));
        outputs.push(0, 0, Ok(()));
        assert!(outputs.wait(2, Duration::from_millis(1)), "there is one");
        let pusher = outputs.clone();
        let thread = std::thread::spawn(move || pusher.push(1, 1, Ok(())));
        assert!(outputs.wait(2, Duration::from_secs(60)));
        thread.join().expect("it ends");
        let mut list = Vec::new();
        outputs.take(&mut list);
        assert_eq!(list.len(), 2);
    }
}
