//! Pools that lose a worker each second, with payloads of all types and sizes: the memory, open files and threads of their leader
//! do not grow, nor does the memory of their workers.
//!
//! `cargo xtask soak --minutes N` runs it for longer.

mod payloads;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use proc_pool::{BytePool, CancelOutcome, ExitCause, Fault, Pool, ProcessMemory, TaskError};

use crate::support::{
    IsolatedTest, builder, has_children, is_isolated, open_files, random, test_name, threads, try_kill,
    watchdog,
};
use payloads::{Mixed, Payload, sizes};

/// A pool for each type of payload.
struct Pools {
    bytes: Pool<Vec<u8>, Vec<u8>>,
    floats: Pool<Vec<f32>, Vec<f32>>,
    mixed: Pool<Mixed, Mixed>,
}

fn op<P: Payload>(task: P) -> P {
    task.run()
}

fn pool<P: Payload>() -> Pool<P, P> {
    builder(2).build_op(op::<P>).expect("the pool starts")
}

impl Pools {
    fn all(&self) -> [&BytePool; 3] {
        [self.bytes.bytes(), self.floats.bytes(), self.mixed.bytes()]
    }

    /// Returns the pids of all workers.
    fn pids(&self) -> Vec<u32> {
        let pids = self.all().into_iter().flat_map(BytePool::pids);
        pids.map(|(_, pid)| pid).collect()
    }
}

/// Counts of tasks and kills.
#[derive(Debug, Default)]
struct Counts {
    done: AtomicU64,
    /// Bytes of tasks and outputs.
    moved: AtomicU64,
    /// Tasks whose worker was killed.
    lost: AtomicU64,
    /// Handles that were dropped.
    dropped: AtomicU64,
    /// Handles that were cancelled.
    cancelled: AtomicU64,
    kills: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Resident memory of the leader.
    leader: u64,
    /// Memory of the workers, with what they share counted once.
    workers: u64,
    files: usize,
    threads: usize,
}

impl Sample {
    fn now(pools: &Pools) -> Self {
        let workers = pools.pids().into_iter().filter_map(ProcessMemory::of);
        Self {
            leader: ProcessMemory::of(std::process::id()).map_or(0, |memory| memory.resident),
            workers: workers.filter_map(|memory| memory.proportional).sum(),
            files: open_files(),
            threads: threads(),
        }
    }

    /// Whether memory, files and threads are as before.
    fn is_like(&self, before: &Self) -> bool {
        self.leader <= before.leader + SLACK
            && self.workers <= before.workers + SLACK
            && (self.files, self.threads) == (before.files, before.threads)
    }

    /// Samples idle pools: when everything is as `expected`, or after 40 seconds. Without an expectation, after three seconds in
    /// which files and threads have not changed.
    fn when_idle(pools: &Pools, expected: Option<Self>) -> Self {
        let give_up = Instant::now() + Duration::from_secs(40);
        let mut last = Self::now(pools);
        let mut same = 0;
        while same < 30 && Instant::now() < give_up {
            thread::sleep(Duration::from_millis(100));
            let now = Self::now(pools);
            let complete = pools
                .all()
                .into_iter()
                .all(|pool| pool.pids().len() == pool.workers());
            match expected {
                Some(expected) if complete && now.is_like(&expected) => return now,
                Some(_) => {}
                None if complete && (now.files, now.threads) == (last.files, last.threads) => same += 1,
                None => same = 0,
            }
            last = now;
        }
        last
    }
}

/// How many seconds the test runs.
const SECONDS: &str = "IT_SOAK";
/// How much the memory of the leader, and of its workers together, may grow: for allocators, and for tables that reach their largest
/// size late.
const SLACK: u64 = 16 << 20;

#[test]
fn leader_does_not_grow_with_a_kill_a_second() {
    let seconds = std::env::var(SECONDS)
        .ok()
        .and_then(|seconds| seconds.parse().ok());
    let seconds: u64 = seconds.unwrap_or(6);
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).with_one_arena().run_and_echo();
    }
    let round = Duration::from_secs(30).min(Duration::from_secs(seconds) / 4);
    let pools = Pools {
        bytes: pool(),
        floats: pool(),
        mixed: pool(),
    };
    let began = Instant::now();
    let counts = Counts::default();
    let mut samples: Vec<Sample> = Vec::new();
    println!(
        "seconds  tasks done  MiB moved  kills  deaths  tasks lost  leader KiB  workers KiB  files  threads"
    );
    while began.elapsed() < Duration::from_secs(seconds) {
        let _watchdog = watchdog(180);
        run_for(round, &pools, &counts, samples.len() as u64);
        let sample = Sample::when_idle(&pools, samples.first().copied());
        samples.push(sample);
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        println!(
            "{:7} {:11} {:10} {:6} {:7} {:11} {:11} {:12} {:6} {:8}",
            began.elapsed().as_secs(),
            get(&counts.done),
            get(&counts.moved) >> 20,
            get(&counts.kills),
            pools.all().map(|pool| pool.stats().deaths).iter().sum::<u64>(),
            get(&counts.lost),
            sample.leader >> 10,
            sample.workers >> 10,
            sample.files,
            sample.threads
        );
    }
    let (first, last) = (samples[0], samples[samples.len() - 1]);
    assert!(last.is_like(&first), "{first:?}, then {last:?}");
    let Counts {
        done,
        lost,
        dropped,
        cancelled,
        kills,
        ..
    } = counts;
    assert!(
        kills.into_inner() > 0 && done.into_inner() > 0,
        "no kill or no task"
    );
    let Pools { bytes, floats, mixed } = pools;
    let timeout = Duration::from_secs(20);
    let stats = [
        bytes.shutdown(timeout),
        floats.shutdown(timeout),
        mixed.shutdown(timeout),
    ];
    let stats = stats.map(|stats| stats.expect("the pool works"));
    let sum = |number: fn(&proc_pool::Stats) -> u64| stats.iter().map(number).sum::<u64>();
    assert_eq!(
        sum(|it| it.submitted),
        sum(|it| it.answered + it.failed),
        "{stats:?}"
    );
    // A task whose handle was dropped may have been finished before.
    let seen = lost.into_inner() + cancelled.into_inner();
    let failed = sum(|it| it.failed);
    assert!(
        (seen..=seen + dropped.into_inner()).contains(&failed),
        "{stats:?}"
    );
    assert!(!has_children());
}

/// Uses all pools for a while, and kills one of the workers each second.
fn run_for(round: Duration, pools: &Pools, counts: &Counts, seed: u64) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = &stop;
        scope.spawn(move || use_pool(&pools.bytes, seed * 8, stop, counts));
        scope.spawn(move || use_pool(&pools.bytes, seed * 8 + 1, stop, counts));
        scope.spawn(move || use_pool(&pools.floats, seed * 8 + 2, stop, counts));
        scope.spawn(move || use_pool(&pools.floats, seed * 8 + 3, stop, counts));
        scope.spawn(move || use_pool(&pools.mixed, seed * 8 + 4, stop, counts));
        let until = Instant::now() + round;
        let mut random = random(seed);
        while Instant::now() < until {
            thread::sleep(Duration::from_secs(1).min(round / 2));
            let pids = pools.pids();
            if !pids.is_empty() {
                let pid = pids[random() as usize % pids.len()];
                counts
                    .kills
                    .fetch_add(u64::from(try_kill(pid)), Ordering::Relaxed);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// Runs tasks in ordered maps, in unordered ones, and by handles, in turns.
fn use_pool<P: Payload>(pool: &Pool<P, P>, seed: u64, stop: &AtomicBool, counts: &Counts) {
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let seed = seed << 16 | turn;
        let tasks = (0..200)
            .take_while(|_| !stop.load(Ordering::Relaxed))
            .map(|number| {
                let (bytes, output) = sizes(seed, number);
                P::task(number, bytes, output)
            });
        match turn % 3 {
            0 => {
                for (number, result) in (0..).zip(pool.map(tasks)) {
                    check(seed, number, result, counts);
                }
            }
            1 => {
                for result in pool.map_unordered(tasks) {
                    let number = match &result {
                        Ok(output) => output.number(),
                        Err(error) => Some(error.task),
                    };
                    match (number, result) {
                        (Some(number), result) => check(seed, number, result, counts),
                        (None, Ok(output)) => assert!(output.bytes() < 16),
                        (None, Err(_)) => unreachable!("an error has a number"),
                    }
                }
            }
            _ => use_handles(pool, tasks, seed, counts),
        }
    }
}

/// Submits tasks one by one, and waits for them in another order. Some are given up.
fn use_handles<P: Payload>(pool: &Pool<P, P>, tasks: impl Iterator<Item = P>, seed: u64, counts: &Counts) {
    let mut random = random(seed);
    let mut handles = Vec::new();
    for (number, task) in (0..).zip(tasks.take(60)) {
        handles.push((number, pool.submit(task)));
        if handles.len() < 12 {
            continue;
        }
        while let Some((number, handle)) = handles.pop() {
            match random() % 8 {
                0 => {
                    drop(handle);
                    counts.dropped.fetch_add(1, Ordering::Relaxed);
                }
                1 => {
                    let outcome = handle.cancel();
                    match handle.wait() {
                        Err(TaskError {
                            fault: Fault::Cancelled,
                            ..
                        }) => {
                            assert_eq!(outcome, CancelOutcome::Withdrawn);
                            counts.cancelled.fetch_add(1, Ordering::Relaxed);
                        }
                        result => check(seed, number, result, counts),
                    }
                }
                _ => check(seed, number, handle.wait(), counts),
            }
        }
    }
    for (number, handle) in handles {
        check(seed, number, handle.wait(), counts);
    }
}

/// Checks an output, or that a killed worker is the cause of an error.
fn check<P: Payload>(seed: u64, number: u64, result: Result<P, TaskError>, counts: &Counts) {
    let (bytes, output) = sizes(seed, number);
    match result {
        Ok(value) => {
            assert!(value.is_output_of(number, bytes, output), "task {number}");
            counts.done.fetch_add(1, Ordering::Relaxed);
            counts.moved.fetch_add(bytes + value.bytes(), Ordering::Relaxed);
        }
        Err(error) => {
            let killed = |cause: &ExitCause| matches!(cause, ExitCause::Signal { number: 9, .. });
            let fits = matches!(&error.fault, Fault::WorkerDied { cause, .. } if killed(cause));
            assert!(fits, "{error}");
            counts.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}
