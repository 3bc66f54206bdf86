//! A pool that loses a worker each second, for as long as one likes: its leader's memory, open files and threads stay
//! as they are.
//!
//! `cargo xtask soak --minutes N` is the long form.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use proc_pool::{Builder, Cause, Fault, Memory, Pool, Workers};
use serde::{Deserialize, Serialize};

use crate::support::{
    Alone, has_children, is_alone, open_files, random, test_name, threads, try_kill, watchdog,
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

/// Tasks of all sizes, a few of them large.
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
    fn now() -> Self {
        Self {
            resident: Memory::of(std::process::id()).map_or(0, |memory| memory.resident),
            files: open_files(),
            threads: threads(),
        }
    }

    /// Of a leader at rest: what comes and goes with work and with restarts has gone when nothing changes any more,
    /// and everything is as `expected`.
    fn at_rest(pool: &Pool<Task, (u64, Vec<u8>)>, expected: Option<Self>) -> Self {
        let patience = Instant::now() + Duration::from_secs(20);
        let mut last = Self::now();
        let mut same = 0;
        while same < 10 && Instant::now() < patience {
            thread::sleep(Duration::from_millis(20));
            let now = Self::now();
            let whole = pool.bytes().pids().len() == pool.bytes().workers();
            let expected = expected.unwrap_or(last);
            let still = [expected, last]
                .iter()
                .all(|it| (it.files, it.threads) == (now.files, now.threads));
            same = if whole && still { same + 1 } else { 0 };
            last = now;
        }
        last
    }
}

/// For how many seconds.
const WISH: &str = "IT_SOAK";
/// Memory that may come in addition, of allocators and of tables that have not been so large before.
const SLACK: u64 = 16 << 20;

#[test]
fn a_kill_a_second() {
    let seconds = std::env::var(WISH).ok().and_then(|wish| wish.parse().ok());
    let seconds: u64 = seconds.unwrap_or(6);
    if !is_alone() {
        return Alone::new(&test_name!()).run_aloud();
    }
    let round = Duration::from_secs(30).min(Duration::from_secs(seconds) / 4);
    let pool = Builder::new()
        .workers(Workers::Count(3))
        .build_op(op)
        .expect("it starts");
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
        let sample = Sample::at_rest(&pool, samples.first().copied());
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
        "nothing happened"
    );
    assert_eq!((first.files, first.threads), (last.files, last.threads));
    assert!(
        last.resident <= first.resident + SLACK,
        "{first:?}, then {last:?}"
    );
    let stats = pool.shutdown(Duration::from_secs(20)).expect("it did not fail");
    assert_eq!(stats.submitted, stats.answered + stats.faulted, "{stats:?}");
    assert_eq!(stats.faulted, lost.into_inner(), "{stats:?}");
    assert!(!has_children());
}

fn map(pool: &Pool<Task, (u64, Vec<u8>)>, seed: u64, stop: &AtomicBool, done: &AtomicU64, lost: &AtomicU64) {
    for (place, result) in pool.map(tasks(seed, stop)).enumerate() {
        match result {
            Ok((number, bytes)) => {
                assert!(number == place as u64 && bytes.iter().all(|byte| *byte == number as u8));
                done.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                let killed = |cause: &Cause| matches!(cause, Cause::Signal { number: 9, .. });
                let fits = matches!(&error.fault, Fault::WorkerDied { cause, .. } if killed(cause));
                assert!(fits && error.task == place as u64, "{error}");
                lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
