//! Maps of tasks: ordered outputs, and what a panic or a dead worker costs.

use std::time::Duration;

use proc_pool::Fault;

use crate::support::{pool, watchdog};

#[test]
fn ordered_outputs_are_in_order() {
    let _watchdog = watchdog(120);
    let pool = pool(2, |n: u64| n * n);
    for round in 0..3 {
        let squares: Vec<u64> = pool
            .map(round..10_000 + round)
            .map(|r| r.expect("no task fails"))
            .collect();
        assert!(squares.iter().zip(round..).all(|(square, n)| *square == n * n));
        assert_eq!(squares.len(), 10_000);
    }
    let stats = pool.shutdown(Duration::from_secs(10)).expect("the pool works");
    assert_eq!(
        (stats.submitted, stats.answered, stats.deaths),
        (30_000, 30_000, 0)
    );
}

#[test]
fn panic_fails_only_its_task() {
    let _watchdog = watchdog(120);
    let pool = pool(2, |n: u32| if n % 7 == 3 { panic!("seven {n}") } else { n });
    let mut failed = 0;
    for (index, result) in pool.map(0..1000).enumerate() {
        match result {
            Ok(n) => assert_eq!(n as usize, index),
            Err(error) => {
                failed += 1;
                assert_eq!(error.task as usize, index);
                let Fault::Panicked {
                    message, location, ..
                } = error.fault
                else {
                    panic!("{error}")
                };
                assert_eq!(message, format!("seven {index}"));
                assert!(location.contains("basics.rs"), "{location}");
            }
        }
    }
    assert_eq!(failed, 143);
}

#[test]
fn dead_worker_fails_only_its_task() {
    let _watchdog = watchdog(120);
    let pool = pool(2, |n: u32| if n % 100 == 50 { std::process::abort() } else { n });
    let mut failed = Vec::new();
    for (index, result) in pool.map(0..1000).enumerate() {
        match result {
            Ok(n) => assert_eq!(n as usize, index),
            Err(error) => {
                assert!(matches!(error.fault, Fault::WorkerDied { .. }), "{error}");
                failed.push(index);
            }
        }
    }
    assert_eq!(failed, (0..10).map(|k| k * 100 + 50).collect::<Vec<_>>());
}

/// Each map runs on a thread of its own, which may be the one that runs the event loop, and ends afterwards.
#[test]
fn workers_outlive_the_threads_that_used_them() {
    let _watchdog = watchdog(60);
    let pool = pool(2, |n: u64| n + 1);
    for _ in 0..10 {
        std::thread::scope(|scope| {
            let sum = scope.spawn(|| pool.map(0..100).map(|n| n.expect("no task fails")).sum::<u64>());
            assert_eq!(sum.join().expect("no thread panics"), 5050);
        });
    }
    let stats = pool.shutdown(Duration::from_secs(10)).expect("the pool works");
    assert_eq!((stats.spawned, stats.deaths), (2, 0), "{stats:?}");
}
