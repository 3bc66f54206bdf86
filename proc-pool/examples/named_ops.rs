//! A leader whose workers run another program, `named_ops_worker`, from the same directory.
//!
//! ```sh
//! cargo build -p proc-pool --example named_ops_worker
//! cargo run -p proc-pool --example named_ops
//! ```

use std::env;
use std::path::PathBuf;

use proc_pool::{Builder, EntryPoint};

/// Returns the path of the worker program. Both programs are installed in the same directory.
fn worker() -> Result<PathBuf, Box<dyn std::error::Error>> {
    let name = format!("named_ops_worker{}", env::consts::EXE_SUFFIX);
    let worker = env::current_exe()?.with_file_name(name);
    match worker.exists() {
        true => Ok(worker),
        false => Err("build the worker first: cargo build -p proc-pool --example named_ops_worker")?,
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // No `init()`: workers do not run this `main`.
    let worker = worker()?;
    let squares = Builder::new().build(EntryPoint::named::<_, u64, u64>(&worker, "square"), &())?;
    let sum: u64 = squares.map(0..100).sum::<Result<u64, _>>()?;
    let shout = Builder::new().build(EntryPoint::named::<_, String, String>(&worker, "shout"), &())?;
    let words = ["hello", "worker"].map(str::to_owned);
    let words: Vec<String> = shout.map(words).collect::<Result<_, _>>()?;
    println!("{sum} {}", words.join(" "));

    // This example is a test, too.
    assert_eq!(sum, (0..100).map(|n| n * n).sum::<u64>());
    assert_eq!(words, ["HELLO", "WORKER"]);
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn example_succeeds() {
        super::main().expect("the example succeeds");
    }
}
