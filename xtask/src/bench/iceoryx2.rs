//! `cargo xtask bench pool --with iceoryx2`: builds a peer that is in a workspace of its own, because its crates take minutes to
//! compile. The pool's benchmark runs it in turns with the pool.

use std::env::consts::EXE_SUFFIX;
use std::path::PathBuf;

use anyhow::Result;

use crate::workspace::Workspace;

/// The name of the peer.
pub(super) const NAME: &str = "iceoryx2";
/// The variable with the path of the program, for the benchmark.
pub(super) const PROGRAM: &str = "BENCH_ICEORYX2";

/// Returns the path of the program.
pub(super) fn build(workspace: &Workspace) -> Result<PathBuf> {
    let manifest = workspace.root.join("benchmarks/iceoryx2/Cargo.toml");
    let target = workspace.target.join("benchmarks-iceoryx2");
    let cargo = workspace.cargo("build --release --locked --manifest-path");
    cargo.arg(manifest).arg("--target-dir").arg(&target).run()?;
    Ok(target.join(format!("release/iceoryx2-peer{EXE_SUFFIX}")))
}
