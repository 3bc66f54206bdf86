//! `cargo xtask faults`, `soak` and `hostile`: tests of the crates, for longer than usual.
//!
//! The tests (`tests/it` of `proc-pool` and `shm-buffers`) read from the environment how much to do.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail, ensure};

use crate::NotRun;
use crate::run::{self, Tally};
use crate::workspace::Workspace;

/// Inject every fault in every phase of a worker's life (Linux)
///
/// Does so for 1, 2, 5 and 13 workers, ordered and unordered, and prints the outcome of each.
#[derive(Debug, clap::Args)]
pub(crate) struct FaultArgs {
    /// Each phase and fault once, with a random number of workers and order
    #[arg(long, group = "part")]
    sample: bool,
    /// One case, such as run/KILL/2/ordered
    #[arg(long, group = "part", value_name = "PHASE/FAULT/WORKERS/ORDER")]
    only: Option<String>,
    /// N random operations on pools instead, each compared with a reference
    #[arg(long, group = "part", value_name = "N")]
    steps: Option<u64>,
    /// Seed of --sample and --steps [default: random]
    #[arg(long, requires = "part", conflicts_with = "only")]
    seed: Option<u64>,
}

/// Kill a worker each second while others work (Linux)
///
/// Payloads of several types have up to 64 MiB, in both directions. Prints the memory of the leader and of its workers, open files and
/// threads every 30 seconds, and fails if they grow.
#[derive(Debug, clap::Args)]
pub(crate) struct SoakArgs {
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000), required_unless_present = "gigabytes")]
    minutes: Option<u64>,
    /// Move N GiB of large payloads, and measure what pool and leader keep two seconds later
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    gigabytes: Option<u64>,
}

/// Run the tests against hostile workers, leaders and images (Linux)
///
/// They are workers that write anything into the memory that they share with their leader, or send any bytes, floods,
/// descriptors or nothing, before they are ready and after; forged payloads, forged leaders, and images with false claims.
#[derive(Debug, clap::Args)]
pub(crate) struct HostileArgs {
    /// Total time, shared by the tests that can run for any time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    minutes: Option<u64>,
}

/// Continuous integration always samples the same cases, so that only a change can make it fail.
const SEED: u64 = 1;
const SOAK_SECONDS: u64 = 20;

/// Arguments of `cargo test -p`.
const MATRIX: &str = "proc-pool --test it -- --exact fault_matrix::every_case_ends_as_expected";
const RANDOM: &str = "proc-pool --test it -- --exact random_operations::results_match_the_reference";
const MEMORY: &str = "proc-pool --test it -- --exact idle_memory::idle_pool_returns_the_memory_of_payloads";
const SOAK: &str = "proc-pool --test it -- --exact soak::leader_does_not_grow_with_a_kill_a_second";

const BEFORE_READY: &str = "proc-pool --all-features --test it -- \
    hostile::messages::messages_before_a_worker_is_ready_do_not_harm_the_leader";
const AFTER_READY: &str = "proc-pool --all-features --test it -- \
    hostile::messages::messages_of_a_worker_do_not_harm_the_leader";

/// The tests against hostile peers, and their shares of the total time; 0 for those that always take the same.
const HOSTILE: &[(&str, u64)] = &[
    (
        "proc-pool --all-features --test it -- hostile::shared_memory::",
        4,
    ),
    (BEFORE_READY, 2),
    (AFTER_READY, 3),
    (
        "proc-pool --all-features --test it -- hostile::forged_pieces::",
        3,
    ),
    ("proc-pool --all-features --test it -- handshake::", 0),
    ("shm-buffers --all-features --test it -- hostile::", 1),
];
const HOSTILE_SHARES: u64 = 13;
/// Seconds for each share in continuous integration.
const HOSTILE_SECONDS: u64 = 4;

pub(crate) fn faults(args: &FaultArgs, workspace: &Workspace) -> Result<()> {
    let (test, variable, amount) = amount(args);
    run(test, Some((variable, amount)), workspace, &mut Tally::default())
}

pub(crate) fn soak(args: &SoakArgs, workspace: &Workspace) -> Result<()> {
    let mut tally = Tally::default();
    if let Some(gigabytes) = args.gigabytes {
        let amount = Some(("IT_GIGABYTES", gigabytes.to_string()));
        run(MEMORY, amount, workspace, &mut tally)?;
    }
    match args.minutes {
        Some(minutes) => soak_for(minutes * 60, workspace, &mut tally),
        None => Ok(()),
    }
}

pub(crate) fn hostile(args: &HostileArgs, workspace: &Workspace) -> Result<()> {
    let seconds = args.minutes.map(|minutes| minutes * 60);
    let seconds = seconds.unwrap_or(HOSTILE_SECONDS * HOSTILE_SHARES);
    hostile_for(seconds, workspace, &mut Tally::default())
}

/// The short form of `faults` and `soak`, for `ci`.
pub(crate) fn sample_faults(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let sample = Some(("IT_FAULTS", format!("sample {SEED}")));
    run(MATRIX, sample, workspace, tally)?;
    soak_for(SOAK_SECONDS, workspace, tally)
}

/// The short form of `hostile`, for `ci`.
pub(crate) fn sample_hostile(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    hostile_for(HOSTILE_SECONDS * HOSTILE_SHARES, workspace, tally)
}

/// Returns the test, the variable that it reads, and the variable's value.
fn amount(args: &FaultArgs) -> (&'static str, &'static str, String) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let random = now.map_or(SEED, |now| u64::from(now.subsec_nanos()));
    let seed = args.seed.unwrap_or(random);
    let cases = match (&args.only, args.steps) {
        (_, Some(steps)) => return (RANDOM, "IT_MODEL", format!("{steps} {seed}")),
        (Some(case), _) => format!("only {case}"),
        _ if args.sample => format!("sample {seed}"),
        _ => "all".to_owned(),
    };
    (MATRIX, "IT_FAULTS", cases)
}

fn soak_for(seconds: u64, workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let amount = Some(("IT_SOAK", seconds.to_string()));
    run(SOAK, amount, workspace, tally)
}

fn hostile_for(seconds: u64, workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    for (tests, share) in HOSTILE {
        let seconds = (*share > 0).then(|| (seconds * share / HOSTILE_SHARES).to_string());
        let amount = seconds.map(|seconds| ("IT_HOSTILE", seconds));
        run(tests, amount, workspace, tally)?;
    }
    Ok(())
}

/// Runs tests, of which at least one must pass: a renamed test must not look like one that passed.
fn run(tests: &str, amount: Option<(&str, String)>, workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    if !cfg!(target_os = "linux") {
        bail!(NotRun("these tests need Linux".to_owned()));
    }
    let before = tally.passed;
    let cargo = workspace.cargo(&format!("test -p {tests} --nocapture"));
    run::tests(cargo.envs(amount), tally)?;
    ensure!(tally.passed > before, "no test passed: {tests}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verb;
    use crate::tests::parsed;

    #[test]
    fn options_become_the_amount_of_a_test() {
        for (options, expected) in [
            ("", "IT_FAULTS=all"),
            ("--sample --seed 7", "IT_FAULTS=sample 7"),
            ("--only run/KILL/2/ordered", "IT_FAULTS=only run/KILL/2/ordered"),
            ("--steps 10 --seed 7", "IT_MODEL=10 7"),
        ] {
            let Ok(Verb::Faults(args)) = parsed(&format!("faults {options}")) else {
                panic!("right usage was refused: {options}");
            };
            let (_, variable, value) = amount(&args);
            assert_eq!(format!("{variable}={value}"), expected);
        }
        let shares: u64 = HOSTILE.iter().map(|(_, share)| share).sum();
        assert_eq!(shares, HOSTILE_SHARES);
    }

    #[test]
    fn contradicting_options_are_refused() {
        for options in ["--seed 7", "--sample --only x", "--only x --seed 7"] {
            assert!(parsed(&format!("faults {options}")).is_err(), "{options}");
        }
        assert!(parsed("soak").is_err() && parsed("soak --minutes 0").is_err());
    }
}
