//! What can be an op: functions of libraries, closures of generic code, functions with a state in each worker.
//!
//! Ops of examples and of benchmarks run in the example `squares` (it is a test, too) and in `benches/pool`.

use proc_pool::{EntryPoint, Pool, PoolError, WorkerContext};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::support::{builder, pool, run_one, watchdog};

#[test]
fn functions_of_libraries_are_ops() {
    let _watchdog = watchdog(60);
    assert_eq!(run_one(&pool(1, u64::count_ones), 255), 8);
    assert_eq!(run_one(&pool(1, String::into_bytes), "a".to_owned()), b"a");
    assert_eq!(
        run_one(&pool(1, std::convert::identity::<Option<i8>>), Some(-3)),
        Some(-3)
    );
    // A function of another crate than this one.
    let backing = run_one(
        &pool(1, |(): ()| format!("{:?}", shm_buffers::Backing::default())),
        (),
    );
    assert_eq!(backing, format!("{:?}", shm_buffers::Backing::default()));
}

/// A library's trait that builds pools for its users' types.
trait Double: Copy + Serialize + DeserializeOwned + 'static {
    fn double(self) -> Self;

    fn pool() -> Result<Pool<Self, Vec<Self>>, PoolError> {
        let builder = builder(1);
        builder.build_op(|it: Self| vec![it, it.double()])
    }
}

impl Double for u8 {
    fn double(self) -> Self {
        self * 2
    }
}

impl Double for f64 {
    fn double(self) -> Self {
        self + self
    }
}

#[test]
fn closure_of_generic_code_is_a_different_op_for_each_type() {
    let _watchdog = watchdog(60);
    assert_eq!(run_one(&u8::pool().expect("the pool starts"), 3), [3, 6]);
    assert_eq!(run_one(&f64::pool().expect("the pool starts"), 0.5), [0.5, 1.0]);
}

#[test]
fn each_worker_has_a_state_of_its_own() {
    let _watchdog = watchdog(60);
    let builder = builder(2);
    let start = |context: &mut WorkerContext, (first, fail): (u64, bool)| match fail {
        false => Ok((context.worker().0, first)),
        true => Err("no state".into()),
    };
    let op = |(worker, count): &mut (u32, u64), (): ()| {
        *count += 1;
        (*worker, *count)
    };
    let pool = builder
        .clone()
        .build(EntryPoint::op_with_state(start, op), &(100, false))
        .expect("the pool starts");
    let mut counts = [100; 2];
    for output in pool.map([(); 1000]) {
        let (worker, count) = output.expect("no task fails");
        counts[worker as usize] += 1;
        assert_eq!(count, counts[worker as usize]);
    }
    match builder.build(EntryPoint::op_with_state(start, op), &(0, true)) {
        Err(PoolError::Start { reason, .. }) => assert!(reason.contains("no state"), "{reason}"),
        other => panic!("{other:?}"),
    }
}
