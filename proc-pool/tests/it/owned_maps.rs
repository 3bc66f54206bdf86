//! Maps that borrow nothing, and that are asked for outputs without a wait.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use proc_pool::facade::Taken;
use proc_pool::{BoxError, CallError, OutputBuf, WorkerContext};
use proc_pool::{BytePool, EntryPoint, Fault, Map, Pod, Pool, PoolError, Service, TaskError, TryNext};

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

/// Outputs of several lengths, in runs, large ones, and panics.
fn various(n: u64) -> Vec<u8> {
    match n {
        n if n.is_multiple_of(1009) => panic!("no {n}"),
        n if n.is_multiple_of(2003) => vec![1; 100_000],
        n => n.to_le_bytes()[..4 + (n as usize / 300) % 4].to_vec(),
    }
}

fn taken<I: Iterator<Item = u64>>(
    mut map: Map<'_, I, Vec<u8>>,
    one_by_one: bool,
) -> Vec<Result<Vec<u8>, TaskError>> {
    let mut outputs = Vec::new();
    loop {
        let before = outputs.len();
        match map.take_decoded(|output| outputs.push(output)) {
            Taken::Outputs(count) => assert_eq!(outputs.len(), before + count),
            Taken::Pending => {
                map.wait(Duration::from_millis(50));
            }
            Taken::End => return outputs,
        }
        if one_by_one && let TryNext::Output(output) = map.try_next() {
            outputs.push(output);
        }
    }
}

#[test]
fn outputs_are_taken_decoded_in_order() {
    let _watchdog = watchdog(60);
    let pool = builder(2).build_op(various).expect("the pool starts");
    let text =
        |output: Result<Vec<u8>, TaskError>| output.map_err(|error| (error.task, error.fault.to_string()));
    for (one_by_one, max_in_flight) in [(false, usize::MAX), (true, usize::MAX), (false, 3)] {
        let mut map = pool.map_owned(1..10_000);
        map.set_max_in_flight(max_in_flight);
        let outputs = taken(map, one_by_one);
        assert_eq!(outputs.len(), 9_999);
        for (n, output) in (1..).zip(outputs) {
            match n % 1009 {
                0 => {
                    let (task, fault) = text(output).expect_err("it panics");
                    assert!(
                        task == n - 1 && fault.contains(&format!("no {n}")),
                        "{task}: {fault}"
                    );
                }
                _ => assert_eq!(text(output), Ok(various(n))),
            }
        }
    }
    assert_eq!(taken(pool.map_owned(0..0), false).len(), 0);
    assert_eq!(taken(pool.map_owned(1..2), false).len(), 1);
}

#[test]
fn outputs_are_taken_decoded_as_they_complete() {
    let _watchdog = watchdog(60);
    let pool = builder(2).build_op(various).expect("the pool starts");
    for one_by_one in [false, true] {
        let outputs = taken(pool.map_unordered_owned(1..10_000), one_by_one);
        let (mut values, mut errors) = (Vec::new(), Vec::new());
        for output in outputs {
            match output {
                Ok(value) => values.push(value),
                Err(error) => errors.push(error.task + 1),
            }
        }
        let mut expected: Vec<_> = (1..10_000)
            .filter(|n: &u64| !n.is_multiple_of(1009))
            .map(various)
            .collect();
        expected.sort_unstable();
        values.sort_unstable();
        errors.sort_unstable();
        assert!(values == expected);
        assert_eq!(errors, Vec::from_iter((1..=9).map(|n| n * 1009)));
    }
}

/// A service with a lock that its calls need. It answers with the number of times that it was released.
struct Locking;

static IS_LOCKED: AtomicBool = AtomicBool::new(false);
static RELEASES: AtomicU64 = AtomicU64::new(0);

impl Service for Locking {
    fn start(_: &mut WorkerContext, _: &[u8]) -> Result<Self, BoxError> {
        assert!(!IS_LOCKED.load(Ordering::Relaxed));
        Ok(Self)
    }

    fn call(&mut self, _: &[u8], output: &mut OutputBuf) -> Result<(), CallError> {
        assert!(IS_LOCKED.load(Ordering::Relaxed));
        output.put(&RELEASES.load(Ordering::Relaxed).to_le_bytes());
        // Large enough to wait for room.
        output.extend_from_slice(&[0; 3 << 20]);
        Ok(())
    }

    fn run_tasks(tasks: impl FnOnce()) {
        assert!(!IS_LOCKED.swap(true, Ordering::Relaxed));
        tasks();
        assert!(IS_LOCKED.swap(false, Ordering::Relaxed));
    }

    fn wait<T: Send>(wait: impl FnOnce() -> T + Send) -> T {
        assert!(IS_LOCKED.swap(false, Ordering::Relaxed));
        RELEASES.fetch_add(1, Ordering::Relaxed);
        let value = wait();
        assert!(!IS_LOCKED.swap(true, Ordering::Relaxed));
        value
    }
}

impl Drop for Locking {
    fn drop(&mut self) {
        assert!(!IS_LOCKED.load(Ordering::Relaxed));
    }
}

#[test]
fn a_service_holds_its_lock_except_in_waits() {
    let _watchdog = watchdog(60);
    let pool: BytePool = builder(1)
        .build(EntryPoint::service::<Locking>(), &[])
        .expect("the pool starts");
    let (mut last, mut waits_for_room) = (0, 0);
    // All tasks of a map have arrived before the first output is sent, so nearly all waits between its outputs are for room: each output is larger than what
    // is on its way at a time. How many there are depends on how fast the leader copies.
    while waits_for_room < 10 {
        let mut first = None;
        for output in pool.map([[0; 8]; 20]) {
            let output = output.expect("the lock is held");
            let (releases, _) = output.split_first_chunk().expect("a number");
            let releases = u64::from_le_bytes(*releases);
            assert!(releases >= last, "{releases} after {last}");
            last = releases;
            first.get_or_insert(releases);
        }
        waits_for_room += last - first.expect("there were outputs");
    }
    let ended = pool.shutdown(Duration::from_secs(30));
    assert_eq!(ended.expect("the worker ends by itself").deaths, 0);
}
