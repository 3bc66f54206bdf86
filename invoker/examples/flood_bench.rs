//! This workspace's side of the log flood of `cargo xtask bench peers`: two workers log as fast as they can, and the
//! leader formats what arrives and writes it nowhere. Told as one line of JSON.
//!
//! `cargo run --release -p invoker --example flood_bench -- RECORDS`, for each worker.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use invoker::{Invoker, Workers};
use serde_json::json;

const WORKERS: usize = 2;

/// Logs so many records as soon as every worker is at the meeting place; tells the seconds that it took.
fn flood(_: &(), (meeting, records): (PathBuf, u64)) -> Result<f64, String> {
    meet(&meeting).map_err(|error| format!("{}: {error}", meeting.display()))?;
    let begun = Instant::now();
    for number in 0..records {
        tracing::info!("record {number} of {records}");
    }
    Ok(begun.elapsed().as_secs_f64())
}

fn meet(meeting: &Path) -> io::Result<()> {
    std::fs::write(meeting.join(std::process::id().to_string()), "")?;
    while std::fs::read_dir(meeting)?.count() < WORKERS {
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    invoker::init();
    let records: u64 = std::env::args().nth(1).ok_or("how many records?")?.parse()?;
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(io::sink)
        .init();
    let meeting = tempfile::tempdir()?;
    let invoker = Invoker::builder(flood)
        .model(())
        .workers(Workers::Count(WORKERS))
        .build()?;
    let begun = Instant::now();
    let mut slower: f64 = 0.0;
    for seconds in invoker.map(vec![(meeting.path().to_owned(), records); WORKERS]) {
        slower = slower.max(seconds??);
    }
    // It has waited for what was still on the way.
    let logs = invoker.finish()?.logs.ok_or("processes have logs")?;
    let arrived = begun.elapsed().as_secs_f64();
    println!(
        "{}",
        json!({
            "logged": slower, "arrived": arrived, "delivered": logs.delivered, "emitted": logs.emitted,
        })
    );
    Ok(())
}
