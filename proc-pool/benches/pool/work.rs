//! Throughput of tasks of 0.3 to 100 µs of pure computation: the share of two cores that is left for ops. Peer: rayon.

use std::time::Instant;

use proc_pool::{Builder, Pool, Workers};
use rayon::iter::{IntoParallelIterator, ParallelBridge, ParallelIterator};

use crate::null::sum;
use crate::peers;
use crate::report::{Report, Target, rate};
use crate::rounds::{Contender, contest};
use crate::{Effort, Failure, WORKERS};

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

pub(crate) fn pool(workers: usize) -> Result<Pool<Task, u64>, Failure> {
    Ok(Builder::new().workers(Workers::Count(workers)).build_op(op)?)
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

pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<(), Failure> {
    report.heading("Tasks of pure computation, over a lazy iterator, summed");
    let pool = pool(WORKERS)?;
    let threads = peers::rayon()?;
    for (micros, target) in [(0.3, 0.85), (1.0, 0.95), (3.0, 0.95), (10.0, 0.95), (100.0, 0.98)] {
        let iterations = iterations(micros);
        let tasks = |count: u64| (0..count).map(move |output| (output, iterations));
        let mut contenders = [
            Contender::new("unordered", |count| sum(pool.map_unordered(tasks(count)))),
            Contender::new("ordered", |count| sum(pool.map(tasks(count)))),
            Contender::new("par_bridge", |count| {
                Ok(threads.install(|| tasks(count).par_bridge().map(op).sum()))
            }),
            Contender::new("into_par_iter", |count| {
                let tasks = (0..count).into_par_iter().map(|output| (output, iterations));
                Ok(threads.install(|| tasks.map(op).sum()))
            }),
        ];
        let rates = contest(&mut contenders, effort)?;
        let better = if rates[2].median() > rates[3].median() {
            2
        } else {
            3
        };
        for (ours, contender) in rates.iter().zip(&contenders).take(2) {
            report.row(
                &format!("{micros} µs, {}", contender.name),
                rate(ours.median()),
                (
                    "rayon",
                    format!("{} {}", contenders[better].name, rate(rates[better].median())),
                ),
                &ours.over(&rates[better]),
                Target::AtLeast(target),
            );
        }
    }
    Ok(())
}
