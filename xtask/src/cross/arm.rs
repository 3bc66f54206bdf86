//! The tests that are run on another processor, under qemu-user, and what `batch_eval` is to show there.

use std::fs;
use std::path::Path;

use super::toolchain::Toolchain;
use super::{evaluation_here, qemu, survivors};
use crate::cmd::{Cmd, Tally};
use crate::outcome::Error;
use crate::workspace::Workspace;

const NO_PROCESSES: &str = "a program under qemu-user can start another only where binfmt_misc knows of it: \
                            since Linux 6.7 in a namespace made for it, else with the package qemu-user-binfmt";

pub(super) fn test(
    toolchain: &Toolchain,
    workspace: &Workspace,
    package: Option<&str>,
    args: &[String],
) -> Result<(), Error> {
    let mut tally = Tally::default();
    let result = suites(toolchain, workspace, package, args, &mut tally);
    println!(
        "\n{} passed, {} failed, {} skipped",
        tally.passed, tally.failed, tally.ignored
    );
    result
}

fn suites(
    toolchain: &Toolchain,
    workspace: &Workspace,
    package: Option<&str>,
    args: &[String],
    tally: &mut Tally,
) -> Result<(), Error> {
    // Tests that need the example can't ask cargo for it from within.
    toolchain
        .cargo("build")
        .args(["-p", "invoker", "--example", "batch_eval"])
        .run()?;
    let example = toolchain.example("batch_eval");
    let mut failed = Vec::new();
    let spawns = qemu::can_spawn();
    if !spawns {
        println!("not tested: pools and `batch_eval`: {NO_PROCESSES}");
    }
    let members = workspace.members.iter().filter(|member| member.lib.is_some());
    for member in members.filter(|member| package.is_none_or(|name| name == member.name)) {
        let Some(tests) = tests_of(&member.name, spawns) else {
            continue;
        };
        let suite = toolchain
            .cargo("test")
            .args([
                "-p",
                &member.name,
                "--all-features",
                "--lib",
                "--bins",
                "--tests",
                "--no-fail-fast",
                "--",
            ])
            .args(args)
            .args(tests)
            .env("IT_BATCH_EVAL", &example);
        if let Err(error) = suite.run_tests(tally) {
            eprintln!("failed: {error}");
            failed.push(member.name.as_str());
        }
    }
    if package.is_none() && args.is_empty() && spawns {
        match same_recommendations(toolchain, workspace, &example) {
            Ok(()) => tally.passed += 1,
            Err(error) => {
                eprintln!("failed: {error}");
                tally.failed += 1;
                failed.push("recommendations");
            }
        }
    }
    match failed.as_slice() {
        [] => Ok(()),
        names => Err(Error::failed(format!("failed: {}", names.join(", ")))),
    }
}

/// The tests of a crate that are run: those with one of these words in their names; `None` for none. An emulator takes
/// seconds to start a process, and minutes for each test that goes through all bits of an image.
fn tests_of(package: &str, spawns: bool) -> Option<&'static [&'static str]> {
    match package {
        "shm-buffers" => Some(&["ring::", "rings::", "slots::", "claims::", "backings::"]),
        "proc-pool" if spawns => Some(&["basics::"]),
        _ => None,
    }
}

/// The evaluation writes the same bytes here and there, also when a worker dies on the way.
fn same_recommendations(toolchain: &Toolchain, workspace: &Workspace, example: &Path) -> Result<(), Error> {
    let ours = evaluation_here(workspace)?;
    let dir = toolchain.scratch("recommendations")?;
    let read =
        |name: &str| fs::read_to_string(dir.join(name)).map_err(|e| Error::failed(format!("{name}: {e}")));
    few_ratings(workspace, &dir.join("few.csv"))?;
    let common = [
        "--workers",
        "2",
        "--log",
        "error",
        "--progress",
        "none",
        "--ratings",
        "few.csv",
    ];
    Cmd::new(ours)
        .args(common)
        .args(["--recs", "ours.csv"])
        .current_dir(&dir)
        .run()?;
    toolchain
        .program(example)
        .args(common)
        .args(["--recs", "theirs.csv"])
        .current_dir(&dir)
        .run()?;
    let whole = read("ours.csv")?;
    if whole.is_empty() || whole != read("theirs.csv")? {
        return Err(Error::failed(format!(
            "ours.csv and theirs.csv in {} differ",
            dir.display()
        )));
    }
    // Its exit status says that one user has no list.
    let crashed = toolchain
        .program(example)
        .args(common)
        .args(["--recs", "crashed.csv", "--crash-user", "15"])
        .current_dir(&dir)
        .run();
    if crashed.is_ok() {
        return Err(Error::failed(
            "the exit status does not tell of a crash at user 15",
        ));
    }
    survivors(&whole, &read("crashed.csv")?)?;
    println!("recommendations: {} bytes, the same here and there", whole.len());
    Ok(())
}

/// Writes those of the built-in ratings that are of the first 20 users: all of them take an emulator minutes.
fn few_ratings(workspace: &Workspace, to: &Path) -> Result<(), Error> {
    let from = workspace
        .root
        .join("invoker/examples/batch_eval/data/ml-latest-small-2016/ratings.csv");
    let failed = |path: &Path, e| Error::failed(format!("{}: {e}", path.display()));
    let all = std::fs::read_to_string(&from).map_err(|e| failed(&from, e))?;
    let few = |line: &&str| {
        let user = line.split(',').next().unwrap_or_default();
        user.parse::<u32>().map_or(true, |user| user <= 20)
    };
    let few: String = all.split_inclusive('\n').filter(few).collect();
    std::fs::write(to, few).map_err(|e| failed(to, e))
}
