//! `cargo xtask bench peers`: pools of Python and this one do the same tasks with 2 workers, in turns.
//!
//! The peers' packages are installed into environments under the target directory, in fixed versions. What can't be
//! installed is skipped with the reason; what fails, or comes to no end, says so in its row. Every measure of a peer is a
//! process of its own, under `guard.py`, which gives it some time and leaves nothing of it behind.

mod environment;
mod told;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use self::environment::{Environments, Home};
use self::told::Round;
use super::options::{Effort, Options};
use super::rows::Run;
use crate::cmd::Cmd;
use crate::outcome::Error;
use crate::workspace::Workspace;

/// A pool as the script knows it, with the packages that it needs besides NumPy.
#[derive(Debug)]
struct Peer {
    name: &'static str,
    packages: &'static [&'static str],
    home: Home,
}

const fn peer(name: &'static str, packages: &'static [&'static str]) -> Peer {
    Peer {
        name,
        packages,
        home: Home::Everybody,
    }
}

const PEERS: &[Peer] = &[
    peer("ProcessPoolExecutor, fork", &[]),
    peer("ProcessPoolExecutor, spawn", &[]),
    peer("joblib", &["joblib"]),
    peer("mpire", &["mpire"]),
    peer("ray", &["ray"]),
    peer("dask.distributed", &["distributed"]),
    peer("ipyparallel", &["ipyparallel"]),
    Peer {
        name: "torch.multiprocessing",
        packages: &["torch"],
        home: Home::Torch,
    },
    peer("parinvoke", &["parinvoke"]),
];

/// How much is measured.
struct Amount {
    rounds: usize,
    bytes: u64,
    users: u64,
    records: u64,
}

impl Amount {
    fn of(options: &Options) -> Self {
        let amount = match options.effort {
            Effort::Quick => Self {
                rounds: 1,
                bytes: 256 << 20,
                users: 2_000,
                records: 10_000,
            },
            Effort::Full => Self {
                rounds: 3,
                bytes: 1 << 30,
                users: 10_000,
                records: 100_000,
            },
        };
        Self {
            bytes: options.bytes.unwrap_or(amount.bytes),
            ..amount
        }
    }

    /// A peer's measures in a round, with their number and the seconds that they may take.
    fn measures(&self, round: usize) -> Vec<(&'static str, u64, u64)> {
        let mut measures = vec![
            ("null", 0, 60),
            ("share", self.bytes, 60),
            ("top", self.users, 60),
        ];
        // These take long, and differ by more than noise.
        if round == 0 {
            measures.extend([("logs", self.records, 120), ("killed", 0, 60)]);
        }
        measures
    }
}

/// Measures all that can be measured here, and adds rows.
pub(super) fn measure(options: &Options, run: &mut Run) -> Result<(), Error> {
    let amount = Amount::of(options);
    let environments = Environments::new(Workspace::load()?.target.join("bench-peers"))?;
    let ours = Ours::build()?;
    let mut all = Vec::new();
    for peer in PEERS {
        let python = match environments.python(peer) {
            Ok(python) => python,
            Err(why) => {
                println!("{} skipped: {why}", peer.name);
                continue;
            }
        };
        println!("{}", peer.name);
        let mut rounds = Vec::new();
        for round in 0..amount.rounds {
            let mut theirs = Map::new();
            for (measure, number, seconds) in amount.measures(round) {
                let told = theirs_told(
                    &python,
                    &environments.script("guard.py"),
                    peer,
                    (measure, number, seconds),
                );
                theirs.insert(measure.to_owned(), told);
            }
            let mut told = ours.tell(&amount)?;
            if round == 0 {
                merge(&mut told, &ours.logs(&amount)?);
            }
            rounds.push(Round { ours: told, theirs });
        }
        add(run, &told::rows(peer.name, &rounds))?;
        all.extend(rounds);
    }
    add(run, told::bare(&all).as_slice())?;
    Ok(())
}

/// Adds rows, and shows them.
fn add(run: &mut Run, rows: &[Value]) -> Result<(), Error> {
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    let before = run.rows.len();
    run.add_lines(&lines.join("\n"))?;
    for row in &run.rows[before..] {
        let ratio = row.ratio.map_or(String::new(), |ratio| format!("{ratio:.2}x"));
        println!(
            "  {:64} {:>20}  vs {:>20} {ratio:>9}",
            row.name, row.measured, row.floor
        );
    }
    Ok(())
}

/// What a peer told of a measure.
fn theirs_told(
    python: &Path,
    guard: &Path,
    peer: &Peer,
    (measure, number, seconds): (&str, u64, u64),
) -> Value {
    let guarded = Cmd::new(python)
        .args([guard])
        .args([&seconds.to_string(), peer.name, measure, &number.to_string()])
        .stdout_quietly();
    let told = guarded.and_then(|text| serde_json::from_str(text.lines().last()?).ok());
    told.unwrap_or_else(|| json!({"failed": "its guard failed"}))
}

/// This workspace's sides: the pool with its benchmark, its logs with an example of the facade.
struct Ours {
    pool: PathBuf,
    flood: PathBuf,
}

impl Ours {
    fn build() -> Result<Self, Error> {
        Ok(Self {
            pool: built(&["bench", "--no-run", "-p", "proc-pool", "--bench"], "pool")?,
            flood: built(
                &["build", "--release", "-p", "invoker", "--example"],
                "flood_bench",
            )?,
        })
    }

    fn tell(&self, amount: &Amount) -> Result<Value, Error> {
        let (bytes, users) = (amount.bytes.to_string(), amount.users.to_string());
        told(Cmd::new(&self.pool).args(["--part", "side", &bytes, &users]))
    }

    fn logs(&self, amount: &Amount) -> Result<Value, Error> {
        told(Cmd::new(&self.flood).args([amount.records.to_string()]))
    }
}

/// The program that cargo builds of a target.
fn built(args: &[&str], target: &str) -> Result<PathBuf, Error> {
    let text = Cmd::cargo()
        .args(args)
        .args([target, "--message-format=json-render-diagnostics"])
        .stdout()?;
    executable(&text, target).ok_or_else(|| Error::failed(format!("cargo built no program of `{target}`")))
}

/// The one of this target, of all that cargo's messages tell of.
fn executable(messages: &str, target: &str) -> Option<PathBuf> {
    let mut messages = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let built = messages.find(|message| {
        message["target"]["name"].as_str() == Some(target) && message["executable"].is_string()
    })?;
    built["executable"].as_str().map(PathBuf::from)
}

fn told(side: Cmd) -> Result<Value, Error> {
    let text = side.stdout()?;
    let line = text.lines().find(|line| line.starts_with('{'));
    serde_json::from_str(line.unwrap_or_default())
        .map_err(|error| Error::failed(format!("our side told `{text}`: {error}")))
}

/// Adds what `more` tells.
fn merge(told: &mut Value, more: &Value) {
    if let (Some(told), Some(more)) = (told.as_object_mut(), more.as_object()) {
        told.extend(more.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_that_of_the_target() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"pool"},"executable":null}"#,
            "\nnot json\n",
            r#"{"reason":"compiler-artifact","target":{"name":"pool"},"executable":"/x/pool-1"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"worker"},"executable":"/x/worker"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(executable(messages, "pool"), Some(PathBuf::from("/x/pool-1")));
        assert_eq!(executable(messages, "other"), None);
    }

    #[test]
    fn what_takes_long_is_measured_once() {
        let amount = Amount::of(&Options::default());
        let names = |round| {
            amount
                .measures(round)
                .iter()
                .map(|(name, ..)| *name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(0), ["null", "share", "top", "logs", "killed"]);
        assert_eq!(names(1), ["null", "share", "top"]);
    }

    #[test]
    fn sides_are_merged() {
        let mut side = json!({"start": 1});
        merge(&mut side, &json!({"logged": 2}));
        assert_eq!(side, json!({"start": 1, "logged": 2}));
    }
}
