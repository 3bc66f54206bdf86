//! Pools as wholes: shutting down, dropping, several, nested ones.

use std::time::Duration;

use proc_pool::{Builder, Workers};

use crate::crash::ends_within;
use crate::support::{Ear, hang, pool, tell, watchdog};

fn pids<T: serde::Serialize, R: serde::de::DeserializeOwned>(pool: &proc_pool::Pool<T, R>) -> Vec<u32> {
    pool.bytes().pids().into_iter().map(|(_, pid)| pid).collect()
}

#[test]
fn idle_workers_end_by_themselves() {
    let _watchdog = watchdog(60);
    for _ in 0..5 {
        let pool = pool(3, |n: u64| n);
        assert_eq!(pool.map(0..100).count(), 100);
        let pids = pids(&pool);
        let began = std::time::Instant::now();
        let stats = pool.shutdown(Duration::from_secs(50)).expect("it did not fail");
        assert_eq!((stats.answered, stats.deaths, stats.spawned), (100, 0, 3));
        assert!(ends_within(&pids, 0));
        assert!(began.elapsed() < Duration::from_secs(40), "killed, not ended");
    }
}

/// Also while one is being replaced.
#[test]
fn a_pool_that_replaces_a_worker_shuts_down() {
    let _watchdog = watchdog(60);
    for _ in 0..5 {
        let pool = pool(2, |n: u64| if n == 1 { std::process::exit(9) } else { n });
        assert_eq!(pool.map(0..2).filter(Result::is_err).count(), 1);
        let began = std::time::Instant::now();
        pool.shutdown(Duration::from_secs(50)).expect("it did not fail");
        assert!(began.elapsed() < Duration::from_secs(40), "killed, not ended");
    }
}

#[test]
fn drop_and_shutdown_kill_what_hangs() {
    let _watchdog = watchdog(60);
    for shutdown in [true, false] {
        let ear = Ear::new();
        let pool = pool(2, |(path, n): (String, u32)| {
            if n == 1 {
                tell(&path, std::process::id());
                hang();
            }
        });
        let pids = pids(&pool);
        // The other worker's output comes, and then this one's pid: it hangs now.
        let tasks = [(ear.path.clone(), 1), (ear.path.clone(), 0)];
        let mut outputs = pool.map_unordered(tasks);
        assert!(outputs.next().expect("one").is_ok());
        let hung = ear.hear();
        drop(outputs);
        assert!(pids.contains(&hung));
        if shutdown {
            pool.shutdown(Duration::from_millis(50)).expect("it did not fail");
        } else {
            drop(pool);
        }
        assert!(ends_within(&pids, 0));
    }
}

#[test]
fn drop_is_quick_at_any_moment() {
    let _watchdog = watchdog(60);
    for taken in [0, 1, 10, 1000] {
        let pool = pool(2, |n: u64| vec![n; 100]);
        let pids = pids(&pool);
        assert_eq!(pool.map(0..).take(taken).count(), taken);
        drop(pool);
        assert!(ends_within(&pids, 0));
    }
}

#[test]
fn several_pools_at_once() {
    let _watchdog = watchdog(60);
    let double = pool(2, |n: u64| n * 2);
    let text = pool(1, |n: u64| n.to_string());
    let square = pool(2, |n: u64| n * n);
    let doubles = double.map(0..500).map(Result::unwrap);
    let texts = text.map(doubles).map(|r| r.unwrap().parse::<u64>().unwrap());
    assert!(
        square
            .map(texts)
            .map(Result::unwrap)
            .eq((0..500).map(|n| n * n * 4))
    );
}

/// A worker may have workers of its own: it has passed `init` as well.
#[test]
fn a_pool_within_a_worker() {
    let _watchdog = watchdog(60);
    let outer = pool(2, |n: u64| {
        let inner = Builder::new()
            .workers(Workers::Count(2))
            .build_op(|n: u64| (n + 1, std::process::id()))
            .expect("workers may have pools");
        let outputs: Vec<(u64, u32)> = inner.map(n..n + 10).map(|r| r.expect("no task fails")).collect();
        assert!(outputs.iter().map(|(n, _)| *n).eq(n + 1..n + 11));
        assert!(outputs.iter().all(|(_, pid)| *pid != std::process::id()));
        outputs[0].1
    });
    let inner: Vec<u32> = outer.map(0..4).map(|r| r.expect("no task fails")).collect();
    assert!(ends_within(&inner, 2000));
}
