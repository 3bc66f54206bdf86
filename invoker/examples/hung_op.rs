//! An op that never returns for one input. Its worker is killed at the deadline, and the run goes on.
//!
//! `cargo run -p invoker --example hung_op`

use std::time::Duration;

use invoker::{Fault, Invoker, Processes};

/// Returns the number of steps of the Collatz sequence from `start` to 1. From 0 it never ends.
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
        .workers(2)
        .executor(Processes::new().deadline(Duration::from_secs(1)))
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
    println!(
        "{} takes the most steps: {}\n{}",
        most.1,
        most.0,
        invoker.finish()?
    );

    // This example is also a test.
    assert_eq!(hung, [0]);
    assert_eq!(most, (261, 6171));
    Ok(())
}

#[cfg(test)]
mod tests {
    invoker::init_in_tests!();

    #[test]
    fn runs_to_the_end() {
        super::main().expect("no error");
    }
}
