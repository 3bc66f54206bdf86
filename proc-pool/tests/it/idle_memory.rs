//! The memory of pools that were busy with large payloads and are idle now.
//!
//! `cargo xtask soak --gigabytes N` moves more.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use proc_pool::{Pool, ProcessMemory};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::support::{IsolatedTest, builder, is_isolated, pids, random, test_name, watchdog};

/// How many gigabytes of payloads the test moves.
const GIGABYTES: &str = "IT_GIGABYTES";
/// How much larger an idle pool may be than before its first large payload. The arenas of the two workers alone have twice as much.
const SLACK: u64 = 8 << 20;

/// Returns the memory of the leader and of its workers in bytes. Memory that they share is counted once.
fn memory<T: Serialize, R: DeserializeOwned>(pool: &Pool<T, R>) -> u64 {
    let mut processes = pids(pool);
    processes.push(std::process::id());
    let proportional = |pid| ProcessMemory::of(pid).and_then(|memory| memory.proportional);
    processes.into_iter().filter_map(proportional).sum()
}

/// Sends vectors of all sizes up to 32 MiB there and back, in both kinds of map and by handles, until `bytes` are moved. The
/// last outputs are kept together.
fn move_payloads(pool: &Pool<Vec<f32>, Vec<f32>>, bytes: u64) -> u64 {
    let mut random = random(1);
    let mut moved = 0;
    let mut kept = VecDeque::new();
    while moved < bytes {
        let sizes: Vec<usize> = (0..20)
            .map(|_| (random() as usize % (8 << 20)) >> (random() % 14))
            .collect();
        let tasks = sizes.iter().map(|&size| vec![1.5_f32; size]);
        let outputs: Vec<Vec<f32>> = match random() % 3 {
            0 => pool
                .map(tasks)
                .map(|output| output.expect("no task fails"))
                .collect(),
            1 => pool
                .map_unordered(tasks)
                .map(|output| output.expect("no task fails"))
                .collect(),
            _ => {
                let handles: Vec<_> = tasks.map(|task| pool.submit(task)).collect();
                handles
                    .into_iter()
                    .map(|handle| handle.wait().expect("the task succeeds"))
                    .collect()
            }
        };
        let len: usize = outputs.iter().map(Vec::len).sum();
        assert_eq!(len, sizes.iter().sum::<usize>());
        moved += 2 * 4 * len as u64;
        kept.extend(outputs);
        while kept.len() > 50 {
            kept.pop_front();
        }
    }
    moved
}

/// Waits until the pool is about as small as it was when idle: two seconds are enough, and a busy machine has more. Returns its memory,
/// and how many seconds that took.
fn wait_until_small(pool: &Pool<Vec<f32>, Vec<f32>>, idle: u64) -> (u64, f64) {
    let began = Instant::now();
    loop {
        let now = memory(pool);
        let took = began.elapsed();
        if now <= idle + SLACK || took > Duration::from_secs(30) {
            return (now, took.as_secs_f64());
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Two seconds after its last payload, a pool and its leader are as small as before the first one.
#[test]
fn idle_pool_returns_the_memory_of_payloads() {
    let gigabytes = std::env::var(GIGABYTES).ok();
    let gigabytes: u64 = gigabytes.and_then(|number| number.parse().ok()).unwrap_or(2);
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).with_one_arena().run_and_echo();
    }
    let _watchdog = watchdog(120 + 20 * gigabytes);
    let pool = builder(2)
        .build_op(|numbers: Vec<f32>| numbers)
        .expect("the pool starts");
    let small = || (0..1000).map(|n| vec![1.5; n % 10]);
    assert_eq!(pool.map(small()).filter(Result::is_ok).count(), 1000);
    thread::sleep(Duration::from_secs(2));
    let idle = memory(&pool);
    let began = Instant::now();
    let moved = move_payloads(&pool, gigabytes << 30);
    let seconds = began.elapsed().as_secs_f64();
    let busy = memory(&pool);
    let (after, took) = wait_until_small(&pool, idle);
    let mib = |bytes: u64| bytes >> 20;
    println!(
        "{} MiB moved in {seconds:.1} s; {} MiB before, {} MiB at the end, {} MiB after {took:.1} s",
        mib(moved),
        mib(idle),
        mib(busy),
        mib(after),
    );
    assert!(after <= idle + SLACK, "{idle} before, {after} after");
    // Outputs that are dropped after the pool has returned freed memory.
    let outputs: Vec<_> = pool.map((0..12).map(|_| vec![1.5; 1 << 20])).collect();
    thread::sleep(Duration::from_millis(2500));
    let kept = memory(&pool);
    assert!(kept > idle + (40 << 20), "the outputs have memory");
    drop(outputs);
    let (after, took) = wait_until_small(&pool, idle);
    println!(
        "{} MiB with outputs, {} MiB {took:.1} s after they were dropped",
        mib(kept),
        mib(after)
    );
    assert!(after <= idle + SLACK, "{idle} before, {after} after");
    // The pool works as before.
    assert_eq!(pool.map(small()).filter(Result::is_ok).count(), 1000);
    move_payloads(&pool, 100 << 20);
}
