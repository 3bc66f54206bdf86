//! `cargo xtask cluster slurm`: the guide's job script in a Slurm cluster on this machine.

use std::path::Path;

use anyhow::{Result, bail};
use xshell::cmd;

use crate::NotRun;
use crate::run;
use crate::workspace::Workspace;

const SCRIPT: &str = include_str!("slurm.sh");

/// Runs the main job with `server`, and sets one of three nodes DOWN.
pub(super) fn main(server: &Path, repeat: u32, workspace: &Workspace) -> Result<()> {
    let sh = &workspace.sh;
    for program in ["slurmctld", "slurmd", "sbatch", "ip"] {
        if !run::succeeds(cmd!(sh, "which {program}")) {
            let missing =
                format!("no {program}; Debian has it in slurmctld, slurmd, slurm-client and iproute2");
            bail!(NotRun(missing));
        }
    }
    if !run::succeeds(cmd!(
        sh,
        "unshare --net --uts --mount --pid --fork --kill-child true"
    )) {
        let missing = "namespaces are not permitted; Slurm would listen on every address of this machine";
        bail!(NotRun(missing.to_owned()));
    }
    let program = super::build_example(workspace)?;
    let dir = workspace.empty_dir(workspace.target.join("slurm"))?;
    sh.copy_file(&program, &dir)?;
    let script = dir.join("start.sh");
    sh.write_file(&script, SCRIPT)?;
    let job = workspace.root.join("docs/clusters/slurm.sh");
    let (server, repeat) = (server.parent().unwrap_or(server), repeat.to_string());
    // With the process that reads the script, everything that it has started ends.
    let unshare = cmd!(
        sh,
        "unshare --net --uts --mount --mount-proc --pid --fork --kill-child"
    );
    unshare
        .arg("bash")
        .args([&script, &dir, &job])
        .arg(server)
        .arg(repeat)
        .run()?;
    Ok(())
}
