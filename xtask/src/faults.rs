//! `cargo xtask faults` and `cargo xtask soak`: what `proc-pool` survives, for longer than its tests take.
//!
//! All of it are tests of that crate (`proc-pool/tests/it`), so this tool only tells them how much to do.

use crate::cmd::{Cmd, Tally};
use crate::outcome::{Done, Error};

const USAGE: &str = "\
Usage: cargo xtask faults [--sample [--seed N] | --only PHASE/FAULT/WORKERS/ORDER]
       cargo xtask faults --steps N [--seed N]

Strikes workers in every phase of their lives, with every fault, and prints what came of it: 1, 2, 5 and 13 workers,
ordered and unordered. It needs Linux.

  --sample     each phase and fault once, with a random number of workers and order
  --only CASE  one case, such as run/KILL/2/ordered
  --steps N    instead of that, N random operations on pools, each against what it has to come to
  --seed N     what is random is the same for the same seed; another one if it is not given
";

const SOAK_USAGE: &str = "\
Usage: cargo xtask soak --minutes N

Kills a worker each second while others work, and prints every 30 seconds what the leader has of memory, open files and
threads. Fails if they grow.
";

/// What continuous integration samples: the same each time, so that a change alone can make it fail.
const SEED: u64 = 1;
/// How long it soaks.
const SOAK_SECONDS: u64 = 20;

/// A test of the crate, and how much it is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wish {
    test: &'static str,
    variable: &'static str,
    value: String,
}

impl Wish {
    fn matrix(value: String) -> Self {
        Self {
            test: "matrix::faults",
            variable: "IT_FAULTS",
            value,
        }
    }

    fn soak(seconds: u64) -> Self {
        Self {
            test: "soak::a_kill_a_second",
            variable: "IT_SOAK",
            value: seconds.to_string(),
        }
    }
}

pub(crate) fn main(args: lexopt::Parser) -> Result<(), Error> {
    grant(parse(args)?, USAGE)
}

pub(crate) fn soak(args: lexopt::Parser) -> Result<(), Error> {
    grant(parse_soak(args)?, SOAK_USAGE)
}

fn grant(wish: Option<Wish>, usage: &str) -> Result<(), Error> {
    match wish {
        Some(wish) => run(&wish, &mut Tally::default()),
        None => {
            print!("{usage}");
            Ok(())
        }
    }
}

fn parse(mut args: lexopt::Parser) -> Result<Option<Wish>, Error> {
    use lexopt::prelude::*;
    let (mut sample, mut seed, mut only) = (false, None, None);
    let mut steps = None::<u64>;
    while let Some(arg) = args.next()? {
        match arg {
            Long("sample") => sample = true,
            Long("seed") => seed = Some(args.value()?.parse()?),
            Long("only") => only = Some(args.value()?.string()?),
            Long("steps") => steps = Some(args.value()?.parse()?),
            Short('h') | Long("help") => return Ok(None),
            other => return Err(other.unexpected().into()),
        }
    }
    let wish = match (sample, only, steps, seed) {
        (false, None, None, None) => Wish::matrix("all".to_owned()),
        (true, None, None, seed) => Wish::matrix(format!("sample {}", seed.unwrap_or_else(fresh))),
        (false, Some(case), None, None) => Wish::matrix(format!("only {case}")),
        (false, None, Some(steps), seed) => Wish {
            test: "model::sequences",
            variable: "IT_MODEL",
            value: format!("{steps} {}", seed.unwrap_or_else(fresh)),
        },
        _ => {
            return Err(Error::usage(
                "one of --sample, --only and --steps, and a seed only for what is random",
            ));
        }
    };
    Ok(Some(wish))
}

fn parse_soak(mut args: lexopt::Parser) -> Result<Option<Wish>, Error> {
    use lexopt::prelude::*;
    let mut minutes = None::<u64>;
    while let Some(arg) = args.next()? {
        match arg {
            Long("minutes") => minutes = Some(args.value()?.parse()?),
            Short('h') | Long("help") => return Ok(None),
            other => return Err(other.unexpected().into()),
        }
    }
    match minutes {
        Some(minutes @ 1..=10_000) => Ok(Some(Wish::soak(minutes * 60))),
        _ => Err(Error::usage("how long? --minutes N, from 1 to 10000")),
    }
}

/// A seed that was not asked for.
fn fresh() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(SEED, |now| u64::from(now.subsec_nanos()))
}

/// The short forms, for `ci`.
pub(crate) fn sample(tally: &mut Tally) -> Result<Done, Error> {
    if !cfg!(target_os = "linux") {
        return Ok(Done::Skipped("the matrix needs Linux".to_owned()));
    }
    run(&Wish::matrix(format!("sample {SEED}")), tally)?;
    run(&Wish::soak(SOAK_SECONDS), tally)?;
    Ok(Done::Passed)
}

fn run(wish: &Wish, tally: &mut Tally) -> Result<(), Error> {
    let cargo = Cmd::cargo()
        .args(["test", "-p", "proc-pool", "--test", "it", "--"])
        .args(["--exact", wish.test, "--nocapture"])
        .env(wish.variable, &wish.value);
    run_some(cargo, wish.test, tally)
}

/// Runs tests, of which one at least has to be there.
pub(crate) fn run_some(cargo: Cmd, test: &str, tally: &mut Tally) -> Result<(), Error> {
    let before = tally.passed;
    cargo.run_tests(tally)?;
    if tally.passed == before {
        return Err(Error::failed(format!("there is no test {test}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_what_the_test_is_told() {
        for (args, variable, told) in [
            (&[][..], "IT_FAULTS", "all"),
            (&["--sample", "--seed", "7"], "IT_FAULTS", "sample 7"),
            (
                &["--only", "run/KILL/2/ordered"],
                "IT_FAULTS",
                "only run/KILL/2/ordered",
            ),
            (&["--steps", "10", "--seed", "7"], "IT_MODEL", "10 7"),
        ] {
            let wish = parse(lexopt::Parser::from_args(args)).expect("it is right usage");
            let wish = wish.expect("something is to be done");
            assert_eq!((wish.variable, &*wish.value), (variable, told));
        }
        for wrong in [
            &["--seed", "7"][..],
            &["--sample", "--only", "x"],
            &["--steps", "9", "--sample"],
            &["--frob"],
        ] {
            assert!(parse(lexopt::Parser::from_args(wrong)).is_err(), "{wrong:?}");
        }
        let soak = |args: &[&str]| parse_soak(lexopt::Parser::from_args(args));
        assert_eq!(
            soak(&["--minutes", "20"]).expect("right usage"),
            Some(Wish::soak(1200))
        );
        assert!(soak(&[]).is_err() && soak(&["--minutes", "0"]).is_err());
    }
}
