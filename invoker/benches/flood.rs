//! This workspace's side of the log flood of `cargo xtask bench peers`: two workers log as fast as they can, and the leader
//! formats the events and discards the text. Prints one line of JSON.
//!
//! `cargo bench -p invoker --bench flood -- RECORDS`, where RECORDS is the number of records per worker.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use invoker::Invoker;
use serde_json::json;

const WORKERS: usize = 2;

#[derive(Parser)]
struct Args {
    /// Number of records per worker
    records: u64,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// Waits until both workers have started, then logs `records` records. Returns the seconds that logging took.
fn flood(_: &(), (barrier, records): (PathBuf, u64)) -> Result<f64, String> {
    wait_for_all(&barrier).map_err(|error| format!("{}: {error}", barrier.display()))?;
    let started = Instant::now();
    for number in 0..records {
        tracing::info!("record {number} of {records}");
    }
    Ok(started.elapsed().as_secs_f64())
}

/// Each worker creates a file in the directory, and waits for those of the others.
fn wait_for_all(barrier: &Path) -> io::Result<()> {
    std::fs::write(barrier.join(std::process::id().to_string()), "")?;
    while std::fs::read_dir(barrier)?.count() < WORKERS {
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    invoker::init();
    let Args { records, .. } = Args::parse();
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(io::sink)
        .init();
    let barrier = tempfile::tempdir()?;
    let invoker = Invoker::builder(flood).model(()).workers(WORKERS).build()?;
    let started = Instant::now();
    let mut slower: f64 = 0.0;
    for seconds in invoker.map(vec![(barrier.path().to_owned(), records); WORKERS]) {
        slower = slower.max(seconds??);
    }
    // `finish` waits for records in flight.
    let logs = invoker.finish()?.logs.ok_or("the report has no log counts")?;
    let arrived = started.elapsed().as_secs_f64();
    println!(
        "{}",
        json!({
            "logged": slower, "arrived": arrived, "delivered": logs.delivered, "emitted": logs.emitted,
        })
    );
    Ok(())
}
