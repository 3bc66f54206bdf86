//! `cargo xtask standalone`: the programs of the package `standalone`, each built with one crate of ours and no other.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use cargo_metadata::Target;

use crate::cargo_tree::{name, packages};
use crate::workspace::Workspace;

const PACKAGE: &str = "standalone";

/// Run programs that depend on one crate of ours each
///
/// Prints for each program its lines, how many crates it takes, and the seconds of its build.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Build everything anew, in a target directory of its own, so that the seconds are those of a first build
    #[arg(long)]
    cold: bool,
}

pub(crate) fn main(args: &Args, workspace: &Workspace) -> Result<()> {
    let package = workspace.member(PACKAGE)?;
    let programs = package.targets.iter().filter(|target| target.is_bin());
    let mut table = format!(
        "{:12} {:12} {:>5} {:>6} {:>7}\n",
        "program", "with", "lines", "crates", "seconds"
    );
    for program in programs {
        let [feature] = &program.required_features[..] else {
            anyhow::bail!("{} must require one feature: that of its crate", program.name);
        };
        let crates = crates(workspace, feature)?;
        let seconds = run(workspace, program, feature, args.cold)?;
        let lines = lines(program.src_path.as_std_path())?;
        table += &format!(
            "{:12} {feature:12} {lines:5} {crates:6} {seconds:7.1}\n",
            program.name
        );
    }
    println!("\n{table}");
    Ok(())
}

/// Returns the number of crates that `feature` brings. Fails if two of ours are direct dependencies.
fn crates(workspace: &Workspace, feature: &str) -> Result<usize> {
    let select = format!("--package {PACKAGE} --no-default-features --features {feature}");
    let tree = |more: &str| {
        let cargo = workspace.cargo(&format!("tree {select} --edges normal --prefix none {more}"));
        Ok::<_, anyhow::Error>(unique(&cargo.quiet().read()?))
    };
    let direct = tree("--depth 1")?;
    let is_ours = |name: &&String| workspace.libraries().any(|ours| *ours.name == ***name);
    let ours: Vec<&String> = direct.iter().filter(is_ours).collect();
    ensure!(
        ours == [feature],
        "`{feature}` brings {ours:?} of ours, and must bring itself only"
    );
    Ok(tree("")?.len())
}

/// Returns the packages in the output of `cargo tree`, without the one at the root.
fn unique(tree: &str) -> BTreeSet<String> {
    let names = packages(tree).map(name);
    names.filter(|name| *name != PACKAGE).map(str::to_owned).collect()
}

/// Builds and runs the program, and returns the seconds of the build.
fn run(workspace: &Workspace, program: &Target, feature: &str, cold: bool) -> Result<f64> {
    let name = &program.name;
    let select = format!("--package {PACKAGE} --no-default-features --features {feature} --bin {name}");
    let target = match cold {
        true => workspace.empty_dir(workspace.target.join(PACKAGE).join(name))?,
        false => workspace.target.clone(),
    };
    let started = Instant::now();
    let build = workspace.cargo(&format!("build {select} --target-dir"));
    build.arg(&target).run()?;
    let seconds = started.elapsed().as_secs_f64();
    let run = workspace.cargo(&format!("run --quiet {select} --target-dir"));
    run.arg(&target).ignore_stdout().run()?;
    Ok(seconds)
}

fn lines(program: &Path) -> Result<usize> {
    let text =
        std::fs::read_to_string(program).with_context(|| format!("cannot read {}", program.display()))?;
    Ok(text.lines().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_crate_is_counted_once() {
        let tree = "standalone v0.1.0 (/here)\nlibc v0.2.1\nserde v1.0.0 (*)\nlibc v0.2.1\n";
        assert_eq!(unique(tree).into_iter().collect::<Vec<_>>(), ["libc", "serde"]);
    }
}
