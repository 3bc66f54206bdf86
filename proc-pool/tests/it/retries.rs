//! Retries: tasks that cost their worker's process, and run again.

use std::thread;
use std::time::Duration;

use proc_pool::{Fault, TaskError};

use crate::support::{Rendezvous, TempDir, builder, hang, kill, report, watchdog};

/// The tasks that were sent behind it run elsewhere after the first death; after that, nothing is sent behind it.
#[test]
fn retried_task_has_no_tasks_behind_it() {
    let _watchdog = watchdog(60);
    let rendezvous = Rendezvous::new();
    let op = |(path, n): (String, u64)| {
        if n == 5000 {
            report(&path, std::process::id());
            hang();
        }
        n
    };
    let builder = builder(2).retries(3);
    let pool = builder.build_op(op).expect("the pool starts");
    let tasks = (0..40_000).map(|n| (rendezvous.address.clone(), n));
    thread::scope(|scope| {
        let failed =
            scope.spawn(|| -> Vec<TaskError> { pool.map_unordered(tasks).filter_map(Result::err).collect() });
        kill(rendezvous.receive());
        let mut pids = vec![rendezvous.receive()];
        let before = pool.bytes().stats();
        assert_eq!((before.deaths, before.retried), (1, 1));
        for deaths in 2..=3 {
            kill(pids[pids.len() - 1]);
            pids.push(rendezvous.receive());
            let now = pool.bytes().stats();
            assert_eq!(
                (now.deaths, now.resent),
                (deaths, before.resent),
                "tasks were behind it"
            );
        }
        kill(pids[2]);
        let failed = failed.join().expect("no thread panics");
        let [error] = &failed[..] else {
            panic!("{failed:?}")
        };
        let Fault::WorkerDied { deaths, pid, .. } = error.fault else {
            panic!("{error}")
        };
        assert_eq!((error.task, deaths, pid), (5000, 4, pids[2]));
        assert!(error.to_string().contains("4 workers"), "{error}");
    });
    let stats = pool.shutdown(Duration::from_secs(50)).expect("the pool works");
    assert_eq!(
        (stats.retried, stats.deaths, stats.failed),
        (3, 4, 1),
        "{stats:?}"
    );
}

#[test]
fn pool_survives_when_every_task_crashes() {
    const TASKS: u64 = 60;
    // It takes 180 processes, one after another where two cores are busy.
    let _watchdog = watchdog(600);
    for retries in [0, 1] {
        let builder = builder(2).retries(retries);
        let pool = builder
            .build_op(|_: u64| std::process::abort())
            .expect("the pool starts");
        let outputs: Vec<Result<(), _>> = pool.map(0..TASKS).collect();
        for (task, output) in (0..).zip(&outputs) {
            let error = output.as_ref().expect_err("the task crashes");
            assert_eq!(error.task, task);
            assert!(matches!(error.fault, Fault::WorkerDied { deaths, .. } if deaths == retries + 1));
        }
        assert_eq!(outputs.len() as u64, TASKS);
        // One process for each crash, and no more.
        let stats = pool.shutdown(Duration::from_secs(50)).expect("the pool works");
        assert_eq!(stats.deaths, TASKS * u64::from(retries + 1), "{stats:?}");
        assert!(stats.spawned <= stats.deaths + 2, "{stats:?}");
    }
}

/// Dies if no worker has died of this task before.
fn die_the_first_time(marker: String) -> String {
    if std::fs::File::create_new(&marker).is_ok() {
        std::process::abort();
    }
    marker
}

#[test]
fn retried_task_can_succeed() {
    let _watchdog = watchdog(120);
    let dir = TempDir::new();
    let markers: Vec<String> = (0..10).map(|n| format!("{}/{n}", dir.path().display())).collect();
    let builder = builder(2).retries(1);
    let pool = builder.build_op(die_the_first_time).expect("the pool starts");
    let outputs: Vec<String> = pool
        .map(markers.clone())
        .map(|output| output.expect("the retry succeeds"))
        .collect();
    assert_eq!(outputs, markers);
    let stats = pool.shutdown(Duration::from_secs(10)).expect("the pool works");
    assert_eq!((stats.retried, stats.deaths, stats.failed), (10, 10, 0));
}

#[test]
fn task_fails_after_its_last_retry() {
    let _watchdog = watchdog(120);
    let builder = builder(2).retries(2);
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
    let stats = pool.shutdown(Duration::from_secs(10)).expect("the pool works");
    assert_eq!(
        (stats.retried, stats.deaths, stats.failed, stats.answered),
        (2, 3, 1, 49)
    );
}
