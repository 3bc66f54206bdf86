//! `cargo xtask bench peers`: pools of Python and this one run the same tasks with 2 workers, in turns.
//!
//! `peers/compare.py` does so and reports rows, as other benchmarks do. It installs the peers' packages, in the versions of
//! `pins.txt`, into environments in the target directory.

use anyhow::Result;
use xshell::cmd;

use super::programs::Programs;
use super::rows::Run;
use super::{Args, reported_rows};
use crate::python;
use crate::workspace::Workspace;

pub(super) const AREA: &str = "peers";

pub(super) fn measure(args: &Args, workspace: &Workspace) -> Result<Run> {
    let script = workspace.root.join("xtask/src/bench/peers/compare.py");
    let dir = workspace.target.join("bench-peers");
    let mut python = cmd!(workspace.sh, "python3 -B {script} {dir}");
    if !args.python_only {
        let benches = [("proc-pool", "pool"), ("invoker", "flood")];
        let programs = Programs::build(workspace, benches.into_iter())?;
        python = python.arg(programs.path("pool")?).arg(programs.path("flood")?);
    }
    // Our own package for Python is measured as a peer.
    let python = match python::release_wheel(workspace) {
        Ok(wheel) => python.arg("--wheel").arg(wheel),
        Err(error) => {
            eprintln!("invokerpool is not measured: {error:#}");
            python
        }
    };
    let rounds = args.rounds.map(|rounds| format!("--rounds={rounds}"));
    reported_rows(&workspace.target, python.args(args.to_benchmark()).args(rounds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run;

    #[test]
    fn python_tests_pass() {
        let workspace = Workspace::load().expect("cargo describes the workspace");
        let sh = &workspace.sh;
        if !run::succeeds(cmd!(sh, "python3 --version")) {
            println!("not tested: there is no python3");
            return;
        }
        let tests = workspace.root.join("xtask/src/bench/peers/test_compare.py");
        let result = cmd!(sh, "python3 -B {tests}").run();
        result.expect("the tests of compare.py pass");
    }
}
