//! `cargo xtask cross`: other platforms, checked and (where this machine can run their programs) tested.

mod suites;
mod toolchain;

use anyhow::{Result, bail};

use crate::NotRun;
use crate::workspace::Workspace;

use toolchain::Toolchain;

/// Check, test and run on other platforms
///
/// A target that rustup has installed is used as it is. Elsewhere, Debian's own compiler builds its standard library, and
/// apt-get installs what is missing; on other systems the error names what is needed. All output goes to target/cross.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    target: Target,
    #[command(subcommand)]
    task: Task,
}

#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
enum Target {
    /// x86_64-pc-windows-gnu; tests and programs run under wine
    Windows,
    /// x86_64-pc-windows-msvc; check only
    Msvc,
    /// aarch64-apple-darwin; check only
    Mac,
    /// aarch64-unknown-linux-gnu; tests and programs run under qemu-user
    Arm,
}

impl Target {
    fn triple(self) -> &'static str {
        match self {
            Self::Windows => "x86_64-pc-windows-gnu",
            Self::Msvc => "x86_64-pc-windows-msvc",
            Self::Mac => "aarch64-apple-darwin",
            Self::Arm => "aarch64-unknown-linux-gnu",
        }
    }
}

#[derive(Debug, PartialEq, clap::Subcommand)]
enum Task {
    /// Check every crate with all targets: with its default features, all features, and none
    Check,
    /// Run the test suites and demonstrations
    ///
    /// windows: the suites of all crates, then what programs must show. arm: the tests of rings, slots, claims and backings,
    /// the basic ones of pools, and `batch_eval` for a few users.
    Test {
        /// Only the suite of this crate
        #[arg(short)]
        package: Option<String>,
        /// Passed to the test binaries
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// `cargo run` for the target
    Run {
        /// Passed to `cargo run`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

pub(crate) fn main(args: &Args, workspace: &Workspace) -> Result<()> {
    let needs_to_run = args.task != Task::Check;
    if needs_to_run && matches!(args.target, Target::Msvc | Target::Mac) {
        let triple = args.target.triple();
        let reason = format!("programs of {triple} cannot run here; use `check`");
        bail!(NotRun(reason));
    }
    let toolchain = Toolchain::find(args.target, workspace, needs_to_run)?;
    println!("{}", toolchain.describe());
    match &args.task {
        Task::Check => check(&toolchain),
        Task::Test { package, args } => suites::test(&toolchain, workspace, package.as_deref(), args),
        Task::Run { args } => Ok(toolchain.cargo("run").args(args).run()?),
    }
}

fn check(toolchain: &Toolchain) -> Result<()> {
    for features in [&[][..], &["--all-features"], &["--no-default-features"]] {
        let all = ["--workspace", "--all-targets", "--locked"];
        let cargo = toolchain.cargo("check").env("RUSTFLAGS", "-D warnings");
        cargo.args(all).args(features).run()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verb;
    use crate::tests::parsed;

    #[test]
    fn arguments_after_the_package_reach_the_tests() {
        let Ok(Verb::Cross(line)) = parsed("cross windows test -p progress --exact name") else {
            panic!("right usage was refused");
        };
        let args = vec!["--exact".to_owned(), "name".to_owned()];
        let package = Some("progress".to_owned());
        assert_eq!(line.target, Target::Windows);
        assert_eq!(line.task, Task::Test { package, args });
        for wrong in ["", "windows", "amiga check", "arm sing", "arm check more"] {
            assert!(parsed(&format!("cross {wrong}")).is_err(), "{wrong}");
        }
    }
}
