//! A leader whose workers are another program, `named_ops_worker`, that stands beside it.
//!
//! ```sh
//! cargo build -p proc-pool --example named_ops_worker
//! cargo run -p proc-pool --example named_ops
//! ```

use std::env;
use std::path::PathBuf;

use proc_pool::Builder;

/// Beside this program, as both are installed.
fn worker() -> Result<PathBuf, Box<dyn std::error::Error>> {
    let name = format!("named_ops_worker{}", env::consts::EXE_SUFFIX);
    let worker = env::current_exe()?.with_file_name(name);
    match worker.exists() {
        true => Ok(worker),
        false => Err("build the worker first: cargo build -p proc-pool --example named_ops_worker")?,
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // No `init()`: nobody runs this `main` again.
    let worker = worker()?;
    let squares = Builder::new().build_named::<u64, u64, _>(&worker, "square", &())?;
    let sum: u64 = squares.map(0..100).sum::<Result<u64, _>>()?;
    let shout = Builder::new().build_named::<String, String, _>(&worker, "shout", &())?;
    let words = ["hello", "worker"].map(str::to_owned);
    let words: Vec<String> = shout.map(words).collect::<Result<_, _>>()?;
    println!("{sum} {}", words.join(" "));

    // It is a test, too.
    assert_eq!(sum, (0..100).map(|n| n * n).sum::<u64>());
    assert_eq!(words, ["HELLO", "WORKER"]);
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_runs() {
        super::main().expect("it runs");
    }
}
