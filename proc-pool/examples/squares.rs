//! Worker processes compute squares of numbers; one number crashes its worker.
//!
//! `cargo run -p proc-pool --example squares`

use proc_pool::{Builder, Fault, Workers};

fn square(n: u64) -> u64 {
    if n == 13 {
        std::process::abort();
    }
    n * n
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    proc_pool::init();
    let pool = Builder::new().workers(Workers::Count(2)).build_op(square)?;
    let mut sum = 0;
    for result in pool.map(0..100) {
        match result {
            Ok(square) => sum += square,
            Err(error) if matches!(error.fault, Fault::WorkerDied { .. }) => eprintln!("{error}"),
            Err(error) => return Err(error.into()),
        }
    }
    println!("the sum of the others is {sum}");
    // This example is a test, too: of workers that run an example.
    assert_eq!(sum, (0..100).filter(|n| *n != 13).map(|n| n * n).sum::<u64>());
    Ok(())
}

#[cfg(test)]
mod tests {
    proc_pool::init_in_tests!();

    #[test]
    fn example_succeeds() {
        super::main().expect("the example succeeds");
    }
}
