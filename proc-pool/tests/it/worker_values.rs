//! Values and environment variables that the leader makes for each worker process, and functions that it calls at the end of one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use proc_pool::{
    BoxError, Builder, EntryPoint, ExitCause, Fault, Pool, PoolError, WorkerContext, WorkerId,
    WorkerValueError,
};
use serde::{Deserialize, Serialize};

use crate::support::{builder, kill_workers, run_one, watchdog};

/// The value and the variable that an op has found in its process.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Seen {
    worker: u32,
    value: (u32, u32),
    variable: Option<String>,
}

const VARIABLE: &str = "WORKER_VALUES_TEST";

fn see(context: &mut WorkerContext, (): ()) -> Result<Seen, BoxError> {
    Ok(Seen {
        worker: context.worker().0,
        value: context.worker_value()?,
        variable: std::env::var(VARIABLE).ok(),
    })
}

/// Returns what each of the two workers has seen.
fn seen(pool: &Pool<Duration, Seen>) -> [Seen; 2] {
    let mut seen: Vec<Seen> = Vec::new();
    // Both workers take tasks sooner or later.
    while seen.len() < 2 {
        for one in pool.map([Duration::from_millis(1); 8]) {
            let one = one.expect("no task fails");
            if !seen.contains(&one) {
                seen.push(one);
            }
        }
    }
    seen.sort();
    seen.try_into().expect("each worker sees one value")
}

#[test]
fn each_replacement_has_the_next_generation() {
    let _watchdog = watchdog(60);
    let start = |context: &mut WorkerContext, (): ()| Ok(context.generation());
    let op = |generation: &mut u32, n: u32| match n {
        1 => std::process::abort(),
        _ => *generation,
    };
    let pool = builder(1).build(EntryPoint::op_with_state(start, op), &());
    let pool = pool.expect("the pool starts");
    let generations: Vec<Option<u32>> = pool.map(0..5).map(Result::ok).collect();
    assert_eq!(generations, [Some(0), None, Some(1), Some(1), Some(1)]);
}

#[test]
fn each_process_has_its_own_value_and_environment_also_replacements() {
    let _watchdog = watchdog(60);
    let made = AtomicU32::new(0);
    let op = |seen: &mut Seen, pause: Duration| {
        std::thread::sleep(pause);
        Seen {
            variable: seen.variable.clone(),
            ..*seen
        }
    };
    let pool = builder(2)
        .env(VARIABLE, "for all")
        .worker_value(move |worker| {
            let number = made.fetch_add(1, Ordering::Relaxed);
            Ok::<_, BoxError>((worker.0 * 100, number))
        })
        .worker_env(|worker| [(VARIABLE, format!("for {worker}"))])
        .build(EntryPoint::op_with_state(see, op), &())
        .expect("the pool starts");
    let expected = |worker: u32, number| Seen {
        worker,
        value: (worker * 100, number),
        variable: Some(format!("for {worker}")),
    };
    let first = seen(&pool);
    assert_eq!(first, [expected(0, 0), expected(1, 1)]);
    kill_workers(&pool);
    while pool.stats().deaths < 2 {
        std::thread::yield_now();
    }
    pool.wait_ready().expect("the workers are replaced");
    let second = seen(&pool);
    let mut numbers = second.each_ref().map(|seen| seen.value.1);
    assert_eq!(second, [expected(0, numbers[0]), expected(1, numbers[1])]);
    numbers.sort();
    assert_eq!(numbers, [2, 3]);
}

/// A handle to memory whose owner is gone once the handle was serialized: only the descriptor that is sent along keeps the memory.
#[cfg(target_os = "linux")]
#[derive(Deserialize)]
struct Orphan {
    handle: shm_buffers::SegmentHandle,
    #[serde(skip)]
    owner: std::sync::Mutex<Option<shm_buffers::Segment>>,
}

#[cfg(target_os = "linux")]
impl Serialize for Orphan {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let serialized = self.handle.serialize(serializer);
        self.owner.lock().expect("no panic").take();
        serialized
    }
}

#[cfg(target_os = "linux")]
#[test]
fn descriptors_of_handles_in_a_value_travel_with_it() {
    use shm_buffers::{Backing, Segment, SegmentMut};

    let _watchdog = watchdog(60);
    let start = |context: &mut WorkerContext, (): ()| {
        let orphan: Orphan = context.worker_value()?;
        Ok(Segment::attach(&orphan.handle)?)
    };
    let pool = builder(1)
        .worker_value(|worker| -> Result<Orphan, BoxError> {
            let mut segment = SegmentMut::create(&Backing::Auto, 1)?;
            segment.copy_at(0, &[worker.0 as u8 + 7]);
            let segment = segment.freeze()?;
            let handle = segment.handle()?;
            let owner = Some(segment).into();
            Ok(Orphan { handle, owner })
        })
        .build(
            EntryPoint::op_with_state(start, |segment: &mut Segment, (): ()| segment[0]),
            &(),
        )
        .expect("the pool starts");
    assert_eq!(run_one(&pool, ()), 7);
    kill_workers(&pool);
    assert_eq!(run_one(&pool, ()), 7);
}

#[test]
fn large_value_reaches_its_worker() {
    let _watchdog = watchdog(60);
    let start = |context: &mut WorkerContext, (): ()| Ok(context.worker_value::<Vec<u8>>()?);
    let pool = builder(1)
        .worker_value(|_| Ok::<_, BoxError>(vec![1u8; 3_000_000]))
        .build(
            EntryPoint::op_with_state(start, |value: &mut Vec<u8>, (): ()| value.len()),
            &(),
        )
        .expect("the pool starts");
    assert_eq!(run_one(&pool, ()), 3_000_000);
}

/// Builds a pool of one worker, whose start takes a value of type `u64`.
fn takes_u64(builder: Builder) -> Result<Pool<(), u64>, PoolError> {
    let start = |context: &mut WorkerContext, (): ()| Ok(context.worker_value::<u64>()?);
    builder.build(
        EntryPoint::op_with_state(start, |value: &mut u64, (): ()| *value),
        &(),
    )
}

#[test]
fn error_and_panic_of_the_hook_fail_the_start_with_their_text() {
    let _watchdog = watchdog(60);
    let calls = Arc::new(AtomicU32::new(0));
    type Make = fn() -> Result<u64, BoxError>;
    let fails: [(Make, &str); 2] = [
        (
            || Err("no device is free")?,
            "had no value of the type `u64`: no device is free",
        ),
        (
            || panic!("no device at all"),
            "`worker_value` panicked: no device at all",
        ),
    ];
    for (make, text) in fails {
        calls.store(0, Ordering::Relaxed);
        let counted = calls.clone();
        let pool = takes_u64(builder(1).worker_value(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            make()
        }));
        match pool {
            Err(PoolError::Start { attempts, reason, .. }) => {
                assert_eq!(attempts, 3);
                assert!(reason.contains(text), "{reason}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(calls.load(Ordering::Relaxed), 3);
    }
    let pool = builder(1).worker_env(|_| -> [(String, String); 1] { panic!("no environment") });
    let error = pool
        .build_op(|n: u64| n)
        .expect_err("the hook panics")
        .to_string();
    assert!(error.contains("`worker_env` panicked: no environment"), "{error}");
}

#[test]
fn hook_that_fails_once_is_called_again() {
    let _watchdog = watchdog(60);
    let calls = AtomicU32::new(0);
    let pool = takes_u64(
        builder(1).worker_value(move |_| match calls.fetch_add(1, Ordering::Relaxed) {
            0 => Err("not yet"),
            call => Ok(u64::from(call)),
        }),
    );
    assert_eq!(run_one(&pool.expect("the second start succeeds"), ()), 1);
}

#[test]
fn value_of_another_type_fails_the_pool_at_once_with_the_types_that_exist() {
    let _watchdog = watchdog(60);
    for (builder, text) in [
        (builder(1), "it has no values"),
        (builder(1).worker_value(|_| Ok::<_, BoxError>(1i8)), "it has `i8`"),
    ] {
        match takes_u64(builder) {
            Err(PoolError::Refused { reason, .. }) => {
                assert!(reason.contains("no value of the type `u64`"), "{reason}");
                assert!(reason.contains(text), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
    // The worker may also go on without a value.
    let start = |context: &mut WorkerContext, (): ()| match context.worker_value::<u64>() {
        Err(WorkerValueError::Missing { available, .. }) => Ok(available.len()),
        other => Err(format!("{other:?}").into()),
    };
    let pool = builder(1).build(
        EntryPoint::op_with_state(start, |len: &mut usize, (): ()| *len),
        &(),
    );
    assert_eq!(run_one(&pool.expect("the pool starts"), ()), 0);
}

/// A value that counts those that exist.
#[derive(Serialize)]
struct Lease {
    #[serde(skip)]
    all: Arc<AtomicU32>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn leader_keeps_a_value_until_its_process_has_ended() {
    let _watchdog = watchdog(60);
    let leases = Arc::new(AtomicU32::new(0));
    let lent = leases.clone();
    let pool = builder(1)
        .worker_value(move |_| match lent.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(Lease { all: lent.clone() }),
            _ => Err("the lease of the last process was not returned"),
        })
        .build_op(|die: bool| {
            if die {
                std::process::abort()
            }
        })
        .expect("the pool starts");
    assert_eq!(leases.load(Ordering::Relaxed), 1);
    pool.map([true])
        .next()
        .expect("one output")
        .expect_err("the worker dies");
    run_one(&pool, false);
    assert_eq!(leases.load(Ordering::Relaxed), 1);
    drop(pool);
    assert_eq!(leases.load(Ordering::Relaxed), 0);
}

#[test]
fn messages_of_all_functions_at_the_end_of_a_process_are_in_the_tasks_error() {
    let _watchdog = watchdog(60);
    let last_words = |worker: WorkerId, cause: &ExitCause| vec![format!("worker {worker} {cause}")];
    let pool = builder(1)
        .on_worker_end(last_words)
        .on_worker_end(|_, _| panic!("is not the pool's problem"))
        .on_worker_end(|_, _| vec!["the end".to_owned()])
        .build_op(|code: i32| -> () { std::process::exit(code) })
        .expect("the pool starts");
    let error = pool
        .map([3])
        .next()
        .expect("one output")
        .expect_err("the worker exits");
    let Fault::WorkerDied { last_logs, .. } = error.fault else {
        panic!("{error}")
    };
    assert_eq!(last_logs, ["worker 0 exited with status 3", "the end"]);
}
