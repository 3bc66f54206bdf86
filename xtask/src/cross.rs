//! `cargo xtask cross`: other platforms, compiled and (where something here can run them) tested.

mod arm;
mod qemu;
mod skips;
mod toolchain;
mod windows;
mod wine;

use std::env;
use std::path::{Path, PathBuf};

use crate::cmd::Cmd;
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
        Task::Test { package, args } => arm::test(&toolchain, &workspace, package.as_deref(), &args),
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

/// Makes an executable file of `text`.
fn script(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(|e| Error::failed(format!("{}: {e}", path.display())))?;
    Cmd::new("chmod").args(["+x"]).args([path]).stdout().map(drop)
}

/// Builds the evaluation for this machine, which is to give the same as elsewhere.
fn evaluation_here(workspace: &Workspace) -> Result<PathBuf, Error> {
    Cmd::cargo()
        .args(["build", "-p", "invoker", "--example", "batch_eval"])
        .run()?;
    let name = format!("batch_eval{}", env::consts::EXE_SUFFIX);
    Ok(workspace.target.join("debug/examples").join(name))
}

/// How many bytes of the recommendations are left after a crash at user 15, which is to cost that user's alone.
fn survivors(whole: &str, left: &str) -> Result<usize, Error> {
    let others: String = whole
        .split_inclusive('\n')
        .filter(|line| !line.starts_with("15,"))
        .collect();
    match others != whole && left == others {
        true => Ok(others.len()),
        false => Err(Error::failed("a crash at user 15 did not cost user 15 alone")),
    }
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

    #[test]
    fn a_crash_costs_one_user_no_more_and_no_less() {
        let whole = "user,item\n14,1\n15,2\n15,3\n150,4\n";
        let expected = "user,item\n14,1\n150,4\n";
        assert_eq!(
            survivors(whole, expected).expect("as it should be"),
            expected.len()
        );
        for wrong in ["", whole, "user,item\n14,1\n"] {
            assert!(survivors(whole, wrong).is_err(), "{wrong:?}");
        }
        assert!(survivors(expected, expected).is_err(), "there was no such user");
    }
}
