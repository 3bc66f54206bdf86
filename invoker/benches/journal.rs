//! The cost of a journal: time for each task, and bytes on the disk, against the same runs without one.
//!
//! `cargo bench -p invoker --bench journal`. Two workers in processes; outputs are summed and checked. Rounds with and without a journal
//! alternate, and the median of their differences counts. Every round writes all of its outputs; none is read.

#[path = "../../benchmarks/arguments.rs"]
mod arguments;
#[path = "../../benchmarks/rows.rs"]
mod rows;
#[path = "../../benchmarks/work.rs"]
mod task;

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use invoker::{Invoker, TaskError};
use serde_json::json;

use arguments::Arguments;
use rows::{median, record};
use task::{Task, iterations};

const WORKERS: usize = 2;
const TABLE: &str = "The journal of a run";
/// The target for tasks that do nothing.
const NANOS: f64 = 150.0;
/// The target for tasks of 100 µs: the time of a run with a journal relative to one without.
const RELATIVE: f64 = 1.02;
/// The target for the size of the file relative to the encoded outputs.
const SIZE: f64 = 1.2;

fn op(_: &(), task: Task) -> u64 {
    task::op(task)
}

fn main() -> Result<(), Box<dyn Error>> {
    invoker::init();
    let (rounds, round) = match Arguments::from_env(&[])?.is_quick {
        true => (3, Duration::from_millis(50)),
        false => (7, Duration::from_millis(1000)),
    };
    let dir = tempfile::tempdir()?;
    for micros in [0.0, 100.0] {
        for is_ordered in [true, false] {
            time(dir.path(), micros, is_ordered, rounds, round)?;
        }
    }
    let lists = |_: &(), n: u64| vec![n as u8; 150 + n as usize % 100];
    size(dir.path(), "lists of about 200 bytes", lists, |list| list.len())?;
    size(dir.path(), "numbers of 8 bytes", |_: &(), n| n as f64, |_| 8)?;
    size(dir.path(), "single bytes", |_: &(), n| n as u8, |_| 1)
}

type Outputs<'a> = Box<dyn Iterator<Item = Result<u64, TaskError>> + 'a>;

/// Compares the times of runs.
fn time(
    dir: &Path,
    micros: f64,
    is_ordered: bool,
    rounds: usize,
    round: Duration,
) -> Result<(), Box<dyn Error>> {
    let path = dir.join("time");
    let _ = fs::remove_file(&path);
    let builder = || Invoker::builder(op).model(()).workers(WORKERS);
    let (plain, journaled) = (builder().build()?, builder().journal(&path).build()?);
    let iterations = iterations(micros);
    let timed = |invoker: &Invoker<(), Task, u64>, count: u64| -> Result<f64, Box<dyn Error>> {
        let tasks = (0..count).map(|output| (output, iterations));
        let started = Instant::now();
        let outputs: Outputs<'_> = match is_ordered {
            true => Box::new(invoker.map(tasks)),
            false => Box::new(invoker.map_unordered(tasks)),
        };
        let sum: u64 = outputs.sum::<Result<u64, _>>()?;
        let time = started.elapsed();
        match sum == (0..count).sum::<u64>() {
            true => Ok(time.as_secs_f64()),
            false => Err("the sum of the outputs is wrong".into()),
        }
    };
    let mut count = 256;
    while timed(&plain, count)? < round.as_secs_f64() / 2.0 {
        count *= 2;
    }
    timed(&journaled, count)?;
    let (mut nanos, mut ratios, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (without, with) = (timed(&plain, count)?, timed(&journaled, count)?);
        nanos.push((with - without) * 1e9 / count as f64);
        ratios.push(with / without);
        rates.push(count as f64 / with / 1e6);
    }
    let order = if is_ordered { "ordered" } else { "unordered" };
    let row = format!("{micros} µs, {order}");
    let (more, relative) = (median(nanos.iter().copied()), median(ratios.iter().copied()));
    println!(
        "  {row:20} {more:8.0} ns more for each task, {relative:.3}x the time, {:.3} M/s",
        median(rates)
    );
    // A share of a tiny task says little, and nanoseconds of a long one are noise.
    let (values, divisor, peer, target) = match micros == 0.0 {
        true => (nanos, NANOS, format!("{NANOS} ns"), 1.0),
        false => (ratios, 1.0, "without a journal".to_owned(), RELATIVE),
    };
    let ratio = median(values.iter().copied()) / divisor;
    let spread = [
        values.iter().copied().fold(f64::INFINITY, f64::min) / divisor,
        values.iter().copied().fold(f64::NEG_INFINITY, f64::max) / divisor,
    ];
    record(&json!({
        "table": TABLE, "row": row, "measured": format!("{more:.0} ns a task"), "peer": peer,
        "floor": "", "ratio": ratio, "spread": spread, "target": format!("<= {target}"), "met": ratio <= target,
    }));
    Ok(())
}

/// Compares the size of the file with that of the encoded outputs.
fn size<R>(
    dir: &Path,
    what: &str,
    op: fn(&(), u64) -> R,
    encoded: fn(&R) -> usize,
) -> Result<(), Box<dyn Error>>
where
    R: serde::Serialize + serde::de::DeserializeOwned + Send + 'static,
{
    const TASKS: u64 = 200_000;
    let path = dir.join("size");
    let _ = fs::remove_file(&path);
    let builder = Invoker::builder(op).model(()).workers(WORKERS).journal(&path);
    let invoker = builder.build()?;
    let mut outputs = 0;
    for output in invoker.map_unordered(0..TASKS) {
        outputs += encoded(&output?);
    }
    invoker.finish()?;
    let file = fs::metadata(&path)?.len();
    let ratio = file as f64 / outputs as f64;
    println!("  {what:28} {file} bytes for {outputs} of outputs, {ratio:.3}x");
    record(&json!({
        "table": TABLE, "row": format!("size: {what}"), "measured": format!("{file} bytes"), "peer": "encoded outputs",
        "floor": format!("{outputs} bytes"), "ratio": ratio, "target": format!("<= {SIZE}"), "met": ratio <= SIZE,
    }));
    Ok(())
}
