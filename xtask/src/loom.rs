//! `cargo xtask loom`: the rings' concurrency tests under every interleaving that loom can reach.

use std::env;

use crate::cmd::{Cmd, Tally};
use crate::outcome::{Done, Error};
use crate::workspace::Workspace;

/// How many pre-emptions loom explores unless told otherwise; its documentation finds that more rarely finds more, and
/// the time grows exponentially.
const PREEMPTIONS: &str = "3";

pub(crate) fn main(mut args: lexopt::Parser) -> Result<(), Error> {
    if let Some(arg) = args.next()? {
        return Err(arg.unexpected().into());
    }
    let mut tally = Tally::default();
    match run(&Workspace::load()?, &mut tally)? {
        Done::Passed => Ok(()),
        Done::Skipped(reason) => Err(Error::usage(reason)),
    }
}

/// Runs them, in a target directory of their own: the flag rebuilds every dependency.
pub(crate) fn run(workspace: &Workspace, tally: &mut Tally) -> Result<Done, Error> {
    let listed = tests(workspace).args(["--", "--list"]).stdout()?;
    if !listed.lines().any(|line| line.ends_with(": test")) {
        return Ok(Done::Skipped("shm-buffers has no loom test".to_owned()));
    }
    tests(workspace).run_tests(tally)?;
    Ok(Done::Passed)
}

fn tests(workspace: &Workspace) -> Cmd {
    let mut flags = env::var("RUSTFLAGS").unwrap_or_default();
    if !flags.is_empty() {
        flags.push(' ');
    }
    flags.push_str("--cfg loom");
    let mut cmd = Cmd::cargo()
        .args(["test", "-p", "shm-buffers", "--release", "--lib", "loom"])
        .env("RUSTFLAGS", flags)
        .env("CARGO_TARGET_DIR", workspace.target.join("loom"));
    if env::var_os("LOOM_MAX_PREEMPTIONS").is_none() {
        cmd = cmd.env("LOOM_MAX_PREEMPTIONS", PREEMPTIONS);
    }
    cmd
}
