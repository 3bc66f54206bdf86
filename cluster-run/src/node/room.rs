//! [`Room`]: how many batches a node has, and whether it has room for another one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The fewest batches that a node has room for, unless tasks take long: one can be fetched while the other runs.
const FEWEST: usize = 2;
/// Work of a node that is so short that it gets several batches, although these have enough tasks for its workers.
const SHORT: Duration = Duration::from_millis(20);
/// The most batches of such work.
pub(super) const MOST_SHORT: usize = 64;
/// A task that takes long.
const LONG: Duration = Duration::from_secs(1);
/// How long a wait for room lasts before the node looks whether it stops.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Room {
    workers: usize,
    held: Mutex<Held>,
    changed: Condvar,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Held {
    batches: usize,
    /// Those of them without an outcome.
    tasks: usize,
    /// The number of tasks of the last batch.
    last: usize,
}

impl Held {
    /// Returns for how many more batches a node with this number of workers has room. `task_ns` is the time of a task, or 0 if it is not
    /// known. No task that takes long waits on a node for a worker, while another node may have one.
    fn room(self, workers: usize, task_ns: u64) -> usize {
        let is_long = Duration::from_nanos(task_ns) >= LONG;
        let tasks = match task_ns == 0 || is_long {
            true => workers,
            false => 2 * workers,
        };
        let has_room = self.tasks < tasks || self.batches < FEWEST && !is_long;
        self.short_room(task_ns).max(has_room.into())
    }

    /// Returns how many batches like the last one are short together with those that the node has. Near the end of a run, batches are
    /// small, and other nodes want them, too.
    fn short_room(self, task_ns: u64) -> usize {
        let work = |tasks: usize| task_ns.saturating_mul(tasks as u64);
        let left = (SHORT.as_nanos() as u64).saturating_sub(work(self.tasks));
        let batches = left.checked_div(work(self.last)).unwrap_or(0) as usize;
        batches.min(MOST_SHORT.saturating_sub(self.batches))
    }

    fn is_short(self, task_ns: u64) -> bool {
        task_ns > 0 && Duration::from_nanos(task_ns.saturating_mul(self.tasks as u64)) < SHORT
    }
}

impl Room {
    /// The room of a node with this number of workers.
    pub(super) fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            workers,
            held: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// Counts a batch with this number of tasks.
    pub(super) fn occupy(self: &Arc<Self>, tasks: usize) -> Occupied {
        let mut held = self.held();
        held.batches += 1;
        held.tasks += tasks;
        held.last = tasks;
        let (room, tasks) = (self.clone(), AtomicUsize::new(tasks));
        Occupied { room, tasks }
    }

    /// Waits until there is room for a batch. Returns for how many, or `None` if the node stops.
    pub(super) fn wait(&self, task_ns: impl Fn() -> u64, stops: impl Fn() -> bool) -> Option<usize> {
        let mut held = self.held();
        loop {
            if stops() {
                return None;
            }
            let room = held.room(self.workers, task_ns());
            if room > 0 {
                return Some(room);
            }
            let waited = self.changed.wait_timeout(held, LOOK);
            held = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Returns whether all batches together are short.
    pub(super) fn is_short(&self, task_ns: u64) -> bool {
        self.held().is_short(task_ns)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A batch that counts until this is dropped.
#[derive(Debug)]
pub(super) struct Occupied {
    room: Arc<Room>,
    tasks: AtomicUsize,
}

impl Occupied {
    /// Notes that this number of tasks of the batch have an outcome.
    pub(super) fn end_tasks(&self, tasks: usize) {
        if tasks > 0 {
            self.tasks.fetch_sub(tasks, Ordering::Relaxed);
            let mut held = self.room.held();
            held.tasks -= tasks;
            // Otherwise there is room when the batch ends, if it is not there already.
            if held.tasks < 2 * self.room.workers {
                self.room.changed.notify_all();
            }
        }
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.end_tasks(self.tasks.load(Ordering::Relaxed));
        self.room.held().batches -= 1;
        self.room.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_two_batches_tasks_for_its_workers_or_several_short_batches() {
        let room = |batches, tasks, task_ns| {
            let last = tasks / usize::max(batches, 1);
            let held = Held { batches, tasks, last };
            held.room(4, task_ns)
        };
        let (second, milli, micro) = (1_000_000_000, 50_000_000, 1000);
        assert_eq!(
            [room(0, 0, 0), room(1, 65_536, milli), room(1, 65_536, 0)],
            [1; 3]
        );
        assert_eq!([room(2, 1000, milli), room(2, 1000, 0)], [0; 2]);
        // Tasks that come one by one, and some that take long.
        assert_eq!([room(7, 7, milli), room(8, 8, milli)], [1, 0]);
        assert_eq!(
            [room(3, 3, second), room(4, 4, second), room(1, 4, second)],
            [1, 0, 0]
        );
        assert_eq!([room(3, 3, 0), room(4, 4, 0)], [1, 0]);
        assert_eq!([room(2, 200, micro), room(10, 1000, micro)], [62, 54]);
        assert_eq!([room(64, 6400, micro), room(2, 20_000, micro)], [0, 0]);
        // Small batches near the end: 9 ms each.
        assert_eq!([room(1, 9000, micro), room(2, 18_000, micro)], [1, 0]);
    }

    #[test]
    fn the_end_of_a_batch_makes_room_and_the_end_of_the_node_ends_the_wait() {
        let room = Room::new(1);
        let (first, second) = (room.occupy(100), room.occupy(100));
        let wait = || room.wait(|| 0, || false);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(wait);
            drop(first);
            assert_eq!(waiting.join().expect("no panic"), Some(1));
        });
        second.end_tasks(99);
        assert_eq!(room.held().tasks, 1);
        let third = room.occupy(100);
        assert_eq!(room.wait(|| 0, || true), None, "it stops");
        drop((second, third));
        let held = *room.held();
        assert_eq!((held.batches, held.tasks), (0, 0));
    }
}
