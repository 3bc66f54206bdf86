//! A child process logs in spans and floods its ring; this process prints it, kills the child, and shows its last words.
//!
//! `cargo run -p log-bridge --example two_processes`

use std::time::{Duration, Instant};
use std::{env, error::Error, process::Command};

use log_bridge::{Collector, Overflow, RemovedSource, SourceHandle, SourceOptions};

const LOGS: &str = "LOG_BRIDGE_EXAMPLE";
const FLOOD: u64 = 10_000;

fn child(source: &str) -> Result<(), Box<dyn Error>> {
    let builder = source.parse::<SourceHandle>()?.connect()?;
    let logs = builder.overflow(Overflow::Collapse).install()?;
    let _request = tracing::info_span!("request", user = 7).entered();
    (0..FLOOD).for_each(|item| tracing::info!(item, "scored"));
    logs.flush(Duration::from_secs(60))?; // the summary of what had no room
    tracing::error!("out of ideas");
    std::thread::sleep(Duration::from_secs(60)); // until it is killed
    Ok(())
}

fn parent() -> Result<RemovedSource, Box<dyn Error>> {
    let subscriber = tracing_subscriber::fmt().with_timer(log_bridge::EmissionTime);
    let subscriber = subscriber.with_test_writer().finish();
    let logs = Collector::new().dispatch(subscriber.into());
    let logs = logs.spawn(Duration::from_millis(25))?;
    let source = logs.open_with(7, SourceOptions::new().ring_bytes(64 << 10))?;
    let mut child = Command::new(env::current_exe()?)
        .env(LOGS, source.to_string())
        .spawn()?;
    let start = Instant::now();
    while logs.tally().level(log_bridge::Level::ERROR).delivered == 0 && start.elapsed().as_secs() < 60 {
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill()?;
    child.wait()?;
    let removed = logs.remove(7, Duration::from_secs(60))?;
    println!("{} ({} in summaries)", removed.tally, removed.tally.collapsed());
    println!("last words: {}", removed.last_records.last().ok_or("none")?);
    Ok(removed)
}

#[cfg_attr(test, test)]
fn main() -> Result<(), Box<dyn Error>> {
    if let Ok(source) = env::var(LOGS) {
        return child(&source);
    }
    let removed = parent()?;
    let (counts, last) = (removed.tally.total(), removed.last_records.last());
    assert_eq!(counts.emitted, FLOOD + 1);
    assert_eq!(counts.emitted, counts.delivered + counts.dropped);
    assert_eq!(removed.tally.collapsed(), counts.dropped);
    assert!(
        last.is_some_and(|last| last.ends_with("out of ideas")),
        "{last:?}"
    );
    Ok(())
}
