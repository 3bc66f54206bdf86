//! The cost of a task by the number of workers, and by the size of its payload. No baseline: these are tables and plots.
//!
//! The nanoseconds of a leader or a worker are the processor time (user and system) of all threads of its process, divided
//! by the number of tasks. The leader's include the work of its caller: the input, encoding, decoding, the sum.

use std::iter;
use std::process;
use std::time::{Duration, Instant};

use proc_pool::{Builder, EntryPoint, Workers};

use crate::large::Echo;
use crate::os::Usage;
use crate::report::{Report, rate};
use crate::rounds::Samples;
use crate::{Effort, Failure, WORKERS, null};

const WORKER_COUNTS: [usize; 5] = [1, 2, 8, 32, 64];
/// Sizes in bytes: each is four times the one before; and 1 MiB.
const SIZES: [usize; 10] = [
    8,
    32,
    128,
    512,
    2 << 10,
    8 << 10,
    32 << 10,
    128 << 10,
    512 << 10,
    1 << 20,
];

pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<(), Failure> {
    report.heading("Null op over the number of workers, u64 to u64, unordered");
    for workers in WORKER_COUNTS {
        let pool = null::pool(workers)?;
        let pids: Vec<u32> = pool.bytes().pids().into_iter().map(|(_, pid)| pid).collect();
        let row = row(effort, &pids, |tasks| {
            null::sum(pool.map_unordered(0..tasks)).map(drop)
        })?;
        report.point("tasks", "tasks/s over workers", workers, &row.per_second);
        report.point("leader", "ns/task over workers", workers, &row.leader);
        report.info(&format!("{workers} workers"), row.text(size_of::<u64>()));
    }
    report.heading("Bytes there and back over their number, unordered, 2 workers (MB/s: one way)");
    let pool = Builder::new()
        .workers(Workers::Count(WORKERS))
        .build(EntryPoint::service::<Echo>(), &[])?;
    let pids: Vec<u32> = pool.pids().into_iter().map(|(_, pid)| pid).collect();
    for size in SIZES {
        let task = vec![7; size];
        let row = row(effort, &pids, |tasks| {
            let tasks = iter::repeat_n(&task, tasks as usize);
            for output in pool.map_unordered(tasks) {
                if output?.len() != size {
                    return Err("an output has another size than its task".into());
                }
            }
            Ok(())
        })?;
        report.point("tasks", "tasks/s over bytes", size, &row.per_second);
        report.info(&format!("{size} bytes"), row.text(size));
    }
    Ok(())
}

#[derive(Default)]
struct Row {
    per_second: Samples,
    leader: Samples,
    workers: Samples,
    /// Sleeps of all processes, for 1,000 tasks.
    sleeps: Samples,
}

impl Row {
    /// Formats the row for tasks of this size.
    fn text(&self, bytes: usize) -> String {
        let per_second = self.per_second.median();
        format!(
            "{}, {:.1} MB/s, {:.0} ns/task leader, {:.0} ns/task workers, {:.2} sleeps/1000",
            rate(per_second),
            per_second * bytes as f64 / 1e6,
            self.leader.median(),
            self.workers.median(),
            self.sleeps.median(),
        )
    }
}

/// Measures a row: runs tasks for the duration of a row, several times.
fn row(
    effort: Effort,
    workers: &[u32],
    mut run: impl FnMut(u64) -> Result<(), Failure>,
) -> Result<Row, Failure> {
    let mut timed = |tasks| {
        let started = Instant::now();
        run(tasks).map(|()| started.elapsed())
    };
    let mut tasks = 1;
    let mut time = Duration::ZERO;
    while time < effort.row / 4 {
        tasks *= 2;
        time = timed(tasks)?;
    }
    tasks = (tasks as f64 * effort.row.as_secs_f64() / time.as_secs_f64()).ceil() as u64;
    let mut row = Row::default();
    let usage = || Some((Usage::of(&[process::id()])?, Usage::of(workers)?));
    for _ in 0..effort.rounds {
        let before = usage();
        let time = timed(tasks)?;
        row.per_second.push(tasks as f64 / time.as_secs_f64());
        if let (Some(before), Some(after)) = (before, usage()) {
            let (leader, workers) = (after.0.since(before.0), after.1.since(before.1));
            row.leader.push(leader.nanos as f64 / tasks as f64);
            row.workers.push(workers.nanos as f64 / tasks as f64);
            row.sleeps
                .push((leader.sleeps + workers.sleeps) as f64 * 1000.0 / tasks as f64);
        }
    }
    Ok(row)
}
