//! An op that never comes back for one input: its worker is killed at the deadline, and the run goes on.
//!
//! `cargo run -p invoker --example hung_op`

use std::time::Duration;

use invoker::{Fault, Invoker, Workers};

/// Steps of the Collatz sequence down to 1. From 0 it never gets there.
fn steps(_: &(), start: u64) -> u32 {
    let mut steps: u32 = 0;
    let mut n = start;
    while n != 1 {
        n = if n.is_multiple_of(2) { n / 2 } else { 3 * n + 1 };
        steps = std::hint::black_box(steps).wrapping_add(1);
    }
    steps
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    invoker::init();
    let invoker = Invoker::builder(steps)
        .model(())
        .workers(Workers::Count(2))
        .deadline(Duration::from_secs(1))
        .build()?;
    let mut most = (0, 0);
    let mut hung = Vec::new();
    for (start, output) in (0..10_000).zip(invoker.map(0..10_000)) {
        match output {
            Ok(steps) => most = most.max((steps, start)),
            Err(error) if matches!(error.fault, Fault::TimedOut { .. }) => {
                println!("{error}");
                hung.push(start);
            }
            Err(error) => return Err(error.into()),
        }
    }
    println!("{} takes most steps: {}\n{}", most.1, most.0, invoker.finish()?);

    // It is a test, too.
    assert_eq!(hung, [0]);
    assert_eq!(most, (261, 6171));
    Ok(())
}

#[cfg(test)]
mod tests {
    invoker::init_in_tests!();

    #[test]
    fn it_runs() {
        super::main().expect("it runs");
    }
}
