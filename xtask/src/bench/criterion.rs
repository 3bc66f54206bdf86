//! Rows of what criterion measured, from the estimates that it writes.
//!
//! Format: `<home>/<group>/<function>/<parameter>/new/estimates.json`, times in nanoseconds.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde_json::{Value, json};

use super::catalog::Comparison;
use crate::outcome::Error;

/// The variable that tells criterion where to write.
pub(super) const HOME: &str = "CRITERION_HOME";

/// The median of a benchmark, in nanoseconds, and the interval in which it lies with 95 % confidence.
struct Median {
    nanos: f64,
    low: f64,
    high: f64,
}

/// Removes what it wrote, so that what a benchmark does not measure any more is missing rather than old.
pub(super) fn forget(home: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(home) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::failed(format!(
            "cannot remove {}: {error}",
            home.display()
        ))),
        _ => Ok(()),
    }
}

/// A row for each comparison.
pub(super) fn rows(home: &Path, table: &str, comparisons: &[Comparison]) -> Result<Vec<Value>, Error> {
    comparisons
        .iter()
        .map(|comparison| row(home, table, comparison))
        .collect()
}

fn row(home: &Path, table: &str, comparison: &Comparison) -> Result<Value, Error> {
    let (ours, other) = (
        median(home, comparison.measured)?,
        median(home, comparison.against)?,
    );
    let ratio = ours.nanos / other.nanos;
    Ok(json!({
        "table": table, "row": comparison.row, "measured": told(ours.nanos),
        "peer": comparison.against, "floor": told(other.nanos), "ratio": ratio,
        "spread": [ours.low / other.high, ours.high / other.low],
        "target": comparison.at_most.map(|most| format!("<= {most}")),
        "met": comparison.at_most.map(|most| ratio <= most),
    }))
}

fn median(home: &Path, name: &str) -> Result<Median, Error> {
    let path = home.join(name).join("new").join("estimates.json");
    let failed = |what: &dyn std::fmt::Display| Error::failed(format!("{}: {what}", path.display()));
    let text = fs::read_to_string(&path).map_err(|error| failed(&error))?;
    let json: Value = serde_json::from_str(&text).map_err(|error| failed(&error))?;
    let median = &json["median"];
    let number = |value: &Value| value.as_f64().ok_or_else(|| failed(&"no median of criterion's"));
    Ok(Median {
        nanos: number(&median["point_estimate"])?,
        low: number(&median["confidence_interval"]["lower_bound"])?,
        high: number(&median["confidence_interval"]["upper_bound"])?,
    })
}

fn told(nanos: f64) -> String {
    match nanos {
        1e6.. => format!("{:.2} ms", nanos / 1e6),
        1e3.. => format!("{:.2} µs", nanos / 1e3),
        _ => format!("{nanos:.2} ns"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_the_ratio_of_two_medians_and_what_is_missing_is_named() {
        let home = std::env::temp_dir().join(format!("xtask-criterion-{}", std::process::id()));
        let write = |name: &str, nanos: f64| {
            let dir = home.join(name).join("new");
            fs::create_dir_all(&dir).expect("a temporary directory");
            let interval = json!({"lower_bound": nanos * 0.5, "upper_bound": nanos * 2.0});
            let text = json!({"median": {"point_estimate": nanos, "confidence_interval": interval}});
            fs::write(dir.join("estimates.json"), text.to_string()).expect("a temporary file");
        };
        write("g/ours", 3.0);
        write("g/floor", 2.0);
        let comparison = |against| Comparison {
            row: "ours",
            measured: "g/ours",
            against,
            at_most: Some(1.0),
        };
        let found = rows(&home, "t", &[comparison("g/floor")]);
        let missing = rows(&home, "t", &[comparison("g/none")]);
        forget(&home).expect("it is there");
        forget(&home).expect("nothing is left to remove");
        let old = rows(&home, "t", &[comparison("g/floor")]);
        assert!(old.is_err(), "an estimate is still there");
        let row = &found.expect("both are there")[0];
        assert_eq!((&row["ratio"], &row["met"]), (&json!(1.5), &json!(false)));
        assert_eq!(row["spread"], json!([0.375, 6.0]));
        assert!(missing.expect_err("one is not").to_string().contains("none"));
    }
}
