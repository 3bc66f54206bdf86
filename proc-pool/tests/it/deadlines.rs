//! Deadlines: which task they end, and which they leave alone.

use std::thread;
use std::time::Duration;

use proc_pool::Fault;

use crate::support::{builder, hang, watchdog};

fn hang_at_five(n: u32) -> u32 {
    if n == 5 {
        hang();
    }
    n
}

#[test]
fn deadline_ends_only_the_hung_task() {
    let _watchdog = watchdog(120);
    let builder = builder(2).deadline(Duration::from_millis(200));
    let pool = builder.build_op(hang_at_five).expect("the pool starts");
    for _ in 0..2 {
        for (n, result) in (0..200).zip(pool.map(0..200)) {
            match result {
                Ok(m) => assert_eq!(m, n),
                Err(error) => {
                    assert_eq!((n, error.task), (5, 5));
                    let Fault::TimedOut { deadline, .. } = error.fault else {
                        panic!("{error}")
                    };
                    assert_eq!(deadline, Duration::from_millis(200));
                }
            }
        }
    }
    let stats = pool.shutdown(Duration::from_secs(10)).expect("the pool works");
    assert_eq!((stats.deaths, stats.failed, stats.answered), (2, 2, 398));
}

#[test]
fn deadline_leaves_quick_tasks_alone() {
    let _watchdog = watchdog(120);
    let builder = builder(2).deadline(Duration::from_secs(60));
    let pool = builder.build_op(|n: u64| n + 1).expect("the pool starts");
    assert_eq!(pool.map(0..20_000).filter(|result| result.is_err()).count(), 0);
    assert_eq!(pool.bytes().stats().deaths, 0);
}

#[test]
fn hung_task_is_retried() {
    let _watchdog = watchdog(120);
    let builder = builder(1).deadline(Duration::from_millis(100)).retries(1);
    let pool = builder.build_op(hang_at_five).expect("the pool starts");
    let failed: Vec<_> = pool.map(0..10).filter_map(Result::err).collect();
    assert!(
        matches!(&failed[..], [error] if matches!(error.fault, Fault::TimedOut { .. })),
        "{failed:?}"
    );
    assert_eq!(
        (pool.bytes().stats().retried, pool.bytes().stats().deaths),
        (1, 2)
    );
}

/// Sleeps for `us` microseconds.
fn nap(us: u64) -> u64 {
    thread::sleep(Duration::from_micros(us));
    us
}

#[test]
fn deadline_ends_only_the_late_task_of_a_window() {
    // Long enough that a busy machine makes no other task late.
    const DEADLINE: u64 = 60_000;
    let _watchdog = watchdog(120);
    let pool = builder(1)
        .deadline(Duration::from_micros(DEADLINE))
        .build_op(nap)
        .expect("the pool starts");
    let mut late = 0;
    for round in 0..40 {
        // Shorter tasks come first, so that others are sent behind the task that is about as long as the deadline. The last one is far
        // too long, however late the leader looks.
        let long = match round {
            39 => 20 * DEADLINE,
            _ => DEADLINE - 3000 + round * 600,
        };
        let tasks = [10, 10, 10, 10, long, 1000, 1000, 1000];
        for (task, result) in pool.map(tasks).enumerate() {
            match result {
                Ok(us) => assert_eq!(us, tasks[task]),
                Err(error) => {
                    assert!(
                        matches!(error.fault, Fault::TimedOut { .. }),
                        "round {round}: {error}"
                    );
                    assert_eq!(task, 4, "round {round}: {error}");
                    late += 1;
                }
            }
        }
    }
    assert!(late > 0);
    let stats = pool.shutdown(Duration::from_secs(30)).expect("the pool works");
    assert_eq!(stats.submitted, stats.answered + stats.failed, "{stats:?}");
}
