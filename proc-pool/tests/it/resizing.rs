//! Pools that grow and shrink while they are used.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use proc_pool::{ExitCause, MAX_WORKERS, Observer, Pool, PoolError, WorkerId, Workers};
use shm_buffers::ring::Consumer;
use shm_buffers::slots::Slots;

#[cfg(target_os = "linux")]
use crate::support::{IsolatedTest, is_isolated, test_name, threads};
use crate::support::{Rendezvous, builder, pool, release, wait_for_release, watchdog};

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

/// Checks that each worker index has one process at a time.
#[derive(Default)]
struct OneProcessEach {
    running: Mutex<BTreeSet<WorkerId>>,
    violated: AtomicBool,
}

impl Observer for OneProcessEach {
    fn started(&self, worker: WorkerId, _: Consumer, _: Slots) {
        let new = self.running.lock().expect("no thread panics").insert(worker);
        self.violated.fetch_or(!new, Ordering::SeqCst);
    }

    fn ended(&self, worker: WorkerId, cause: &ExitCause) -> Vec<String> {
        println!("worker {worker} {cause}");
        let was = self.running.lock().expect("no thread panics").remove(&worker);
        self.violated.fetch_or(!was, Ordering::SeqCst);
        Vec::new()
    }
}

/// Another thread resizes the pool during maps, with and without crashes and recycling.
#[test]
fn resizing_loses_no_task_and_runs_none_twice() {
    // On other systems processes take long to start.
    const TASKS: u64 = if cfg!(target_os = "linux") { 3000 } else { 600 };
    let _watchdog = watchdog(300);
    let op = |(n, crashes): (u64, bool)| {
        if crashes && n % 300 == 7 {
            std::process::abort();
        }
        n
    };
    for (crashes, limit) in [(false, u64::MAX), (true, u64::MAX), (true, 50)] {
        let processes = Arc::new(OneProcessEach::default());
        let builder = builder(2).recycle_after(limit);
        let pool = builder
            .observer(processes.clone())
            .build_op(op)
            .expect("the pool starts");
        for ordered in [true, false] {
            let done = AtomicBool::new(false);
            // A message gets through only while the input waits for it.
            let (resized, next_resize) = mpsc::sync_channel(0);
            thread::scope(|scope| {
                let resizing = scope.spawn(|| {
                    let resized = resized;
                    for workers in [4, 1, 3, 2, 5, 1].into_iter().cycle() {
                        pool.resize(Workers::Count(workers)).expect("the pool works");
                        assert_eq!(pool.bytes().workers(), workers);
                        // With constant recycling, there may be no moment at which all workers are ready.
                        if limit == u64::MAX {
                            pool.bytes().wait_ready().expect("the pool works");
                        }
                        // Mostly the input does not wait.
                        let _ = resized.try_send(());
                        if done.load(Ordering::SeqCst) {
                            break;
                        }
                    }
                });
                // However slowly processes start, a resize happens every few tasks.
                let tasks = (0..TASKS).inspect(move |n| {
                    if n % 250 == 0 {
                        next_resize
                            .recv()
                            .expect("the other thread resizes until all tasks are done");
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
                resizing.join().expect("no thread panics");
            });
        }
        let stats = pool.shutdown(Duration::from_secs(50)).expect("the pool works");
        assert_eq!(stats.submitted, stats.answered + stats.failed, "{stats:?}");
        let crashed = if crashes { 2 * TASKS / 300 } else { 0 };
        assert_eq!((stats.failed, stats.deaths), (crashed, crashed), "{stats:?}");
        // A worker that is wanted again before it has ended is not counted: on other systems that may be every one.
        assert!(stats.scaled_down > 0 || !cfg!(target_os = "linux"), "{stats:?}");
        assert!(processes.running.lock().expect("no thread panics").is_empty());
        assert!(!processes.violated.load(Ordering::SeqCst));
    }
}

/// A map that waits for its only worker uses new workers as soon as they are ready.
#[test]
fn new_worker_takes_tasks_of_a_running_map() {
    let _watchdog = watchdog(60);
    let rendezvous = Rendezvous::new();
    let pool = pool(1, |path: String| {
        wait_for_release(&path);
        std::process::id()
    });
    let tasks = [
        rendezvous.address.clone(),
        rendezvous.address.clone(),
        rendezvous.address.clone(),
    ];
    thread::scope(|scope| {
        let pids = scope
            .spawn(|| -> BTreeSet<u32> { pool.map(tasks).map(|pid| pid.expect("no task fails")).collect() });
        let mut waiting = vec![rendezvous.accept()];
        pool.resize(Workers::Count(3)).expect("the pool works");
        // All three tasks run at the same time, which takes three processes.
        waiting.extend([rendezvous.accept(), rendezvous.accept()]);
        waiting.into_iter().for_each(release);
        assert_eq!(pids.join().expect("no thread panics").len(), 3);
    });
    assert_eq!(ids(&pool), [0, 1, 2]);
}

#[test]
fn surplus_worker_finishes_its_task_and_exits() {
    let _watchdog = watchdog(60);
    let rendezvous = Rendezvous::new();
    let pool = pool(3, |path: String| wait_for_release(&path));
    let tasks = vec![rendezvous.address.clone(); 8];
    thread::scope(|scope| {
        let failed = scope.spawn(|| pool.map(tasks).filter(Result::is_err).count());
        let waiting = [rendezvous.accept(), rendezvous.accept(), rendezvous.accept()];
        pool.resize(Workers::Count(1)).expect("the pool works");
        assert_eq!(pool.bytes().workers(), 1);
        waiting.into_iter().for_each(release);
        // The other tasks run one after the other on the only worker left.
        for _ in 0..5 {
            rendezvous.release_next();
        }
        assert_eq!(failed.join().expect("no thread panics"), 0);
    });
    while pool.bytes().stats().scaled_down < 2 {
        thread::yield_now();
    }
    assert_eq!(ids(&pool), [0]);
    let stats = pool.shutdown(Duration::from_secs(50)).expect("the pool works");
    assert_eq!(
        (stats.deaths, stats.resent, stats.spawned),
        (0, 0, 3),
        "{stats:?}"
    );
}

#[test]
fn impossible_worker_count_is_refused_and_changes_nothing() {
    let _watchdog = watchdog(60);
    let pool = pool(1, |n: u64| n);
    for asked in [0, MAX_WORKERS + 1, usize::MAX] {
        let refused = pool
            .resize(Workers::Count(asked))
            .expect_err("the count is impossible");
        assert!(
            matches!(refused, PoolError::WorkerCount { asked: a, max: MAX_WORKERS } if a == asked),
            "{refused}"
        );
    }
    assert_eq!(pool.bytes().workers(), 1);
    assert_eq!(pool.map(0..10).filter(Result::is_ok).count(), 10);
}

/// The leader has the same number of threads with 1 and with 64 workers.
#[cfg(target_os = "linux")]
#[test]
fn large_pool_needs_no_more_threads() {
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).run();
    }
    let _watchdog = watchdog(100);
    let pool = pool(1, |n: u64| n);
    assert_eq!(pool.map(0..100).filter(Result::is_ok).count(), 100);
    let with_one = threads();
    pool.resize(Workers::Count(64)).expect("the pool works");
    pool.bytes().wait_ready().expect("the pool works");
    assert_eq!(ids(&pool), (0..64).collect::<Vec<_>>());
    assert!(
        pool.map(0..20_000)
            .map(|n| n.expect("no task fails"))
            .eq(0..20_000)
    );
    // A thread that has started a worker may still be listed for a moment.
    while threads() > with_one {
        thread::yield_now();
    }
    let stats = pool.shutdown(Duration::from_secs(90)).expect("the pool works");
    assert_eq!((stats.deaths, stats.spawned), (0, 64), "{stats:?}");
}
