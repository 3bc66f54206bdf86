//! The crates of this workspace, as `cargo metadata` describes them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cargo_metadata::{MetadataCommand, Package};
use xshell::{Cmd, Shell};

/// The workspace of the current directory, with a shell in its root.
pub(crate) struct Workspace {
    pub(crate) sh: Shell,
    pub(crate) root: PathBuf,
    /// Cargo's target directory.
    pub(crate) target: PathBuf,
    pub(crate) members: Vec<Package>,
}

impl Workspace {
    pub(crate) fn load() -> Result<Self> {
        let metadata = MetadataCommand::new().no_deps().exec()?;
        let sh = Shell::new()?;
        sh.change_dir(&metadata.workspace_root);
        Ok(Self {
            sh,
            root: metadata.workspace_root.into(),
            target: metadata.target_directory.into(),
            members: metadata.packages,
        })
    }

    /// Cargo with arguments that have no blanks.
    pub(crate) fn cargo(&self, args: &str) -> Cmd<'_> {
        self.sh.cmd("cargo").args(args.split_whitespace())
    }

    /// Creates a directory, or removes what is in it.
    pub(crate) fn empty_dir(&self, dir: PathBuf) -> Result<PathBuf> {
        self.sh.remove_path(&dir)?;
        Ok(self.sh.create_dir(dir)?)
    }

    pub(crate) fn member(&self, name: &str) -> Result<&Package> {
        let found = self.members.iter().find(|member| member.name == name);
        found.with_context(|| format!("the workspace has no crate `{name}`"))
    }

    /// The crates with a library.
    pub(crate) fn libraries(&self) -> impl Iterator<Item = &Package> {
        let has_library = |member: &&Package| member.targets.iter().any(|target| target.is_lib());
        self.members.iter().filter(has_library)
    }

    /// `path` relative to the root, with `/` between its parts.
    pub(crate) fn relative(&self, path: impl AsRef<Path>) -> String {
        let path = path.as_ref();
        let inside = path.strip_prefix(&self.root).unwrap_or(path);
        inside.to_string_lossy().replace('\\', "/")
    }
}

/// Whether the crate goes to the registry.
pub(crate) fn is_published(member: &Package) -> bool {
    let registries = member.publish.as_ref();
    registries.is_none_or(|registries| !registries.is_empty())
}

/// The directory of the crate's manifest.
pub(crate) fn dir(member: &Package) -> &Path {
    let dir = member.manifest_path.parent();
    dir.expect("a manifest is in a directory").as_std_path()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_workspace_is_described() {
        let workspace = Workspace::load().expect("cargo describes the workspace");
        let xtask = workspace.member("xtask").expect("xtask is a member");
        assert!(!is_published(xtask));
        assert_eq!(workspace.relative(dir(xtask)), "xtask");
        let mut libraries = workspace.libraries().map(|member| member.name.as_str());
        assert!(libraries.any(|name| name == "shm-buffers") && libraries.all(|name| name != "xtask"));
        let error = workspace.member("absent").expect_err("there is no such crate");
        assert!(error.to_string().contains("`absent`"), "{error}");
    }
}
