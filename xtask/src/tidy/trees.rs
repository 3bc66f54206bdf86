//! What somebody who takes one crate alone gets with it: the arrows again, as `cargo tree` sees them.

use super::Problem;
use super::arrows::ARROWS;
use crate::cmd::Cmd;
use crate::outcome::Error;
use crate::workspace::{Member, Publish, Workspace};

/// Crates of others that come only with those of ours that need them.
const OUTSIDERS: &[(&str, &[&str])] = &[
    ("console", &["progress", "invoker"]),
    ("crossbeam-channel", &["proc-pool", "invoker"]),
    ("indicatif", &["progress", "invoker"]),
    ("ipc-channel", &["proc-pool", "invoker"]),
    ("tracing-core", &["log-bridge", "invoker"]),
    // It takes a C compiler.
    ("zstd", &["shm-buffers", "invoker"]),
];

/// Everything that a crate depends on, at whatever distance, with its default features.
#[derive(Debug)]
pub(super) struct Tree {
    name: String,
    /// Names, with itself.
    packages: Vec<String>,
}

impl Tree {
    /// Reads the output of `cargo tree --prefix none --format {p}`.
    fn of(name: &str, text: &str) -> Self {
        let packages = text.lines().filter_map(|line| line.split_whitespace().next());
        Self {
            name: name.to_owned(),
            packages: packages.map(str::to_owned).collect(),
        }
    }
}

/// Asks cargo for the tree of every crate that is published.
pub(super) fn all(workspace: &Workspace) -> Result<Vec<Tree>, Error> {
    let published = |member: &&Member| member.publish == Publish::Yes;
    workspace.members.iter().filter(published).map(tree).collect()
}

fn tree(member: &Member) -> Result<Tree, Error> {
    let args = [
        "tree",
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{p}",
        "--package",
    ];
    let text = Cmd::cargo().args(args).args([&member.name]).stdout()?;
    Ok(Tree::of(&member.name, &text))
}

pub(super) fn check(trees: &[Tree]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for Tree { name, packages } in trees {
        let ours = ARROWS.iter().find(|(ours, _)| ours == name);
        let allowed = ours.map_or(&[][..], |(_, allowed)| *allowed);
        let foreign = |package: &str| {
            let of_ours = ARROWS.iter().any(|(ours, _)| *ours == package);
            let outsider = OUTSIDERS.iter().find(|(outsider, _)| *outsider == package);
            (of_ours && package != name && !allowed.contains(&package))
                || outsider.is_some_and(|(_, with)| !with.contains(&name.as_str()))
        };
        let mut found: Vec<&str> = packages
            .iter()
            .map(String::as_str)
            .filter(|it| foreign(it))
            .collect();
        found.sort_unstable();
        found.dedup();
        let manifest = format!("{name}/Cargo.toml");
        problems.extend(found.into_iter().map(|package| {
            let message = format!("`{name}` alone brings `{package}` with it, which it need not know");
            Problem::new(&manifest, 0, message)
        }));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str, tree: &str) -> Vec<String> {
        let problems = check(&[Tree::of(name, tree)]);
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn siblings_and_their_crates_are_found_at_any_distance() {
        let tree = "log-bridge v0.1.0 (/src/log-bridge)\nserde v1.0.0\nproc-pool v0.1.0 (/src/proc-pool)\n\
                    ipc-channel v0.23.1\nserde v1.0.0 (*)\nipc-channel v0.23.1 (*)\n";
        let said = said("log-bridge", tree);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said[0].contains("brings `ipc-channel`") && said[1].contains("brings `proc-pool`"),
            "{said:?}"
        );
    }

    #[test]
    fn what_is_needed_is_allowed() {
        let tree =
            "proc-pool v0.1.0 (/src/proc-pool)\nshm-buffers v0.1.0 (/src/shm-buffers)\nipc-channel v0.23.1\n";
        assert_eq!(said("proc-pool", tree), [""; 0]);
        assert_eq!(said("shm-buffers", tree).len(), 2);
    }

    /// The real ones, by cargo: whoever takes one crate gets no more than that.
    #[test]
    fn each_crate_alone_compiles_without_those_that_it_does_not_need() {
        let workspace = Workspace::load().expect("cargo knows the workspace");
        let trees = all(&workspace).expect("cargo shows trees");
        assert_eq!(trees.len(), ARROWS.len());
        for tree in &trees {
            assert!(
                tree.packages.contains(&tree.name) && tree.packages.len() > 5,
                "{tree:?}"
            );
        }
        assert_eq!(check(&trees), []);
    }
}
