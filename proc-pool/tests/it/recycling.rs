//! Workers that are replaced because they have run many tasks or use much memory; and memory limits.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use proc_pool::{
    BoxError, EntryPoint, ExitCause, Fault, KillReason, Observer, Pool, PoolError, TaskError, Worker,
    WorkerContext, WorkerId,
};
use shm_buffers::ring::Consumer;
use shm_buffers::slots::Slots;
use shm_buffers::{Backing, Segment, SegmentHandle, SegmentMut};

use crate::support::{NO_PRIVATE_BYTES, TempDir, builder, ends_within, hang, pids, watchdog, wine_lacks};

/// How long a shutdown waits for its workers.
const GRACE: Duration = Duration::from_secs(50);

/// Returns all outputs of a map, in the order they come.
fn run<R: serde::de::DeserializeOwned + 'static>(
    pool: &Pool<u64, R>,
    tasks: u64,
    ordered: bool,
) -> Vec<Result<R, TaskError>> {
    match ordered {
        true => pool.map(0..tasks).collect(),
        false => pool.map_unordered(0..tasks).collect(),
    }
}

#[test]
fn process_runs_no_more_tasks_than_its_limit() {
    let _watchdog = watchdog(60);
    for (workers, limit, tasks) in [(1, 7, 40), (3, 20, 600), (2, 1, 20), (2, 1000, 10)] {
        for ordered in [true, false] {
            let pool = builder(workers).recycle_after(limit);
            let pool = pool
                .build_op(|n: u64| (n, std::process::id()))
                .expect("the pool starts");
            let mut runs = HashMap::<u32, u64>::new();
            let mut seen = BTreeSet::new();
            for (index, output) in (0..).zip(run(&pool, tasks, ordered)) {
                let (n, pid) = output.expect("no task fails");
                assert!(seen.insert(n) && (!ordered || n == index));
                *runs.entry(pid).or_default() += 1;
            }
            assert_eq!(seen.len() as u64, tasks);
            assert!(runs.values().all(|&ran| ran <= limit), "{runs:?}");
            let stats = pool.shutdown(GRACE).expect("the pool works");
            let enough = (tasks / limit).saturating_sub(workers as u64);
            assert!(stats.recycled >= enough, "{stats:?}");
            assert_eq!((stats.submitted, stats.answered), (tasks, tasks));
            assert_eq!((stats.deaths, stats.failed, stats.resent), (0, 0, 0), "{stats:?}");
        }
    }
}

/// The first processes have different limits, so that not all workers are replaced together.
#[test]
fn first_processes_run_fewer_tasks() {
    let _watchdog = watchdog(60);
    let pool = builder(3).recycle_after(9);
    let pool = pool
        .build_op(|_: u64| std::process::id())
        .expect("the pool starts");
    let first = pids(&pool);
    let mut runs = HashMap::<u32, u64>::new();
    for pid in pool.map(0..300) {
        *runs.entry(pid.expect("no task fails")).or_default() += 1;
    }
    for (pid, most) in first.iter().zip([3, 6, 9]) {
        assert!(runs.get(pid).is_none_or(|&ran| ran <= most), "{runs:?}");
    }
    // Later processes run as many as they may.
    assert!(
        runs.iter().any(|(pid, &ran)| !first.contains(pid) && ran == 9),
        "{runs:?}"
    );
}

#[test]
fn crashes_and_recycling_lose_no_task() {
    let _watchdog = watchdog(60);
    let op = |n: u64| if n % 40 == 13 { std::process::abort() } else { n };
    for ordered in [true, false] {
        let pool = builder(3).recycle_after(9).build_op(op).expect("the pool starts");
        let mut seen = BTreeSet::new();
        for output in run(&pool, 400, ordered) {
            let n = output.unwrap_or_else(|error| {
                assert!(
                    matches!(error.fault, Fault::WorkerDied { deaths: 1, .. }),
                    "{error}"
                );
                assert_eq!(error.task % 40, 13);
                error.task
            });
            assert!(seen.insert(n), "{n} twice");
        }
        assert_eq!(seen.len(), 400);
        let stats = pool.shutdown(GRACE).expect("the pool works");
        assert_eq!(
            (stats.answered, stats.failed, stats.deaths),
            (390, 10, 10),
            "{stats:?}"
        );
        assert!(stats.recycled > 20, "{stats:?}");
    }
}

/// Creates a file in this directory when it is dropped; without a directory, it hangs then.
struct MarksItsDrop(String);

impl Worker for MarksItsDrop {
    type Op = ();
    type Init = String;
    type Task = u64;
    type Output = u32;

    fn start(_: &mut WorkerContext, (): (), dir: String) -> Result<Self, BoxError> {
        Ok(Self(dir))
    }

    fn run(&mut self, _: u64) -> u32 {
        std::process::id()
    }
}

impl Drop for MarksItsDrop {
    fn drop(&mut self) {
        match self.0.as_str() {
            "" => hang(),
            dir => drop(std::fs::File::create(format!("{dir}/{}", std::process::id()))),
        }
    }
}

#[test]
fn recycled_process_drops_its_worker_and_exits() {
    let _watchdog = watchdog(60);
    let dir = TempDir::new();
    let pool = builder(2).recycle_after(2);
    let pool = pool
        .build(
            EntryPoint::worker::<MarksItsDrop>(()),
            &dir.path().display().to_string(),
        )
        .expect("the pool starts");
    let pids: BTreeSet<u32> = pool.map(0..20).map(|pid| pid.expect("no task fails")).collect();
    let stats = pool.shutdown(GRACE).expect("the pool works");
    assert!(stats.deaths == 0 && stats.recycled >= 9, "{stats:?}");
    let dropped: BTreeSet<String> = dir
        .entries()
        .iter()
        .map(|path| {
            path.file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    assert!(pids.iter().all(|pid| dropped.contains(&pid.to_string())));
    assert_eq!(dropped.len() as u64, stats.spawned);
}

#[derive(Default)]
struct Causes(Mutex<Vec<ExitCause>>);

impl Observer for Causes {
    fn started(&self, _: WorkerId, _: Consumer, _: Slots) {}

    fn ended(&self, _: WorkerId, cause: &ExitCause) -> Vec<String> {
        self.0.lock().expect("no thread panics").push(cause.clone());
        Vec::new()
    }
}

#[test]
fn recycled_process_that_does_not_exit_is_killed() {
    let _watchdog = watchdog(60);
    let causes = Arc::new(Causes::default());
    let pool = builder(1).recycle_after(1).observer(causes.clone());
    let pool = pool
        .build(EntryPoint::worker::<MarksItsDrop>(()), &String::new())
        .expect("the pool starts");
    let pids: BTreeSet<u32> = pool.map(0..2).map(|pid| pid.expect("no task fails")).collect();
    assert_eq!(pids.len(), 2);
    let stats = pool.bytes().stats();
    assert_eq!((stats.recycled, stats.deaths), (1, 0));
    let expected = ExitCause::Killed {
        reason: KillReason::EndTimeout,
    };
    assert_eq!(causes.0.lock().expect("no thread panics")[..], [expected]);
    drop(pool);
    assert!(ends_within(&pids.into_iter().collect::<Vec<_>>(), 0));
}

fn leak(bytes: usize) {
    std::mem::forget(vec![1_u8; bytes]);
}

#[test]
fn leaking_worker_is_replaced() {
    if wine_lacks(NO_PRIVATE_BYTES) {
        return;
    }
    let _watchdog = watchdog(60);
    for workers in [1, 2] {
        let pool = builder(workers).recycle_above(32 << 20);
        let op = |n: u64| {
            leak(256 << 10);
            thread::sleep(Duration::from_millis(1));
            n
        };
        let pool = pool.build_op(op).expect("the pool starts");
        let mut seen = BTreeSet::new();
        let mut outputs = pool.map_unordered(0..);
        while pool.bytes().stats().recycled < 3 {
            let output = outputs.next().expect("the map has no end");
            assert!(seen.insert(output.expect("no task fails")));
        }
        assert!(seen.last() < Some(&(seen.len() as u64 + 100)), "some were lost");
        let stats = pool.bytes().stats();
        assert_eq!((stats.deaths, stats.resent, stats.failed), (0, 0, 0), "{stats:?}");
    }
}

#[test]
fn memory_limit_ends_only_the_task_that_exceeds_it() {
    if wine_lacks(NO_PRIVATE_BYTES) {
        return;
    }
    let _watchdog = watchdog(60);
    let pool = builder(2).memory_limit(64 << 20);
    let op = |n: u64| {
        if n == 20 {
            leak(128 << 20);
            hang();
        }
        n
    };
    let pool = pool.build_op(op).expect("the pool starts");
    let outputs: Vec<_> = pool.map(0..50).collect();
    let failed: Vec<_> = outputs
        .iter()
        .filter_map(|output| output.as_ref().err())
        .collect();
    let [TaskError { task: 20, fault, .. }] = failed[..] else {
        panic!("{failed:?}")
    };
    let expected = ExitCause::Killed {
        reason: KillReason::MemoryLimit,
    };
    assert!(
        matches!(fault, Fault::WorkerDied { cause, deaths: 1, .. } if *cause == expected),
        "{fault}"
    );
    assert_eq!(pool.bytes().stats().deaths, 1);
}

/// Attaches a segment of its leader, and reads all of it.
struct Holder(Segment);

impl Worker for Holder {
    type Op = ();
    type Init = SegmentHandle;
    type Task = ();
    type Output = u64;

    fn start(_: &mut WorkerContext, (): (), handle: SegmentHandle) -> Result<Self, BoxError> {
        Ok(Self(Segment::attach(&handle)?))
    }

    fn run(&mut self, (): ()) -> u64 {
        let sum = self.0.iter().map(|&byte| u64::from(byte)).sum();
        // Long enough for several measurements of memory.
        thread::sleep(Duration::from_secs(1));
        sum
    }
}

#[test]
fn shared_memory_does_not_count() {
    if wine_lacks(NO_PRIVATE_BYTES) {
        return;
    }
    const SIZE: usize = 128 << 20;
    let _watchdog = watchdog(60);
    let mut segment = SegmentMut::create(&Backing::Auto, SIZE).expect("the segment can be created");
    segment.fill(1);
    let segment = segment.freeze().expect("the segment can be sealed");
    let handle = segment.handle().expect("this process owns the segment");
    let pool = builder(1).memory_limit(64 << 20).recycle_above(32 << 20);
    let pool = pool
        .build(EntryPoint::worker::<Holder>(()), &handle)
        .expect("the pool starts");
    let sums: Vec<_> = pool
        .map([(), ()])
        .map(|sum| sum.expect("the worker is not killed"))
        .collect();
    assert_eq!(sums, [SIZE as u64; 2]);
    let stats = pool.bytes().stats();
    assert_eq!(
        (stats.deaths, stats.recycled, stats.spawned),
        (0, 0, 1),
        "{stats:?}"
    );
}

/// A worker may be killed while it receives a task, before the task runs: that task fails, and no other.
#[test]
fn task_larger_than_the_memory_limit_fails_alone() {
    if wine_lacks(NO_PRIVATE_BYTES) {
        return;
    }
    let _watchdog = watchdog(60);
    let op = |bytes: Vec<u8>| {
        if bytes.len() > 1 << 20 {
            hang();
        }
        bytes.len()
    };
    let pool = builder(1)
        .memory_limit(32 << 20)
        .build(
            EntryPoint::op(op).codecs(proc_pool::PodVec, proc_pool::Postcard),
            &(),
        )
        .expect("the pool starts");
    let results: Vec<_> = pool.map([vec![1; 3], vec![1; 96 << 20], vec![1; 5]]).collect();
    assert_eq!(
        (results[0].as_ref().ok(), results[2].as_ref().ok()),
        (Some(&3), Some(&5))
    );
    let fault = results[1].as_ref().map_err(|error| &error.fault);
    let cause = ExitCause::Killed {
        reason: KillReason::MemoryLimit,
    };
    assert!(
        matches!(fault, Err(Fault::WorkerDied { cause: it, .. }) if *it == cause),
        "{fault:?}"
    );
}

#[test]
fn limit_of_zero_tasks_is_refused() {
    let _watchdog = watchdog(120);
    let refused = builder(1).recycle_after(0).build_op(|n: u64| n);
    assert!(matches!(refused, Err(PoolError::ZeroTaskLimit)), "{refused:?}");
}
