//! The compiler, linker and runner of another platform.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use xshell::{Cmd, Shell, cmd};

use super::Target;
use crate::workspace::Workspace;
use crate::{NotRun, run};

pub(super) struct Toolchain<'a> {
    pub(super) sh: &'a Shell,
    pub(super) target: Target,
    std: Std,
    /// Cargo's target directory, which holds all other output too.
    pub(super) dir: PathBuf,
}

/// Where the standard library comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Std {
    /// From the compiler that runs this tool.
    Installed,
    /// Built from Debian's sources by Debian's compiler.
    Built,
}

impl<'a> Toolchain<'a> {
    /// Finds the toolchain, and installs what it lacks.
    pub(super) fn find(target: Target, workspace: &'a Workspace, needs_to_run: bool) -> Result<Self> {
        let sh = &workspace.sh;
        let triple = target.triple();
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let libraries = cmd!(sh, "{rustc} --print target-libdir --target {triple}").read()?;
        let std = match Path::new(&libraries).is_dir() {
            true => Std::Installed,
            false => Std::Built,
        };
        let (install, packages) = (include_str!("install.sh"), packages(target, std, needs_to_run));
        let list = packages.join(", ");
        let installed = cmd!(sh, "sh -c {install} install.sh {packages...}").quiet().run();
        installed.map_err(|_| NotRun(format!("the packages {list} are needed")))?;
        let sources = "/usr/lib/rustlib/src/rust/library/Cargo.lock";
        let has_sources = std == Std::Installed || Path::new(sources).exists();
        ensure!(
            has_sources,
            "sources of the standard library are missing: {sources}"
        );

        let dir = sh.create_dir(workspace.target.join("cross"))?;
        let found = Self { sh, target, std, dir };
        for (name, text) in [
            ("under-wine", include_str!("under-wine.sh")),
            ("under-qemu", include_str!("under-qemu.sh")),
            ("stand-in", include_str!("stand-in.sh")),
            ("debian-cargo", include_str!("debian-cargo.sh")),
        ] {
            let path = found.dir.join(name);
            sh.write_file(&path, text)?;
            cmd!(sh, "chmod +x {path}").quiet().run()?;
        }
        if target == Target::Windows && needs_to_run {
            let (runner, source) = (found.runner(), found.dir.join("bcryptprimitives.c"));
            sh.write_file(&source, include_str!("bcryptprimitives.c"))?;
            // Otherwise its creation would count towards a test's time limit.
            cmd!(sh, "{runner} --prepare {source}").run()?;
        }
        Ok(found)
    }

    /// Returns the tools that are used, and how they differ from a machine of the target.
    pub(super) fn describe(&self) -> String {
        let std = match self.std {
            Std::Installed => "the compiler's own",
            Std::Built => "built from Debian's sources by Debian's compiler",
        };
        let rest = match self.target {
            Target::Windows => "C compiler and linker: mingw-w64; programs run under wine",
            Target::Arm => {
                "C compiler and linker: gcc; programs run under qemu-user, with this machine's kernel. On x86-64 every \
                 access to memory is ordered as on x86-64: a missing ordering in the code does not show (`cargo xtask \
                 loom` finds those)"
            }
            Target::Msvc | Target::Mac => {
                "C compiler, archiver: a stand-in, whose output is empty. Rust code is checked, C code (zstd) is not; \
                 nothing is linked or run"
            }
        };
        format!("{}\n  standard library: {std}\n  {rest}", self.target.triple())
    }

    /// `cargo verb` for the target.
    pub(super) fn cargo(&self, verb: &str) -> Cmd<'a> {
        self.for_target(self.sh.cmd(self.own_cargo()).arg(verb))
    }

    /// `cargo test` for the target, with a time limit.
    pub(super) fn cargo_test(&self) -> Cmd<'a> {
        // A watchdog for a crate's suite, which takes minutes.
        let (limit, cargo) = (["--kill-after=10", "--verbose", "1800"], self.own_cargo());
        self.for_target(cmd!(self.sh, "timeout {limit...} {cargo} test"))
    }

    fn own_cargo(&self) -> PathBuf {
        match self.std {
            Std::Installed => PathBuf::from("cargo"),
            Std::Built => self.dir.join("debian-cargo"),
        }
    }

    fn for_target(&self, cargo: Cmd<'a>) -> Cmd<'a> {
        let (triple, dir) = (self.target.triple(), &self.dir);
        let cmd = cargo.args(["--target", triple, "--target-dir"]).arg(dir);
        let lower = triple.replace('-', "_");
        let gcc = match self.target {
            Target::Windows => "x86_64-w64-mingw32-gcc",
            Target::Arm => "aarch64-linux-gnu-gcc",
            Target::Msvc | Target::Mac => {
                let stand_in = dir.join("stand-in");
                return cmd.envs(["CC", "CXX", "AR"].map(|tool| (format!("{tool}_{lower}"), &stand_in)));
            }
        };
        let prefix = format!("CARGO_TARGET_{}", lower.to_uppercase());
        let cmd = cmd.env(format!("{prefix}_RUNNER"), self.runner());
        cmd.envs([(format!("{prefix}_LINKER"), gcc), (format!("CC_{lower}"), gcc)])
    }

    /// The program that runs one of the target.
    pub(super) fn runner(&self) -> PathBuf {
        match self.target {
            Target::Windows => self.dir.join("under-wine"),
            _ => self.dir.join("under-qemu"),
        }
    }

    /// Ends all processes under wine, and returns those of the target's programs that were still running.
    pub(super) fn end_processes(&self) -> Result<String> {
        let (runner, programs) = (self.runner(), self.built());
        Ok(cmd!(self.sh, "{runner} --end {programs}").read()?)
    }

    /// Where cargo puts what it builds.
    fn built(&self) -> PathBuf {
        self.dir.join(self.target.triple()).join("debug")
    }

    pub(super) fn example(&self, name: &str) -> PathBuf {
        let suffix = match self.target {
            Target::Windows => ".exe",
            _ => "",
        };
        self.built().join(format!("examples/{name}{suffix}"))
    }

    /// Whether programs can start others, which pools need.
    pub(super) fn can_spawn(&self) -> bool {
        let mount = "mount -t binfmt_misc none /proc/sys/fs/binfmt_misc";
        self.target != Target::Arm
            || Path::new("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists()
            || run::succeeds(cmd!(self.sh, "unshare -Urm sh -c {mount}"))
    }
}

/// Returns the packages of Debian that are needed.
fn packages(target: Target, std: Std, needs_to_run: bool) -> Vec<&'static str> {
    let mut packages = match std {
        Std::Installed => vec![],
        Std::Built => vec!["rustc-web", "cargo-web", "rust-web-src"],
    };
    // Crates with C code need its compiler for a check as well.
    let (compiler, runner): (&[&str], _) = match target {
        Target::Windows => (&["gcc-mingw-w64-x86-64-win32"], "wine64"),
        Target::Arm => (&["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"], "qemu-user"),
        Target::Msvc | Target::Mac => return packages,
    };
    packages.extend(compiler);
    packages.extend(needs_to_run.then_some(runner));
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_used_is_installed() {
        assert!(packages(Target::Mac, Std::Installed, false).is_empty());
        let check = packages(Target::Windows, Std::Built, false);
        assert!(check.contains(&"rust-web-src") && !check.contains(&"wine64"));
        assert!(packages(Target::Arm, Std::Installed, true).contains(&"qemu-user"));
    }
}
