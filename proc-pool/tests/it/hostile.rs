//! Hostile workers: whatever they write to shared memory or to their connection, their leader must not panic, hang or
//! grow. Tasks may fail, and outputs may be wrong.
//!
//! `cargo xtask hostile --minutes N` runs these tests for longer.

mod forged_pieces;
mod messages;
mod shared_memory;

use std::fmt::Debug;
use std::time::{Duration, Instant};

use proc_pool::ProcessMemory;

pub(crate) use messages::before_init;

/// The variable with the number of seconds for which a hostile peer continues.
const SECONDS: &str = "IT_HOSTILE";

/// Returns the seconds of [`SECONDS`], or this default.
fn seconds(default: u64) -> u64 {
    let seconds = std::env::var(SECONDS).ok();
    seconds
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(default)
}

/// Returns the resident memory of this process in bytes.
fn resident() -> u64 {
    ProcessMemory::of(std::process::id()).map_or(0, |memory| memory.resident)
}

/// Calls `attack` with each of the attacks, in rounds, until the seconds are over, and asserts that the leader neither
/// waits nor grows: by at most `max_growth` bytes.
fn repeat_attacks<A: Copy + Debug>(attacks: &[A], max_growth: u64, mut attack: impl FnMut(u64, A)) {
    let end = Instant::now() + Duration::from_secs(seconds(0));
    let mut rounds = 0;
    loop {
        for &kind in attacks {
            let (before, started) = (resident(), Instant::now());
            attack(rounds, kind);
            // Deadlines are shorter than a second, but machines are busy.
            let elapsed = started.elapsed();
            assert!(elapsed < Duration::from_secs(20), "{kind:?}: {elapsed:?}");
            let grown = resident().saturating_sub(before);
            assert!(
                grown < max_growth,
                "{kind:?}: the leader has grown by {grown} bytes"
            );
        }
        rounds += 1;
        if Instant::now() >= end {
            break;
        }
    }
    println!("{rounds} rounds of {} kinds of attack", attacks.len());
}
