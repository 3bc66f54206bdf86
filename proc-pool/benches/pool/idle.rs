//! The memory of a leader and two workers that have moved gigabytes of payloads, two seconds after the last one. Baseline: the limit
//! of the memory that they may keep.
//!
//! Payloads are vectors of all sizes up to 32 MiB, as tasks and as outputs, in both kinds of map; the last outputs are kept for a while.
//! Memory that processes share is counted once (PSS). This runs in a process of its own that has measured nothing else before.

use std::collections::VecDeque;
use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use proc_pool::{Builder, Pool, ProcessMemory, Workers};

use crate::child::Part;
use crate::report::{Report, Target};
use crate::rounds::Samples;
use crate::{Effort, Failure, WORKERS};

/// Bytes that a pool may keep.
const LIMIT: f64 = (16 << 20) as f64;
/// The time after the last payload, and before the first one.
const IDLE: Duration = Duration::from_secs(2);
/// The number of outputs that are kept.
const KEPT: usize = 50;

pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<(), Failure> {
    report.heading("Memory of an idle pool, two seconds after payloads of all sizes: more than before them");
    let mut text = String::new();
    let mut part = Part::start(&["idle", &effort.moved.to_string()])?;
    part.output.read_to_string(&mut text)?;
    let numbers: Vec<f64> = text
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let name = format!("{:.1} GB moved", effort.moved as f64 / 1e9);
    let [before, busy, after, seconds] = numbers[..] else {
        report.skipped(
            &name,
            "the system does not report the memory that processes share",
        );
        return Ok(());
    };
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    let mut share = Samples::new();
    share.push((after - before) / LIMIT);
    report.row(
        &name,
        format!(
            "{:.1} MiB more than {:.1}; {:.0} at the last payload",
            mib(after - before),
            mib(before),
            mib(busy)
        ),
        ("allowed", format!("{:.0} MiB", mib(LIMIT))),
        &share,
        Target::AtMost(1.0),
    );
    report.info(
        &format!("{name}, speed"),
        format!("{:.0} MB/s", effort.moved as f64 / 1e6 / seconds),
    );
    Ok(())
}

/// The part of a leader: prints its memory before, at the end and two seconds later, and the seconds between the first two.
pub(crate) fn run(bytes: u64) -> Result<(), Failure> {
    let builder = Builder::new().workers(Workers::Count(WORKERS));
    let pool = builder.build_op(|numbers: Vec<f32>| numbers)?;
    for output in pool.map((0..1000).map(|n| vec![1.5; n % 10])) {
        output?;
    }
    thread::sleep(IDLE);
    let before = memory(&pool);
    let started = Instant::now();
    move_payloads(&pool, bytes)?;
    let seconds = started.elapsed().as_secs_f64();
    let busy = memory(&pool);
    thread::sleep(IDLE);
    let after = memory(&pool);
    if let (Some(before), Some(busy), Some(after)) = (before, busy, after) {
        println!("{before} {busy} {after} {seconds}");
    }
    Ok(())
}

/// Returns the memory of the leader and of its workers in bytes; `None` where the system does not report it.
fn memory(pool: &Pool<Vec<f32>, Vec<f32>>) -> Option<u64> {
    let workers = pool.bytes().pids().into_iter().map(|(_, pid)| pid);
    let mut processes = workers.chain([std::process::id()]);
    processes.try_fold(0, |sum, pid| Some(sum + ProcessMemory::of(pid)?.proportional?))
}

/// Sends vectors there and back until this number of bytes has gone one way or the other.
fn move_payloads(pool: &Pool<Vec<f32>, Vec<f32>>, bytes: u64) -> Result<(), Failure> {
    // Marsaglia's xorshift: the same sizes in every run.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    let mut kept = VecDeque::new();
    let (mut moved, mut is_ordered) = (0, false);
    while moved < bytes {
        let sizes: [usize; 20] = std::array::from_fn(|_| (random() % (8 << 20)) >> (random() % 14));
        let tasks = sizes.iter().map(|&size| vec![1.5; size]);
        is_ordered = !is_ordered;
        let outputs: Vec<Vec<f32>> = match is_ordered {
            true => pool.map(tasks).collect::<Result<_, _>>()?,
            false => pool.map_unordered(tasks).collect::<Result<_, _>>()?,
        };
        moved += outputs
            .iter()
            .map(|output| 2 * size_of_val(&output[..]) as u64)
            .sum::<u64>();
        kept.extend(outputs);
        kept.drain(..kept.len().saturating_sub(KEPT));
    }
    Ok(())
}
