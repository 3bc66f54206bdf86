//! What an event costs, what a flood does, and how fast the leader replays; each against a peer in the same run.
//!
//! Every case runs in a process of its own, because `tracing` caches for each callsite what all subscribers of the
//! process want. The peer is `fmt` into a non-blocking writer of `tracing-appender`, which writes to nowhere. The rounds
//! are few: `cargo xtask bench` runs this program several times, and merges what it tells.

mod cases;
mod cost;
mod flood;
mod process;
mod table;

use table::Table;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Times that each case is repeated; the median counts.
    rounds: usize,
    /// Events of a case that are timed one by one.
    events: u64,
    /// Events of each worker of a flood.
    flood: u64,
}

fn main() {
    if let Some(case) = process::case() {
        cases::run(&case);
        return;
    }
    // `--bytes`, which other benchmarks understand, means nothing here.
    let effort = match std::env::args().any(|arg| arg == "--quick") {
        true => Effort {
            rounds: 3,
            events: 20_000,
            flood: 50_000,
        },
        false => Effort {
            rounds: 3,
            events: 400_000,
            flood: 1_000_000,
        },
    };
    let mut table = Table::default();
    cost::measure(effort, &mut table);
    flood::measure(effort, &mut table);
    table.print();
}
