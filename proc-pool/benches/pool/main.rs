//! The cost of the pool: each scenario compares it with a baseline in the same run.
//!
//! A baseline is a floor (the lowest possible cost) or a peer (another library). Each scenario's module says which one it
//! uses, and what it measures.
//!
//! `cargo xtask bench pool [--quick]`, or `cargo bench -p proc-pool --bench pool -- [--quick] [SCENARIO...]`. A missed
//! target is shown in its row; only a measurement that is impossible fails the run.
//!
//! The same for all: the release profile, the op (all of them call one function), the iterator of tasks, two workers, and
//! the checked sum of the outputs. They take turns in short rounds. A ratio compares the times of one round; the report
//! shows the median of the rounds, with the smallest and the largest ratio in brackets. There are few rounds, because
//! `cargo xtask bench` runs this program several times and merges the results.
//!
//! Different: the number of tasks of a round depends on the speed of each, so that all rounds take about the same time. A
//! pool of processes has a leader beside its two workers, which pulls, encodes, decodes and sums; rayon's two workers do
//! that themselves. Bare rings, bare pipes and bare `ipc-channel` have no supervision, no order and almost no codec; pipes
//! and `ipc-channel` use a thread for each worker to sum. They are floors.
//!
//! On a busy machine the ratios mean little, and some are too good: three processes get more of a busy machine than two
//! threads do. So the report shows the load.

mod allocations;
#[path = "../../../benchmarks/arguments.rs"]
mod arguments;
mod calls;
mod child;
mod factors;
mod idle;
mod large;
mod latency;
mod null;
mod os;
mod payloads;
mod peers;
mod pipes;
mod report;
mod rings;
mod rounds;
#[path = "../../../benchmarks/rows.rs"]
mod rows;
mod side;
mod start;
mod tables;
#[path = "../../../benchmarks/work.rs"]
mod task;
mod waking;
mod work;

use std::time::Duration;

/// The reason why a measurement is impossible.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The number of workers of the pool and of its baselines.
const WORKERS: usize = 2;

/// How much to measure.
#[derive(Debug, Clone, Copy)]
struct Effort {
    /// The approximate duration of a round of one contender.
    round: Duration,
    rounds: usize,
    /// The number of times that a pool is started, or that a large task is sent.
    repeats: usize,
    /// The duration of one measurement of round trips.
    trips: Duration,
    /// The duration of one measurement for a row of a table.
    row: Duration,
    /// The number of bytes of payloads that a pool moves before it is idle.
    moved: u64,
}

const FULL: Effort = Effort {
    round: Duration::from_millis(500),
    rounds: 3,
    repeats: 7,
    trips: Duration::from_millis(300),
    row: Duration::from_millis(250),
    moved: 10_000_000_000,
};

const QUICK: Effort = Effort {
    round: Duration::from_millis(50),
    rounds: 3,
    repeats: 3,
    trips: Duration::from_millis(40),
    row: Duration::from_millis(40),
    moved: 2 << 30,
};

type Measure = fn(Effort, &mut report::Report) -> Result<(), Failure>;

const SCENARIOS: &[(&str, Measure)] = &[
    ("null", null::measure),
    ("work", work::measure),
    ("latency", latency::measure),
    ("start", start::measure),
    ("payloads", payloads::measure),
    ("buffers", payloads::measure_tasks),
    ("large", large::measure),
    ("idle", idle::measure),
    ("waking", waking::measure),
    ("allocations", allocations::measure),
    ("tables", tables::measure),
];

fn main() -> Result<(), Failure> {
    proc_pool::init();
    procspawn::init();
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = args.iter().position(|arg| arg == child::PART) {
        return child::run_part(&args[at + 1..]);
    }
    let names: Vec<&str> = SCENARIOS.iter().map(|(name, _)| *name).collect();
    let args = arguments::Arguments::from_env(&names)?;
    let effort = match args.is_bench && !args.is_quick {
        true => FULL,
        false => QUICK,
    };
    let mut report = report::Report::new();
    for (name, measure) in SCENARIOS {
        if args.includes(name) {
            measure(effort, &mut report)?;
        }
    }
    report.close();
    Ok(())
}
