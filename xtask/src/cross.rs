//! `cargo xtask cross`: other platforms, compiled and (where something here can run them) tested.

mod qemu;
mod skips;
mod toolchain;
mod windows;
mod wine;

use std::env;
use std::path::Path;

use crate::cmd::{Cmd, Tally};
use crate::outcome::Error;
use crate::workspace::Workspace;

use toolchain::Toolchain;

const USAGE: &str = "\
Usage: cargo xtask cross TARGET check
       cargo xtask cross TARGET test [-p CRATE] [ARGS...]
       cargo xtask cross TARGET run CARGO-RUN-ARGS...

TARGET is one of
  windows   x86_64-pc-windows-gnu; tests and programs run under wine
  msvc      x86_64-pc-windows-msvc; check only
  mac       aarch64-apple-darwin; check only
  arm       aarch64-unknown-linux-gnu; tests and programs run under qemu-user

check  every crate with all targets: with its default features, with all features, and without any
test   windows: the suites of all crates, then what programs are to show; ARGS go to the test binaries
       arm: those of rings, slots, claims and backings, the basic ones of pools, and `batch_eval` for few users

A target that rustup has installed is used as it is. Elsewhere, Debian's own compiler builds its standard library, and
apt-get installs what is missing; on other systems this says what is needed. All output goes to target/cross.
";

/// A platform that is not this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Windows,
    Msvc,
    Mac,
    Arm,
}

impl Target {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "windows" => Self::Windows,
            "msvc" => Self::Msvc,
            "mac" => Self::Mac,
            "arm" => Self::Arm,
            _ => return None,
        })
    }

    fn triple(self) -> &'static str {
        match self {
            Self::Windows => "x86_64-pc-windows-gnu",
            Self::Msvc => "x86_64-pc-windows-msvc",
            Self::Mac => "aarch64-apple-darwin",
            Self::Arm => "aarch64-unknown-linux-gnu",
        }
    }
}

/// What is to be done for a target.
#[derive(Debug, PartialEq, Eq)]
enum Task {
    Check,
    Test {
        package: Option<String>,
        args: Vec<String>,
    },
    Run(Vec<String>),
}

pub(crate) fn main(args: lexopt::Parser) -> Result<(), Error> {
    let Some((target, task)) = parse(args)? else {
        print!("{USAGE}");
        return Ok(());
    };
    let workspace = Workspace::load()?;
    let needs_to_run = task != Task::Check;
    let toolchain = Toolchain::find(target, &workspace.target.join("cross"), needs_to_run)?;
    println!("{}", toolchain.describe());
    match task {
        Task::Check => check(&toolchain),
        Task::Test { package, args } if target == Target::Windows => {
            windows::test(&toolchain, &workspace, package.as_deref(), &args)
        }
        Task::Test { package, args } => {
            let mut tally = Tally::default();
            let result = test(
                target,
                &toolchain,
                &workspace,
                package.as_deref(),
                &args,
                &mut tally,
            );
            println!(
                "\n{} passed, {} failed, {} skipped",
                tally.passed, tally.failed, tally.ignored
            );
            result
        }
        Task::Run(args) => toolchain.cargo("run").args(args).run(),
    }
}

fn parse(mut args: lexopt::Parser) -> Result<Option<(Target, Task)>, Error> {
    use lexopt::prelude::*;
    let mut words = Vec::new();
    while words.len() < 2 {
        match args.next()? {
            Some(Short('h') | Long("help")) => return Ok(None),
            Some(Value(word)) => words.push(word.string()?),
            Some(other) => return Err(other.unexpected().into()),
            None => return Err(Error::usage("which target and what? `cargo xtask cross --help`")),
        }
    }
    let target = Target::of(&words[0])
        .ok_or_else(|| Error::usage(format!("`{}` is none of windows, msvc, mac, arm", words[0])))?;
    let mut rest = args
        .raw_args()?
        .map(|arg| arg.string())
        .collect::<Result<Vec<_>, _>>()?;
    let runs = matches!(target, Target::Windows | Target::Arm);
    let task = match words[1].as_str() {
        "check" if rest.is_empty() => Task::Check,
        "test" if runs => {
            let package = (rest.first().is_some_and(|it| it == "-p") && rest.len() > 1).then(|| {
                rest.remove(0);
                rest.remove(0)
            });
            Task::Test { package, args: rest }
        }
        "run" if runs => Task::Run(rest),
        "test" | "run" => {
            return Err(Error::usage(format!(
                "nothing here runs programs of {}; `check` it",
                target.triple()
            )));
        }
        _ => return Err(Error::usage("`check`, `test ...` or `run ...`")),
    };
    Ok(Some((target, task)))
}

fn check(toolchain: &Toolchain) -> Result<(), Error> {
    for features in [&[][..], &["--all-features"], &["--no-default-features"]] {
        toolchain
            .cargo("check")
            .args(["--workspace", "--all-targets", "--locked"])
            .args(features)
            .env("RUSTFLAGS", "-D warnings")
            .run()?;
    }
    Ok(())
}

fn test(
    target: Target,
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
    let spawns = target != Target::Arm || qemu::can_spawn();
    if !spawns {
        println!("not tested: pools and `batch_eval`: {NO_PROCESSES}");
    }
    let members = workspace.members.iter().filter(|member| member.lib.is_some());
    for member in members.filter(|member| package.is_none_or(|name| name == member.name)) {
        let Some(tests) = tests_of(target, &member.name, spawns) else {
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
        let mut show = |name, shown: Result<(), Error>| match shown {
            Ok(()) => tally.passed += 1,
            Err(error) => {
                eprintln!("failed: {error}");
                tally.failed += 1;
                failed.push(name);
            }
        };
        show(
            "recommendations",
            same_recommendations(target, toolchain, workspace, &example),
        );
    }
    match failed.as_slice() {
        [] => Ok(()),
        names => Err(Error::failed(format!("failed: {}", names.join(", ")))),
    }
}

const NO_PROCESSES: &str = "a program under qemu-user can start another only where binfmt_misc knows of it: \
                            since Linux 6.7 in a namespace made for it, else with the package qemu-user-binfmt";

/// The tests of a crate that are run on a platform: those with one of these words in their names, or all; `None` for none.
/// An emulator takes seconds to start a process, and minutes for each test that goes through all bits of an image.
fn tests_of(target: Target, package: &str, spawns: bool) -> Option<&'static [&'static str]> {
    match (target, package) {
        (Target::Arm, "shm-buffers") => Some(&["ring::", "rings::", "slots::", "claims::", "backings::"]),
        (Target::Arm, "proc-pool") if spawns => Some(&["basics::"]),
        (Target::Arm, _) => None,
        _ => Some(&[]),
    }
}

/// Makes an executable file of `text`.
fn script(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(|e| Error::failed(format!("{}: {e}", path.display())))?;
    Cmd::new("chmod").args(["+x"]).args([path]).stdout().map(drop)
}

/// The evaluation writes the same bytes here and there, also when a worker dies on the way.
fn same_recommendations(
    target: Target,
    toolchain: &Toolchain,
    workspace: &Workspace,
    example: &Path,
) -> Result<(), Error> {
    Cmd::cargo()
        .args(["build", "-p", "invoker", "--example", "batch_eval"])
        .run()?;
    let ours = workspace
        .target
        .join("debug/examples")
        .join(format!("batch_eval{}", env::consts::EXE_SUFFIX));
    let dir = toolchain.scratch("recommendations")?;
    let read = |name: &str| {
        std::fs::read_to_string(dir.join(name)).map_err(|e| Error::failed(format!("{name}: {e}")))
    };
    let mut common = vec!["--workers", "2", "--log", "error", "--progress", "none"];
    if target == Target::Arm {
        few_ratings(workspace, &dir.join("few.csv"))?;
        common.extend(["--ratings", "few.csv"]);
    }
    let common = common.as_slice();
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
    let others: String = whole
        .split_inclusive('\n')
        .filter(|line| !line.starts_with("15,"))
        .collect();
    if crashed.is_ok() || others == whole || read("crashed.csv")? != others {
        return Err(Error::failed("a crash at user 15 did not cost user 15 alone"));
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Option<(Target, Task)>, Error> {
        parse(lexopt::Parser::from_args(words))
    }

    #[test]
    fn what_is_asked_for_is_understood() {
        let check = parsed(&["mac", "check"]).expect("right usage");
        assert_eq!(check, Some((Target::Mac, Task::Check)));
        let test = parsed(&["windows", "test", "-p", "progress", "--exact", "name"]).expect("right usage");
        let args = vec!["--exact".to_owned(), "name".to_owned()];
        let package = Some("progress".to_owned());
        assert_eq!(test, Some((Target::Windows, Task::Test { package, args })));
        assert_eq!(parsed(&["--help"]).expect("right usage"), None);
        for wrong in [
            &[][..],
            &["windows"],
            &["amiga", "check"],
            &["mac", "test"],
            &["arm", "sing"],
            &["arm", "check", "more"],
        ] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }
}
