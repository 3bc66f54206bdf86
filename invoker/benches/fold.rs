//! Ten million tiny tasks, folded within the workers, against rayon's `fold` and `reduce` of the same op.
//!
//! `cargo bench -p invoker --bench fold`. Rounds of all sides alternate; a ratio compares the times of one round, and the median of
//! the ratios counts. The workers exist before the first round, as rayon's threads do.
//!
//! Items of an iterator have two peers: rayon's fold of the range, which has no items to move, and of the same iterator.

use std::error::Error;
use std::ops::Range;
use std::time::Instant;

use invoker::{Executor, Invoker, Items};
use rayon::prelude::*;

const TASKS: u64 = 10_000_000;
const WORKERS: usize = 2;
const ROUNDS: usize = 15;

/// Mixes a number `ROUNDS` times: about a nanosecond each.
fn mix<const ROUNDS: u32>(_: &(), n: u64) -> u64 {
    (0..ROUNDS).fold(n, |z, _| {
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^ (z >> 27)
    })
}

/// The same for a range, compiled as one loop.
fn mix_all<const ROUNDS: u32>(model: &(), range: Range<u64>) -> u64 {
    range.fold(0, |sum: u64, n| sum.wrapping_add(mix::<ROUNDS>(model, n)))
}

/// Returns the seconds of a call, and its output.
fn timed<R>(call: impl FnOnce() -> R) -> (f64, R) {
    let started = Instant::now();
    let output = call();
    (started.elapsed().as_secs_f64(), output)
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Compares all sides with an op of `MIXES` rounds.
fn compare<const MIXES: u32>() -> Result<(), Box<dyn Error>> {
    let add = |sum: &mut u64, output: u64| *sum = sum.wrapping_add(output);
    let of_ranges = Invoker::builder(mix::<MIXES>)
        .fold(0, add)
        .model(())
        .workers(WORKERS)
        .build()?;
    let of_lists = Invoker::builder(mix::<MIXES>)
        .fold(0, add)
        .model(())
        .workers(WORKERS)
        .build()?;
    let of_loops = Invoker::builder(mix_all::<MIXES>)
        .model(())
        .workers(WORKERS)
        .build()?;
    let threads = Invoker::builder(mix::<MIXES>).fold(0, add).model(());
    let threads = threads.executor(Executor::Threads).workers(WORKERS).build()?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(WORKERS).build()?;
    let mut ratios = [const { Vec::new() }; 4];
    let (mut rayon_seconds, mut bridge_ratios) = (Vec::new(), Vec::new());
    let fold = |sum: u64, n| sum.wrapping_add(mix::<MIXES>(&(), n));
    for _ in 0..ROUNDS {
        let (rayon, expected) = timed(|| {
            pool.install(|| {
                (0..TASKS)
                    .into_par_iter()
                    .fold(|| 0, fold)
                    .reduce(|| 0, u64::wrapping_add)
            })
        });
        let (bridge, of_bridge) = timed(|| {
            pool.install(|| {
                (0..TASKS)
                    .par_bridge()
                    .fold(|| 0, fold)
                    .reduce(|| 0, u64::wrapping_add)
            })
        });
        assert_eq!(of_bridge, expected);
        let sides = [
            timed(|| of_ranges.reduce(0..TASKS, u64::wrapping_add)),
            timed(|| of_lists.reduce(Items(0..TASKS), u64::wrapping_add)),
            timed(|| of_loops.reduce(0..TASKS, u64::wrapping_add)),
            timed(|| threads.reduce(0..TASKS, u64::wrapping_add)),
        ];
        rayon_seconds.push(rayon);
        bridge_ratios.push(bridge / sides[1].0);
        for (ratios, (seconds, sum)) in ratios.iter_mut().zip(sides) {
            assert_eq!(sum?, Some(expected));
            ratios.push(rayon / seconds);
        }
    }
    let [ranges, lists, loops, threads] = ratios.map(median);
    println!(
        "{MIXES:3} mixes per task: rayon {:6.1} ms; relative speed of fold over a range {ranges:.2}, over items {lists:.2} (of the same \
         iterator in rayon {:.2}), of an op on ranges {loops:.2}, of fold in threads {threads:.2}",
        1e3 * median(rayon_seconds),
        median(bridge_ratios),
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    invoker::init();
    compare::<1>()?;
    compare::<8>()?;
    compare::<64>()
}
