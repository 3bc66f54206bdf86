//! The rows of the benchmark: targets, measurements and verdicts.

use serde_json::json;

use crate::rows::record;

/// The rows, printed one line each.
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

/// The ratio of two cases that took turns: the median over the rounds, and the smallest and largest.
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
    /// Adds a ratio with the target of at most `most`.
    pub(crate) fn at_most(&mut self, what: &str, most: f64, measured: Ratio, detail: String) {
        let target = format!("<= {most:.1}x");
        self.ratio(what, target, measured, Some(measured.median <= most), detail);
    }

    /// Adds a ratio with the target of at least `least`.
    pub(crate) fn at_least(&mut self, what: &str, least: f64, measured: Ratio, detail: String) {
        let target = format!(">= {least:.1}x");
        self.ratio(what, target, measured, Some(measured.median >= least), detail);
    }

    /// Adds a condition with the target of being true.
    pub(crate) fn holds(&mut self, what: &str, holds: bool, detail: String) {
        let measured = if holds { "yes" } else { "no" };
        record(&json!({
            "table": TABLE, "row": what.trim(), "measured": detail, "target": "yes", "met": holds,
        }));
        self.push(what, "yes".into(), measured.into(), verdict(Some(holds)), detail);
    }

    /// Adds a ratio without a target.
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

    /// Adds a bar to the plot of the report.
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
