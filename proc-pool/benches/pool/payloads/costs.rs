//! The cost of a payload to the leader and the workers: processor time, page faults, sleeps and system calls, of all their threads.
//!
//! The kernel counts system calls in the same rounds, where it permits that ([`Counter`]). Elsewhere `strace` counts those of all
//! processes together, in runs of their own.

use proc_pool::Pool;

use super::streams::{Streams, Transport};
use super::{SIZES, echo_inputs, echo_pool, outputs_pool, sum, sum_of_echoes};
use crate::calls::{self, Counter};
use crate::os::Usage;
use crate::report::{Report, Target};
use crate::rounds::Samples;
use crate::{Effort, Failure};

/// A pool, or children on pipes.
struct Side {
    workers: Vec<u32>,
    /// Returns the sum of this number of payloads.
    run: Box<dyn FnMut(u64) -> Result<u64, Failure>>,
}

impl Side {
    fn ours(what: &str, bytes: usize) -> Result<Self, Failure> {
        fn pids<T, R>(pool: &Pool<T, R>) -> Vec<u32> {
            pool.bytes().pids().into_iter().map(|(_, pid)| pid).collect()
        }
        if what == OUTPUTS {
            let pool = outputs_pool(bytes)?;
            return Ok(Self {
                workers: pids(&pool),
                run: Box::new(move |tasks| sum(pool.map_unordered(0..tasks), bytes)),
            });
        }
        let pool = echo_pool()?;
        Ok(Self {
            workers: pids(&pool),
            run: Box::new(move |tasks| sum_of_echoes(pool.map_unordered(echo_inputs(tasks, bytes)))),
        })
    }

    fn pipes(what: &str, bytes: usize) -> Result<Self, Failure> {
        let mut streams = Streams::start(Transport::Pipes, what, bytes)?;
        let workers = streams.pids();
        let run: Box<dyn FnMut(u64) -> Result<u64, Failure>> = match what {
            OUTPUTS => Box::new(move |tasks| streams.outputs(tasks)),
            _ => Box::new(move |tasks| streams.echoes(tasks)),
        };
        Ok(Self { workers, run })
    }
}

/// The cost of a payload to the leader, or to its workers together.
#[derive(Default)]
struct Cost {
    nanos: Samples,
    page_faults: Samples,
    sleeps: Samples,
    calls: Samples,
}

impl Cost {
    fn describe(&self) -> String {
        let Self {
            nanos,
            page_faults,
            sleeps,
            calls,
        } = self;
        let calls = match calls.is_empty() {
            true => "?".to_owned(),
            false => format!("{:.2}", calls.median()),
        };
        format!(
            "{:.1} us, {:.1} faults, {:.2} sleeps, {calls} calls",
            nanos.median() / 1e3,
            page_faults.median(),
            sleeps.median()
        )
    }
}

const OUTPUTS: &str = "outputs";
const ECHOES: &str = "echoes";

pub(super) fn measure(effort: Effort, report: &mut Report) -> Result<(), Failure> {
    for what in [OUTPUTS, ECHOES] {
        let heading =
            format!("Cost of each of the {what} by value: processor time, page faults, sleeps, system calls");
        report.heading(&heading);
        for (bytes, name, ..) in SIZES {
            let mut sides = [Side::ours(what, bytes)?, Side::pipes(what, bytes)?];
            let Some(costs) = costs(&mut sides, tasks(bytes), effort)? else {
                report.skipped(name, "this system does not report it");
                continue;
            };
            drop(sides);
            rows(bytes, name, &costs, report);
            if costs[0][0].calls.is_empty() {
                report.info(&format!("{name}, all processes"), traced(what, bytes, effort));
            }
        }
    }
    Ok(())
}

/// Returns how many payloads are sent in a round.
fn tasks(bytes: usize) -> u64 {
    ((256 << 20) / bytes as u64).clamp(16, 8192)
}

/// Returns the costs of leader and workers for each side.
fn costs(sides: &mut [Side; 2], tasks: u64, effort: Effort) -> Result<Option<[[Cost; 2]; 2]>, Failure> {
    let mut costs: [[Cost; 2]; 2] = Default::default();
    // The first round is not counted: buffers reach their size in it.
    for round in 0..=effort.rounds {
        for (side, costs) in sides.iter_mut().zip(&mut costs) {
            let counters = [
                Counter::start(&[std::process::id()]),
                Counter::start(&side.workers),
            ];
            // The leader's are read next to the run, because it is the leader that reads, which takes calls and time.
            let calls = |process: usize| counters[process].as_ref().and_then(Counter::count);
            let workers_before = (Usage::of(&side.workers), calls(1));
            let leader_before = (Usage::of_this_process(), calls(0));
            (side.run)(tasks)?;
            let leader = (calls(0), Usage::of_this_process());
            let workers = (calls(1), Usage::of(&side.workers));
            if round == 0 {
                continue;
            }
            for (cost, (before, after)) in costs
                .iter_mut()
                .zip([(leader_before, leader), (workers_before, workers)])
            {
                let ((Some(before), calls_before), (calls, Some(after))) = (before, after) else {
                    return Ok(None);
                };
                let (used, each) = (after.since(before), |count: u64| count as f64 / tasks as f64);
                cost.nanos.push(each(used.nanos));
                cost.page_faults.push(each(used.page_faults));
                cost.sleeps.push(each(used.sleeps));
                if let (Some(before), Some(after)) = (calls_before, calls) {
                    cost.calls.push(each(after - before));
                }
            }
        }
    }
    Ok(Some(costs))
}

fn rows(bytes: usize, name: &str, [ours, pipes]: &[[Cost; 2]; 2], report: &mut Report) {
    for ((process, ours), pipes) in ["leader", "workers"].iter().zip(ours).zip(pipes) {
        report.row(
            &format!("{name}, {process}"),
            ours.describe(),
            ("strong pipes", pipes.describe()),
            &pipes.nanos.over(&ours.nanos),
            Target::None,
        );
        for (side, cost) in [("ours", ours), ("strong pipes", pipes)] {
            let series = format!("{side}, {process}");
            report.point(&series, "ns each", bytes, &cost.nanos);
        }
    }
}

/// Counts system calls with a tracer.
fn traced(what: &str, bytes: usize, effort: Effort) -> String {
    let part = |tasks: u64| {
        let part = ["cost", what, &bytes.to_string(), &tasks.to_string()];
        part.map(str::to_owned).into()
    };
    match calls::of_tasks(effort, tasks(bytes), part) {
        Some((counts, tracer)) => format!("{:.2} system calls each ({tracer:?})", counts.median()),
        None => "system calls not available: the kernel does not permit to count them, and neither perf nor strace works".to_owned(),
    }
}

/// The part of a leader whose system calls a tracer counts.
pub(crate) fn run(what: &str, bytes: usize, count: u64) -> Result<(), Failure> {
    let mut ours = Side::ours(what, bytes)?;
    (ours.run)(tasks(bytes))?;
    (ours.run)(count).map(drop)
}
