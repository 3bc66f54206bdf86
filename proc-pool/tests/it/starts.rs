//! Workers that don't start: a clear error in bounded time.

use std::time::{Duration, Instant};

use proc_pool::{BoxError, Builder, PoolError, Worker, WorkerContext, WorkerId, Workers};
use serde::{Deserialize, Serialize};

use crate::support::{Alone, has_children, is_alone, kill, open_files, test_name, watchdog};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Start {
    Err,
    LongErr,
    Panic,
    Exit,
    Abort,
    Hang,
    /// Only the second worker's.
    OneErr,
    /// Ready, then dead before the first task.
    DieSoon,
}

struct Starter;

impl Worker for Starter {
    type Op = ();
    type Init = Start;
    type Task = ();
    type Output = ();

    fn start(context: &mut WorkerContext, (): (), init: Start) -> Result<Self, BoxError> {
        match init {
            Start::Err => Err("no such model")?,
            Start::LongErr => Err("ü".repeat(1 << 20))?,
            Start::Panic => panic!("start panics"),
            Start::Exit => std::process::exit(4),
            Start::Abort => std::process::abort(),
            Start::Hang => crate::support::hang(),
            Start::OneErr if context.worker() == WorkerId(1) => Err("the second can't")?,
            Start::OneErr => {}
            Start::DieSoon => {
                std::thread::spawn(|| std::process::exit(5));
            }
        }
        Ok(Self)
    }

    fn run(&mut self, (): ()) {
        crate::support::hang()
    }
}

fn fails(start: Start, workers: usize) -> String {
    let timeout = match start {
        Start::Hang => Duration::from_millis(200),
        _ => Duration::from_secs(60),
    };
    let pool = Builder::new()
        .workers(Workers::Count(workers))
        .start_timeout(timeout)
        .build::<Starter>((), &start);
    match pool {
        Err(PoolError::Start { reason, attempts, .. }) => {
            assert_eq!(attempts, 3);
            reason
        }
        Err(other) => panic!("{start:?}: {other}"),
        // Ready, and dead a moment later.
        Ok(pool) => {
            assert_eq!(start, Start::DieSoon);
            let result = pool.map([(); 3]).next().expect("one");
            result.expect_err("nobody runs it").to_string()
        }
    }
}

#[test]
fn reasons_are_told() {
    if !is_alone() {
        return Alone::new(&test_name!()).run();
    }
    let _watchdog = watchdog(100);
    fails(Start::Err, 1);
    let files = open_files();
    for (start, part) in [
        (Start::Err, "failed to start: no such model"),
        (Start::LongErr, "failed to start: ü"),
        (Start::Panic, "start panics"),
        (Start::Exit, "exited with status 4"),
        (
            Start::Abort,
            match cfg!(windows) {
                true => "STATUS_STACK_BUFFER_OVERRUN",
                false => "SIGABRT",
            },
        ),
        (Start::Hang, "not ready in time"),
        (Start::OneErr, "the second can't"),
        (Start::DieSoon, "exited with status 5"),
    ] {
        for workers in [1, 2] {
            if (start, workers) == (Start::OneErr, 1) {
                continue;
            }
            let began = Instant::now();
            let reason = fails(start, workers);
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
fn a_worker_that_exits_before_init() {
    if !is_alone() {
        return Alone::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    let build = |code: &str| {
        let pool = Builder::new()
            .workers(Workers::Count(2))
            .env("IT_EXIT_BEFORE_INIT", code)
            .build_op(|n: u64| n);
        match pool {
            Err(PoolError::Start { reason, .. }) => {
                assert!(reason.contains("exited with status"), "{reason}")
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
fn sizes_that_make_no_sense_are_refused() {
    let _watchdog = watchdog(120);
    let build = |builder: Builder| builder.workers(Workers::Count(1)).build_op(|n: u64| n);
    for builder in [
        Builder::new().side_ring(usize::MAX),
        Builder::new().slots(usize::MAX),
    ] {
        assert!(matches!(build(builder), Err(PoolError::Size { .. })));
    }
    for count in [0, proc_pool::MAX_WORKERS + 1] {
        let pool = Builder::new().workers(Workers::Count(count)).build_op(|n: u64| n);
        assert!(matches!(pool, Err(PoolError::WorkerCount { .. })));
    }
    let pool = build(Builder::new().side_ring(0).start_timeout(Duration::MAX)).expect("it starts");
    assert_eq!(pool.map([1]).next().expect("one").expect("no task fails"), 1);
    pool.shutdown(Duration::MAX).expect("it did not fail");
}

#[test]
fn a_large_initial_value_arrives() {
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
        let builder = Builder::new().workers(Workers::Count(2));
        let pool = builder.build::<Long>((), &vec![1; len]).expect("it starts");
        assert_eq!(pool.map([()]).next().expect("one").expect("no task fails"), len);
        // A later worker gets it as well.
        for (_, pid) in pool.bytes().pids() {
            kill(pid);
        }
        assert_eq!(
            pool.map([()]).next().expect("one").expect("no task was running"),
            len
        );
    }
}
