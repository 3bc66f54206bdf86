//! [`Room`]: how many batches a node has, and whether it is to have another one.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The fewest batches that a node has room for: one can be fetched while the other runs.
const FEWEST: usize = 2;
/// Work of a node that is so short that it is to have several batches, although these have enough tasks for its workers.
const SHORT: Duration = Duration::from_millis(20);
/// The most batches of such work.
pub(super) const MOST_SHORT: usize = 8;
/// How long a wait for room lasts before the node looks whether it stops.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub(super) struct Room {
    held: Mutex<Held>,
    changed: Condvar,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Held {
    batches: usize,
    tasks: usize,
}

impl Held {
    /// Returns how many more batches a node with this number of workers is to have. `task_ns` is the time of a task, or 0 if it is not
    /// known.
    fn room(self, workers: usize, task_ns: u64) -> usize {
        let has_room = self.batches < FEWEST || self.tasks < 2 * workers;
        match self.is_short(task_ns) {
            true => MOST_SHORT.saturating_sub(self.batches).max(has_room.into()),
            false => has_room.into(),
        }
    }

    fn is_short(self, task_ns: u64) -> bool {
        let work = Duration::from_nanos(task_ns.saturating_mul(self.tasks as u64));
        task_ns > 0 && work < SHORT
    }
}

impl Room {
    /// Counts a batch with this number of tasks.
    pub(super) fn occupy(self: &Arc<Self>, tasks: usize) -> Occupied {
        let mut held = self.held();
        held.batches += 1;
        held.tasks += tasks;
        let room = self.clone();
        Occupied { room, tasks }
    }

    /// Waits until there is room for a batch. Returns for how many, or `None` if the node stops.
    pub(super) fn wait(
        &self,
        workers: usize,
        task_ns: impl Fn() -> u64,
        stops: impl Fn() -> bool,
    ) -> Option<usize> {
        let mut held = self.held();
        loop {
            if stops() {
                return None;
            }
            let room = held.room(workers, task_ns());
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
    tasks: usize,
}

impl Drop for Occupied {
    fn drop(&mut self) {
        let mut held = self.room.held();
        held.batches -= 1;
        held.tasks -= self.tasks;
        drop(held);
        self.room.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_two_batches_tasks_for_its_workers_or_several_short_batches() {
        let room = |batches, tasks, task_ns| Held { batches, tasks }.room(4, task_ns);
        let (second, micro) = (1_000_000_000, 1000);
        assert_eq!([room(0, 0, 0), room(1, 65_536, second)], [1, 1]);
        assert_eq!([room(2, 1000, second), room(2, 1000, 0)], [0, 0]);
        // Tasks that come one by one.
        assert_eq!([room(7, 7, second), room(8, 8, second)], [1, 0]);
        assert_eq!([room(2, 1000, micro), room(7, 7000, micro)], [6, 1]);
        assert_eq!([room(8, 8000, micro), room(2, 20_000, micro)], [0, 0]);
    }

    #[test]
    fn the_end_of_a_batch_makes_room_and_the_end_of_the_node_ends_the_wait() {
        let room = Arc::new(Room::default());
        let (first, second) = (room.occupy(100), room.occupy(100));
        let wait = || room.wait(1, || 0, || false);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(wait);
            drop(first);
            assert_eq!(waiting.join().expect("no panic"), Some(1));
        });
        let third = room.occupy(100);
        assert_eq!(room.wait(1, || 0, || true), None, "it stops");
        drop((second, third));
        assert_eq!(*room.held(), Held::default());
    }
}
