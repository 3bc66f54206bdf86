//! What the pool costs, each measure against its floor or its peers in the same run.
//!
//! `cargo xtask bench pool [--quick]`, or `cargo bench -p proc-pool --bench pool -- [--quick] [SCENARIO...]`. A missed
//! target is told in its row; only a measure that could not be taken fails the run.
//!
//! What is the same for all that are compared: the release profile, the op (one function, called by all of them), the
//! iterator that the tasks come from, two workers, and the sum of the outputs, which is checked. They take turns in
//! short rounds; a ratio is made within a round, and the median of the rounds counts, with the smallest and the largest
//! in brackets. The rounds are few: `cargo xtask bench` runs this program several times, and merges what it tells.
//!
//! What is not the same: the number of tasks of a round follows each one's own speed, so that all rounds take about as
//! long. A pool of processes has a leader besides its two workers, which pulls, encodes, decodes and sums; rayon's two
//! workers do that themselves. Bare rings, bare pipes and the bare `ipc-channel` have no supervision, no order and
//! no codec to speak of, and pipes and `ipc-channel` a thread per worker that sums; they are floors, not peers.
//!
//! On a machine that does other things as well, the ratios mean little, and some flatter: three processes get more of a
//! busy machine than two threads do. So the report says how busy it is.

mod allocations;
mod child;
mod factors;
mod large;
mod latency;
mod null;
mod os;
mod peers;
mod pipes;
mod report;
mod rings;
mod rounds;
mod side;
mod start;
mod tables;
mod waking;
mod work;

use std::time::Duration;

/// Why a measure could not be taken.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Of the pool and of whoever it is compared with.
const WORKERS: usize = 2;

/// How much to measure.
#[derive(Debug, Clone, Copy)]
struct Effort {
    /// How long a round of one contender takes, about.
    round: Duration,
    rounds: usize,
    /// Times that something is started, or sent as a large task.
    repeats: usize,
    /// How long round trips are measured at a time.
    trips: Duration,
    /// How long a row of a table is measured.
    row: Duration,
}

const FULL: Effort = Effort {
    round: Duration::from_millis(500),
    rounds: 3,
    repeats: 7,
    trips: Duration::from_millis(300),
    row: Duration::from_millis(250),
};

const QUICK: Effort = Effort {
    round: Duration::from_millis(50),
    rounds: 3,
    repeats: 3,
    trips: Duration::from_millis(40),
    row: Duration::from_millis(40),
};

type Measure = fn(Effort, &mut report::Report) -> Result<(), Failure>;

const SCENARIOS: &[(&str, Measure)] = &[
    ("null", null::measure),
    ("work", work::measure),
    ("latency", latency::measure),
    ("start", start::measure),
    ("large", large::measure),
    ("waking", waking::measure),
    ("allocations", allocations::measure),
    ("tables", tables::measure),
];

fn main() -> Result<(), Failure> {
    proc_pool::init();
    procspawn::init();
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = args.iter().position(|arg| arg == child::PART) {
        return child::play(&args[at + 1..]);
    }
    // Cargo adds `--bench` when it benchmarks; when it only tests, a smoke run is what is wanted. `--bytes`, which
    // other benchmarks understand, means nothing here.
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let effort = match has("--bench") && !has("--quick") {
        true => FULL,
        false => QUICK,
    };
    let named = SCENARIOS.iter().filter(|(name, _)| has(name)).count();
    let mut report = report::Report::new();
    for (name, measure) in SCENARIOS {
        if named == 0 || has(name) {
            measure(effort, &mut report)?;
        }
    }
    report.close();
    Ok(())
}
