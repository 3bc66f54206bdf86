//! The table: one row a measure, with what it is compared with, the ratio, the target and a verdict.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;

use serde_json::{Value, json};

use crate::rounds::Samples;

/// What is promised of a ratio.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// Told for orientation.
    None,
}

/// Prints rows as they come, and counts what was missed.
#[derive(Debug, Default)]
pub(crate) struct Report {
    met: usize,
    missed: usize,
    heading: String,
}

impl Report {
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        println!("{} workers on {cores} cores{}", crate::WORKERS, others());
        Self::default()
    }

    pub(crate) fn heading(&mut self, text: &str) {
        println!("\n{text}");
        text.clone_into(&mut self.heading);
    }

    /// A ratio, its rounds' median judged.
    pub(crate) fn row(
        &mut self,
        name: &str,
        measured: impl Display,
        (peer, floor): (&str, impl Display),
        ratio: &Samples,
        target: Target,
    ) {
        let median = ratio.median();
        let (low, high) = ratio.spread();
        let judged = match target {
            Target::AtLeast(limit) => Some((format!(">= {limit}"), median >= limit)),
            Target::AtMost(limit) => Some((format!("<= {limit}"), median <= limit)),
            Target::None => None,
        };
        record(&json!({
            "table": self.heading, "row": name, "measured": measured.to_string(),
            "peer": peer, "floor": floor.to_string(), "ratio": median, "spread": [low, high],
            "target": judged.as_ref().map(|(target, _)| target), "met": judged.as_ref().map(|(_, met)| met),
        }));
        let verdict = judged.map_or(String::new(), |(target, met)| self.judge(met, target));
        let against = format!("{peer} {floor}");
        let spread = format!("[{} .. {}]", short(low), short(high));
        println!(
            "  {name:<40} {measured:>22}  vs {against:<34} {:>7}x {spread:<18} {verdict}",
            short(median)
        );
    }

    /// A point of a plot that the report draws.
    pub(crate) fn point(&self, series: &str, unit: &str, x: usize, y: &Samples) {
        record(&json!({"plot": self.heading, "series": series, "unit": unit, "x": x, "y": y.median()}));
    }

    /// Something without a floor or a peer.
    pub(crate) fn info(&self, name: &str, measured: impl Display) {
        record(&json!({"table": self.heading, "row": name, "measured": measured.to_string()}));
        println!("  {name:<40} {measured}");
    }

    pub(crate) fn skipped(&self, name: &str, why: impl Display) {
        println!("  {name:<40} skipped: {why}");
    }

    fn judge(&mut self, met: bool, target: impl Display) -> String {
        match met {
            true => self.met += 1,
            false => self.missed += 1,
        }
        format!("{target}  {}", if met { "met" } else { "MISSED" })
    }

    pub(crate) fn close(self) {
        println!("\n{} targets met, {} missed{}", self.met, self.missed, others());
    }
}

/// Appends a row or a point of a plot to the file that `cargo xtask bench --out` names.
fn record(line: &Value) {
    if let Some(path) = std::env::var_os("BENCH_ROWS") {
        let file = OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut file| writeln!(file, "{line}"))
            .expect("the file of rows can be written");
    }
}

/// How busy the machine is or was.
fn others() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    match load.split(' ').next() {
        Some(minute) if !minute.is_empty() => format!("; load in the last minute: {minute}"),
        _ => String::new(),
    }
}

/// Three digits or so.
fn short(value: f64) -> String {
    match value {
        ..10.0 => format!("{value:.3}"),
        ..1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Tasks per second.
pub(crate) fn rate(per_second: f64) -> String {
    match per_second {
        1e6.. => format!("{:.2} M/s", per_second / 1e6),
        1e3.. => format!("{:.1} k/s", per_second / 1e3),
        _ => format!("{per_second:.1} /s"),
    }
}

/// Nanoseconds.
pub(crate) fn span(nanos: f64) -> String {
    match nanos {
        1e9.. => format!("{:.2} s", nanos / 1e9),
        1e6.. => format!("{:.2} ms", nanos / 1e6),
        1e3.. => format!("{:.2} µs", nanos / 1e3),
        _ => format!("{nanos:.0} ns"),
    }
}
