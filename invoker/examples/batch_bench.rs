//! The main job, against the same op on threads and in a plain rayon loop: what isolation costs.
//!
//! Everything a run takes counts: sharing the model, starting workers, the report. The rayon loop has its tasks in a slice,
//! the best case, and counts nothing else. Rounds of all alternate; each ratio is of one round, and their median counts.
//! They are few: `cargo xtask bench` runs this program several times, and merges what it tells.
//! The op, the model and the ratings are those of the example `batch_eval`, at `--repeat` large enough for a round of ten
//! seconds (half a second with `--quick`).

#![allow(dead_code, reason = "these are the example's, which does more with them")]

#[path = "batch_eval/csr.rs"]
mod csr;
#[path = "batch_eval/knn.rs"]
mod knn;
#[path = "batch_eval/metrics.rs"]
mod metrics;
#[path = "batch_eval/op.rs"]
mod op;
#[path = "batch_eval/ratings.rs"]
mod ratings;
#[path = "batch_eval/split.rs"]
mod split;

use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write;
use std::time::Instant;

use invoker::{Executor, Invoker, Timing, Workers};
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::knn::ItemKnn;
use crate::op::{Action, EvalModel, Outcome, Task, evaluate_user};
use crate::ratings::Ratings;

const WORKERS: usize = 2;
/// Of the speed of threads, and of rayon.
const TARGET: f64 = 0.97;

fn main() -> Result<(), Box<dyn Error>> {
    invoker::init();
    let quick = std::env::args().any(|arg| arg == "--quick");
    measure(if quick { (3, 0.5) } else { (2, 10.0) })
}

fn measure((rounds, seconds): (usize, f64)) -> Result<(), Box<dyn Error>> {
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
    let loop_ = |repeat: usize| {
        let tasks: Vec<Task> = pass(repeat).collect();
        let begun = Instant::now();
        let outcomes: Vec<Outcome> = rayon.install(|| {
            tasks
                .par_iter()
                .map(|task| evaluate_user(&model, *task))
                .collect()
        });
        (begun.elapsed().as_secs_f64(), judged(&outcomes))
    };
    let invoked = |executor: Executor, timing: Option<Timing>, repeat: usize| -> Result<_, Box<dyn Error>> {
        let model = model.clone();
        let begun = Instant::now();
        let builder = Invoker::builder(evaluate_user).model(model).executor(executor);
        let mut builder = builder.workers(Workers::Count(WORKERS));
        if let Some(timing) = timing {
            builder = builder.timing(timing);
        }
        let invoker = builder.build()?;
        let outcomes = invoker.map(pass(repeat)).collect::<Result<Vec<_>, _>>()?;
        drop(invoker.finish()?);
        Ok((begun.elapsed().as_secs_f64(), judged(&outcomes)))
    };

    let once = loop_(1).0.min(loop_(1).0);
    let repeat = ((seconds / once) as usize).max(1);
    println!(
        "{} tasks a round, {WORKERS} workers",
        repeat * users_count as usize
    );
    let mut against = [const { Vec::new() }; 3];
    let mut rates = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        let (plain, expected) = loop_(repeat);
        let (threads, by_threads) = invoked(Executor::Threads, None, repeat)?;
        let (processes, by_processes) = invoked(Executor::Processes, None, repeat)?;
        let (untimed, by_untimed) = invoked(Executor::Processes, Some(Timing::Off), repeat)?;
        if [by_threads, by_processes, by_untimed] != [expected; 3] {
            return Err("the executors' outputs differ".into());
        }
        against[0].push(threads / processes);
        against[1].push(plain / processes);
        against[2].push(untimed / processes);
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
    for ((name, rate, target), ratios) in others.into_iter().zip(&mut against) {
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

/// Appends a row to the file that `cargo xtask bench` names.
fn record(row: &Value) {
    if let Some(path) = std::env::var_os("BENCH_ROWS") {
        let file = OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut file| writeln!(file, "{row}"))
            .expect("the file of rows can be written");
    }
}

/// What all executors must agree on.
fn judged(outcomes: &[Outcome]) -> (usize, f64) {
    let ndcg = outcomes.iter().filter_map(|it| it.metrics).map(|it| it.ndcg);
    (outcomes.iter().map(|it| it.recs.len()).sum(), ndcg.sum())
}

/// Sorts them. Of two in the middle neither is preferred.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => (values[middle - 1] + values[middle]) / 2.0,
        _ => values[middle],
    }
}
