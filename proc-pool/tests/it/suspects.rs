//! Tasks that cost workers, and workers that can't be replaced.

use std::thread;
use std::time::Duration;

use proc_pool::{BoxError, Builder, Fault, PoolError, TaskError, Worker, WorkerContext, Workers};

use crate::support::{Dir, Ear, hang, kill, tell, watchdog};

/// What had been sent behind it is run elsewhere after the first death; after that, nothing is sent behind it.
#[test]
fn a_task_that_cost_a_worker_is_run_again_with_nobody_behind_it() {
    let _watchdog = watchdog(60);
    let ear = Ear::new();
    let op = |(path, n): (String, u64)| {
        if n == 5000 {
            tell(&path, std::process::id());
            hang();
        }
        n
    };
    let builder = Builder::new().workers(Workers::Count(2)).retries(3);
    let pool = builder.build_op(op).expect("it starts");
    let tasks = (0..40_000).map(|n| (ear.path.clone(), n));
    thread::scope(|scope| {
        let failed =
            scope.spawn(|| -> Vec<TaskError> { pool.map_unordered(tasks).filter_map(Result::err).collect() });
        kill(ear.hear());
        let mut pids = vec![ear.hear()];
        let before = pool.bytes().stats();
        assert_eq!((before.deaths, before.retried), (1, 1));
        for deaths in 2..=3 {
            kill(pids[pids.len() - 1]);
            pids.push(ear.hear());
            let now = pool.bytes().stats();
            assert_eq!(
                (now.deaths, now.resent),
                (deaths, before.resent),
                "others were behind it"
            );
        }
        kill(pids[2]);
        let failed = failed.join().expect("no panics");
        let [error] = &failed[..] else {
            panic!("{failed:?}")
        };
        let Fault::WorkerDied { deaths, pid, .. } = error.fault else {
            panic!("{error}")
        };
        assert_eq!((error.task, deaths, pid), (5000, 4, pids[2]));
        assert!(error.to_string().contains("4 workers"), "{error}");
    });
    let stats = pool.shutdown(Duration::from_secs(50)).expect("it did not fail");
    assert_eq!(
        (stats.retried, stats.deaths, stats.faulted),
        (3, 4, 1),
        "{stats:?}"
    );
}

#[test]
fn a_pool_whose_every_task_crashes_goes_on() {
    const TASKS: u64 = 60;
    // 180 processes, one after another where two cores are busy.
    let _watchdog = watchdog(600);
    for retries in [0, 1] {
        let builder = Builder::new().workers(Workers::Count(2)).retries(retries);
        let pool = builder
            .build_op(|_: u64| std::process::abort())
            .expect("it starts");
        let outputs: Vec<Result<(), _>> = pool.map(0..TASKS).collect();
        for (task, output) in (0..).zip(&outputs) {
            let error = output.as_ref().expect_err("it crashes");
            assert_eq!(error.task, task);
            assert!(matches!(error.fault, Fault::WorkerDied { deaths, .. } if deaths == retries + 1));
        }
        assert_eq!(outputs.len() as u64, TASKS);
        // One process for each crash, and no more.
        let stats = pool.shutdown(Duration::from_secs(50)).expect("it did not fail");
        assert_eq!(stats.deaths, TASKS * u64::from(retries + 1), "{stats:?}");
        assert!(stats.spawned <= stats.deaths + 2, "{stats:?}");
    }
}

/// Starts from a file.
struct Reader;

impl Worker for Reader {
    type Op = ();
    type Init = String;
    type Task = u64;
    type Output = u64;

    fn start(_: &mut WorkerContext, (): (), path: String) -> Result<Self, BoxError> {
        std::fs::read(&path).map_err(|e| format!("cannot read {path}: {e}"))?;
        Ok(Self)
    }

    fn run(&mut self, n: u64) -> u64 {
        if n == 3 {
            std::process::abort();
        }
        n
    }
}

#[test]
fn what_workers_start_from_may_vanish() {
    let _watchdog = watchdog(60);
    let dir = Dir::new();
    let path = dir.path().join("model").display().to_string();
    std::fs::write(&path, "a model").expect("it is writable");
    let builder = Builder::new().workers(Workers::Count(1));
    let pool = builder.build::<Reader>((), &path).expect("it starts");
    assert_eq!(pool.map(0..3).filter(Result::is_ok).count(), 3);
    std::fs::remove_file(&path).expect("it is there");
    let check = |error: &PoolError| match error {
        PoolError::Start {
            attempts: 3, reason, ..
        } => assert!(reason.contains("cannot read"), "{reason}"),
        error => panic!("{error}"),
    };
    for (task, output) in (0..).zip(pool.map(0..10)) {
        match (task, output.map_err(|error| error.fault)) {
            (0..3, Ok(n)) => assert_eq!(n, task),
            (3, Err(Fault::WorkerDied { .. })) => {}
            (4.., Err(Fault::Pool(error))) => check(&error),
            (_, output) => panic!("{task}: {output:?}"),
        }
    }
    check(&pool.resize(Workers::Count(2)).expect_err("it failed"));
    check(&pool.bytes().wait_ready().expect_err("it failed"));
    check(&pool.shutdown(Duration::from_secs(50)).expect_err("it failed"));
}
