//! What drawing costs the leader: the processor time of one that shows bars ten times a second, less that of one that
//! shows none.
//!
//! `cargo xtask bench progress`, or `cargo bench -p progress --bench drawing -- [--quick]`. It is measured
//! once: the former runs this program several times, and merges what it tells.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use progress::{Bar, Counters, Outcome, Render, Reporter, Total};
use serde_json::json;

/// Of one core, in percent, for this many bars.
const TARGET: f64 = 1.0;
const BARS: u64 = 100;

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let long = if quick { 1 } else { 4 };
    let Some(drawing) = drawing(Duration::from_secs(long)) else {
        println!("not measured: this system's processor time is not known here");
        return;
    };
    let met = drawing.share <= TARGET;
    println!("{drawing}");
    println!(
        "{:.2} % of one core, <= {TARGET}  {}",
        drawing.share,
        if met { "met" } else { "MISSED" }
    );
    record(&json!({
        "table": "Progress", "row": format!("drawing {BARS} bars, percent of one core"),
        "measured": drawing.to_string(), "ratio": drawing.share, "target": format!("<= {TARGET}"), "met": met,
    }));
}

/// Appends a row to the file that `cargo xtask bench` names.
fn record(row: &serde_json::Value) {
    if let Some(path) = std::env::var_os("BENCH_ROWS") {
        let file = OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut file| writeln!(file, "{row}"))
            .expect("the file of rows can be written");
    }
}

/// What drawing took.
struct Drawing {
    /// Percent of one core.
    share: f64,
    per_second: f64,
    bytes: f64,
}

impl fmt::Display for Drawing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.share / 100.0 / self.per_second * 1e6;
        write!(
            f,
            "{BARS} bars that all move, on a terminal of {BARS} rows: {:.1} drawings a second of {:.0} µs and {:.1} KiB",
            self.per_second,
            micros,
            self.bytes / 1024.0
        )
    }
}

/// Counts what is drawn.
#[derive(Debug, Clone, Default)]
struct Meter {
    writes: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
}

impl Write for Meter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn drawing(long: Duration) -> Option<Drawing> {
    let meter = Meter::default();
    let without = show(Render::None, long, &meter)?;
    let with = show(Render::Bar, long, &meter)?;
    let writes = meter.writes.load(Ordering::Relaxed) as f64;
    Some(Drawing {
        share: with.saturating_sub(without).as_secs_f64() / long.as_secs_f64() * 100.0,
        per_second: writes / long.as_secs_f64(),
        bytes: meter.bytes.load(Ordering::Relaxed) as f64 / writes,
    })
}

/// The processor time of this process while it shows bars that all move between two drawings.
fn show(render: Render, long: Duration, meter: &Meter) -> Option<Duration> {
    let begun = Instant::now();
    let before = processor_time()?;
    let reporter = Reporter::builder()
        .render(render)
        .output(meter.clone())
        .columns(120)
        .rows(BARS as u16)
        .start()
        .expect("bars are built in");
    let bars: Vec<(Bar, Counters)> = (0..BARS)
        .map(|n| {
            let bar = reporter.bar(format!("bar {n}"), Total::Known(1_000_000));
            let counters = bar.counters();
            (bar, counters)
        })
        .collect();
    while begun.elapsed() < long {
        for (n, (_, counters)) in (1..).zip(&bars) {
            counters.counter(Outcome::Done).add(7 * n);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(reporter);
    Some(processor_time()?.saturating_sub(before))
}

#[cfg(unix)]
fn processor_time() -> Option<Duration> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).ok()
}

#[cfg(not(unix))]
fn processor_time() -> Option<Duration> {
    None
}
