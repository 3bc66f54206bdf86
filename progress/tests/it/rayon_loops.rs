//! Counting in loops of rayon.

use progress::{Bar, Outcome, Total, Unit};
use rayon::prelude::*;

const TASKS: u64 = 100_000;

#[test]
fn loop_counts_exactly_on_the_bar_and_with_counters() {
    let on_bar = Bar::new("bar", Total::Known(TASKS));
    let with_counters = Bar::new("counters", Total::Known(TASKS)).unit(Unit::Bytes);
    (0..TASKS).into_par_iter().for_each_init(
        || with_counters.counters(),
        |counters, task| {
            on_bar.inc(Outcome::Done);
            on_bar.add_bytes(task);
            counters.counter(Outcome::Failed).inc();
            counters.bytes().add(task);
        },
    );
    let bytes = TASKS * (TASKS - 1) / 2;
    let (on_bar, with_counters) = (on_bar.counts(), with_counters.counts());
    assert_eq!((on_bar.done, on_bar.bytes), (TASKS, bytes));
    assert_eq!((with_counters.failed, with_counters.bytes), (TASKS, bytes));
}
