//! The contributor's commands: `cargo xtask VERB`.
//!
//! One module per verb; `run` runs tests and counts them, `workspace` knows the crates. This tool depends on none of the
//! crates, so that it still builds and names the problem while one of them does not compile.

mod bench;
mod cargo_tree;
mod ci;
mod cluster;
mod cookbook;
mod cross;
mod endurance;
mod interop;
mod python;
mod run;
mod standalone;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

use run::Tally;
use workspace::Workspace;

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    max_term_width = 100,
    after_help = "Exit status: 0 success, 1 a check failed, 2 wrong usage or nothing to run."
)]
enum Verb {
    Ci(ci::Args),
    /// Check the house rules
    Tidy,
    Lines(tidy::LinesArgs),
    Bench(bench::Args),
    Faults(endurance::FaultArgs),
    Hostile(endurance::HostileArgs),
    Soak(endurance::SoakArgs),
    Interop(interop::Args),
    /// Run the model-checked tests of shm-buffers
    Loom,
    Cross(cross::Args),
    Standalone(standalone::Args),
    Cookbook(cookbook::Args),
    Python(python::Args),
    Cluster(cluster::Args),
}

/// Wrong usage, or nothing to run: exit status 2 instead of 1. A step of `ci` that fails with it is skipped.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotRun(String);

fn main() -> ExitCode {
    match run(Verb::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            exit_code(&error)
        }
    }
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(if error.is::<NotRun>() { 2 } else { 1 })
}

fn run(verb: Verb) -> anyhow::Result<()> {
    let workspace = Workspace::load()?;
    match verb {
        Verb::Ci(args) => ci::main(&args, &workspace),
        Verb::Tidy => tidy::run(&workspace),
        Verb::Lines(args) => tidy::count_lines(&args, &workspace),
        Verb::Bench(args) => bench::main(&args, &workspace),
        Verb::Faults(args) => endurance::faults(&args, &workspace),
        Verb::Hostile(args) => endurance::hostile(&args, &workspace),
        Verb::Soak(args) => endurance::soak(&args, &workspace),
        Verb::Interop(args) => interop::main(&args, &workspace),
        Verb::Loom => ci::loom(&workspace, &mut Tally::default()),
        Verb::Cross(args) => cross::main(&args, &workspace),
        Verb::Standalone(args) => standalone::main(&args, &workspace),
        Verb::Cluster(args) => cluster::main(&args, &workspace),
        Verb::Cookbook(args) => cookbook::main(&args, &workspace, &mut Tally::default()),
        Verb::Python(args) => python::main(&args, &workspace),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Parses a command line of words without blanks.
    pub(crate) fn parsed(line: &str) -> Result<Verb, clap::Error> {
        Verb::try_parse_from(format!("xtask {line}").split_whitespace())
    }

    #[test]
    fn wrong_usage_has_its_own_exit_status() {
        Verb::command().debug_assert();
        for line in [
            "",
            "frobnicate",
            "tidy extra",
            "lines --all",
            "ci no-such-step",
            "bench x",
        ] {
            let error = parsed(line).expect_err("accepted wrong usage");
            assert_eq!(error.exit_code(), 2, "{line}: {error}");
        }
        let wrong = NotRun("no such crate".to_owned()).into();
        assert_eq!(exit_code(&wrong), ExitCode::from(2));
        assert_eq!(exit_code(&anyhow::anyhow!("a check failed")), ExitCode::from(1));
    }
}
