//! The main job, against the same op on threads and in a plain rayon loop: the cost of isolation.
//!
//! The time of a run includes sharing the model, starting the workers and the report. The time of the rayon loop includes
//! nothing else, and its tasks are in a slice, the best case. Rounds of all of them alternate; a ratio compares the times of one round,
//! and the median of the ratios counts. Rounds are few, because `cargo xtask bench` runs this program several times and merges
//! the rows. Op, model and ratings are those of the example `batch_eval`, repeated until a round takes ten seconds (half a
//! second with `--quick`).

#![allow(
    dead_code,
    unused_imports,
    reason = "the modules belong to the example, which uses and tests more of them"
)]

#[path = "../../benchmarks/arguments.rs"]
mod arguments;
#[path = "../examples/batch_eval/csr.rs"]
mod csr;
#[path = "../examples/batch_eval/knn.rs"]
mod knn;
#[path = "../examples/batch_eval/metrics.rs"]
mod metrics;
#[path = "../examples/batch_eval/op.rs"]
mod op;
#[path = "../examples/batch_eval/ratings.rs"]
mod ratings;
#[path = "../../benchmarks/rows.rs"]
mod rows;
#[path = "../examples/batch_eval/split.rs"]
mod split;

use std::error::Error;
use std::time::Instant;

use invoker::{Executor, ExecutorOptions, Invoker, Processes, Timing};
use rayon::prelude::*;
use serde_json::json;

use crate::arguments::Arguments;
use crate::knn::ItemKnn;
use crate::op::{Action, EvalModel, Outcome, Task, evaluate_user};
use crate::ratings::Ratings;
use crate::rows::record;

const WORKERS: usize = 2;
/// Minimum speed of processes, relative to threads and to rayon.
const TARGET: f64 = 0.97;

fn main() -> Result<(), Box<dyn Error>> {
    invoker::init();
    let (rounds, seconds) = match Arguments::from_env(&[])?.is_quick {
        true => (3, 0.5),
        false => (2, 10.0),
    };
    measure(rounds, seconds)
}

fn measure(rounds: usize, seconds: f64) -> Result<(), Box<dyn Error>> {
    let ratings = Ratings::bundled()?;
    let split = split::hold_out(&ratings, 0.2, 0);
    let Ratings { users, items, .. } = ratings;
    let knn = ItemKnn::train(items, &split.train);
    let users_count = users.len() as u32;
    let model = EvalModel::new(knn, users, split, 10);
    let pass = |repeat: usize| {
        let users = (0..users_count).cycle().take(users_count as usize * repeat);
        users.map(|user| Task {
            user,
            action: Action::Evaluate,
        })
    };
    let rayon = rayon::ThreadPoolBuilder::new().num_threads(WORKERS).build()?;
    let rayon_loop = |repeat: usize| {
        let tasks: Vec<Task> = pass(repeat).collect();
        let started = Instant::now();
        let outcomes: Vec<Outcome> = rayon.install(|| {
            tasks
                .par_iter()
                .map(|task| evaluate_user(&model, *task))
                .collect()
        });
        (started.elapsed().as_secs_f64(), checksum(&outcomes))
    };
    let invoked = |executor: ExecutorOptions, repeat: usize| -> Result<_, Box<dyn Error>> {
        let model = model.clone();
        let started = Instant::now();
        let builder = Invoker::builder(evaluate_user).model(model);
        let invoker = builder.executor(executor).workers(WORKERS).build()?;
        let outcomes = invoker.map(pass(repeat)).collect::<Result<Vec<_>, _>>()?;
        drop(invoker.finish()?);
        Ok((started.elapsed().as_secs_f64(), checksum(&outcomes)))
    };

    let once = rayon_loop(1).0.min(rayon_loop(1).0);
    let repeat = ((seconds / once) as usize).max(1);
    println!(
        "{} tasks a round, {WORKERS} workers",
        repeat * users_count as usize
    );
    let mut ratios = [const { Vec::new() }; 3];
    let mut rates = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        let (plain, expected) = rayon_loop(repeat);
        let (threads, by_threads) = invoked(Executor::Threads.into(), repeat)?;
        let (processes, by_processes) = invoked(Executor::Processes.into(), repeat)?;
        let timing_off = Processes::new().timing(Timing::Off);
        let (untimed, by_untimed) = invoked(timing_off.into(), repeat)?;
        if [by_threads, by_processes, by_untimed] != [expected; 3] {
            return Err("the executors' outputs differ".into());
        }
        ratios[0].push(threads / processes);
        ratios[1].push(plain / processes);
        ratios[2].push(untimed / processes);
        let tasks = (repeat * users_count as usize) as f64;
        for (rates, time) in rates.iter_mut().zip([plain, threads, processes, untimed]) {
            rates.push(tasks / time);
        }
    }
    let [rayon, threads, processes, untimed] = rates.each_mut().map(|rates| median(rates));
    println!("processes {processes:.0} users/s");
    let others = [
        ("threads", threads, Some(TARGET)),
        ("rayon loop", rayon, Some(TARGET)),
        ("processes, nothing timed", untimed, None),
    ];
    for ((name, rate, target), ratios) in others.into_iter().zip(&mut ratios) {
        let median = median(ratios);
        let spread = [ratios[0], ratios[ratios.len() - 1]];
        let met = target.map(|target| median >= target);
        let verdict = match met {
            None => "",
            Some(true) => "met",
            Some(false) => "MISSED",
        };
        println!("  of {name:25} {rate:>8.0} users/s {median:.3}x {spread:.3?}  {verdict}");
        record(&json!({
            "table": "The main job: recommendations for every user, all of a run counted",
            "row": "invoker, processes", "measured": format!("{processes:.0} users/s"),
            "peer": name, "floor": format!("{rate:.0} users/s"), "ratio": median, "spread": spread,
            "target": target.map(|target| format!(">= {target}")), "met": met,
        }));
    }
    Ok(())
}

/// Returns numbers on which all executors must agree.
fn checksum(outcomes: &[Outcome]) -> (usize, f64) {
    let metrics = outcomes.iter().filter_map(|outcome| outcome.metrics);
    let recs = outcomes.iter().map(|outcome| outcome.recs.len());
    (recs.sum(), metrics.map(|metrics| metrics.ndcg).sum())
}

/// Sorts the values and returns their median; of two middle values, the mean.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => (values[middle - 1] + values[middle]) / 2.0,
        _ => values[middle],
    }
}
