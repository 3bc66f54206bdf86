//! `cargo xtask faults`: the fault matrix of `proc-pool`, whole, sampled, or one case of it.
//!
//! The matrix is a test of that crate (`proc-pool/tests/it/matrix.rs`), so this tool only tells it what to run.

use crate::cmd::{Cmd, Tally};
use crate::outcome::{Done, Error};

const USAGE: &str = "\
Usage: cargo xtask faults [--sample [--seed N] | --only PHASE/FAULT/WORKERS/ORDER]

Strikes workers in every phase of their lives, with every fault, and prints what came of it: 1, 2, 5 and 13 workers,
ordered and unordered. It needs Linux.

  --sample     each phase and fault once, with a random number of workers and order
  --seed N     of that choice; another one each time it is not given
  --only CASE  one case, such as run/KILL/2/ordered
";

/// What continuous integration samples: the same each time, so that a change alone can make it fail.
const SEED: u64 = 1;

/// What is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Selection {
    All,
    Sample(u64),
    Only(String),
}

impl Selection {
    /// As the test reads it.
    fn to_variable(&self) -> String {
        match self {
            Self::All => "all".to_owned(),
            Self::Sample(seed) => format!("sample {seed}"),
            Self::Only(case) => format!("only {case}"),
        }
    }
}

pub(crate) fn main(args: lexopt::Parser) -> Result<(), Error> {
    match parse(args)? {
        None => {
            print!("{USAGE}");
            Ok(())
        }
        Some(selection) => run(&selection, &mut Tally::default()),
    }
}

fn parse(mut args: lexopt::Parser) -> Result<Option<Selection>, Error> {
    use lexopt::prelude::*;
    let (mut sample, mut seed, mut only) = (false, None, None);
    while let Some(arg) = args.next()? {
        match arg {
            Long("sample") => sample = true,
            Long("seed") => seed = Some(args.value()?.parse()?),
            Long("only") => only = Some(args.value()?.string()?),
            Short('h') | Long("help") => return Ok(None),
            other => return Err(other.unexpected().into()),
        }
    }
    match (sample, seed, only) {
        (false, None, None) => Ok(Some(Selection::All)),
        (true, seed, None) => Ok(Some(Selection::Sample(seed.unwrap_or_else(fresh)))),
        (false, None, Some(case)) => Ok(Some(Selection::Only(case))),
        _ => Err(Error::usage("a seed is for --sample, and --only stands alone")),
    }
}

/// A seed that was not asked for.
fn fresh() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(SEED, |now| u64::from(now.subsec_nanos()))
}

/// The sampled form, for `ci`.
pub(crate) fn sample(tally: &mut Tally) -> Result<Done, Error> {
    if !cfg!(target_os = "linux") {
        return Ok(Done::Skipped("the matrix needs Linux".to_owned()));
    }
    run(&Selection::Sample(SEED), tally)?;
    Ok(Done::Passed)
}

fn run(selection: &Selection, tally: &mut Tally) -> Result<(), Error> {
    let test = ["--", "--exact", "matrix::faults", "--nocapture"];
    Cmd::cargo()
        .args(["test", "-p", "proc-pool", "--test", "it"])
        .args(test)
        .env("IT_FAULTS", selection.to_variable())
        .run_tests(tally)?;
    match tally.passed {
        0 => Err(Error::failed("no test was executed")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(args: &[&str]) -> Result<Option<String>, Error> {
        let selection = parse(lexopt::Parser::from_args(args))?;
        Ok(selection.map(|selection| selection.to_variable()))
    }

    #[test]
    fn what_is_asked_for_is_what_the_test_is_told() {
        for (args, told) in [
            (&[][..], "all"),
            (&["--sample", "--seed", "7"], "sample 7"),
            (&["--only", "run/KILL/2/ordered"], "only run/KILL/2/ordered"),
        ] {
            let selected = selected(args).expect("it is right usage");
            assert_eq!(selected.as_deref(), Some(told));
        }
        for wrong in [&["--seed", "7"][..], &["--sample", "--only", "x"], &["--frob"]] {
            assert!(selected(wrong).is_err(), "{wrong:?}");
        }
    }
}
