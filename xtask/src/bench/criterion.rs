//! Rows of what criterion measured, from the estimates that it writes.
//!
//! Format: `<home>/<group>/<function>/<parameter>/new/estimates.json`, times in nanoseconds.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::catalog::Comparison;
use super::rows::Row;

/// The variable with the directory that criterion writes into.
pub(super) const HOME: &str = "CRITERION_HOME";

/// The arguments of a benchmark of criterion.
pub(super) fn args(quick: bool) -> impl Iterator<Item = &'static str> {
    let effort = match quick {
        true => "--sample-size 10 --warm-up-time 0.05 --measurement-time 0.1",
        false => "--sample-size 20 --warm-up-time 0.3 --measurement-time 0.6",
    };
    ["--noplot"].into_iter().chain(effort.split(' '))
}

/// The median of a benchmark in nanoseconds, with its interval of 95 % confidence.
struct Median {
    nanos: f64,
    low: f64,
    high: f64,
}

/// Returns the row of a comparison.
pub(super) fn row(home: &Path, table: &str, comparison: &Comparison) -> Result<Row> {
    let ours = median(home, &comparison.measured)?;
    let other = median(home, &comparison.against)?;
    let ratio = ours.nanos / other.nanos;
    Ok(Row {
        table: table.to_owned(),
        name: comparison.row.clone(),
        measured: shown(ours.nanos),
        peer: comparison.against.clone(),
        floor: shown(other.nanos),
        ratio: Some(ratio),
        spread: Some((ours.low / other.high, ours.high / other.low)),
        target: comparison.at_most.map(|most| format!("<= {most}")),
        met: comparison.at_most.map(|most| ratio <= most),
    })
}

fn median(home: &Path, name: &str) -> Result<Median> {
    let path = home.join(name).join("new/estimates.json");
    let read = || -> Result<Median> {
        let json: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
        let (median, interval) = (&json["median"], &json["median"]["confidence_interval"]);
        let number = |value: &Value| value.as_f64().context("no median");
        Ok(Median {
            nanos: number(&median["point_estimate"])?,
            low: number(&interval["lower_bound"])?,
            high: number(&interval["upper_bound"])?,
        })
    };
    read().with_context(|| format!("cannot read criterion's {}", path.display()))
}

fn shown(nanos: f64) -> String {
    match nanos {
        1e6.. => format!("{:.2} ms", nanos / 1e6),
        1e3.. => format!("{:.2} µs", nanos / 1e3),
        _ => format!("{nanos:.2} ns"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn row_is_the_ratio_of_two_medians_and_a_missing_one_is_named() {
        let sh = xshell::Shell::new().expect("a shell");
        let home = sh.create_temp_dir().expect("a temporary directory");
        for (name, nanos) in [("ours", 3.0), ("floor", 2.0)] {
            let interval = json!({"lower_bound": nanos * 0.5, "upper_bound": nanos * 2.0});
            let text = json!({"median": {"point_estimate": nanos, "confidence_interval": interval}});
            let path = home.path().join(format!("g/{name}/new/estimates.json"));
            sh.write_file(path, text.to_string()).expect("a temporary file");
        }
        let comparison = |against: &str| Comparison {
            row: "ours".to_owned(),
            measured: "g/ours".to_owned(),
            against: against.to_owned(),
            at_most: Some(1.0),
        };
        let found = row(home.path(), "t", &comparison("g/floor")).expect("both are there");
        assert_eq!((found.ratio, found.met), (Some(1.5), Some(false)));
        assert_eq!(found.spread, Some((0.375, 6.0)));
        let error = row(home.path(), "t", &comparison("g/none")).expect_err("one is missing");
        assert!(error.to_string().contains("none"), "{error}");
    }
}
