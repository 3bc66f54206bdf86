//! Throughput of tasks of 0 to 100 µs of pure computation: the share of two cores that is left for ops.
//!
//! Peers: rayon's `par_bridge`, which takes tasks from the same lazy iterator, and its `par_iter`, which divides a range: nothing that a
//! pool of processes could do.

use proc_pool::{Builder, Pool, Workers};
use rayon::iter::{IntoParallelIterator, ParallelBridge, ParallelIterator};

use crate::null::sum;
use crate::peers;
use crate::report::{Report, Target, rate};
use crate::rounds::{Contender, contest};
pub(crate) use crate::task::{Task, iterations, op};
use crate::{Effort, Failure, WORKERS};

/// Microseconds of a task, and the targets against `par_bridge`.
const CASES: [(f64, f64); 6] = [
    (0.0, 1.0),
    (0.3, 0.85),
    (1.0, 0.95),
    (3.0, 0.95),
    (10.0, 0.95),
    (100.0, 0.98),
];

pub(crate) fn pool(workers: usize) -> Result<Pool<Task, u64>, Failure> {
    Ok(Builder::new().workers(Workers::Count(workers)).build_op(op)?)
}

pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<(), Failure> {
    report.heading("Tasks of pure computation, over a lazy iterator, summed");
    let pool = pool(WORKERS)?;
    let threads = peers::rayon()?;
    for (micros, target) in CASES {
        let iterations = iterations(micros);
        let tasks = |count: u64| (0..count).map(move |output| (output, iterations));
        let mut contenders = [
            Contender::new("unordered", |count| sum(pool.map_unordered(tasks(count)))),
            Contender::new("ordered", |count| sum(pool.map(tasks(count)))),
            Contender::new("par_bridge", |count| {
                Ok(threads.install(|| tasks(count).par_bridge().map(op).sum()))
            }),
            Contender::new("par_iter", |count| {
                let tasks = (0..count).into_par_iter().map(|output| (output, iterations));
                Ok(threads.install(|| tasks.map(op).sum()))
            }),
        ];
        let rates = contest(&mut contenders, effort)?;
        for (ours, contender) in rates.iter().zip(&contenders).take(2) {
            for (peer, target) in [(2, Target::AtLeast(target)), (3, Target::None)] {
                report.row(
                    &format!("{micros} µs, {}", contender.name),
                    rate(ours.median()),
                    (contenders[peer].name, rate(rates[peer].median())),
                    &ours.over(&rates[peer]),
                    target,
                );
            }
        }
    }
    Ok(())
}
