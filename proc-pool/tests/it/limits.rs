//! Deadlines and retries.

use std::time::Duration;

use proc_pool::{Builder, Fault, Workers};

use crate::support::Dir;

fn hang_at_five(n: u32) -> u32 {
    if n == 5 {
        loop {
            std::thread::park();
        }
    }
    n
}

#[test]
fn a_hung_task_costs_itself_only() {
    let _watchdog = crate::support::watchdog(120);
    let builder = Builder::new()
        .workers(Workers::Count(2))
        .deadline(Duration::from_millis(200));
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
    let stats = pool.shutdown(Duration::from_secs(10)).expect("it did not fail");
    assert_eq!((stats.deaths, stats.faulted, stats.answered), (2, 2, 398));
}

#[test]
fn tasks_below_their_deadline_are_left_alone() {
    let _watchdog = crate::support::watchdog(120);
    let builder = Builder::new()
        .workers(Workers::Count(2))
        .deadline(Duration::from_secs(60));
    let pool = builder.build_op(|n: u64| n + 1).expect("the pool starts");
    assert_eq!(pool.map(0..20_000).filter(|result| result.is_err()).count(), 0);
    assert_eq!(pool.bytes().stats().deaths, 0);
}

/// Dies unless somebody died of the same task before.
fn second_time_lucky(marker: String) -> String {
    if std::fs::File::create_new(&marker).is_ok() {
        std::process::abort();
    }
    marker
}

#[test]
fn a_retried_task_may_succeed() {
    let _watchdog = crate::support::watchdog(120);
    let dir = Dir::new();
    let markers: Vec<String> = (0..10).map(|n| format!("{}/{n}", dir.path().display())).collect();
    let builder = Builder::new().workers(Workers::Count(2)).retries(1);
    let pool = builder.build_op(second_time_lucky).expect("the pool starts");
    let outputs: Vec<String> = pool
        .map(markers.clone())
        .map(|output| output.expect("retried"))
        .collect();
    assert_eq!(outputs, markers);
    let stats = pool.shutdown(Duration::from_secs(10)).expect("it did not fail");
    assert_eq!((stats.retried, stats.deaths, stats.faulted), (10, 10, 0));
}

#[test]
fn a_task_that_kills_again_and_again_is_given_up() {
    let _watchdog = crate::support::watchdog(120);
    let builder = Builder::new().workers(Workers::Count(2)).retries(2);
    let op = |n: u32| if n == 7 { std::process::exit(4) } else { n };
    let pool = builder.build_op(op).expect("the pool starts");
    let failed: Vec<_> = pool.map_unordered(0..50).filter_map(Result::err).collect();
    let [error] = &failed[..] else {
        panic!("{failed:?}")
    };
    assert!(
        error.task == 7 && matches!(error.fault, Fault::WorkerDied { .. }),
        "{error}"
    );
    let stats = pool.shutdown(Duration::from_secs(10)).expect("it did not fail");
    assert_eq!(
        (stats.retried, stats.deaths, stats.faulted, stats.answered),
        (2, 3, 1, 49)
    );
}

#[test]
fn a_hung_task_is_retried_too() {
    let _watchdog = crate::support::watchdog(120);
    let builder = Builder::new()
        .workers(Workers::Count(1))
        .deadline(Duration::from_millis(100))
        .retries(1);
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
