//! A pool that loses a worker each second: the memory, open files and threads of its leader do not grow.
//!
//! `cargo xtask soak --minutes N` runs it for longer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use proc_pool::{ExitCause, Fault, Pool, ProcessMemory};
use serde::{Deserialize, Serialize};

use crate::support::{
    IsolatedTest, builder, has_children, is_isolated, open_files, random, test_name, threads, try_kill,
    watchdog,
};

#[derive(Serialize, Deserialize)]
struct Task {
    number: u64,
    us: u64,
    bytes: Vec<u8>,
}

fn op(task: Task) -> (u64, Vec<u8>) {
    thread::sleep(Duration::from_micros(task.us));
    (task.number, task.bytes)
}

/// Returns tasks of all sizes, a few of them large.
fn tasks(seed: u64, stop: &AtomicBool) -> impl Iterator<Item = Task> {
    let mut random = random(seed);
    let until = move |number: &u64| *number < 4000 && !stop.load(Ordering::Relaxed);
    (0..).take_while(until).map(move |number| Task {
        number,
        us: random() % 300,
        bytes: vec![
            number as u8;
            if random().is_multiple_of(200) {
                100_000
            } else {
                random() as usize % 300
            }
        ],
    })
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    resident: u64,
    files: usize,
    threads: usize,
}

impl Sample {
    /// Samples this process.
    fn now() -> Self {
        Self {
            resident: ProcessMemory::of(std::process::id()).map_or(0, |memory| memory.resident),
            files: open_files(),
            threads: threads(),
        }
    }

    /// Samples this process when the pool is idle: when files and threads have not changed for a while and are as
    /// `expected`, or after 20 seconds.
    fn when_idle(pool: &Pool<Task, (u64, Vec<u8>)>, expected: Option<Self>) -> Self {
        let give_up = Instant::now() + Duration::from_secs(20);
        let mut last = Self::now();
        let mut same = 0;
        while same < 10 && Instant::now() < give_up {
            thread::sleep(Duration::from_millis(20));
            let now = Self::now();
            let complete = pool.bytes().pids().len() == pool.bytes().workers();
            let expected = expected.unwrap_or(last);
            let unchanged = [expected, last]
                .iter()
                .all(|it| (it.files, it.threads) == (now.files, now.threads));
            same = if complete && unchanged { same + 1 } else { 0 };
            last = now;
        }
        last
    }
}

/// How many seconds the test runs.
const SECONDS: &str = "IT_SOAK";
/// How much the resident memory may grow, for allocators and for tables that reach their largest size late.
const SLACK: u64 = 16 << 20;

#[test]
fn leader_does_not_grow_with_a_kill_a_second() {
    let seconds = std::env::var(SECONDS)
        .ok()
        .and_then(|seconds| seconds.parse().ok());
    let seconds: u64 = seconds.unwrap_or(6);
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).run_and_echo();
    }
    let round = Duration::from_secs(30).min(Duration::from_secs(seconds) / 4);
    let pool = builder(3).build_op(op).expect("the pool starts");
    let began = Instant::now();
    let (done, lost, killed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let mut samples = Vec::new();
    println!("seconds  tasks done  kills  deaths  tasks lost  resident KiB  files  threads");
    while began.elapsed() < Duration::from_secs(seconds) {
        let _watchdog = watchdog(120);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for seed in 0..2 {
                let (pool, stop, done, lost) = (&pool, &stop, &done, &lost);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        map(pool, seed, stop, done, lost);
                    }
                });
            }
            let until = Instant::now() + round;
            let mut random = random(samples.len() as u64);
            while Instant::now() < until {
                thread::sleep(Duration::from_secs(1).min(round / 2));
                let pids = pool.bytes().pids();
                if !pids.is_empty() {
                    let (_, pid) = pids[random() as usize % pids.len()];
                    killed.fetch_add(u64::from(try_kill(pid)), Ordering::Relaxed);
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        let sample = Sample::when_idle(&pool, samples.first().copied());
        samples.push(sample);
        println!(
            "{:7} {:11} {:6} {:7} {:11} {:13} {:6} {:8}",
            began.elapsed().as_secs(),
            done.load(Ordering::Relaxed),
            killed.load(Ordering::Relaxed),
            pool.bytes().stats().deaths,
            lost.load(Ordering::Relaxed),
            sample.resident >> 10,
            sample.files,
            sample.threads
        );
    }
    let (first, last) = (samples[0], samples[samples.len() - 1]);
    assert!(
        killed.into_inner() > 0 && done.into_inner() > 0,
        "no kill or no task"
    );
    assert_eq!((first.files, first.threads), (last.files, last.threads));
    assert!(
        last.resident <= first.resident + SLACK,
        "{first:?}, then {last:?}"
    );
    let stats = pool.shutdown(Duration::from_secs(20)).expect("the pool works");
    assert_eq!(stats.submitted, stats.answered + stats.failed, "{stats:?}");
    assert_eq!(stats.failed, lost.into_inner(), "{stats:?}");
    assert!(!has_children());
}

/// Runs one map; checks its outputs, and that killed workers are the only cause of errors.
fn map(pool: &Pool<Task, (u64, Vec<u8>)>, seed: u64, stop: &AtomicBool, done: &AtomicU64, lost: &AtomicU64) {
    for (index, result) in pool.map(tasks(seed, stop)).enumerate() {
        match result {
            Ok((number, bytes)) => {
                assert!(number == index as u64 && bytes.iter().all(|byte| *byte == number as u8));
                done.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                let killed = |cause: &ExitCause| matches!(cause, ExitCause::Signal { number: 9, .. });
                let fits = matches!(&error.fault, Fault::WorkerDied { cause, .. } if killed(cause));
                assert!(fits && error.task == index as u64, "{error}");
                lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
