//! The suites of all crates under wine, and what programs are to show there.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, thread};

use super::skips::{Skip, Skips};
use super::toolchain::Toolchain;
use super::{evaluation_here, survivors, wine};
use crate::cmd::{Cmd, Tally};
use crate::outcome::Error;
use crate::workspace::Workspace;

/// A watchdog for one crate's suite, which takes minutes; and for one run of a program.
const LONG: [&str; 4] = ["timeout", "--kill-after=10", "--verbose", "1800"];

/// How soon workers are to end with their leader.
const AFTER_LEADER: Duration = Duration::from_secs(2);

/// More than a thread of Windows' can wait for at once.
const MANY_WORKERS: usize = 70;

/// What became of one crate's tests.
struct Suite {
    name: String,
    tally: Tally,
    skips: Vec<Skip>,
    error: Option<Error>,
}

pub(super) fn test(
    toolchain: &Toolchain,
    workspace: &Workspace,
    package: Option<&str>,
    args: &[String],
) -> Result<(), Error> {
    // Tests that need these can't ask cargo for them from within.
    toolchain
        .cargo("build")
        .args(["-p", "invoker", "-p", "proc-pool"])
        .args(["--example", "batch_eval", "--example", "named_ops_worker"])
        .run()?;
    let example = toolchain.example("batch_eval");
    let members = workspace.members.iter().filter(|member| member.lib.is_some());
    let asked = members.filter(|member| package.is_none_or(|name| name == member.name));
    let suites: Vec<Suite> = asked
        .map(|member| suite(toolchain, &member.name, args, &example))
        .collect();
    if suites.is_empty() {
        return Err(Error::usage("there is no such crate"));
    }
    let mut shown = Vec::new();
    if package.is_none() && args.is_empty() {
        let programs = Programs::new(toolchain, workspace, example)?;
        for (what, show) in SHOWS {
            eprintln!("\nto be shown: {what}");
            shown.push((what, show(&programs)));
        }
    }
    let left = wine::end(toolchain.dir(), toolchain.built().as_os_str())?;
    report(&suites, &shown);
    let failed: Vec<&str> = suites
        .iter()
        .filter_map(|suite| suite.error.as_ref().map(|_| suite.name.as_str()))
        .chain(shown.iter().filter(|(_, it)| it.is_err()).map(|(what, _)| *what))
        .collect();
    match (failed.as_slice(), left.as_slice()) {
        ([], []) => Ok(()),
        ([], left) => Err(Error::failed(format!("processes outlived the tests: {left:?}"))),
        (failed, _) => Err(Error::failed(format!("failed: {}", failed.join("; ")))),
    }
}

fn suite(toolchain: &Toolchain, name: &str, args: &[String], example: &Path) -> Suite {
    let cmd = toolchain
        .cargo("test")
        .args(["-p", name, "--all-features", "--no-fail-fast"])
        .args(["--lib", "--bins", "--examples", "--tests", "--", "--show-output"])
        .args(args)
        .env("IT_BATCH_EVAL", example)
        .under(&LONG);
    let (mut tally, mut skips) = (Tally::default(), Skips::default());
    let error = cmd.run_tests_to(&mut skips, &mut tally).err();
    if let Some(error) = &error {
        eprintln!("failed: {error}");
    }
    // Who passed and told of a gap is not counted as passed.
    let skips = skips.found();
    let in_part = skips.iter().filter(|skip| skip.is_gap).count() as u64;
    tally.passed -= in_part.min(tally.passed);
    tally.ignored += in_part;
    let name = name.to_owned();
    Suite {
        name,
        tally,
        skips,
        error,
    }
}

fn report(suites: &[Suite], shown: &[(&str, Result<String, Error>)]) {
    println!("\n{:<14} {:>7} {:>7} {:>7}", "", "passed", "failed", "skipped");
    let line = |name: &str, tally: &Tally| {
        let Tally {
            passed,
            failed,
            ignored,
        } = tally;
        println!("{name:<14} {passed:>7} {failed:>7} {ignored:>7}");
    };
    let mut sum = Tally::default();
    for suite in suites {
        line(&suite.name, &suite.tally);
        sum += suite.tally;
    }
    line("all", &sum);
    println!("\nskipped, in whole or in part:");
    for suite in suites {
        for Skip { test, reason, is_gap } in &suite.skips {
            let wine = if *is_gap { "wine: " } else { "" };
            println!("  {} {test}: {wine}{reason}", suite.name);
        }
    }
    println!();
    for (what, how) in shown {
        match how {
            Ok(how) => println!("shown   {what}: {how}"),
            Err(error) => println!("FAILED  {what}: {error}"),
        }
    }
}

/// What is to be shown, and how.
type Show = fn(&Programs) -> Result<String, Error>;

const SHOWS: [(&str, Show); 4] = [
    ("the same recommendations as here", |it| {
        it.same_as_here("theirs.csv", 2)
    }),
    ("a crashed worker costs one user", |it| it.crashed_worker()),
    ("more workers than a thread can wait for", |it| {
        it.same_as_here("many.csv", MANY_WORKERS)
    }),
    ("a killed leader leaves no worker", |it| it.killed_leader()),
];

/// The evaluation over the built-in ratings, there and here.
struct Programs<'a> {
    toolchain: &'a Toolchain,
    example: PathBuf,
    dir: PathBuf,
    /// What it writes here.
    expected: String,
}

impl<'a> Programs<'a> {
    fn new(toolchain: &'a Toolchain, workspace: &Workspace, example: PathBuf) -> Result<Self, Error> {
        let ours = evaluation_here(workspace)?;
        let dir = toolchain.scratch("recommendations")?;
        Cmd::new(ours)
            .args(common("ours.csv", 2))
            .current_dir(&dir)
            .stdout()?;
        let mut it = Self {
            toolchain,
            example,
            dir,
            expected: String::new(),
        };
        it.expected = it.read("ours.csv")?;
        match it.expected.is_empty() {
            true => Err(Error::failed("no recommendations were written here")),
            false => Ok(it),
        }
    }

    fn read(&self, name: &str) -> Result<String, Error> {
        fs::read_to_string(self.dir.join(name)).map_err(|e| Error::failed(format!("{name}: {e}")))
    }

    /// Runs it there; gives its report and the recommendations it wrote.
    fn run(&self, name: &str, workers: usize) -> Result<(serde_json::Value, String), Error> {
        let program = self.toolchain.program(&self.example);
        let cmd = program
            .args(common(name, workers))
            .args(["--report", "json"])
            .current_dir(&self.dir)
            .under(&LONG);
        let report = serde_json::from_str(&cmd.stdout()?);
        let report = report.map_err(|e| Error::failed(format!("the report is no JSON: {e}")))?;
        Ok((report, self.read(name)?))
    }

    fn same_as_here(&self, name: &str, workers: usize) -> Result<String, Error> {
        let (report, recs) = self.run(name, workers)?;
        let told = &report["run"]["workers"];
        if recs != self.expected || told != workers {
            return Err(Error::failed(format!(
                "{name} and ours.csv in {} differ, or not {workers} workers but {told} were at work",
                self.dir.display()
            )));
        }
        Ok(format!(
            "{} bytes by {workers} workers, identical",
            self.expected.len()
        ))
    }

    fn crashed_worker(&self) -> Result<String, Error> {
        let program = self.toolchain.program(&self.example);
        // Its exit status says that one user has no list.
        let crashed = program
            .args(common("crashed.csv", 2))
            .args(["--crash-user", "15"])
            .current_dir(&self.dir)
            .under(&LONG)
            .status()?;
        if crashed.code() != Some(1) {
            return Err(Error::failed(
                "the exit status does not tell of a crash at user 15",
            ));
        }
        let left = survivors(&self.expected, &self.read("crashed.csv")?)?;
        Ok(format!(
            "{left} of {} bytes are left, the exit status is 1",
            self.expected.len()
        ))
    }

    fn killed_leader(&self) -> Result<String, Error> {
        const WORKERS: usize = 3;
        let program = self.toolchain.program(&self.example);
        let mut leader = program
            .args(["--workers", &WORKERS.to_string(), "--repeat", "1000000"])
            .args(["--log", "debug", "--progress", "none"])
            .current_dir(&self.dir)
            .start_to_read_stderr()?;
        // Once workers log, they work.
        let log = BufReader::new(leader.stderr.take().expect("it was asked for"));
        let works = log
            .lines()
            .map_while(Result::ok)
            .any(|line| line.contains("evaluated"));
        let living = || wine::processes(self.toolchain.dir(), self.example.as_os_str());
        let before = living().len();
        let killed = Instant::now();
        let ended = leader.kill().and_then(|()| leader.wait());
        ended.map_err(|e| Error::failed(format!("cannot kill the leader: {e}")))?;
        if !works || before != 1 + WORKERS {
            return Err(Error::failed(format!(
                "{before} processes instead of a leader and {WORKERS} workers"
            )));
        }
        while !living().is_empty() {
            if killed.elapsed() > AFTER_LEADER {
                return Err(Error::failed(format!("{:?} outlived their leader", living())));
            }
            thread::sleep(Duration::from_millis(1));
        }
        let took = killed.elapsed().as_millis();
        Ok(format!("{WORKERS} workers were gone after {took} ms"))
    }
}

fn common(recs: &str, workers: usize) -> [String; 8] {
    let workers = workers.to_string();
    let words = [
        "--workers",
        &*workers,
        "--log",
        "error",
        "--progress",
        "none",
        "--recs",
        recs,
    ];
    words.map(str::to_owned)
}
