//! Shared by the benchmarks of all crates, each of which includes this file: medians, and the rows that
//! `cargo xtask bench` collects.

use std::fs::OpenOptions;
use std::io::Write;

use serde_json::Value;

/// Appends a row of a table, or a point of a plot, to the file that `cargo xtask bench` names in `BENCH_ROWS`. Without the
/// variable it does nothing.
pub(crate) fn record(row: &Value) {
    if let Some(path) = std::env::var_os("BENCH_ROWS") {
        let file = OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut file| writeln!(file, "{row}"))
            .expect("the file of rows can be written");
    }
}

/// Returns the median of the values (the upper one of two middle values); NaN without values.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
