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
/// The packages that the tests use beside the wheel and what that requires. joblib's own tests are those of this version.
const FOR_TESTS: &[&str] = &["joblib==1.6.0", "numpy", "pytest", "tqdm"];
/// What `--full` adds: without these, the tests that need them are skipped.
const FOR_ALL_TESTS: &[&str] = &[
    "distributed",
    "ipykernel",
    "ipyparallel",
    "ipywidgets",
    "mpi4py",
    "mpich",
    "nbclient",
    "ray",
    "scikit-learn",
];
/// LensKit before it removed its processes, with the versions of its time; `bench/lenskit_batch.py` compares its recommendations.
const LENSKIT: &[&str] = &[
    "lenskit==0.14.4",
    "csr==0.5.2",
    "numba==0.58.1",
    "numpy==1.26.4",
    "implicit==0.7.3",
    "lenskit-implicit==0.14.0",
];
/// What builds and checks a wheel for old systems.
const MANYLINUX: [&str; 3] = ["maturin[zig]>=1.9,<2", "auditwheel==6.8.2", "ziglang==0.15.2"];
/// The interpreter that is used if no other is asked for.
const DEFAULT_PYTHON: &str = "python3";
/// The oldest glibc that such a wheel may need: that of manylinux2014.
const OLDEST_GLIBC: (u32, u32) = (2, 17);

/// Build, test or measure the Python package; needs python3 (3.11 or later) and a package index
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    verb: Verb,
    /// Also the slow tests: joblib's own, notebooks, clusters, LensKit (many packages, minutes)
    #[arg(long)]
    full: bool,
    /// Build the wheel with zig, for Linux of 2014 and later (manylinux2014)
    #[arg(long)]
    manylinux: bool,
    /// The interpreter of the environments, for which the wheel is built: also one without a global lock
    #[arg(long, default_value = DEFAULT_PYTHON)]
    python: String,
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
        Verb::Test if args.full => test_fully(workspace, args),
        Verb::Test => {
            let package = Package::of(workspace, &args.python)?;
            let python = package.checked(FOR_TESTS)?;
            package.pytest(&python, &args.rest)
        }
        Verb::Wheel => {
            let package = Package::of(workspace, &args.python)?;
            let wheel = match args.manylinux {
                true => package.manylinux_wheel()?,
                false => package.wheel(Profile::Release)?,
            };
            println!("{}", wheel.display());
            Ok(())
        }
        Verb::Bench => {
            let package = Package::of(workspace, &args.python)?;
            let wheel = package.wheel(Profile::Release)?;
            let python = package.environment("bench", &wheel, FOR_TESTS)?;
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
    let package = Package::of(workspace, DEFAULT_PYTHON)?;
    let python = package.checked(FOR_TESTS)?;
    package.pytest(&python, &[])
}

/// Runs everything, with all packages that tests use.
fn test_fully(workspace: &Workspace, args: &Args) -> Result<()> {
    let package = Package::of(workspace, &args.python)?;
    let python = package.checked(&[FOR_TESTS, FOR_ALL_TESTS].concat())?;
    package.pytest(&python, &args.rest)?;
    let sh = &workspace.sh;
    let _dir = sh.push_dir(&package.dir);
    let joblib = "-m pytest -q -p no:cacheprovider -p invokerpool.tests.joblib_backend --pyargs joblib.test.test_parallel \
                  joblib.test.test_memmapping";
    cmd!(sh, "{python} -B").args(joblib.split_whitespace()).run()?;
    let wheel = package.wheel(Profile::Dev)?;
    let python = package.environment("lenskit", &wheel, LENSKIT)?;
    let script = package.root.join("bench/lenskit_batch.py");
    let ratings = package
        .root
        .join("invokerpool/examples/data/ml-latest-small-2016/ratings.csv");
    cmd!(sh, "{python} -B {script} {ratings}").run()?;
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
    /// For which the wheel is built, and of which the environments are.
    base: &'a str,
    root: PathBuf,
    /// For environments and wheels.
    dir: PathBuf,
}

impl<'a> Package<'a> {
    /// Creates the environment of the tools if needed.
    fn of(workspace: &'a Workspace, base: &'a str) -> Result<Self> {
        let sh = &workspace.sh;
        let package = Self {
            workspace,
            base,
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
        let cargo = match self.base {
            DEFAULT_PYTHON => cargo,
            other => cargo.env("PYO3_PYTHON", other),
        };
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
            "{maturin} build --quiet --locked --manifest-path {manifest} --out {out} --interpreter"
        );
        let build = build.arg(self.base);
        let build = build
            .args(release)
            .arg("--target-dir")
            .arg(&self.workspace.target);
        build.run()?;
        sh.read_dir(&out)?.pop().context("maturin built no wheel")
    }

    /// Builds a wheel that runs on systems of [`OLDEST_GLIBC`], checks it, and returns its path.
    fn manylinux_wheel(&self) -> Result<PathBuf> {
        let sh = &self.workspace.sh;
        let venv = self.dir.join("manylinux");
        let python = interpreter(&venv);
        cmd!(sh, "python3 -m venv {venv}").run()?;
        cmd!(
            sh,
            "{python} -m pip install --quiet --disable-pip-version-check {MANYLINUX...}"
        )
        .run()?;
        let out = self.workspace.empty_dir(self.dir.join("wheels"))?;
        let manifest = self.root.join("Cargo.toml");
        // maturin looks for zig as a module of the first Python in the path.
        let path = std::env::var_os("PATH").unwrap_or_default();
        let bin = python.parent().context("an interpreter has a directory")?;
        let path = std::env::join_paths(std::iter::once(bin.into()).chain(std::env::split_paths(&path)))?;
        let build = cmd!(
            sh,
            "{python} -m maturin build --quiet --locked --release --zig --compatibility manylinux2014"
        );
        build
            .args(["--manifest-path".as_ref(), manifest.as_os_str()])
            .args(["--out".as_ref(), out.as_os_str()])
            .args(["--target-dir".as_ref(), self.workspace.target.as_os_str()])
            .env("PATH", path)
            .run()?;
        let wheel = sh.read_dir(&out)?.pop().context("maturin built no wheel")?;
        let shown = cmd!(sh, "{python} -m auditwheel show {wheel}").read()?;
        let glibc = glibc_of(&shown).with_context(|| format!("auditwheel names no platform:\n{shown}"))?;
        if glibc > OLDEST_GLIBC {
            bail!("the wheel needs glibc {glibc:?}, more than {OLDEST_GLIBC:?}:\n{shown}");
        }
        Ok(wheel)
    }

    /// Checks the code, and creates an environment with a wheel of it and these packages. Returns its interpreter.
    fn checked(&self, packages: &[&str]) -> Result<PathBuf> {
        self.cargo("fmt --check").run()?;
        let clippy = self
            .cargo("clippy --locked --all-targets --target-dir")
            .arg(&self.workspace.target);
        clippy.args(["--", "-D", "warnings"]).run()?;
        let wheel = self.wheel(Profile::Dev)?;
        let python = self.environment("test", &wheel, packages)?;
        let (sh, mypy) = (&self.workspace.sh, self.tool("mypy"));
        let _dir = sh.push_dir(&self.root);
        cmd!(sh, "{mypy} --python-executable {python}").run()?;
        Ok(python)
    }

    fn pytest(&self, python: &Path, rest: &[String]) -> Result<()> {
        let sh = &self.workspace.sh;
        // Outside of the source tree, so that the wheel is what is imported.
        let _dir = sh.push_dir(&self.dir);
        let pytest = "-m pytest -q -p no:cacheprovider --doctest-modules --pyargs invokerpool".split(' ');
        let guide = self.root.join("README.md");
        cmd!(sh, "{python} -B").args(pytest).args(rest).run()?;
        cmd!(sh, "{python} -B -m doctest {guide}").run()?;
        Ok(())
    }

    /// Creates an environment with nothing but a wheel and these packages, and returns its interpreter.
    fn environment(&self, name: &str, wheel: &Path, packages: &[&str]) -> Result<PathBuf> {
        let sh = &self.workspace.sh;
        let venv = self.dir.join(name);
        let base = self.base;
        cmd!(sh, "{base} -m venv --clear {venv}").run()?;
        let python = interpreter(&venv);
        cmd!(
            sh,
            "{python} -m pip install --quiet --disable-pip-version-check {wheel} {packages...}"
        )
        .run()?;
        Ok(python)
    }
}

/// Returns the version of glibc in the platform tag that auditwheel shows: of `"manylinux_2_17_x86_64"`.
fn glibc_of(shown: &str) -> Option<(u32, u32)> {
    let (_, rest) = shown.split_once("tag:")?;
    let (_, rest) = rest.split_once("manylinux_")?;
    let mut numbers = rest.split('_').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn interpreter(venv: &Path) -> PathBuf {
    match cfg!(windows) {
        true => venv.join("Scripts/python.exe"),
        false => venv.join("bin/python"),
    }
}

/// Builds an optimized wheel for the environments of `bench peers`.
pub(crate) fn release_wheel(workspace: &Workspace) -> Result<PathBuf> {
    Package::of(workspace, DEFAULT_PYTHON)?.wheel(Profile::Release)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platform_of_a_wheel_is_read() {
        let shown = "is consistent with the following platform\ntag: \"manylinux_2_17_x86_64\".";
        assert_eq!(glibc_of(shown), Some((2, 17)));
        assert_eq!(glibc_of("tag: \"linux_x86_64\""), None);
    }
}
