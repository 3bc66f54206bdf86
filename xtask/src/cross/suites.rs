//! The test suites of the crates on another platform, then what the example `batch_eval` must show there.

use std::env::consts::EXE_SUFFIX;

use anyhow::{Result, bail, ensure};
use xshell::cmd;

use super::Target;
use super::toolchain::Toolchain;
use crate::NotRun;
use crate::run::{self, Tally};
use crate::workspace::Workspace;

const NO_PROCESSES: &str = "not tested: pools and `batch_eval`: a program under qemu-user can start another only where \
    binfmt_misc knows of it: since Linux 6.7 in a namespace made for it, before with the package qemu-user-binfmt";

pub(super) fn test(
    toolchain: &Toolchain<'_>,
    workspace: &Workspace,
    package: Option<&str>,
    args: &[String],
) -> Result<()> {
    // Tests that need these cannot build them from within.
    let examples = "-p invoker -p proc-pool --example batch_eval --example named_ops_worker";
    toolchain.cargo("build").args(examples.split(' ')).run()?;
    let can_spawn = toolchain.can_spawn();
    if !can_spawn {
        println!("{NO_PROCESSES}");
    }
    let (mut report, mut skips, mut sum) = (Vec::new(), Skips::default(), Tally::default());
    let mut failed = Vec::new();
    for member in workspace.libraries() {
        let name = member.name.as_str();
        let is_chosen = package.is_none_or(|package| package == name);
        let Some(filters) = filters(toolchain.target, name, can_spawn).filter(|_| is_chosen) else {
            continue;
        };
        let (tally, result) = suite(toolchain, name, args, filters, &mut skips);
        if let Err(error) = result {
            eprintln!("failed: {error:#}");
            failed.push(name);
        }
        sum += tally;
        report.push(format!("{name:14} {tally}"));
    }
    if report.is_empty() {
        bail!(NotRun("no such crate is tested there".to_owned()));
    }
    let mut shown = String::new();
    if package.is_none() && args.is_empty() && can_spawn {
        shown = demonstrations(toolchain, workspace)?;
        if shown.contains("FAILED") {
            failed.push("demonstrations");
        }
    }
    let left = match toolchain.target {
        Target::Windows => toolchain.end_processes()?,
        _ => String::new(),
    };
    report.push(format!("{:14} {sum}", "all"));
    report.extend(skips.found);
    println!("\n{}\n{shown}", report.join("\n"));
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    ensure!(left.is_empty(), "processes outlived the tests: {left}");
    Ok(())
}

/// Returns words of which one is in the name of each test that is run; `None` if the crate is not tested. An emulator takes
/// seconds to start a process, and minutes for each test of all bits of an image.
fn filters(target: Target, package: &str, can_spawn: bool) -> Option<&'static [&'static str]> {
    match (target, package) {
        (Target::Windows, _) => Some(&[]),
        (_, "shm-buffers") => Some(&["ring::", "rings::", "slots::", "claims::", "backings::"]),
        (_, "proc-pool") if can_spawn => Some(&["basics::"]),
        _ => None,
    }
}

fn suite(
    toolchain: &Toolchain<'_>,
    name: &str,
    args: &[String],
    filters: &[&str],
    skips: &mut Skips,
) -> (Tally, Result<()>) {
    let examples = (toolchain.target == Target::Windows).then_some("--examples");
    let example = toolchain.example("batch_eval");
    let cargo = toolchain.cargo_test().env("IT_BATCH_EVAL", example);
    let cargo = cargo.args(["-p", name, "--all-features", "--no-fail-fast", "--lib", "--bins"]);
    let cargo = cargo.args(examples).args(["--tests", "--", "--show-output"]);
    let (mut tally, before) = (Tally::default(), skips.gaps);
    name.clone_into(&mut skips.package);
    let cargo = cargo.args(args).args(filters);
    let result = run::tests_with(cargo, &mut tally, |line| skips.read(line));
    // A test that passed but reported a gap does not count as passed.
    let gaps = skips.gaps - before;
    tally.passed -= gaps.min(tally.passed);
    tally.ignored += gaps;
    (tally, result)
}

/// Returns a line for each demonstration.
fn demonstrations(toolchain: &Toolchain<'_>, workspace: &Workspace) -> Result<String> {
    let sh = &workspace.sh;
    workspace.cargo("build -p invoker --example batch_eval").run()?;
    let here = format!("debug/examples/batch_eval{EXE_SUFFIX}");
    let dir = workspace.empty_dir(toolchain.dir.join("recommendations"))?;
    let _dir = sh.push_dir(dir);
    let (script, target) = (include_str!("demonstrations.sh"), toolchain.target.triple());
    let (runner, there) = (toolchain.runner(), toolchain.example("batch_eval"));
    let ratings = "invoker/examples/batch_eval/data/ml-latest-small-2016/ratings.csv";
    let (here, ratings) = (workspace.target.join(here), workspace.root.join(ratings));
    let shown = cmd!(sh, "sh -c {script} sh {target} {here} {runner} {there} {ratings}");
    Ok(shown.read()?)
}

/// Finds tests that have not tested everything that their names promise in libtest's output: those with `#[ignore]`, and
/// those that print something that wine lacks, which `--show-output` shows below the name of the test.
#[derive(Default)]
struct Skips {
    package: String,
    /// The test whose output is being read.
    test: String,
    /// A line for each test and reason.
    found: Vec<String>,
    /// How many of them ran.
    gaps: u64,
}

impl Skips {
    fn read(&mut self, line: &str) {
        let (test, reason) = if let Some(shown) = line.strip_prefix("---- ") {
            self.test = shown.replace(" stdout ----", "");
            return;
        } else if let Some((_, gap)) = line.split_once("not tested under wine: ") {
            (self.test.as_str(), format!("wine: {gap}"))
        } else if let Some((test, reason)) = line.split_once(" ... ignored") {
            let test = test.trim_start_matches("test ");
            (test, reason.trim_start_matches(", ").to_owned())
        } else {
            return;
        };
        let skip = format!("skipped {} {test}: {reason}", self.package);
        // A test of every backing prints the gap for each.
        if !self.found.contains(&skip) {
            self.gaps += u64::from(reason.starts_with("wine: "));
            self.found.push(skip);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_skip_has_its_test_and_its_reason() {
        let mut skips = Skips::default();
        let output = "test a::long ... ignored, takes an hour\ntest a::b ... ok\n\nsuccesses:\n\n---- a::b stdout \
                      ----\nhello\nnot tested under wine: OpenFile opens\nnot tested under wine: OpenFile opens\n";
        output.lines().for_each(|line| skips.read(line));
        let expected = "skipped  a::long: takes an hour, skipped  a::b: wine: OpenFile opens";
        assert_eq!((skips.found.join(", ").as_str(), skips.gaps), (expected, 1));
    }
}
