//! `cargo xtask ci`: everything that a change must pass, with a summary of results and times.

use std::env;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use cargo_metadata::{Message, Package};
use clap::builder::PossibleValuesParser;
use xshell::cmd;

use crate::endurance::{sample_faults, sample_hostile};
use crate::run::{self, Tally};
use crate::workspace::{self, Workspace};
use crate::{NotRun, cluster, cookbook, python, standalone, tidy};

/// Run everything that a change must pass
///
/// Runs every step, also after one has failed, and prints a summary.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run only these steps
    #[arg(value_name = "STEP", value_parser = PossibleValuesParser::new(STEPS.iter().map(|step| step.0)))]
    steps: Vec<String>,
    /// List the steps
    #[arg(long)]
    list: bool,
}

type Step = fn(&Workspace, &mut Tally) -> Result<()>;

/// Name, description and function of each step. Cheap ones come first: most mistakes are found within seconds.
const STEPS: &[(&str, &str, Step)] = &[
    ("fmt", "every file is formatted", fmt),
    ("tidy", "the house rules", |workspace, _| tidy::run(workspace)),
    ("clippy", "all targets and features, warnings denied", clippy),
    ("doc", "documentation builds, warnings denied", doc),
    (
        "cluster",
        "the NATS server of invoker-nats' tests",
        cluster::prepare,
    ),
    ("test", "the README's test command, with doctests", test),
    (
        "debian",
        "runs and faults with Debian's NATS server",
        cluster::sample_debian,
    ),
    ("alone", "each library alone, with none and each feature", alone),
    (
        "standalone",
        "programs with one crate of ours each",
        standalone_programs,
    ),
    ("cookbook", "two recipes of the cookbook, small", cookbook::sample),
    ("python", "the Python package in a new environment", python::step),
    ("small-shm", "the tests where /dev/shm has 64 MB", small_shm),
    ("faults", "each fault in each phase of worker life", sample_faults),
    ("hostile", "hostile workers, leaders and images", sample_hostile),
    ("loom", "the rings under every interleaving", loom),
    ("msrv", "the oldest supported compiler, if installed", msrv),
    ("package", "each published crate can be packaged", package),
    ("deny", "licences, duplicates, sources, with cargo-deny", deny),
];

pub(crate) fn main(args: &Args, workspace: &Workspace) -> Result<()> {
    let mut summary = Summary::default();
    for (name, about, step) in STEPS {
        if args.list {
            println!("{name:10} {about}");
        } else if args.steps.is_empty() || args.steps.iter().any(|chosen| chosen == name) {
            eprintln!("\n== {name}: {about}");
            let (mut tally, start) = (Tally::default(), Instant::now());
            let result = step(workspace, &mut tally);
            summary.add(name, result, tally, start.elapsed().as_secs_f64());
        }
    }
    // A closed standard output must not hide the verdict.
    let _ = io::stdout().write_all(summary.text().as_bytes());
    let failed = summary.failed.join(", ");
    ensure!(failed.is_empty(), "ci failed in {failed}");
    Ok(())
}

/// The results of the steps.
#[derive(Default)]
struct Summary {
    table: String,
    failed: Vec<&'static str>,
    tests: Tally,
}

impl Summary {
    fn add(&mut self, name: &'static str, result: Result<()>, tally: Tally, seconds: f64) {
        let (word, why) = match result {
            Ok(()) => ("passed", String::new()),
            Err(error) if error.is::<NotRun>() => ("skipped", format!("{error:#}")),
            Err(error) => ("FAILED", format!("{error:#}")),
        };
        if !why.is_empty() {
            eprintln!("{word}: {why}");
        }
        if word == "FAILED" {
            self.failed.push(name);
        }
        self.tests += tally;
        let tests = match tally.passed + tally.failed {
            0 => String::new(),
            tests => tests.to_string(),
        };
        let line = format!("{name:10} {word:8} {seconds:7.1}  {tests:5}  {why}");
        self.table += &format!("{}\n", line.trim_end());
    }

    /// Returns the table of the steps, and the line that counts the tests.
    fn text(&self) -> String {
        let table = match self.table.as_str() {
            "" => return String::new(),
            table => format!("\nstep       result   seconds  tests\n{table}"),
        };
        match self.tests == Tally::default() {
            true => table,
            false => format!("{table}\n{}\n", self.tests),
        }
    }
}

fn fmt(workspace: &Workspace, _: &mut Tally) -> Result<()> {
    workspace.cargo("fmt --all -- --check").run().map_err(Into::into)
}

fn clippy(workspace: &Workspace, _: &mut Tally) -> Result<()> {
    let cargo = workspace.cargo("clippy --workspace --all-targets --all-features");
    Ok(cargo.args(["--", "-D", "warnings"]).run()?)
}

fn doc(workspace: &Workspace, _: &mut Tally) -> Result<()> {
    let cargo = workspace.cargo("doc --workspace --all-features --no-deps");
    Ok(cargo.env("RUSTDOCFLAGS", "-D warnings").run()?)
}

fn test(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    run::tests(workspace.cargo("test --workspace"), tally)?;
    ensure!(tally.passed > 0, "no test was executed");
    Ok(())
}

/// In a workspace build, a feature that one crate forgot to enable is there because another one enables it.
fn alone(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    for member in workspace.libraries() {
        let on = |verb: &str| workspace.cargo(&format!("{verb} --lib -p {}", member.name));
        // Without tests there are no dev-dependencies to enable features either.
        on("check --no-default-features").run()?;
        run::tests(on("test --no-default-features"), tally)?;
        let features = member.features.keys().filter(|it| *it != "default");
        for feature in features.clone() {
            on(&format!("check --no-default-features --features {feature}")).run()?;
        }
        if features.count() > 0 {
            run::tests(on("test --all-features"), tally)?;
        }
    }
    Ok(())
}

fn standalone_programs(workspace: &Workspace, _: &mut Tally) -> Result<()> {
    standalone::main(&standalone::Args::default(), workspace)
}

/// The crates with shared memory of their own. The others have none, or only that of an invoker.
const WITH_SHARED_MEMORY: [&str; 4] = ["shm-buffers", "proc-pool", "log-bridge", "invoker"];

/// Runs the tests where `/dev/shm` has 64 MB, as in a container with Docker's default settings: in a private mount namespace,
/// which no process outside sees. That takes Linux and the right to create namespaces.
fn small_shm(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    if !Path::new("/dev/shm").is_dir() {
        bail!(NotRun("this system has no /dev/shm".to_owned()));
    }
    let sh = &workspace.sh;
    let mount = "mount -t tmpfs -o size=64m tmpfs /dev/shm && exec \"$@\"";
    // For root, and for a user who may become root in a new user namespace.
    for flags in ["-m", "-rm"] {
        let launched = |program: &Path| cmd!(sh, "unshare {flags} sh -c {mount} sh {program}");
        if run::succeeds(launched(Path::new("true"))) {
            let mut failed = Vec::new();
            for (member, program) in test_programs(workspace, &WITH_SHARED_MEMORY)? {
                let _dir = sh.push_dir(workspace::dir(member));
                if let Err(error) = run::tests(launched(&program), tally) {
                    failed.push(format!("{error:#}"));
                }
            }
            ensure!(failed.is_empty(), "{}", failed.join("; "));
            return Ok(());
        }
    }
    let reason = "namespaces with a tmpfs (unshare -m, unshare -rm) are not allowed here";
    bail!(NotRun(reason.to_owned()))
}

/// Builds the test programs of these crates, and returns them. They are those of `cargo test --workspace`, with the features that
/// all members need: a build for some members would compile most crates again. Documentation tests are none of them.
fn test_programs<'w>(workspace: &'w Workspace, names: &[&str]) -> Result<Vec<(&'w Package, PathBuf)>> {
    let cargo = workspace.cargo("test --workspace --lib --bins --tests --examples --no-run");
    let messages = cargo
        .args(["--message-format", "json-render-diagnostics"])
        .read()?;
    let mut programs = Vec::new();
    for message in Message::parse_stream(messages.as_bytes()) {
        if let Message::CompilerArtifact(artifact) = message?
            && artifact.profile.test
            && let Some(program) = artifact.executable
            && let Some(member) = workspace
                .members
                .iter()
                .find(|member| member.id == artifact.package_id)
            && names.contains(&member.name.as_str())
        {
            programs.push((member, program.into_std_path_buf()));
        }
    }
    for name in names {
        let found = programs.iter().any(|(member, _)| member.name == *name);
        ensure!(found, "{name} has no test program");
    }
    Ok(programs)
}

/// Runs the rings' concurrency tests under every interleaving that loom can reach. They have a target directory of their own,
/// because the flag rebuilds every dependency.
pub(crate) fn loom(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let variable = |name, default: &str| env::var(name).unwrap_or(default.to_owned());
    let flags = variable("RUSTFLAGS", "") + " --cfg loom";
    // Loom's documentation finds that more pre-emptions rarely find more, and the time grows exponentially.
    let preemptions = variable("LOOM_MAX_PREEMPTIONS", "3");
    let cargo = workspace.cargo("test -p shm-buffers --lib loom --target-dir");
    let cargo = cargo.arg(workspace.target.join("loom")).env("RUSTFLAGS", flags);
    run::tests(cargo.env("LOOM_MAX_PREEMPTIONS", preemptions), tally)?;
    ensure!(tally.passed > 0, "shm-buffers has no loom test");
    Ok(())
}

fn msrv(workspace: &Workspace, _: &mut Tally) -> Result<()> {
    let sh = &workspace.sh;
    let versions = workspace.members.iter().filter_map(|it| it.rust_version.as_ref());
    let oldest = versions.max().context("no crate has a `rust-version`")?;
    let oldest = format!("{}.{}", oldest.major, oldest.minor);
    // Naming a missing toolchain would make rustup download it.
    let installed = cmd!(sh, "rustup toolchain list").read().unwrap_or_default();
    let Some(toolchain) = installed_toolchain(&installed, &oldest) else {
        bail!(NotRun(format!("toolchain {oldest} is not installed")));
    };
    let cargo = cmd!(sh, "rustup run {toolchain} cargo check --workspace");
    let target = workspace.target.join("msrv");
    Ok(cargo.args(["--all-features", "--target-dir"]).arg(target).run()?)
}

/// Finds the toolchain of that version, as `1.88` or `1.88.0`, in the output of `rustup toolchain list`.
fn installed_toolchain<'a>(listed: &'a str, version: &str) -> Option<&'a str> {
    let mut names = listed.lines().filter_map(|line| line.split_whitespace().next());
    names.find(|name| match name.strip_prefix(version) {
        Some(rest) => rest.is_empty() || rest.starts_with(['.', '-']),
        None => false,
    })
}

/// Packages what `cargo publish` would send. The files are not compiled again.
fn package(workspace: &Workspace, _: &mut Tally) -> Result<()> {
    let mut cargo = workspace.cargo("package --workspace --no-verify --allow-dirty --quiet");
    for member in &workspace.members {
        if !workspace::is_published(member) {
            cargo = cargo.args(["--exclude", &member.name]);
        }
    }
    Ok(cargo.run()?)
}

/// Advisories are left to a scheduled workflow: they change without the code, and need a database from the network.
fn deny(workspace: &Workspace, _: &mut Tally) -> Result<()> {
    if !run::succeeds(workspace.cargo("deny --version")) {
        bail!(NotRun("cargo-deny is not installed".to_owned()));
    }
    let cargo = workspace.cargo("deny --all-features check bans licenses sources");
    Ok(cargo.run()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_lists_the_steps_and_counts_the_tests() {
        let (mut summary, mut tests) = (Summary::default(), Tally::default());
        assert_eq!(summary.text(), "");
        tests.passed = 7;
        summary.add("fmt", Ok(()), Tally::default(), 1.5);
        summary.add("test", Ok(()), tests, 1.5);
        let reason = NotRun("not allowed here".to_owned());
        summary.add("small-shm", Err(reason.into()), Tally::default(), 1.5);
        assert!(summary.failed.is_empty());
        let broken = anyhow::anyhow!("broken link").context("doc");
        summary.add("doc", Err(broken), Tally::default(), 12.0);
        assert_eq!(summary.failed, ["doc"]);
        let expected = "\n\
            step       result   seconds  tests\n\
            fmt        passed       1.5\n\
            test       passed       1.5  7\n\
            small-shm  skipped      1.5         not allowed here\n\
            doc        FAILED      12.0         doc: broken link\n\
            \n7 passed, 0 failed, 0 skipped\n";
        assert_eq!(summary.text(), expected);
    }

    #[test]
    fn toolchain_is_found_by_its_whole_version() {
        let listed = "stable-x86_64 (active, default)\n1.88.0-x86_64\n";
        assert_eq!(installed_toolchain(listed, "1.88"), Some("1.88.0-x86_64"));
        assert_eq!(installed_toolchain(listed, "1.8"), None);
        assert_eq!(installed_toolchain(listed, "1.89"), None);
    }
}
