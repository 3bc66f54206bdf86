//! Which crates may depend on which: the arrows of `ARCHITECTURE.md`, in manifests and in what `cargo tree` shows.

use anyhow::Result;

use super::Problem;
use crate::workspace::{Workspace, is_published};

/// Each published crate with those of ours that it may depend on, in any `[dependencies]` table. Unpublished packages (tests,
/// benchmarks) may depend on all of these, and no crate may depend on them.
const ARROWS: &[(&str, &[&str])] = &[
    ("shm-buffers", &[]),
    ("proc-pool", &["shm-buffers"]),
    ("log-bridge", &["shm-buffers"]),
    ("progress", &["shm-buffers"]),
    ("run-journal", &["shm-buffers", "proc-pool"]),
    (
        "invoker",
        &[
            "shm-buffers",
            "proc-pool",
            "log-bridge",
            "progress",
            "run-journal",
        ],
    ),
    (
        "cluster-run",
        &[
            "shm-buffers",
            "proc-pool",
            "log-bridge",
            "progress",
            "run-journal",
            "invoker",
        ],
    ),
    (
        "invoker-nats",
        &[
            "shm-buffers",
            "proc-pool",
            "log-bridge",
            "progress",
            "run-journal",
            "invoker",
            "cluster-run",
        ],
    ),
];

/// Crates of others, with those of ours that may bring them.
const OUTSIDERS: &[(&str, &[&str])] = &[
    ("async-nats", &["invoker-nats"]),
    ("console", &["progress", "invoker", "cluster-run", "invoker-nats"]),
    (
        "crossbeam-channel",
        &[
            "proc-pool",
            "run-journal",
            "invoker",
            "cluster-run",
            "invoker-nats",
        ],
    ),
    (
        "indicatif",
        &["progress", "invoker", "cluster-run", "invoker-nats"],
    ),
    (
        "ipc-channel",
        &[
            "proc-pool",
            "run-journal",
            "invoker",
            "cluster-run",
            "invoker-nats",
        ],
    ),
    (
        "tracing-core",
        &[
            "log-bridge",
            "run-journal",
            "invoker",
            "cluster-run",
            "invoker-nats",
        ],
    ),
    ("tokio", &["invoker-nats"]),
    // It takes a C compiler.
    ("zstd", &["shm-buffers", "invoker", "cluster-run", "invoker-nats"]),
];

/// This tool must build while the crates do not.
const INDEPENDENT: &str = "xtask";

pub(super) fn check(workspace: &Workspace) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    for member in &workspace.members {
        let from = member.name.as_str();
        for dependency in &member.dependencies {
            if let Ok(ours) = workspace.member(&dependency.name) {
                problems.extend(check_edge(from, &ours.name, is_published(ours)));
            }
        }
        if is_published(member) {
            let tree = workspace.cargo(&format!("tree --edges normal --prefix none --package {from}"));
            problems.extend(check_published(from, &tree.read()?));
        }
    }
    Ok(problems)
}

fn arrows(name: &str) -> Option<&'static [&'static str]> {
    let (_, allowed) = ARROWS.iter().find(|(ours, _)| *ours == name)?;
    Some(allowed)
}

fn problem(name: &str, message: String) -> Problem {
    Problem::new(&format!("{name}/Cargo.toml"), 0, message)
}

/// Checks a dependency of any kind, also one of tests.
fn check_edge(from: &str, to: &str, is_to_published: bool) -> Option<Problem> {
    let is_allowed = match arrows(from) {
        Some(allowed) => allowed.contains(&to),
        None => from != INDEPENDENT && is_to_published,
    };
    (!is_allowed).then(|| problem(from, format!("`{from}` must not depend on `{to}`")))
}

/// Checks the place of a published crate, and what its users get with its default features, in the output of `cargo tree`.
fn check_published(name: &str, tree: &str) -> Vec<Problem> {
    let Some(allowed) = arrows(name) else {
        let message = "has no place in the crate map: add it to tidy's ARROWS, or set `publish = false`";
        return vec![problem(name, format!("`{name}` {message}"))];
    };
    let is_foreign = |package: &&str| {
        let is_sibling = arrows(package).is_some() && *package != name && !allowed.contains(package);
        let mut outsiders = OUTSIDERS.iter();
        is_sibling || outsiders.any(|(outsider, with)| outsider == package && !with.contains(&name))
    };
    let packages = tree.lines().filter_map(|line| line.split_whitespace().next());
    let mut found: Vec<&str> = packages.filter(is_foreign).collect();
    found.sort_unstable();
    found.dedup();
    let message = |package| format!("`{name}` alone brings `{package}`, which it does not need");
    found.into_iter().map(|it| problem(name, message(it))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_drawn_arrows_are_allowed() {
        for (from, to, is_allowed) in [
            ("invoker", "progress", true),
            ("proc-pool", "shm-buffers", true),
            ("proc-pool", "log-bridge", false),
            ("log-bridge", "invoker", false),
            ("invoker", "unpublished", false),
            ("unpublished", "invoker", true),
            ("other", "unpublished", false),
            ("xtask", "shm-buffers", false),
        ] {
            let problem = check_edge(from, to, to != "unpublished");
            assert_eq!(problem.is_none(), is_allowed, "{from} -> {to}");
        }
    }

    #[test]
    fn siblings_and_their_crates_are_found_at_any_distance() {
        let tree = "log-bridge v0.1.0 (/src/log-bridge)\nserde v1.0.0\nproc-pool v0.1.0 (/src/proc-pool)\n\
                    ipc-channel v0.23.1\nserde v1.0.0 (*)\nipc-channel v0.23.1 (*)\n";
        let found = check_published("log-bridge", tree);
        let package = |it: &Problem| it.message.split('`').nth(3).map(str::to_owned);
        let found: Vec<String> = found.iter().filter_map(package).collect();
        assert_eq!(found, ["ipc-channel", "proc-pool"]);
        let tree =
            "proc-pool v0.1.0 (/src/proc-pool)\nshm-buffers v0.1.0 (/src/shm-buffers)\nipc-channel v0.23.1\n";
        assert_eq!(check_published("proc-pool", tree), []);
        assert_eq!(check_published("utils", "").len(), 1, "it has no place");
    }
}
