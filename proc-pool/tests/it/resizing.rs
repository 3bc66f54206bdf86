//! Pools that become larger and smaller while they are used.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use proc_pool::{Builder, Cause, MAX_WORKERS, Observer, Pool, PoolError, WorkerId, Workers};
use shm_buffers::ring::Consumer;
use shm_buffers::slots::Slots;

use crate::support::{Ear, hear_from, pool, watchdog};

fn ids<T, R>(pool: &Pool<T, R>) -> Vec<u32>
where
    T: serde::Serialize,
    R: serde::de::DeserializeOwned,
{
    pool.bytes()
        .pids()
        .into_iter()
        .map(|(worker, _)| worker.0)
        .collect()
}

/// Each place has one process at a time.
#[derive(Default)]
struct Census {
    live: Mutex<BTreeSet<WorkerId>>,
    doubles: AtomicBool,
}

impl Observer for Census {
    fn started(&self, worker: WorkerId, _: Consumer, _: Slots) {
        let new = self.live.lock().expect("no panics").insert(worker);
        self.doubles.fetch_or(!new, Ordering::SeqCst);
    }

    fn ended(&self, worker: WorkerId, cause: &Cause) -> Vec<String> {
        println!("worker {worker} {cause}");
        let was = self.live.lock().expect("no panics").remove(&worker);
        self.doubles.fetch_or(!was, Ordering::SeqCst);
        Vec::new()
    }
}

/// From another thread, in the middle of maps, with and without crashes and lifespans.
#[test]
fn resized_again_and_again_no_task_is_lost_or_run_twice() {
    // Elsewhere processes take long to start.
    const TASKS: u64 = if cfg!(target_os = "linux") { 3000 } else { 600 };
    let _watchdog = watchdog(300);
    let op = |(n, crashes): (u64, bool)| {
        if crashes && n % 300 == 7 {
            std::process::abort();
        }
        n
    };
    for (crashes, lifespan) in [(false, u64::MAX), (true, u64::MAX), (true, 50)] {
        let census = Arc::new(Census::default());
        let builder = Builder::new().workers(Workers::Count(2)).recycle_after(lifespan);
        let pool = builder.observer(census.clone()).build_op(op).expect("it starts");
        for ordered in [true, false] {
            let done = AtomicBool::new(false);
            // Takes what is sent only while somebody waits for it.
            let (resized, next_resize) = mpsc::sync_channel(0);
            thread::scope(|scope| {
                let resizing = scope.spawn(|| {
                    let resized = resized;
                    for workers in [4, 1, 3, 2, 5, 1].into_iter().cycle() {
                        pool.resize(Workers::Count(workers)).expect("it does not fail");
                        assert_eq!(pool.bytes().workers(), workers);
                        // One that is replaced all the time may never be there with all others at once.
                        if lifespan == u64::MAX {
                            pool.bytes().wait_ready().expect("it does not fail");
                        }
                        // Mostly nobody waits.
                        let _ = resized.try_send(());
                        if done.load(Ordering::SeqCst) {
                            break;
                        }
                    }
                });
                // However slowly processes start, there is a resize every few tasks.
                let tasks = (0..TASKS).inspect(move |n| {
                    if n % 250 == 0 {
                        next_resize.recv().expect("it resizes until all tasks are done");
                    }
                });
                let tasks = tasks.map(|n| (n, crashes));
                let mut seen = BTreeSet::new();
                let mut take = |result: Result<u64, proc_pool::TaskError>| {
                    let n = result.unwrap_or_else(|error| {
                        assert!(crashes && error.task % 300 == 7, "{error}");
                        error.task
                    });
                    assert!(seen.insert(n), "{n} twice");
                };
                match ordered {
                    true => pool.map(tasks).for_each(&mut take),
                    false => pool.map_unordered(tasks).for_each(&mut take),
                }
                assert_eq!(seen.len() as u64, TASKS);
                done.store(true, Ordering::SeqCst);
                resizing.join().expect("no panics");
            });
        }
        let stats = pool.shutdown(Duration::from_secs(50)).expect("it did not fail");
        assert_eq!(stats.submitted, stats.answered + stats.faulted, "{stats:?}");
        let dead = if crashes { 2 * TASKS / 300 } else { 0 };
        assert_eq!((stats.faulted, stats.deaths), (dead, dead), "{stats:?}");
        // One who is wanted again before he has ended is not counted: elsewhere that may be all of them.
        assert!(stats.dismissed > 0 || !cfg!(target_os = "linux"), "{stats:?}");
        assert!(census.live.lock().expect("no panics").is_empty());
        assert!(!census.doubles.load(Ordering::SeqCst));
    }
}

/// A map that waits for its only worker gets to know of a new one.
#[test]
fn a_new_worker_takes_tasks_of_a_map_that_runs() {
    let _watchdog = watchdog(60);
    let ear = Ear::new();
    let pool = pool(1, |path: String| {
        hear_from(&path);
        std::process::id()
    });
    let tasks = [ear.path.clone(), ear.path.clone(), ear.path.clone()];
    thread::scope(|scope| {
        let pids = scope
            .spawn(|| -> BTreeSet<u32> { pool.map(tasks).map(|pid| pid.expect("no task fails")).collect() });
        let mut running = vec![ear.accept()];
        pool.resize(Workers::Count(3)).expect("it does not fail");
        // All three at once, which takes three processes.
        running.extend([ear.accept(), ear.accept()]);
        for stream in &mut running {
            stream.write_all(&[1]).expect("it is there");
        }
        assert_eq!(pids.join().expect("no panics").len(), 3);
    });
    assert_eq!(ids(&pool), [0, 1, 2]);
}

#[test]
fn a_worker_too_many_finishes_its_task_and_ends() {
    let _watchdog = watchdog(60);
    let ear = Ear::new();
    let pool = pool(3, |path: String| hear_from(&path));
    let tasks = vec![ear.path.clone(); 8];
    thread::scope(|scope| {
        let failed = scope.spawn(|| pool.map(tasks).filter(Result::is_err).count());
        let mut running = [ear.accept(), ear.accept(), ear.accept()];
        pool.resize(Workers::Count(1)).expect("it does not fail");
        assert_eq!(pool.bytes().workers(), 1);
        for stream in &mut running {
            stream.write_all(&[1]).expect("it is there");
        }
        // The rest runs one after the other, at the only worker left.
        for _ in 0..5 {
            ear.answer();
        }
        assert_eq!(failed.join().expect("no panics"), 0);
    });
    while pool.bytes().stats().dismissed < 2 {
        thread::yield_now();
    }
    assert_eq!(ids(&pool), [0]);
    let stats = pool.shutdown(Duration::from_secs(50)).expect("it did not fail");
    assert_eq!(
        (stats.deaths, stats.resent, stats.spawned),
        (0, 0, 3),
        "{stats:?}"
    );
}

#[test]
fn a_number_that_makes_no_sense_changes_nothing() {
    let _watchdog = watchdog(60);
    let pool = pool(1, |n: u64| n);
    for asked in [0, MAX_WORKERS + 1, usize::MAX] {
        let refused = pool.resize(Workers::Count(asked)).expect_err("it makes no sense");
        assert!(
            matches!(refused, PoolError::WorkerCount { asked: a, max: MAX_WORKERS } if a == asked),
            "{refused}"
        );
    }
    assert_eq!(pool.bytes().workers(), 1);
    assert_eq!(pool.map(0..10).filter(Result::is_ok).count(), 10);
}

/// With many more workers than cores, the leader has as many threads as with one.
#[cfg(target_os = "linux")]
#[test]
fn a_large_pool_takes_no_more_threads() {
    use crate::support::{Alone, is_alone, test_name, threads};
    if !is_alone() {
        return Alone::new(&test_name!()).run();
    }
    let _watchdog = watchdog(100);
    let pool = pool(1, |n: u64| n);
    assert_eq!(pool.map(0..100).filter(Result::is_ok).count(), 100);
    let with_one = threads();
    pool.resize(Workers::Count(64)).expect("it does not fail");
    pool.bytes().wait_ready().expect("it does not fail");
    assert_eq!(ids(&pool), (0..64).collect::<Vec<_>>());
    assert!(
        pool.map(0..20_000)
            .map(|n| n.expect("no task fails"))
            .eq(0..20_000)
    );
    // A thread that has introduced a worker may still be listed for a moment.
    while threads() > with_one {
        thread::yield_now();
    }
    let stats = pool.shutdown(Duration::from_secs(90)).expect("it did not fail");
    assert_eq!((stats.deaths, stats.spawned), (0, 64), "{stats:?}");
}
