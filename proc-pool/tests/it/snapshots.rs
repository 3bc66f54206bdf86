//! Snapshots of a pool's workers while they work.

use std::thread;
use std::time::Duration;

use proc_pool::{Snapshot, WorkerId, WorkerState};

use crate::support::{Rendezvous, kill, pool, wait_for_release, watchdog};

fn wait_for_answer(path: String) {
    if !path.is_empty() {
        wait_for_release(&path);
    }
}

#[test]
fn snapshot_shows_running_tasks_and_restarts() {
    let _watchdog = watchdog(60);
    let rendezvous = Rendezvous::new();
    let pool = pool(2, wait_for_answer);
    let until = |what: &dyn Fn(&Snapshot) -> bool| {
        loop {
            let snapshot = pool.snapshot();
            if what(&snapshot) {
                return snapshot;
            }
            thread::sleep(Duration::from_millis(1));
        }
    };
    let idle = until(&|it| it.workers.iter().all(|w| w.state == WorkerState::Idle));
    let pids: Vec<_> = idle.workers.iter().map(|w| (w.worker, w.pid.unwrap())).collect();
    assert_eq!(pids, pool.bytes().pids());
    for (index, worker) in (0..).zip(&idle.workers) {
        assert_eq!(worker.worker, WorkerId(index));
        assert!(worker.memory.is_some_and(|bytes| bytes > 100 << 10), "{idle}");
        assert!(worker.uptime.is_some());
        assert_eq!(
            (worker.task, worker.waiting, worker.done, worker.restarts),
            (None, 0, 0, 0)
        );
    }
    thread::scope(|scope| {
        // The fourth task waits, the others end immediately.
        let tasks = (0..10).map(|n| {
            if n == 3 {
                rendezvous.address.clone()
            } else {
                String::new()
            }
        });
        let map = scope.spawn(|| pool.map_unordered(tasks).filter(Result::is_err).count());
        let waiting = rendezvous.accept();
        // Some tasks may be queued behind it; all others end.
        let sent = |it: &Snapshot| it.workers.iter().map(|w| w.done + w.waiting as u64).sum::<u64>();
        let busy = until(&|it| {
            sent(it) == 9 && it.workers.iter().filter(|w| w.state == WorkerState::Idle).count() == 1
        });
        let worker = busy.workers.iter().find(|w| w.task.is_some()).unwrap();
        let first = worker.task.unwrap();
        assert_eq!((worker.state, first.task), (WorkerState::Busy, 3), "{busy}");
        let done: u64 = busy.workers.iter().map(|w| w.done).sum();
        assert_eq!(done, busy.stats.answered, "{busy}");
        let later = pool.snapshot().workers[worker.worker.0 as usize].task.unwrap();
        assert!(later.task == 3 && later.age > first.age, "{first:?} {later:?}");
        // The worker dies and is replaced.
        kill(worker.pid.unwrap());
        let after =
            until(&|it| it.stats.deaths == 1 && it.workers.iter().all(|w| w.state == WorkerState::Idle));
        let replaced = &after.workers[worker.worker.0 as usize];
        assert_eq!(replaced.restarts, 1);
        assert_ne!(replaced.pid, worker.pid);
        assert_eq!(map.join().unwrap(), 1);
        drop(waiting);
    });
    assert_eq!(pool.snapshot().to_string().lines().count(), 4);
}
