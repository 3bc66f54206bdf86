//! The cost of an event, the effect of a flood, and the rate of replay; each against a peer in the same run.
//!
//! Every case runs in a process of its own, because `tracing` caches the interest of all subscribers of a process in each
//! callsite. The peer is `fmt` into a non-blocking writer of `tracing-appender` over `io::sink`. There are few rounds:
//! `cargo xtask bench` runs this program several times and merges the results.

#[path = "../../../benchmarks/arguments.rs"]
mod arguments;
mod cases;
mod cost;
mod flood;
mod process;
#[path = "../../../benchmarks/rows.rs"]
mod rows;
mod table;

use table::Table;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// How often each case runs; the median counts.
    rounds: usize,
    /// Events of a case that measures the cost of one event.
    events: u64,
    /// Events of each worker of a flood.
    flood: u64,
}

fn main() -> Result<(), arguments::WrongArgument> {
    if let Some(case) = process::case() {
        cases::run(&case);
        return Ok(());
    }
    let effort = match arguments::Arguments::from_env(&[])?.is_quick {
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
    Ok(())
}
