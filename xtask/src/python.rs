//! `cargo xtask python`: the Python package `invokerpool`, which is in a workspace of its own.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use xshell::{Cmd, cmd};

use crate::NotRun;
use crate::run::{self, Tally};
use crate::workspace::Workspace;

/// The packages that build and check the package, in an environment of their own.
const TOOLS: [&str; 2] = ["maturin>=1.9,<2", "mypy>=1.15"];
/// The packages that the tests use beside the wheel and what that requires.
const FOR_TESTS: [&str; 4] = ["joblib", "numpy", "pytest", "tqdm"];

/// Build, test or measure the Python package; needs python3 (3.11 or later) and a package index
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    verb: Verb,
    /// Arguments for pytest or the benchmark
    #[arg(last = true)]
    rest: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Verb {
    /// Lint it, build a wheel, and run its tests in a new environment
    Test,
    /// Build an optimized wheel, and print its path
    Wheel,
    /// Measure it against ProcessPoolExecutor and joblib
    Bench,
}

pub(crate) fn main(args: &Args, workspace: &Workspace) -> Result<()> {
    match args.verb {
        Verb::Test => test(workspace, &args.rest),
        Verb::Wheel => {
            println!("{}", Package::of(workspace)?.wheel(Profile::Release)?.display());
            Ok(())
        }
        Verb::Bench => {
            let package = Package::of(workspace)?;
            let python = package.environment("bench", Profile::Release)?;
            let script = package.root.join("bench/compare.py");
            let bench = cmd!(workspace.sh, "{python} -B {script}");
            Ok(bench.args(&args.rest).run()?)
        }
    }
}

/// A step of `ci`.
pub(crate) fn step(workspace: &Workspace, _: &mut Tally) -> Result<()> {
    let found =
        cmd!(workspace.sh, "python3 -c").arg("import sys, venv; sys.exit(sys.version_info < (3, 11))");
    if !run::succeeds(found) {
        bail!(NotRun(
            "there is no python3 of version 3.11 or later with venv".to_owned()
        ));
    }
    test(workspace, &[])
}

fn test(workspace: &Workspace, rest: &[String]) -> Result<()> {
    let package = Package::of(workspace)?;
    package.cargo("fmt --check").run()?;
    let clippy = package
        .cargo("clippy --locked --all-targets --target-dir")
        .arg(&workspace.target);
    clippy.args(["--", "-D", "warnings"]).run()?;
    let python = package.environment("test", Profile::Dev)?;
    let (sh, root) = (&workspace.sh, &package.root);
    let mypy = package.tool("mypy");
    let _dir = sh.push_dir(root);
    cmd!(sh, "{mypy} --python-executable {python}").run()?;
    // Outside of the source tree, so that the wheel is what is imported.
    let _dir = sh.push_dir(&package.dir);
    let pytest = "-m pytest -q -p no:cacheprovider --doctest-modules --pyargs invokerpool".split(' ');
    let guide = root.join("README.md");
    cmd!(sh, "{python} -B").args(pytest).args(rest).run()?;
    cmd!(sh, "{python} -B -m doctest {guide}").run()?;
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Profile {
    Dev,
    Release,
}

/// The package and where it is built.
struct Package<'a> {
    workspace: &'a Workspace,
    root: PathBuf,
    /// For environments and wheels.
    dir: PathBuf,
}

impl<'a> Package<'a> {
    /// Creates the environment of the tools if needed.
    fn of(workspace: &'a Workspace) -> Result<Self> {
        let sh = &workspace.sh;
        let package = Self {
            workspace,
            root: workspace.root.join("python"),
            dir: sh.create_dir(workspace.target.join("python"))?,
        };
        let maturin = package.tool("maturin");
        let mypy = package.tool("mypy");
        if !run::succeeds(cmd!(sh, "{maturin} --version")) || !run::succeeds(cmd!(sh, "{mypy} --version")) {
            let venv = package.dir.join("tools");
            cmd!(sh, "python3 -m venv {venv}").run()?;
            let python = interpreter(&venv);
            cmd!(
                sh,
                "{python} -m pip install --quiet --disable-pip-version-check {TOOLS...}"
            )
            .run()?;
        }
        Ok(package)
    }

    fn cargo(&self, args: &str) -> Cmd<'a> {
        let (verb, rest) = args.split_once(' ').unwrap_or((args, ""));
        let manifest = self.root.join("Cargo.toml");
        let cargo = self.workspace.cargo(verb).arg("--manifest-path").arg(manifest);
        cargo.args(rest.split_whitespace())
    }

    fn tool(&self, name: &str) -> PathBuf {
        let venv = self.dir.join("tools");
        match cfg!(windows) {
            true => venv.join("Scripts").join(name).with_extension("exe"),
            false => venv.join("bin").join(name),
        }
    }

    /// Builds a wheel, and returns its path.
    fn wheel(&self, profile: Profile) -> Result<PathBuf> {
        let sh = &self.workspace.sh;
        let out = self.workspace.empty_dir(self.dir.join("wheels"))?;
        let (maturin, manifest) = (self.tool("maturin"), self.root.join("Cargo.toml"));
        let release = (profile == Profile::Release).then_some("--release");
        let build = cmd!(
            sh,
            "{maturin} build --quiet --locked --manifest-path {manifest} --out {out}"
        );
        let build = build
            .args(release)
            .arg("--target-dir")
            .arg(&self.workspace.target);
        build.run()?;
        sh.read_dir(&out)?.pop().context("maturin built no wheel")
    }

    /// Creates an environment with nothing but the wheel and the packages of its tests, and returns its interpreter.
    fn environment(&self, name: &str, profile: Profile) -> Result<PathBuf> {
        let sh = &self.workspace.sh;
        let wheel = self.wheel(profile)?;
        let venv = self.dir.join(name);
        cmd!(sh, "python3 -m venv --clear {venv}").run()?;
        let python = interpreter(&venv);
        cmd!(
            sh,
            "{python} -m pip install --quiet --disable-pip-version-check {wheel} {FOR_TESTS...}"
        )
        .run()?;
        Ok(python)
    }
}

fn interpreter(venv: &Path) -> PathBuf {
    match cfg!(windows) {
        true => venv.join("Scripts/python.exe"),
        false => venv.join("bin/python"),
    }
}

/// Builds an optimized wheel for the environments of `bench peers`.
pub(crate) fn release_wheel(workspace: &Workspace) -> Result<PathBuf> {
    Package::of(workspace)?.wheel(Profile::Release)
}
