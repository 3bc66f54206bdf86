//! Shared by the tests of all subjects: pools, random numbers, isolated tests, rendezvous with ops, crashes, and what each
//! system reports of processes.

mod crash;
mod isolated;
mod rendezvous;
mod temp_dir;
mod watchdog;

#[cfg(target_os = "linux")]
pub(crate) mod before_init;
#[cfg(target_os = "linux")]
pub(crate) mod connection;
#[cfg(target_os = "linux")]
pub(crate) mod fault_injection;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod linux_calls;
#[cfg(not(target_os = "linux"))]
mod not_linux;

use std::thread;

use proc_pool::{Builder, Pool, Workers};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use crash::{Bomb, CRASHES, Crash};
pub(crate) use isolated::{IsolatedTest, is_isolated, test_name};
#[cfg(target_os = "linux")]
pub(crate) use linux::*;
#[cfg(target_os = "linux")]
pub(crate) use linux_calls::*;
#[cfg(not(target_os = "linux"))]
pub(crate) use not_linux::*;
#[cfg(target_os = "linux")]
pub(crate) use rendezvous::{RENDEZVOUS, rendezvous_of_the_test};
pub(crate) use rendezvous::{Rendezvous, release, report, wait_for_release};
pub(crate) use temp_dir::TempDir;
pub(crate) use watchdog::watchdog;

/// Returns a builder of pools with `workers` workers.
pub(crate) fn builder(workers: usize) -> Builder {
    Builder::new().workers(Workers::Count(workers))
}

/// Builds a pool of `workers` workers that run `op`.
pub(crate) fn pool<T, R>(workers: usize, op: fn(T) -> R) -> Pool<T, R>
where
    T: Serialize + DeserializeOwned + 'static,
    R: Serialize + DeserializeOwned + 'static,
{
    builder(workers).build_op(op).expect("the pool starts")
}

/// Makes a buffer of `bytes` bytes whose elements depend on the number of its task.
pub(crate) fn numbers(task: u64, bytes: usize) -> shm_buffers::Buffer<f32> {
    (0..bytes / 4).map(|at| (at as f32) + task as f32).collect()
}

/// Returns the pids of a pool's workers.
pub(crate) fn pids<T, R>(pool: &Pool<T, R>) -> Vec<u32>
where
    T: Serialize,
    R: DeserializeOwned,
{
    pool.bytes().pids().into_iter().map(|(_, pid)| pid).collect()
}

/// Kills all workers of a pool.
pub(crate) fn kill_workers<T, R>(pool: &Pool<T, R>)
where
    T: Serialize,
    R: DeserializeOwned,
{
    pids(pool).into_iter().for_each(kill);
}

/// Runs one task, which must succeed, and returns its output.
pub(crate) fn run_one<T, R>(pool: &Pool<T, R>, task: T) -> R
where
    T: Serialize,
    R: DeserializeOwned,
{
    let output = pool.map([task]).next().expect("one output for one task");
    output.expect("the task succeeds")
}

/// Kills a process.
pub(crate) fn kill(pid: u32) {
    assert!(try_kill(pid), "process {pid} has not been reaped");
}

/// Waits forever.
pub(crate) fn hang() -> ! {
    loop {
        thread::park();
    }
}

/// Returns a generator of numbers that look random, and are always the same for the same seed.
pub(crate) fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    // SplitMix64.
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Whether this test runs under wine. If so, prints this gap of wine: `cargo xtask cross` lists skipped tests by such lines.
pub(crate) fn wine_lacks(gap: &str) -> bool {
    let wine = std::env::var_os("UNDER_WINE").is_some();
    if wine {
        println!("not tested under wine: {gap}");
    }
    wine
}

/// The gap of wine that concerns limits on a process's own memory.
pub(crate) const NO_PRIVATE_BYTES: &str = "K32GetProcessMemoryInfo returns 0 private bytes for every process";
