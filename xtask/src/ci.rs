//! `cargo xtask ci`: everything a change must pass, in one command, with a summary of where the time went.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use crate::cmd::{Cmd, Tally};
use crate::outcome::{Done, Error};
use crate::workspace::{Publish, Workspace};
use crate::{faults, hostile, loom, small_shm, tidy};

const USAGE: &str = "\
Usage: cargo xtask ci [STEP...] [--list]

Runs every step, also after one has failed, and ends with a summary. With names, only those.
";

/// One check of the list.
struct Step {
    name: &'static str,
    about: &'static str,
    run: fn(&Workspace, &mut Tally) -> Result<Done, Error>,
}

/// Cheap ones first: most mistakes are told within seconds.
const STEPS: &[Step] = &[
    Step {
        name: "fmt",
        about: "every file is formatted",
        run: fmt,
    },
    Step {
        name: "tidy",
        about: "the house rules that code can check",
        run: |workspace, _| passed(tidy::run(workspace)),
    },
    Step {
        name: "clippy",
        about: "all targets and features, warnings denied",
        run: clippy,
    },
    Step {
        name: "doc",
        about: "documentation builds, warnings denied",
        run: doc,
    },
    Step {
        name: "test",
        about: "the README's test command, with documentation tests",
        run: test,
    },
    Step {
        name: "alone",
        about: "each library by itself, without and with each of its features",
        run: alone,
    },
    Step {
        name: "small-shm",
        about: "the tests where /dev/shm has 64 MB",
        run: |_, tally| small_shm::run(tally),
    },
    Step {
        name: "faults",
        about: "each phase of a worker's life × each fault, with one number of workers and one order",
        run: |_, tally| faults::sample(tally),
    },
    Step {
        name: "hostile",
        about: "workers, leaders and images that lie, for a short while",
        run: |_, tally| hostile::sample(tally),
    },
    Step {
        name: "loom",
        about: "the rings under every interleaving",
        run: loom::run,
    },
    Step {
        name: "msrv",
        about: "the oldest supported compiler, if installed",
        run: msrv,
    },
    Step {
        name: "package",
        about: "each published crate can be packaged, with those of ours that it depends on",
        run: package,
    },
    Step {
        name: "deny",
        about: "licences, duplicates and sources, if cargo-deny is installed",
        run: deny,
    },
];

pub(crate) fn main(mut args: lexopt::Parser) -> Result<(), Error> {
    use lexopt::prelude::*;
    let mut chosen: Vec<&Step> = Vec::new();
    while let Some(arg) = args.next()? {
        match arg {
            Long("list") => {
                STEPS
                    .iter()
                    .for_each(|step| println!("{:10} {}", step.name, step.about));
                return Ok(());
            }
            Short('h') | Long("help") => {
                print!("{USAGE}");
                return Ok(());
            }
            Value(name) => {
                let name = name.string()?;
                let step = STEPS.iter().find(|step| step.name == name);
                chosen.push(step.ok_or_else(|| {
                    Error::usage(format!(
                        "unknown step `{name}`; `cargo xtask ci --list` lists them"
                    ))
                })?);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    if chosen.is_empty() {
        chosen.extend(STEPS);
    }
    let workspace = Workspace::load()?;
    let ended: Vec<Ended> = chosen
        .into_iter()
        .map(|step| run_step(step, &workspace))
        .collect();
    let (summary, verdict) = summarize(&ended);
    // A closed standard output must not hide the verdict.
    let _ = io::stdout().write_all(summary.as_bytes());
    verdict
}

/// A step that has run.
struct Ended {
    name: &'static str,
    result: Result<Done, Error>,
    tally: Tally,
    took: Duration,
}

fn run_step(step: &Step, workspace: &Workspace) -> Ended {
    eprintln!("\n== {}: {}", step.name, step.about);
    let mut tally = Tally::default();
    let start = Instant::now();
    let result = (step.run)(workspace, &mut tally);
    match &result {
        Ok(Done::Passed) => {}
        Ok(Done::Skipped(reason)) => eprintln!("skipped: {reason}"),
        Err(error) => eprintln!("failed: {error}"),
    }
    Ended {
        name: step.name,
        result,
        tally,
        took: start.elapsed(),
    }
}

/// The table of the steps, a line that counts the tests, and what it all came to.
fn summarize(ended: &[Ended]) -> (String, Result<(), Error>) {
    let mut text = String::from("\nstep       result   seconds  tests\n");
    let mut failed = Vec::new();
    let mut sum = Tally::default();
    for step in ended {
        let (word, why) = match &step.result {
            Ok(Done::Passed) => ("passed", String::new()),
            Ok(Done::Skipped(reason)) => ("skipped", reason.clone()),
            Err(error) => ("FAILED", error.to_string()),
        };
        if step.result.is_err() {
            failed.push(step.name);
        }
        sum += step.tally;
        let tests = step.tally.passed + step.tally.failed;
        let tests = if tests == 0 {
            String::new()
        } else {
            tests.to_string()
        };
        let line = format!(
            "{:10} {word:8} {:7.1}  {tests:5}  {why}",
            step.name,
            step.took.as_secs_f64()
        );
        writeln!(text, "{}", line.trim_end()).expect("writing to a string succeeds");
    }
    let Tally {
        passed,
        failed: broken,
        ignored,
    } = sum;
    if sum != Tally::default() {
        writeln!(text, "\n{passed} passed, {broken} failed, {ignored} skipped")
            .expect("writing to a string succeeds");
    }
    let verdict = match failed.as_slice() {
        [] => Ok(()),
        names => Err(Error::failed(format!("ci failed in {}", names.join(", ")))),
    };
    (text, verdict)
}

fn passed(result: Result<(), Error>) -> Result<Done, Error> {
    result.map(|()| Done::Passed)
}

fn fmt(_: &Workspace, _: &mut Tally) -> Result<Done, Error> {
    passed(Cmd::cargo().args(["fmt", "--all", "--", "--check"]).run())
}

fn clippy(_: &Workspace, _: &mut Tally) -> Result<Done, Error> {
    let args = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--",
        "-D",
        "warnings",
    ];
    passed(Cmd::cargo().args(args).run())
}

fn doc(_: &Workspace, _: &mut Tally) -> Result<Done, Error> {
    let args = ["doc", "--workspace", "--all-features", "--no-deps"];
    passed(Cmd::cargo().args(args).env("RUSTDOCFLAGS", "-D warnings").run())
}

fn test(_: &Workspace, tally: &mut Tally) -> Result<Done, Error> {
    Cmd::cargo().args(["test", "--workspace"]).run_tests(tally)?;
    if tally.passed == 0 {
        return Err(Error::failed("no test was executed"));
    }
    Ok(Done::Passed)
}

/// In a workspace build, a feature that one crate forgot to ask for is there because another one did.
fn alone(workspace: &Workspace, tally: &mut Tally) -> Result<Done, Error> {
    for member in workspace.members.iter().filter(|member| member.lib.is_some()) {
        let on = |verb: &str| Cmd::cargo().args([verb, "-p", &member.name, "--lib"]);
        // Without tests there are no dev-dependencies to lend features either.
        on("check").args(["--no-default-features"]).run()?;
        on("test").args(["--no-default-features"]).run_tests(tally)?;
        for feature in &member.features {
            on("check")
                .args(["--no-default-features", "--features", feature])
                .run()?;
        }
        if !member.features.is_empty() {
            on("test").args(["--all-features"]).run_tests(tally)?;
        }
    }
    Ok(Done::Passed)
}

fn msrv(workspace: &Workspace, _: &mut Tally) -> Result<Done, Error> {
    let versions = workspace
        .members
        .iter()
        .filter_map(|member| member.rust_version.as_deref());
    let Some(oldest) = versions.max() else {
        return Err(Error::failed("no crate has a `rust-version`"));
    };
    // Asked first: naming a missing toolchain would make rustup download it.
    let installed = Cmd::new("rustup")
        .args(["toolchain", "list"])
        .stdout()
        .unwrap_or_default();
    let Some(toolchain) = installed_toolchain(&installed, oldest) else {
        return Ok(Done::Skipped(format!("toolchain {oldest} is not installed")));
    };
    let cmd = Cmd::new("rustup").args([
        "run",
        &toolchain,
        "cargo",
        "check",
        "--workspace",
        "--all-features",
    ]);
    passed(cmd.env("CARGO_TARGET_DIR", workspace.target.join("msrv")).run())
}

/// The installed toolchain of that version, as `1.88` or `1.88.0`, from the output of `rustup toolchain list`.
fn installed_toolchain(listed: &str, version: &str) -> Option<String> {
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    let of_version = |name: &&str| {
        name.strip_prefix(version)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-']))
    };
    names.into_iter().find(of_version).map(str::to_owned)
}

/// What `cargo publish` would send, in the order of their dependencies; not compiled once more.
fn package(workspace: &Workspace, _: &mut Tally) -> Result<Done, Error> {
    let mut cmd = Cmd::cargo().args([
        "package",
        "--workspace",
        "--no-verify",
        "--allow-dirty",
        "--quiet",
    ]);
    for member in &workspace.members {
        if member.publish == Publish::No {
            cmd = cmd.args(["--exclude", &member.name]);
        }
    }
    passed(cmd.run())
}

/// Advisories are left to a scheduled run: they change without the code, and need a database from the network.
fn deny(_: &Workspace, _: &mut Tally) -> Result<Done, Error> {
    if !Cmd::cargo().args(["deny", "--version"]).succeeds() {
        return Ok(Done::Skipped("cargo-deny is not installed".to_owned()));
    }
    passed(
        Cmd::cargo()
            .args(["deny", "--all-features", "check", "bans", "licenses", "sources"])
            .run(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(name: &'static str, result: Result<Done, Error>, passed: u64) -> Ended {
        let tally = Tally {
            passed,
            ..Tally::default()
        };
        Ended {
            name,
            result,
            tally,
            took: Duration::from_millis(1500),
        }
    }

    #[test]
    fn the_summary_tells_each_step_and_counts_the_tests() {
        let skipped = Done::Skipped("not allowed here".to_owned());
        let (text, verdict) = summarize(&[
            ended("fmt", Ok(Done::Passed), 0),
            ended("test", Ok(Done::Passed), 7),
            ended("small-shm", Ok(skipped), 0),
        ]);
        assert!(verdict.is_ok());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[2], "fmt        passed       1.5");
        assert_eq!(lines[3], "test       passed       1.5  7");
        assert_eq!(lines[4], "small-shm  skipped      1.5         not allowed here");
        assert_eq!(lines.last(), Some(&"7 passed, 0 failed, 0 skipped"));
    }

    #[test]
    fn one_failed_step_fails_the_run_and_is_named() {
        let (text, verdict) = summarize(&[
            ended("doc", Err(Error::failed("broken link")), 0),
            ended("test", Ok(Done::Passed), 1),
        ]);
        assert!(text.contains("doc        FAILED"), "{text}");
        assert!(text.contains("broken link"), "{text}");
        assert_eq!(
            verdict.expect_err("a failure passed").to_string(),
            "ci failed in doc"
        );
    }

    #[test]
    fn the_oldest_toolchain_is_found_by_its_version_only() {
        let listed = "stable-x86_64-unknown-linux-gnu (active, default)\n1.88.0-x86_64-unknown-linux-gnu\n";
        assert_eq!(
            installed_toolchain(listed, "1.88").as_deref(),
            Some("1.88.0-x86_64-unknown-linux-gnu")
        );
        assert_eq!(installed_toolchain(listed, "1.8"), None);
        assert_eq!(installed_toolchain(listed, "1.89"), None);
    }

    #[test]
    fn step_names_are_unique() {
        for (index, step) in STEPS.iter().enumerate() {
            assert!(
                STEPS[..index].iter().all(|earlier| earlier.name != step.name),
                "{}",
                step.name
            );
        }
    }
}
