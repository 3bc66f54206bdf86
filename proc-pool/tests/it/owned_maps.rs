//! Maps that borrow nothing, and that are asked for outputs without a wait.

use std::time::Duration;

use proc_pool::{BoxError, CallError, OutputBuf, WorkerContext};
use proc_pool::{BytePool, EntryPoint, Fault, Map, Pod, Pool, PoolError, Service, TryNext};

use crate::support::{builder, watchdog};

/// Adds one to a number of 8 bytes.
struct Successor;

impl Service for Successor {
    fn start(_: &mut WorkerContext, _: &[u8]) -> Result<Self, BoxError> {
        Ok(Self)
    }

    fn call(&mut self, task: &[u8], output: &mut OutputBuf) -> Result<(), CallError> {
        let task = task
            .try_into()
            .map_err(|_| CallError::Task("not 8 bytes".to_owned()))?;
        output.put(&(u64::from_le_bytes(task) + 1).to_le_bytes());
        Ok(())
    }
}

fn sleep(ms: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(ms));
    ms
}

/// Returns the outputs of a map that is only asked for what is available.
fn polled<I: Iterator<Item = u64>>(mut map: Map<'_, I, u64>) -> Vec<u64> {
    let mut outputs = Vec::new();
    loop {
        match map.try_next() {
            TryNext::Output(output) => outputs.push(output.expect("no task fails")),
            TryNext::Pending => {
                map.wait(Duration::from_millis(50));
            }
            TryNext::End => return outputs,
        }
    }
}

#[test]
fn a_polled_map_returns_all_outputs() {
    let _watchdog = watchdog(60);
    let pool = builder(2).build_op(|n: u64| n * n).expect("the pool starts");
    let expected: Vec<u64> = (0..10_000).map(|n| n * n).collect();
    assert_eq!(polled(pool.map_owned(0..10_000)), expected);
    assert_eq!(polled(pool.map(0..10_000)), expected);
    let mut unordered = polled(pool.map_unordered_owned(0..10_000));
    unordered.sort_unstable();
    assert_eq!(unordered, expected);
    assert!(matches!(pool.map_owned(0..0).try_next(), TryNext::End));
}

#[test]
fn a_wait_ends_when_its_time_has_passed() {
    let _watchdog = watchdog(60);
    let pool = builder(1).build_op(sleep).expect("the pool starts");
    let mut map = pool.map_owned([60_000]);
    assert!(matches!(map.try_next(), TryNext::Pending));
    assert!(!map.wait(Duration::from_millis(20)));
    assert!(matches!(map.try_next(), TryNext::Pending));
}

#[test]
fn a_map_that_outlives_its_pool_has_the_pools_error() {
    let _watchdog = watchdog(60);
    let pool = builder(1).build_op(sleep).expect("the pool starts");
    let mut map = pool.map_owned([60_000, 60_000]);
    assert!(matches!(map.try_next(), TryNext::Pending));
    drop(pool);
    let faults: Vec<Fault> = map
        .map(|output| output.expect_err("it did not run").fault)
        .collect();
    assert_eq!(faults.len(), 2);
    for fault in faults {
        assert!(
            matches!(fault, Fault::Pool(PoolError::ShutDown) | Fault::WorkerDied { .. }),
            "{fault}"
        );
    }
}

#[test]
fn a_pool_of_bytes_gets_codecs() {
    let _watchdog = watchdog(60);
    let bytes: BytePool = builder(1)
        .build(EntryPoint::service::<Successor>(), &[])
        .expect("the pool starts");
    let pool: Pool<u64, u64> = bytes.with_codecs(Pod, Pod);
    assert_eq!(polled(pool.map(0..100)), Vec::from_iter(1..101));
}
