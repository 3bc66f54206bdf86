//! Shared by benchmarks, each of which includes this file: a task of pure computation that takes a given time.

use std::time::Instant;

/// A task: its output, and the number of iterations before it.
pub(crate) type Task = (u64, u32);

/// The op of all contenders: Marsaglia's xorshift, which compilers cannot shorten, and which touches no memory.
pub(crate) fn op((output, iterations): Task) -> u64 {
    let mut state = output | 1;
    for _ in 0..iterations {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    std::hint::black_box(state);
    output
}

/// Returns the number of iterations that take this many microseconds, by the best of a few attempts.
pub(crate) fn iterations(micros: f64) -> u32 {
    const ATTEMPT: u32 = 1_000_000;
    let time = (0..10).map(|output| {
        let started = Instant::now();
        op((output, ATTEMPT));
        started.elapsed()
    });
    let nanos = time.min().unwrap_or_default().as_nanos().max(1) as f64;
    (f64::from(ATTEMPT) * micros * 1000.0 / nanos) as u32
}
