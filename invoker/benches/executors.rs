//! Tasks of 0 to 100 µs in processes and in threads, against rayon's `par_bridge` with the same op over the same lazy iterator, and
//! against its `par_iter`, which divides a range and takes no task from an iterator.
//!
//! `cargo bench -p invoker --bench executors`. Two workers or threads; outputs are summed and checked. Rounds of all sides alternate, a
//! ratio compares the times of one round, and the median of the ratios counts.

#[path = "../../benchmarks/arguments.rs"]
mod arguments;
#[path = "../../benchmarks/rows.rs"]
mod rows;
#[path = "../../benchmarks/work.rs"]
mod task;

use std::error::Error;
use std::time::{Duration, Instant};

use invoker::{Executor, Invoker, TaskError};
use rayon::iter::{IntoParallelIterator, ParallelBridge, ParallelIterator};
use serde_json::json;

use arguments::Arguments;
use rows::{median, record};
use task::{Task, iterations};

const WORKERS: usize = 2;
/// The duration of a task in nanoseconds, and the targets for threads against `par_bridge`.
const CASES: [(u32, Option<f64>); 6] = [
    (0, None),
    (300, None),
    (1_000, Some(0.95)),
    (3_000, Some(0.95)),
    (10_000, Some(0.95)),
    (100_000, Some(0.95)),
];

/// A name, and what returns the sum of the outputs of this number of tasks.
type Side<'a> = (&'a str, &'a dyn Fn(u64) -> Result<u64, Box<dyn Error>>);

fn op(_: &(), task: Task) -> u64 {
    task::op(task)
}

fn sum(outputs: impl Iterator<Item = Result<u64, TaskError>>) -> Result<u64, Box<dyn Error>> {
    outputs.map(|output| output.map_err(Into::into)).sum()
}

fn main() -> Result<(), Box<dyn Error>> {
    invoker::init();
    let (rounds, round) = match Arguments::from_env(&[])?.is_quick {
        true => (3, Duration::from_millis(50)),
        false => (5, Duration::from_millis(400)),
    };
    let start = |executor: Executor| {
        Invoker::builder(op)
            .model(())
            .executor(executor)
            .workers(WORKERS)
            .build()
    };
    let (processes, threads) = (start(Executor::Processes)?, start(Executor::Threads)?);
    let rayon = rayon::ThreadPoolBuilder::new().num_threads(WORKERS).build()?;
    println!("{WORKERS} workers; relative speeds");
    for (nanos, target) in CASES {
        let micros = f64::from(nanos) / 1000.0;
        let iterations = iterations(micros);
        let tasks = |count: u64| (0..count).map(move |output| (output, iterations));
        let sides: [Side<'_>; 6] = [
            ("par_bridge", &|count| {
                Ok(rayon.install(|| tasks(count).par_bridge().map(|task| op(&(), task)).sum()))
            }),
            ("threads, unordered", &|count| {
                sum(threads.map_unordered(tasks(count)))
            }),
            ("threads, ordered", &|count| sum(threads.map(tasks(count)))),
            ("processes, unordered", &|count| {
                sum(processes.map_unordered(tasks(count)))
            }),
            ("processes, ordered", &|count| sum(processes.map(tasks(count)))),
            ("par_iter", &|count| {
                let tasks = (0..count).into_par_iter().map(|output| (output, iterations));
                Ok(rayon.install(|| tasks.map(|task| op(&(), task)).sum()))
            }),
        ];
        let timed = |side: usize, count: u64| -> Result<f64, Box<dyn Error>> {
            let started = Instant::now();
            let sum = (sides[side].1)(count)?;
            let time = started.elapsed();
            match sum == (0..count).sum::<u64>() {
                true => Ok(time.as_secs_f64()),
                false => Err(format!("{}: the sum of {count} outputs is wrong", sides[side].0).into()),
            }
        };
        // The same number of tasks for all: about a round of the fourth side.
        let mut count = 256;
        while timed(3, count)? < round.as_secs_f64() / 2.0 {
            count *= 2;
        }
        let mut times = [const { Vec::new() }; 6];
        for _ in 0..rounds {
            for (side, times) in times.iter_mut().enumerate() {
                times.push(timed(side, count)?);
            }
        }
        let pairs = [
            (1, 0, target),
            (2, 0, target),
            (1, 3, Some(1.0)),
            (2, 4, Some(1.0)),
            (3, 0, None),
            (4, 0, None),
            (1, 5, None),
            (2, 5, None),
            (3, 5, None),
            (4, 5, None),
        ];
        for (ours, other, target) in pairs {
            let ratios: Vec<f64> = times[other]
                .iter()
                .zip(&times[ours])
                .map(|(a, b)| a / b)
                .collect();
            let ratio = median(ratios.iter().copied());
            let spread = [
                ratios.iter().copied().fold(f64::INFINITY, f64::min),
                ratios.iter().copied().fold(0.0, f64::max),
            ];
            let rate = |side: usize| {
                format!(
                    "{:.3} M/s",
                    count as f64 / median(times[side].iter().copied()) / 1e6
                )
            };
            let met = target.map(|target| ratio >= target);
            let verdict = match met {
                None => "",
                Some(true) => "met",
                Some(false) => "MISSED",
            };
            let (name, peer) = (sides[ours].0, sides[other].0);
            println!(
                "  {micros:5} µs, {name:20} {:>12}  vs {peer:20} {:>12}  {ratio:.3}x [{:.3} .. {:.3}]  {verdict}",
                rate(ours),
                rate(other),
                spread[0],
                spread[1]
            );
            record(&json!({
                "table": "Tasks in processes and in threads", "row": format!("{micros} µs, {name}"),
                "measured": rate(ours), "peer": peer, "floor": rate(other), "ratio": ratio, "spread": spread,
                "target": target.map(|target| format!(">= {target}")), "met": met,
            }));
        }
    }
    Ok(())
}
