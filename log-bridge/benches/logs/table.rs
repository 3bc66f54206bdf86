//! Targets, what was measured, and the verdicts.

use std::fs::OpenOptions;
use std::io::Write;

use serde_json::{Value, json};

/// One line each.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Row>);

#[derive(Debug)]
struct Row {
    what: String,
    target: String,
    measured: String,
    verdict: &'static str,
    detail: String,
}

/// A ratio of two that took turns: the median of the rounds' ratios, and between what they lay.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ratio {
    median: f64,
    spread: [f64; 2],
}

impl Ratio {
    pub(crate) fn of(rounds: impl Iterator<Item = f64>) -> Self {
        let mut rounds: Vec<f64> = rounds.collect();
        rounds.sort_by(f64::total_cmp);
        Self {
            median: rounds[rounds.len() / 2],
            spread: [rounds[0], rounds[rounds.len() - 1]],
        }
    }
}

impl Table {
    /// A ratio that is to be at most `most`.
    pub(crate) fn at_most(&mut self, what: &str, most: f64, measured: Ratio, detail: String) {
        let target = format!("<= {most:.1}x");
        self.ratio(what, target, measured, Some(measured.median <= most), detail);
    }

    /// A ratio that is to be at least `least`.
    pub(crate) fn at_least(&mut self, what: &str, least: f64, measured: Ratio, detail: String) {
        let target = format!(">= {least:.1}x");
        self.ratio(what, target, measured, Some(measured.median >= least), detail);
    }

    /// Something that is so or not.
    pub(crate) fn holds(&mut self, what: &str, holds: bool, detail: String) {
        let measured = if holds { "yes" } else { "no" };
        record(&json!({
            "table": TABLE, "row": what.trim(), "measured": detail, "target": "yes", "met": holds,
        }));
        self.push(what, "yes".into(), measured.into(), verdict(Some(holds)), detail);
    }

    /// Something without a target.
    pub(crate) fn info(&mut self, what: &str, measured: Ratio, detail: String) {
        self.ratio(what, String::new(), measured, None, detail);
    }

    fn ratio(&mut self, what: &str, target: String, ratio: Ratio, met: Option<bool>, detail: String) {
        record(&json!({
            "table": TABLE, "row": what, "measured": detail, "ratio": ratio.median, "spread": ratio.spread,
            "target": met.map(|_| target.trim_end_matches('x')), "met": met,
        }));
        self.push(
            what,
            target,
            format!("{:.2}x", ratio.median),
            verdict(met),
            detail,
        );
    }

    /// A bar of the plot that the report draws.
    pub(crate) fn bar(&self, name: &str, nanos: f64) {
        record(
            &json!({"plot": "What an event costs the worker", "series": name, "unit": "ns", "x": 0, "y": nanos}),
        );
    }

    fn push(&mut self, what: &str, target: String, measured: String, verdict: &'static str, detail: String) {
        self.0.push(Row {
            what: what.into(),
            target,
            measured,
            verdict,
            detail,
        });
    }

    pub(crate) fn print(&self) {
        println!(
            "{:58} {:>8} {:>9}  {:8} how",
            "what", "target", "measured", "verdict"
        );
        for row in &self.0 {
            println!(
                "{:58} {:>8} {:>9}  {:8} {}",
                row.what, row.target, row.measured, row.verdict, row.detail
            );
        }
    }
}

fn verdict(met: Option<bool>) -> &'static str {
    match met {
        Some(true) => "met",
        Some(false) => "MISSED",
        None => "",
    }
}

const TABLE: &str = "Log events";

/// Appends a row or a point of a plot to the file that `cargo xtask bench --out` names.
fn record(line: &Value) {
    if let Some(path) = std::env::var_os("BENCH_ROWS") {
        let file = OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut file| writeln!(file, "{line}"))
            .expect("the file of rows can be written");
    }
}
