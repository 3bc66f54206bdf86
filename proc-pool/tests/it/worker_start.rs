//! How workers start: large initial values; and a clear error in bounded time when workers cannot start.

use std::time::{Duration, Instant};

use proc_pool::{BoxError, Builder, EntryPoint, Fault, PoolError, Worker, WorkerContext, WorkerId, Workers};
use serde::{Deserialize, Serialize};

use crate::support::{
    IsolatedTest, TempDir, builder, hang, has_children, is_isolated, kill_workers, open_files, test_name,
    watchdog,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum OnStart {
    Err,
    LongErr,
    Panic,
    Exit,
    Abort,
    Hang,
    /// Fails in the second worker only.
    OneErr,
    /// Gets ready, and dies before its first task.
    DieSoon,
}

struct Starter;

impl Worker for Starter {
    type Op = ();
    type Init = OnStart;
    type Task = ();
    type Output = ();

    fn start(context: &mut WorkerContext, (): (), init: OnStart) -> Result<Self, BoxError> {
        match init {
            OnStart::Err => Err("no such model")?,
            OnStart::LongErr => Err("ü".repeat(1 << 20))?,
            OnStart::Panic => panic!("start panics"),
            OnStart::Exit => std::process::exit(4),
            OnStart::Abort => std::process::abort(),
            OnStart::Hang => hang(),
            OnStart::OneErr if context.worker() == WorkerId(1) => Err("the second cannot")?,
            OnStart::OneErr => {}
            OnStart::DieSoon => {
                std::thread::spawn(|| std::process::exit(5));
            }
        }
        Ok(Self)
    }

    fn run(&mut self, (): ()) {
        hang()
    }
}

fn failure(start: OnStart, workers: usize) -> String {
    let timeout = match start {
        OnStart::Hang => Duration::from_millis(200),
        _ => Duration::from_secs(60),
    };
    let pool = builder(workers)
        .start_timeout(timeout)
        .build(EntryPoint::worker::<Starter>(()), &start);
    match pool {
        Err(PoolError::Start { reason, attempts, .. }) => {
            assert_eq!(attempts, 3);
            reason
        }
        Err(other) => panic!("{start:?}: {other}"),
        // The workers were ready, and died a moment later.
        Ok(pool) => {
            assert_eq!(start, OnStart::DieSoon);
            let result = pool.map([(); 3]).next().expect("one output");
            result.expect_err("no worker runs the task").to_string()
        }
    }
}

#[test]
fn error_says_why_no_worker_starts() {
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).run();
    }
    let _watchdog = watchdog(100);
    failure(OnStart::Err, 1);
    let files = open_files();
    for (start, part) in [
        (OnStart::Err, "failed to start: no such model"),
        (OnStart::LongErr, "failed to start: ü"),
        (OnStart::Panic, "start panics"),
        (OnStart::Exit, "exited with status 4"),
        (
            OnStart::Abort,
            match cfg!(windows) {
                true => "STATUS_STACK_BUFFER_OVERRUN",
                false => "SIGABRT",
            },
        ),
        (OnStart::Hang, "not ready in time"),
        (OnStart::OneErr, "the second cannot"),
        (OnStart::DieSoon, "exited with status 5"),
    ] {
        for workers in [1, 2] {
            if (start, workers) == (OnStart::OneErr, 1) {
                continue;
            }
            let began = Instant::now();
            let reason = failure(start, workers);
            assert!(reason.contains(part), "{start:?}: {reason}");
            assert!(reason.len() < 10_000);
            assert!(began.elapsed() < Duration::from_secs(30), "{start:?}");
        }
        assert!(!has_children());
        assert_eq!(open_files(), files, "{start:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn worker_that_exits_before_init_is_an_error() {
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    let build = |code: &str| {
        let pool = builder(2)
            .env(crate::support::before_init::EXIT, code)
            .build_op(|n: u64| n);
        match pool {
            Err(error @ PoolError::NotAWorker { .. }) => {
                assert!(error.to_string().contains("exited with status"), "{error}");
            }
            other => panic!("{other:?}"),
        }
    };
    build("0");
    let files = open_files();
    build("0");
    build("17");
    assert!(!has_children());
    assert_eq!(open_files(), files);
}

#[test]
fn impossible_sizes_and_worker_counts_are_refused() {
    let _watchdog = watchdog(120);
    let build = |builder: Builder| builder.workers(Workers::Count(1)).build_op(|n: u64| n);
    for builder in [
        Builder::new().user_ring(usize::MAX),
        Builder::new().slots(usize::MAX),
    ] {
        assert!(matches!(build(builder), Err(PoolError::Size { .. })));
    }
    for count in [0, proc_pool::MAX_WORKERS + 1] {
        let pool = builder(count).build_op(|n: u64| n);
        assert!(matches!(pool, Err(PoolError::WorkerCount { .. })));
    }
    let pool = build(Builder::new().user_ring(0).start_timeout(Duration::MAX)).expect("the pool starts");
    assert_eq!(
        pool.map([1])
            .next()
            .expect("one output")
            .expect("the task succeeds"),
        1
    );
    pool.shutdown(Duration::MAX).expect("the pool works");
}

#[test]
fn large_initial_value_reaches_every_worker() {
    struct Long(usize);
    impl Worker for Long {
        type Op = ();
        type Init = Vec<u8>;
        type Task = ();
        type Output = usize;

        fn start(_: &mut WorkerContext, (): (), init: Vec<u8>) -> Result<Self, BoxError> {
            Ok(Self(init.len()))
        }

        fn run(&mut self, (): ()) -> usize {
            self.0
        }
    }
    let _watchdog = watchdog(60);
    for len in [0, 30_000, 40_000, 3_000_000] {
        let builder = builder(2);
        let pool = builder
            .build(EntryPoint::worker::<Long>(()), &vec![1; len])
            .expect("the pool starts");
        assert_eq!(
            pool.map([()])
                .next()
                .expect("one output")
                .expect("the task succeeds"),
            len
        );
        // Replacements receive it as well.
        kill_workers(&pool);
        assert_eq!(
            pool.map([()])
                .next()
                .expect("one output")
                .expect("no task was running"),
            len
        );
    }
}

/// A worker that reads a file when it starts.
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
fn pool_fails_when_workers_can_no_longer_be_started() {
    let _watchdog = watchdog(60);
    let dir = TempDir::new();
    let path = dir.path().join("model").display().to_string();
    std::fs::write(&path, "a model").expect("the file can be written");
    let builder = builder(1);
    let pool = builder
        .build(EntryPoint::worker::<Reader>(()), &path)
        .expect("the pool starts");
    assert_eq!(pool.map(0..3).filter(Result::is_ok).count(), 3);
    std::fs::remove_file(&path).expect("the file can be removed");
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
    check(&pool.resize(Workers::Count(2)).expect_err("the pool has failed"));
    check(&pool.bytes().wait_ready().expect_err("the pool has failed"));
    check(
        &pool
            .shutdown(Duration::from_secs(50))
            .expect_err("the pool has failed"),
    );
}
