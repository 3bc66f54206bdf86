//! Virtual environments under the target directory, with the peers' packages in the versions of `pins.txt`.

use std::fs;
use std::path::{Path, PathBuf};

use super::Peer;
use crate::cmd::Cmd;
use crate::outcome::Error;

/// What runs a peer's measures.
const SCRIPTS: &[(&str, &str)] = &[
    ("clusters.py", include_str!("clusters.py")),
    ("guard.py", include_str!("guard.py")),
    ("local.py", include_str!("local.py")),
    ("measures.py", include_str!("measures.py")),
    ("peers.py", include_str!("peers.py")),
    ("pins.txt", include_str!("pins.txt")),
    ("pool.py", include_str!("pool.py")),
    ("tasks.py", include_str!("tasks.py")),
];

/// All wheels of PyTorch for this platform that the index has are for GPUs: 2.5 GB with the libraries that they can't be
/// imported without.
const TORCH_IS_HUGE: bool = cfg!(all(target_os = "linux", target_arch = "x86_64"));

/// Which environment a peer lives in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Home {
    Everybody,
    /// Some of the others import PyTorch wherever it is, and are slower for it.
    Torch,
}

/// Where scripts and environments are.
pub(super) struct Environments {
    dir: PathBuf,
}

impl Environments {
    /// With the scripts as they are now.
    pub(super) fn new(dir: PathBuf) -> Result<Self, Error> {
        let failed = |error| Error::failed(format!("cannot write to {}: {error}", dir.display()));
        fs::create_dir_all(&dir).map_err(failed)?;
        for (name, text) in SCRIPTS {
            fs::write(dir.join(name), text).map_err(failed)?;
        }
        Ok(Self { dir })
    }

    pub(super) fn script(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// An interpreter that has what a peer needs, or why there is none.
    pub(super) fn python(&self, peer: &Peer) -> Result<PathBuf, String> {
        let venv = self.dir.join(match peer.home {
            Home::Everybody => "venv",
            // Not a name that Python could import: scripts lie beside it.
            Home::Torch => "venv-torch",
        });
        let python = interpreter(&venv);
        if !Cmd::new(&python).args(["--version"]).succeeds() {
            let made = Cmd::new("python3").args(["-m", "venv"]).args([&venv]);
            if !made.succeeds() {
                return Err("no python3 that can make virtual environments".to_owned());
            }
        }
        let pins = self.script("pins.txt");
        if peer.home == Home::Torch && TORCH_IS_HUGE {
            // Whoever wants it measured brings it: any build will do.
            let there = Cmd::new(&python).args(["-c", "import numpy, torch"]).succeeds();
            return there.then_some(python.clone()).ok_or_else(|| {
                format!(
                    "on this platform it takes 2.5 GB, for GPUs; measured if `{} -m pip install --constraint {} torch numpy` was done",
                    python.display(),
                    pins.display()
                )
            });
        }
        if installed(&python, &pins, peer.packages) {
            Ok(python)
        } else {
            Err(format!("pip can't install {}", peer.packages.join(", ")))
        }
    }
}

fn interpreter(venv: &Path) -> PathBuf {
    match cfg!(windows) {
        true => venv.join("Scripts/python.exe"),
        false => venv.join("bin/python"),
    }
}

/// Pip does nothing, and asks nobody, where these packages are there already.
fn installed(python: &Path, pins: &Path, packages: &[&str]) -> bool {
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--retries=1",
        "--timeout=15",
        "--only-binary=:all:",
        "--constraint",
    ];
    Cmd::new(python)
        .args(pip)
        .args([pins])
        .args(["numpy"])
        .args(packages)
        .succeeds()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::peers::PEERS;

    #[test]
    fn every_package_has_a_pinned_version_and_every_module_comes_along() {
        let text = |wanted: &str| {
            SCRIPTS
                .iter()
                .find(|(name, _)| *name == wanted)
                .map(|(_, text)| *text)
        };
        let pins = text("pins.txt").expect("it is one of them");
        for package in PEERS.iter().flat_map(|peer| peer.packages).chain(&["numpy"]) {
            let pin = format!("{package}==");
            assert!(pins.lines().any(|line| line.starts_with(&pin)), "{package}");
        }
        for (name, script) in SCRIPTS.iter().filter(|(name, _)| name.ends_with(".py")) {
            let imported = script.lines().filter_map(|line| line.strip_prefix("import "));
            let ours = ["clusters", "local", "measures", "pool", "tasks"];
            for module in imported.filter(|module| ours.contains(module)) {
                assert!(text(&format!("{module}.py")).is_some(), "{name} imports {module}");
            }
        }
    }

    #[test]
    fn the_script_knows_every_peer() {
        let known = SCRIPTS.iter().find(|(name, _)| *name == "peers.py");
        let (_, known) = known.expect("it is one of them");
        for peer in PEERS {
            assert!(known.contains(&format!("\"{}\":", peer.name)), "{}", peer.name);
        }
    }
}
