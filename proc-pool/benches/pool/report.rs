//! The report: a row for each measurement, with its baseline, the ratio, the target and a verdict.

use std::fmt::Display;

use serde_json::json;

use crate::rounds::Samples;
use crate::rows::record;

/// The limit that a ratio must keep.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// The row is for information.
    None,
}

/// Prints rows as they come, and counts the targets that were met and missed.
#[derive(Debug, Default)]
pub(crate) struct Report {
    met: usize,
    missed: usize,
    heading: String,
}

impl Report {
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        println!("{} workers on {cores} cores{}", crate::WORKERS, load());
        Self::default()
    }

    pub(crate) fn heading(&mut self, text: &str) {
        println!("\n{text}");
        text.clone_into(&mut self.heading);
    }

    /// Adds a row with the baseline and its ratio to it; the median of the ratio is compared with the target.
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

    /// Adds a point of a plot that `cargo xtask bench` draws.
    pub(crate) fn point(&self, series: &str, unit: &str, x: usize, y: &Samples) {
        record(&json!({"plot": self.heading, "series": series, "unit": unit, "x": x, "y": y.median()}));
    }

    /// Adds a row without a baseline.
    pub(crate) fn info(&self, name: &str, measured: impl Display) {
        record(&json!({"table": self.heading, "row": name, "measured": measured.to_string()}));
        println!("  {name:<40} {measured}");
    }

    pub(crate) fn skipped(&self, name: &str, why: impl Display) {
        println!("  {name:<40} skipped: {why}");
    }

    /// Counts a target and returns the verdict.
    fn judge(&mut self, met: bool, target: impl Display) -> String {
        match met {
            true => self.met += 1,
            false => self.missed += 1,
        }
        format!("{target}  {}", if met { "met" } else { "MISSED" })
    }

    pub(crate) fn close(self) {
        println!("\n{} targets met, {} missed{}", self.met, self.missed, load());
    }
}

/// Returns the load of the machine as text, where the system reports it.
fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    match load.split(' ').next() {
        Some(minute) if !minute.is_empty() => format!("; load in the last minute: {minute}"),
        _ => String::new(),
    }
}

/// Formats a ratio with about three digits.
fn short(value: f64) -> String {
    match value {
        ..10.0 => format!("{value:.3}"),
        ..1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Formats tasks per second.
pub(crate) fn rate(per_second: f64) -> String {
    match per_second {
        1e6.. => format!("{:.2} M/s", per_second / 1e6),
        1e3.. => format!("{:.1} k/s", per_second / 1e3),
        _ => format!("{per_second:.1} /s"),
    }
}

/// Formats nanoseconds.
pub(crate) fn span(nanos: f64) -> String {
    match nanos {
        1e9.. => format!("{:.2} s", nanos / 1e9),
        1e6.. => format!("{:.2} ms", nanos / 1e6),
        1e3.. => format!("{:.2} µs", nanos / 1e3),
        _ => format!("{nanos:.0} ns"),
    }
}
