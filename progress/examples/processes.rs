//! Bars over rayon's threads and over child processes. One child is killed, another one does the rest of its tasks.

use std::error::Error;
use std::process::{Child, Command};
use std::time::Duration;

use progress::{Bar, CountersHandle, Outcome, Reporter, Source, Total};
use rayon::prelude::*;

/// Tasks of each child.
const TASKS: u64 = 200;

fn main() -> Result<(), Box<dyn Error>> {
    if let Ok(handle) = std::env::var("BAR") {
        return work(&handle.parse()?, std::env::var("TASKS")?.parse()?);
    }
    let reporter = Reporter::builder().start()?;
    let threads = reporter.bar("threads", Total::Known(1_000));
    let children = reporter.bar("children", Total::Known(3 * TASKS));
    let start = |n| spawn(&children, &format!("child {n}"), TASKS);
    let (victim, mut process) = start(0)?;
    let mut running = vec![start(1)?, start(2)?];
    (0..1_000).into_par_iter().for_each(|_| {
        std::thread::sleep(Duration::from_micros(500)); // the task
        threads.inc(Outcome::Done);
    });
    while victim.counts().done == 0 {
        std::thread::yield_now();
    }
    process.kill()?;
    assert!(!process.wait()?.success(), "it had tasks left");
    running.push(spawn(&children, "child 0, again", TASKS - victim.counts().done)?);
    victim.retire(); // the bar keeps its counts
    for (source, mut process) in running {
        assert!(process.wait()?.success());
        source.retire();
    }
    assert_eq!(threads.counts().done, 1_000);
    assert_eq!(children.counts().done, 3 * TASKS);
    reporter.finish();
    Ok(())
}

/// Starts a child for this many tasks, with a line of its own below the bar.
fn spawn(bar: &Bar, label: &str, tasks: u64) -> Result<(Source, Child), Box<dyn Error>> {
    let (source, handle) = bar.labeled_remote_counters(label)?;
    let mut child = Command::new(std::env::current_exe()?);
    child.envs([("BAR", handle.to_string()), ("TASKS", tasks.to_string())]);
    Ok((source, child.spawn()?))
}

/// The child.
fn work(handle: &CountersHandle, tasks: u64) -> Result<(), Box<dyn Error>> {
    let counters = handle.connect()?;
    for _ in 0..tasks {
        std::thread::sleep(Duration::from_millis(10)); // the task
        counters.counter(Outcome::Done).inc();
    }
    Ok(())
}
