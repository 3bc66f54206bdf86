//! `cargo xtask bench peers`: pools of Python and this one do the same tasks with 2 workers, in turns.
//!
//! The peers' packages are installed into an environment under the target directory, in fixed versions. What can't be
//! installed or run is skipped with the reason.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::options::{Effort, Options};
use super::rows::Run;
use crate::cmd::Cmd;
use crate::outcome::Error;
use crate::workspace::Workspace;

/// A pool as the script knows it, with the packages that it needs besides [`EVERYBODY`].
const PEERS: &[(&str, &[&str])] = &[
    ("ProcessPoolExecutor, fork", &[]),
    ("ProcessPoolExecutor, spawn", &[]),
    ("joblib", &["joblib==1.6.0"]),
];
const EVERYBODY: &str = "numpy==2.2.6";

/// Peers that are not measured, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    ("mpire", "its run of these tasks did not come to an end"),
    (
        "ray, dask.distributed, ipyparallel, torch.multiprocessing, parinvoke",
        "not compared so far",
    ),
];

/// A measure: how the script calls it, the table, how it is told, and which way is better.
const MEASURES: &[(&str, &str, Unit)] = &[
    (
        "start",
        "start of a pool of 2, until two tasks are done",
        Unit::Seconds,
    ),
    ("batched", "null op, best batches", Unit::Rate),
    ("single", "null op, one a batch", Unit::Rate),
    (
        "share",
        "sharing a model, until both workers have read it",
        Unit::Seconds,
    ),
    ("pss", "the same: sum of PSS", Unit::Bytes),
    (
        "peak",
        "the same: sum of peak RSS, shared pages once for each",
        Unit::Bytes,
    ),
];

#[derive(Clone, Copy, Debug)]
enum Unit {
    Seconds,
    Rate,
    Bytes,
}

impl Unit {
    fn told(self, value: f64) -> String {
        match self {
            Self::Seconds => format!("{:.1} ms", value * 1e3),
            Self::Rate => format!("{:.1} k/s", value / 1e3),
            Self::Bytes => format!("{:.0} MiB", value / f64::from(1 << 20)),
        }
    }
}

/// Measures all that can be measured here, and adds rows.
pub(super) fn measure(options: &Options, run: &mut Run) -> Result<(), Error> {
    let workspace = Workspace::load()?;
    let dir = workspace.target.join("bench-peers");
    let Some(python) = environment(&dir) else {
        println!("peers skipped: no python3 with venv, or no {EVERYBODY}");
        return Ok(());
    };
    let script = dir.join("peers.py");
    fs::write(&script, include_str!("peers.py"))
        .map_err(|error| Error::failed(format!("cannot write {}: {error}", script.display())))?;
    let (rounds, bytes) = match options.effort {
        Effort::Quick => (1, 256 << 20),
        Effort::Full => (3, 1 << 30),
    };
    let bytes = options.bytes.unwrap_or(bytes).to_string();
    for (name, why) in LEFT_OUT {
        println!("{name} skipped: {why}");
    }
    for (name, packages) in PEERS {
        if !packages.is_empty() && !installed(&python, packages) {
            println!("{name} skipped: {} can't be installed", packages.join(", "));
            continue;
        }
        println!("{name}");
        let mut pairs = Vec::new();
        for _ in 0..rounds {
            let theirs = Cmd::new(&python)
                .args([script.as_os_str()])
                .args([name, bytes.as_str()])
                .env("OMP_NUM_THREADS", "1")
                .stdout_quietly();
            let theirs = theirs.and_then(|text| serde_json::from_str::<Value>(text.lines().last()?).ok());
            let Some(theirs) = theirs else {
                println!("{name} skipped: it failed");
                break;
            };
            pairs.push((ours(&bytes)?, theirs));
        }
        if !pairs.is_empty() {
            let lines: Vec<String> = rows(name, &pairs).iter().map(Value::to_string).collect();
            run.add_lines(&lines.join("\n"))?;
        }
    }
    for row in run.rows.iter().filter(|row| row.table == TABLE) {
        let ratio = row.ratio.map_or(String::new(), |ratio| format!("{ratio:.2}x"));
        println!(
            "{:56} {:>34}  vs {:27} {:>48} {ratio:>9}",
            row.name, row.measured, row.peer, row.floor
        );
    }
    Ok(())
}

const TABLE: &str = "Pools of Python, 2 workers";

/// The rows of a peer; a ratio is ours over theirs, of a round.
fn rows(peer: &str, pairs: &[(Value, Value)]) -> Vec<Value> {
    let mut rows = Vec::new();
    for (key, name, unit) in MEASURES {
        let values: Option<Vec<(f64, f64)>> = pairs
            .iter()
            .map(|(ours, theirs)| Some((ours[key].as_f64()?, theirs[key].as_f64()?)))
            .collect();
        let Some(values) = values else { continue };
        let (median_ours, _) = median(values.iter().map(|(ours, _)| *ours));
        let (median_theirs, _) = median(values.iter().map(|(_, theirs)| *theirs));
        let (ratio, spread) = median(values.iter().map(|(ours, theirs)| ours / theirs));
        rows.push(json!({
            "table": TABLE, "row": name, "measured": unit.told(median_ours), "peer": peer,
            "floor": unit.told(median_theirs), "ratio": ratio, "spread": spread,
        }));
    }
    let told = |side: &Value| {
        let seconds = side["killed_seconds"].as_f64().unwrap_or(f64::NAN);
        format!(
            "{} ({:.0} ms)",
            side["killed"].as_str().unwrap_or("?"),
            seconds * 1e3
        )
    };
    if let Some((ours, theirs)) = pairs.last() {
        rows.push(json!({
            "table": TABLE, "row": "1,000 tasks, one kills its worker", "measured": told(ours), "peer": peer,
            "floor": told(theirs),
        }));
    }
    rows
}

/// With the smallest and the largest.
fn median(values: impl Iterator<Item = f64>) -> (f64, [f64; 2]) {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], [values[0], values[values.len() - 1]])
}

/// This workspace's pool, by the part of its benchmark that does the same.
fn ours(bytes: &str) -> Result<Value, Error> {
    let text = Cmd::cargo()
        .args(["bench", "--quiet", "-p", "proc-pool", "--bench", "pool", "--"])
        .args(["--part", "side", bytes])
        .stdout()?;
    let line = text
        .lines()
        .find(|line| line.starts_with('{'))
        .unwrap_or_default();
    serde_json::from_str(line)
        .map_err(|error| Error::failed(format!("the pool's side told `{text}`: {error}")))
}

/// The interpreter of an environment that has what all peers need.
fn environment(dir: &Path) -> Option<PathBuf> {
    let venv = dir.join("venv");
    let python = match cfg!(windows) {
        true => venv.join("Scripts/python.exe"),
        false => venv.join("bin/python"),
    };
    if !Cmd::new(&python).args(["--version"]).succeeds() {
        let made = Cmd::new("python3").args(["-m", "venv"]).args([&venv]);
        made.run().ok()?;
    }
    installed(&python, &[EVERYBODY]).then_some(python)
}

/// Pip does nothing, and asks nobody, where these versions are there already.
fn installed(python: &Path, packages: &[&str]) -> bool {
    Cmd::new(python)
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--only-binary",
            ":all:",
        ])
        .args(packages)
        .succeeds()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_ours_over_theirs_and_what_a_peer_does_not_do_has_none() {
        let pair = |ours: f64| {
            let theirs = json!({"batched": 1e6, "killed": "500 outputs, broken", "killed_seconds": 0.1});
            let ours = json!({
                "batched": ours, "share": 0.1, "killed": "999 outputs, 1 error(s)", "killed_seconds": 0.001,
            });
            (ours, theirs)
        };
        let mut run = Run::default();
        let lines = rows("peer", &[pair(8e6), pair(12e6), pair(9e6)]);
        let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
        run.add_lines(&lines.join("\n")).expect("good lines");
        assert_eq!(run.rows.len(), 2);
        assert_eq!(
            (run.rows[0].ratio, run.rows[0].spread),
            (Some(9.0), Some((8.0, 12.0)))
        );
        assert_eq!(run.rows[0].measured, "9000.0 k/s");
        assert_eq!(run.rows[1].floor, "500 outputs, broken (100 ms)");
    }
}
