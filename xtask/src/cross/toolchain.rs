//! What compiles, links and runs programs of another platform.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Target, qemu, script, wine};
use crate::cmd::Cmd;
use crate::outcome::Error;

/// Where Debian has its own compiler, beside one of rustup's.
const DEBIAN: &str = "/usr/bin";

/// A way to programs of a target.
pub(super) struct Toolchain {
    target: Target,
    std: Std,
    /// Cargo's target directory.
    dir: PathBuf,
}

/// Where the standard library comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Std {
    /// It came with the compiler that runs this tool.
    Installed,
    /// It is compiled from Debian's sources by Debian's compiler.
    Built,
}

impl Toolchain {
    pub(super) fn find(target: Target, dir: &Path, needs_to_run: bool) -> Result<Self, Error> {
        let std = match is_installed(target)? {
            true => Std::Installed,
            false => Std::Built,
        };
        install(&packages(target, std, needs_to_run))?;
        let sources = Path::new("/usr/lib/rustlib/src/rust/library/Cargo.lock");
        if std == Std::Built && !sources.exists() {
            return Err(Error::failed(format!(
                "there are no sources of the standard library at {}",
                sources.display()
            )));
        }
        std::fs::create_dir_all(dir).map_err(|e| Error::failed(format!("{}: {e}", dir.display())))?;
        match target {
            Target::Windows if needs_to_run => wine::prepare(dir)?,
            Target::Arm if needs_to_run => qemu::prepare(dir)?,
            Target::Msvc | Target::Mac => script(&stand_in(dir), STAND_IN)?,
            Target::Windows | Target::Arm => {}
        }
        Ok(Self {
            target,
            std,
            dir: dir.to_owned(),
        })
    }

    /// What its programs are made and run with, and what of it is not the real thing.
    pub(super) fn describe(&self) -> String {
        let std = match self.std {
            Std::Installed => "standard library: the compiler's own",
            Std::Built => "standard library: built from Debian's sources by Debian's compiler",
        };
        let rest = match self.target {
            Target::Windows => "C compiler and linker: mingw-w64; programs run under wine",
            Target::Arm => {
                "C compiler and linker: gcc; programs run under qemu-user, with this machine's kernel. On x86-64 every \
                 access to memory is ordered as there: what is missing in the code's own orderings does not show \
                 (`cargo xtask loom` looks for that)"
            }
            Target::Msvc | Target::Mac => {
                "C compiler, archiver: a stand-in, whose output is empty. Rust code is checked, C code (zstd) is not; \
                 nothing is linked, nothing runs"
            }
        };
        format!("{}\n  {std}\n  {rest}", self.target.triple())
    }

    /// Cargo with `verb` for the target.
    pub(super) fn cargo(&self, verb: &str) -> Cmd {
        let triple = self.target.triple();
        let cmd = match self.std {
            Std::Installed => Cmd::cargo().args([verb, "--target", triple]),
            Std::Built => {
                let tool = |name: &str| Path::new(DEBIAN).join(name);
                // Those of rustup's must not be found first, nor what it has set for its own.
                let mut path = OsString::from(format!("{DEBIAN}:"));
                path.push(env::var_os("PATH").unwrap_or_default());
                Cmd::new(tool("cargo"))
                    .without(&["RUSTUP_TOOLCHAIN", "CARGO", "LD_LIBRARY_PATH"])
                    .args([
                        verb,
                        "-Z",
                        "build-std=std,panic_abort,panic_unwind",
                        "--target",
                        triple,
                    ])
                    .env("PATH", path)
                    .env("RUSTC", tool("rustc"))
                    .env("RUSTDOC", tool("rustdoc"))
                    .env("RUSTC_BOOTSTRAP", "1")
            }
        };
        let cmd = cmd.env("CARGO_TARGET_DIR", &self.dir);
        let upper = triple.replace('-', "_").to_uppercase();
        let lower = triple.replace('-', "_");
        let linker = format!("CARGO_TARGET_{upper}_LINKER");
        let runner = format!("CARGO_TARGET_{upper}_RUNNER");
        match self.target {
            Target::Windows => {
                let gcc = "x86_64-w64-mingw32-gcc";
                self.in_prefix(cmd.env(&linker, gcc).env(&format!("CC_{lower}"), gcc))
                    .env(&runner, wine::PROGRAM)
            }
            Target::Arm => {
                let gcc = "aarch64-linux-gnu-gcc";
                cmd.env(&linker, gcc)
                    .env(&format!("CC_{lower}"), gcc)
                    .env(&runner, qemu::runner(&self.dir))
            }
            Target::Msvc | Target::Mac => ["CC", "CXX", "AR"].iter().fold(cmd, |cmd, tool| {
                cmd.env(&format!("{tool}_{lower}"), stand_in(&self.dir))
            }),
        }
    }

    /// A program of the target, as a command of this machine.
    pub(super) fn program(&self, path: &Path) -> Cmd {
        match self.target {
            Target::Windows => self.in_prefix(Cmd::new(wine::PROGRAM).args([path])),
            _ => Cmd::new(qemu::runner(&self.dir)).args([path]),
        }
    }

    fn in_prefix(&self, cmd: Cmd) -> Cmd {
        wine::in_prefix(cmd, &self.dir)
    }

    /// Where all output goes.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where cargo puts what it has built.
    pub(super) fn built(&self) -> PathBuf {
        self.dir.join(self.target.triple()).join("debug")
    }

    /// An example that was built.
    pub(super) fn example(&self, name: &str) -> PathBuf {
        let suffix = match self.target {
            Target::Windows | Target::Msvc => ".exe",
            Target::Mac | Target::Arm => "",
        };
        self.built().join("examples").join(format!("{name}{suffix}"))
    }

    /// An empty directory.
    pub(super) fn scratch(&self, name: &str) -> Result<PathBuf, Error> {
        let dir = self.dir.join(name);
        let failed = |e| Error::failed(format!("{}: {e}", dir.display()));
        match std::fs::remove_dir_all(&dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        std::fs::create_dir_all(&dir).map_err(failed)?;
        Ok(dir)
    }
}

/// Stands in for C compilers and archivers, in each of their languages. Some build scripts copy what these have made.
const STAND_IN: &str = r#"#!/bin/sh
for arg in "$@"; do
    case $arg in
        -out:*) : > "${arg#-out:}" ;;
        -Fo*) : > "${arg#-Fo}" ;;
        *.a) : > "$arg" ;;
        *) [ "$before" != -o ] || : > "$arg" ;;
    esac
    before=$arg
done
"#;

fn stand_in(dir: &Path) -> PathBuf {
    dir.join("stand-in")
}

/// Whether the compiler that runs this tool has the target's standard library.
fn is_installed(target: Target) -> Result<bool, Error> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let dir = Cmd::new(rustc)
        .args(["--print", "target-libdir", "--target", target.triple()])
        .stdout()?;
    Ok(Path::new(dir.trim()).is_dir())
}

/// Debian's packages that are needed.
fn packages(target: Target, std: Std, needs_to_run: bool) -> Vec<&'static str> {
    let mut packages = match std {
        Std::Installed => vec![],
        Std::Built => vec!["rustc-web", "cargo-web", "rust-web-src"],
    };
    // Crates with C code in them need its compiler for a check as well.
    match target {
        Target::Windows => packages.push("gcc-mingw-w64-x86-64-win32"),
        Target::Arm => packages.extend(["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"]),
        Target::Msvc | Target::Mac => {}
    }
    match target {
        Target::Windows if needs_to_run => packages.push("wine64"),
        Target::Arm if needs_to_run => packages.push("qemu-user"),
        _ => {}
    }
    packages
}

/// Installs packages that are not there yet.
fn install(packages: &[&str]) -> Result<(), Error> {
    let is_there = |package: &str| {
        let asked = Cmd::new("dpkg-query").args(["-W", "-f", "${db:Status-Status}", package]);
        asked.stdout_quietly().is_some_and(|status| status == "installed")
    };
    let missing: Vec<&str> = packages.iter().copied().filter(|it| !is_there(it)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(", ");
    if !Cmd::new("apt-get").args(["--version"]).succeeds() {
        return Err(Error::usage(format!(
            "needed are a compiler with that target's standard library (`rustup target add`), a linker for it and, to run \
             programs, wine or qemu-user; on Debian 12 the packages {list} are that"
        )));
    }
    let refused = |_| {
        Error::failed(format!(
            "cannot install {list}; as an administrator: apt-get install {list}"
        ))
    };
    let apt = |args: &[&str]| {
        Cmd::new("apt-get")
            .args(["-q", "-y", "--no-install-recommends"])
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive")
    };
    apt(&["update"]).run().map_err(refused)?;
    apt(&["install"]).args(missing).run().map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_used_is_asked_for() {
        assert!(packages(Target::Mac, Std::Installed, false).is_empty());
        let check = packages(Target::Windows, Std::Built, false);
        assert!(check.contains(&"rust-web-src") && !check.contains(&"wine64"));
        assert!(packages(Target::Arm, Std::Installed, true).contains(&"qemu-user"));
    }
}
