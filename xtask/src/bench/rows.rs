//! What the benchmarks measured, as they tell it: a JSON object a line, a row of a table or a point of a plot.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::outcome::Error;

/// The variable that names the file to which benchmarks append their lines.
pub(super) const ROWS: &str = "BENCH_ROWS";

/// Something measured against a floor or a peer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) table: String,
    pub(super) name: String,
    pub(super) measured: String,
    pub(super) peer: String,
    pub(super) floor: String,
    /// The median of the passes, each told by its rounds; of something that is so or not there is none.
    pub(super) ratio: Option<f64>,
    /// The smallest and the largest of all rounds of all passes.
    pub(super) spread: Option<(f64, f64)>,
    pub(super) target: Option<String>,
    pub(super) met: Option<bool>,
}

impl Row {
    /// What it is about: rows of different passes and runs that have the same are the same.
    pub(super) fn key(&self) -> (&str, &str, &str) {
        (&self.table, &self.name, &self.peer)
    }
}

/// A point of a plot.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) plot: String,
    pub(super) series: String,
    pub(super) unit: String,
    pub(super) x: f64,
    pub(super) y: f64,
}

/// A run: what it ran on, and what came out.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Run {
    /// Name and value, in the order in which they are shown.
    pub(super) machine: Vec<(String, String)>,
    pub(super) rows: Vec<Row>,
    pub(super) points: Vec<Point>,
}

impl Run {
    /// Adds the lines that the benchmarks wrote.
    pub(super) fn add_lines(&mut self, text: &str) -> Result<(), Error> {
        for line in text.lines() {
            let value =
                serde_json::from_str(line).map_err(|error| Error::failed(format!("`{line}`: {error}")))?;
            self.add(&value)?;
        }
        Ok(())
    }

    fn add(&mut self, value: &Value) -> Result<(), Error> {
        let wrong = || Error::failed(format!("neither a row nor a point of a benchmark: {value}"));
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let number = |name: &str| value[name].as_f64().ok_or_else(wrong);
        if value["table"].is_string() && value["row"].is_string() {
            let spread = &value["spread"];
            self.rows.push(Row {
                table: text("table"),
                name: text("row"),
                measured: text("measured"),
                peer: text("peer"),
                floor: text("floor"),
                ratio: value["ratio"].as_f64(),
                spread: spread[0].as_f64().zip(spread[1].as_f64()),
                target: value["target"].as_str().map(str::to_owned),
                met: value["met"].as_bool(),
            });
        } else if value["plot"].is_string() {
            self.points.push(Point {
                plot: text("plot"),
                series: text("series"),
                unit: text("unit"),
                x: number("x")?,
                y: number("y")?,
            });
        } else {
            return Err(wrong());
        }
        Ok(())
    }

    pub(super) fn to_json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "table": row.table, "row": row.name, "measured": row.measured, "peer": row.peer, "floor": row.floor,
                "ratio": row.ratio, "spread": row.spread, "target": row.target, "met": row.met,
            })
        });
        let points = self.points.iter().map(|point| {
            json!({
                "plot": point.plot, "series": point.series, "unit": point.unit, "x": point.x, "y": point.y,
            })
        });
        json!({
            "machine": self.machine,
            "rows": rows.collect::<Vec<_>>(),
            "points": points.collect::<Vec<_>>(),
        })
    }

    /// Reads what [`to_json`](Self::to_json) wrote.
    pub(super) fn load(path: &Path) -> Result<Self, Error> {
        let failed = |error: &dyn std::fmt::Display| Error::failed(format!("{}: {error}", path.display()));
        let text = fs::read_to_string(path).map_err(|error| failed(&error))?;
        let json: Value = serde_json::from_str(&text).map_err(|error| failed(&error))?;
        let list = |name: &str| {
            json[name].as_array().ok_or_else(|| {
                failed(&format_args!(
                    "not a run of `cargo xtask bench --out`: no `{name}`"
                ))
            })
        };
        let mut run = Self::default();
        for pair in list("machine")? {
            if let (Some(name), Some(value)) = (pair[0].as_str(), pair[1].as_str()) {
                run.machine.push((name.to_owned(), value.to_owned()));
            }
        }
        for value in list("rows")?.iter().chain(list("points")?) {
            run.add(value)?;
        }
        Ok(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = r#"{"table":"Null op","row":"unordered","measured":"12.0 M/s","peer":"rayon","floor":"60.0 M/s","ratio":0.2,"spread":[0.18,0.21],"target":">= 0.2","met":true}
{"table":"Logs","row":"adds up","measured":"all","target":"yes","met":false}
{"plot":"Null op","series":"tasks","unit":"tasks/s over workers","x":2,"y":12e6}
"#;

    #[test]
    fn lines_become_rows_and_points_and_survive_a_file() {
        let mut run = Run::default();
        run.machine.push(("cores".to_owned(), "2".to_owned()));
        run.add_lines(LINES).expect("good lines");
        assert_eq!((run.rows.len(), run.points.len()), (2, 1));
        assert_eq!(run.rows[0].spread, Some((0.18, 0.21)));
        assert_eq!((run.rows[1].ratio, run.rows[1].met), (None, Some(false)));
        let path = std::env::temp_dir().join(format!("xtask-bench-rows-{}", std::process::id()));
        fs::write(&path, run.to_json().to_string()).expect("a temporary file");
        let read = Run::load(&path);
        fs::remove_file(&path).expect("it is there");
        assert_eq!(read.expect("what was written"), run);
    }

    #[test]
    fn what_is_neither_is_refused() {
        for line in ["{}", "12", "{", r#"{"plot":"a","series":"b","unit":"c","x":1}"#] {
            assert!(Run::default().add_lines(line).is_err(), "{line}");
        }
    }
}
