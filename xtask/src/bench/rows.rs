//! The results that benchmarks report: a JSON object a line, each a row of a table or a point of a plot.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The variable with the file to which benchmarks append their lines.
pub(super) const ROWS: &str = "BENCH_ROWS";

/// A measurement against a floor or a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) table: String,
    #[serde(rename = "row")]
    pub(super) name: String,
    #[serde(default)]
    pub(super) measured: String,
    #[serde(default)]
    pub(super) peer: String,
    #[serde(default)]
    pub(super) floor: String,
    /// The median of the passes, each the median of its rounds; `None` for a yes or no.
    pub(super) ratio: Option<f64>,
    /// The smallest and the largest of all rounds of all passes.
    pub(super) spread: Option<(f64, f64)>,
    pub(super) target: Option<String>,
    pub(super) met: Option<bool>,
}

impl Row {
    /// Identifies the row in different passes and runs.
    pub(super) fn key(&self) -> (&str, &str, &str) {
        (&self.table, &self.name, &self.peer)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Point {
    pub(super) plot: String,
    pub(super) series: String,
    pub(super) unit: String,
    pub(super) x: f64,
    pub(super) y: f64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Row(Row),
    Point(Point),
}

/// The results of a run, and the machine that it ran on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    /// Name and value, in the order in which they are shown.
    pub(super) machine: Vec<(String, String)>,
    pub(super) rows: Vec<Row>,
    pub(super) points: Vec<Point>,
}

impl Run {
    pub(super) fn parse_lines(text: &str) -> Result<Self> {
        let mut run = Self::default();
        for line in text.lines() {
            let context = || format!("neither a row nor a point of a benchmark: {line}");
            match serde_json::from_str(line).with_context(context)? {
                Line::Row(row) => run.rows.push(row),
                Line::Point(point) => run.points.push(point),
            }
        }
        Ok(run)
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.rows.extend(other.rows);
        self.points.extend(other.points);
    }

    /// Reads a bench.json.
    pub(super) fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let context = || format!("{} is no bench.json of `cargo xtask bench --out`", path.display());
        serde_json::from_str(&text).with_context(context)
    }
}

/// Sorts the items by a value and returns the middle one.
pub(super) fn median<T>(items: &mut [T], value: impl Fn(&T) -> f64) -> Option<&T> {
    items.sort_by(|a, b| value(a).total_cmp(&value(b)));
    items.get(items.len() / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_rows_and_points_and_survive_json() {
        let mut run = Run::parse_lines(
            r#"{"table":"Null op","row":"a","measured":"12 M/s","ratio":0.2,"spread":[0.18,0.21],"target":null,"met":true}
{"table":"Logs","row":"adds up","target":"yes","met":false}
{"plot":"Null op","series":"tasks","unit":"tasks/s over workers","x":2,"y":12e6}"#,
        )
        .expect("good lines");
        run.machine.push(("cores".to_owned(), "2".to_owned()));
        assert_eq!((run.rows.len(), run.points.len()), (2, 1));
        assert_eq!(run.rows[0].spread, Some((0.18, 0.21)));
        assert_eq!((run.rows[1].ratio, run.rows[1].met), (None, Some(false)));
        let json = serde_json::to_string(&run).expect("numbers and strings");
        assert_eq!(serde_json::from_str::<Run>(&json).expect("what was written"), run);
    }

    #[test]
    fn other_lines_are_refused() {
        for line in ["{}", "12", "{", r#"{"plot":"a","series":"b","unit":"c","x":1}"#] {
            assert!(Run::parse_lines(line).is_err(), "{line}");
        }
    }
}
