//! What cargo knows of this workspace: its crates, their features, and what each depends on.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cmd::Cmd;
use crate::outcome::Error;

/// The workspace that this tool runs in.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) members: Vec<Member>,
}

/// One crate of the workspace.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// The directory of its manifest.
    pub(crate) dir: PathBuf,
    /// The root file of its library, if it has one.
    pub(crate) lib: Option<PathBuf>,
    pub(crate) publish: Publish,
    pub(crate) rust_version: Option<String>,
    /// Without `default`.
    pub(crate) features: Vec<String>,
    pub(crate) dependencies: Vec<Dependency>,
}

/// Whether a crate goes to the registry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Publish {
    Yes,
    No,
}

/// A line of a `[dependencies]` table.
#[derive(Debug)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) kind: String,
}

impl Workspace {
    /// Asks cargo about the workspace of the current directory.
    pub(crate) fn load() -> Result<Self, Error> {
        let json = Cmd::cargo()
            .args(["metadata", "--format-version", "1", "--no-deps"])
            .stdout()?;
        Self::from_metadata(&json)
    }

    /// Reads the output of `cargo metadata --format-version 1 --no-deps`
    /// (format: <https://doc.rust-lang.org/cargo/commands/cargo-metadata.html>).
    pub(crate) fn from_metadata(json: &str) -> Result<Self, Error> {
        let metadata: Value =
            serde_json::from_str(json).map_err(|error| Error::failed(format!("cargo metadata: {error}")))?;
        Ok(Self {
            root: text(&metadata, "workspace_root")?.into(),
            target: text(&metadata, "target_directory")?.into(),
            members: list(&metadata, "packages")?
                .iter()
                .map(Member::from_metadata)
                .collect::<Result<_, _>>()?,
        })
    }

    /// The crate of that name.
    pub(crate) fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }
}

impl Member {
    fn from_metadata(package: &Value) -> Result<Self, Error> {
        let manifest = Path::new(text(package, "manifest_path")?);
        let is_library = |target: &&Value| {
            target["kind"]
                .as_array()
                .is_some_and(|kinds| kinds.iter().any(|kind| kind == "lib"))
        };
        let lib = list(package, "targets")?.iter().find(is_library);
        let dependencies = list(package, "dependencies")?
            .iter()
            .map(Dependency::from_metadata);
        let features = package["features"]
            .as_object()
            .ok_or_else(|| missing("features"))?;
        Ok(Self {
            name: text(package, "name")?.to_owned(),
            dir: manifest
                .parent()
                .ok_or_else(|| missing("manifest_path"))?
                .to_owned(),
            lib: lib
                .map(|lib| text(lib, "src_path").map(PathBuf::from))
                .transpose()?,
            publish: match package["publish"].as_array() {
                Some(registries) if registries.is_empty() => Publish::No,
                _ => Publish::Yes,
            },
            rust_version: package["rust_version"].as_str().map(str::to_owned),
            features: features
                .keys()
                .filter(|name| *name != "default")
                .cloned()
                .collect(),
            dependencies: dependencies.collect::<Result<_, _>>()?,
        })
    }
}

impl Dependency {
    fn from_metadata(dependency: &Value) -> Result<Self, Error> {
        Ok(Self {
            name: text(dependency, "name")?.to_owned(),
            kind: dependency["kind"].as_str().unwrap_or("normal").to_owned(),
        })
    }
}

fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str, Error> {
    value[field].as_str().ok_or_else(|| missing(field))
}

fn list<'a>(value: &'a Value, field: &str) -> Result<&'a [Value], Error> {
    value[field]
        .as_array()
        .map(Vec::as_slice)
        .ok_or_else(|| missing(field))
}

fn missing(field: &str) -> Error {
    Error::failed(format!("cargo metadata: `{field}` is missing or of another type"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: &str = r#"{
        "workspace_root": "/src", "target_directory": "/src/target",
        "packages": [
            {"name": "low", "manifest_path": "/src/low/Cargo.toml", "publish": null, "rust_version": "1.88",
             "targets": [{"kind": ["test"], "src_path": "/src/low/tests/it/main.rs"},
                         {"kind": ["lib"], "src_path": "/src/low/src/lib.rs"}],
             "features": {"default": ["wide"], "wide": [], "ndarray": ["dep:ndarray"]},
             "dependencies": [{"name": "serde", "kind": null}]},
            {"name": "tool", "manifest_path": "/src/tool/Cargo.toml", "publish": [], "rust_version": null,
             "targets": [{"kind": ["bin"], "src_path": "/src/tool/src/main.rs"}],
             "features": {}, "dependencies": [{"name": "low", "kind": "dev"}]}
        ]
    }"#;

    #[test]
    fn metadata_is_read() {
        let workspace = Workspace::from_metadata(METADATA).expect("valid metadata");
        assert_eq!(workspace.root, Path::new("/src"));
        let low = workspace.member("low").expect("low is a member");
        assert_eq!(low.lib.as_deref(), Some(Path::new("/src/low/src/lib.rs")));
        assert_eq!(low.dir, Path::new("/src/low"));
        assert_eq!(low.features, ["ndarray", "wide"]);
        assert_eq!(low.rust_version.as_deref(), Some("1.88"));
        assert_eq!(
            (low.publish, low.dependencies[0].kind.as_str()),
            (Publish::Yes, "normal")
        );
        let tool = workspace.member("tool").expect("tool is a member");
        assert_eq!((tool.publish, tool.lib.is_none()), (Publish::No, true));
        assert_eq!(
            (
                tool.dependencies[0].name.as_str(),
                tool.dependencies[0].kind.as_str()
            ),
            ("low", "dev")
        );
        assert!(workspace.member("absent").is_none());
    }

    #[test]
    fn a_missing_field_is_named() {
        let error = Workspace::from_metadata(r#"{"workspace_root": "/src"}"#).expect_err("accepted");
        assert!(error.to_string().contains("target_directory"), "{error}");
    }
}
