//! Wakeups and system calls for 1,000 tasks. Baseline: a limit of 10 system calls for 1,000 null ops.
//!
//! Each case runs as a process of its own, once with few tasks and once with many; the difference is the cost of the tasks.
//! Wakeups are counted without a tracer, as the sleeps that the kernel counts for each thread. System calls are counted by
//! `perf`, which hardly slows them down; or, without `perf`, by `strace -f`, which stops a process twice at each call and
//! changes how both sides meet.

use std::process;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::report::{Report, Target, rate};
use crate::rounds::Samples;
use crate::{Effort, Failure, WORKERS, calls, null, os::Usage, work};

/// The name of a case, its description, and roughly its tasks per second.
const CASES: [(&str, &str, f64); 4] = [
    ("null", "null op", 4e6),
    ("work", "op of 10 µs", 150e3),
    ("trips", "one null op at a time", 20e3),
    ("rare", "one null op after a sleep of 1 ms", 900.0),
];

pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<(), Failure> {
    report.heading("Waking, for 1,000 tasks: sleeps (each ended by a wake-up) of leader and workers, system calls of all");
    for (case, name, rate_guess) in CASES {
        let most = (rate_guess * effort.round.as_secs_f64()) as u64;
        let (mut leader, mut workers, mut speed) = (Samples::new(), Samples::new(), Samples::new());
        for _ in 0..effort.rounds {
            let output = calls::command(None, &part(case, most))?.output()?;
            let text = String::from_utf8(output.stdout)?;
            let numbers: Vec<f64> = text
                .split_whitespace()
                .map(str::parse)
                .collect::<Result<_, _>>()?;
            let [leader_sleeps, worker_sleeps, seconds] = numbers[..] else {
                report.skipped(name, "the system does not count the sleeps of threads");
                break;
            };
            leader.push(leader_sleeps * 1000.0 / most as f64);
            workers.push(worker_sleeps * 1000.0 / most as f64);
            speed.push(most as f64 / seconds);
        }
        let calls = calls::of_tasks(effort, most, |tasks| part(case, tasks))
            .map(|(counts, tracer)| (counts.scaled(1000.0), tracer));
        if let ("null", Some((counts, tracer))) = (case, &calls) {
            report.row(
                "system calls for 1,000 null ops",
                format!("{:.2}", counts.median()),
                ("allowed", format!("10, counted by {tracer:?}")),
                counts,
                Target::AtMost(10.0),
            );
        }
        let calls = calls.map_or_else(
            || "system calls not counted: neither perf nor strace works here".to_owned(),
            |(counts, tracer)| format!("{:.2} system calls ({tracer:?})", counts.median()),
        );
        let (leader, workers) = (leader.median(), workers.median());
        let rate = rate(speed.median());
        let measured =
            format!("{leader:.3} sleeps of the leader, {workers:.3} of the workers, {calls}, at {rate}");
        report.info(name, measured);
    }
    Ok(())
}

/// Returns the arguments of a process that runs a case.
fn part(case: &str, tasks: u64) -> Vec<String> {
    vec!["steady".to_owned(), case.to_owned(), tasks.to_string()]
}

/// The part of a leader: runs a case, and prints its sleeps, its workers' sleeps, and the seconds.
pub(crate) fn steady(case: &str, tasks: u64) -> Result<(), Failure> {
    match case {
        "null" => {
            let pool = null::pool(WORKERS)?;
            print_usage(&pool, tasks, |tasks| null::sum(pool.map_unordered(0..tasks)))
        }
        "trips" => {
            let pool = null::pool(WORKERS)?;
            print_usage(&pool, tasks, |tasks| {
                (0..tasks).try_fold(0, |sum, task| Ok(sum + null::sum(pool.map_unordered([task]))?))
            })
        }
        "rare" => {
            let pool = null::pool(WORKERS)?;
            print_usage(&pool, tasks, |tasks| {
                (0..tasks).try_fold(0, |sum, task| {
                    thread::sleep(Duration::from_millis(1));
                    Ok(sum + null::sum(pool.map_unordered([task]))?)
                })
            })
        }
        "work" => {
            let pool = work::pool(WORKERS)?;
            let iterations = work::iterations(10.0);
            print_usage(&pool, tasks, |tasks| {
                null::sum(pool.map_unordered((0..tasks).map(|output| (output, iterations))))
            })
        }
        _ => Err(format!("no such case: {case}").into()),
    }
}

/// Runs tasks and prints the sleeps and the seconds.
fn print_usage<T: Serialize, R: DeserializeOwned>(
    pool: &proc_pool::Pool<T, R>,
    tasks: u64,
    run: impl Fn(u64) -> Result<u64, Failure>,
) -> Result<(), Failure> {
    // The same number in every run, so that it is not in the difference of two runs.
    run(100)?;
    let workers: Vec<u32> = pool.bytes().pids().into_iter().map(|(_, pid)| pid).collect();
    let usage = || Some((Usage::of(&[process::id()])?, Usage::of(&workers)?));
    let (before, started) = (usage(), Instant::now());
    run(tasks)?;
    let seconds = started.elapsed().as_secs_f64();
    if let (Some((leader, workers)), Some(after)) = (before, usage()) {
        let (leader, workers) = (after.0.since(leader), after.1.since(workers));
        println!("{} {} {seconds}", leader.sleeps, workers.sleeps);
    }
    Ok(())
}
