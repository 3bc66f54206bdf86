//! The benchmarks' programs: built by one call of cargo, so that nothing is built twice.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cargo_metadata::Message;

use crate::workspace::Workspace;

/// The paths of the programs by the names of their targets.
pub(super) struct Programs(BTreeMap<String, PathBuf>);

impl Programs {
    /// Builds benchmarks of packages.
    pub(super) fn build<'a>(
        workspace: &Workspace,
        benches: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self> {
        let mut cargo = workspace.cargo("build --release --message-format=json-render-diagnostics");
        for (package, bench) in benches {
            cargo = cargo.args(["--package", package, "--bench", bench]);
        }
        Ok(Self(executables(&cargo.read()?)))
    }

    pub(super) fn path(&self, target: &str) -> Result<&Path> {
        let path = self.0.get(target).map(PathBuf::as_path);
        path.with_context(|| format!("cargo built no program `{target}`"))
    }
}

/// Finds programs in cargo's messages.
fn executables(messages: &str) -> BTreeMap<String, PathBuf> {
    let messages = Message::parse_stream(messages.as_bytes()).filter_map(Result::ok);
    let artifacts = messages.filter_map(|message| match message {
        Message::CompilerArtifact(it) => Some((it.target.name, it.executable?.into())),
        _ => None,
    });
    artifacts.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn programs_are_found_among_cargos_messages() {
        let artifact = |name: &str, executable: Value| {
            json!({
                "reason": "compiler-artifact", "package_id": "p", "manifest_path": "/p/Cargo.toml",
                "target": {"name": name, "kind": ["bench"], "crate_types": ["bin"], "src_path": "/p/b.rs"},
                "profile": {"opt_level": "3", "debug_assertions": false, "overflow_checks": false, "test": false},
                "features": [], "filenames": [], "executable": executable, "fresh": true,
            })
        };
        let library = artifact("shm_buffers", Value::Null);
        let copy = artifact("copy", json!("/t/copy-1"));
        let found = Programs(executables(&format!("{library}\nnot json\n{copy}\n")));
        assert_eq!(found.path("copy").expect("it was built"), Path::new("/t/copy-1"));
        assert!(found.path("shm_buffers").is_err());
    }
}
