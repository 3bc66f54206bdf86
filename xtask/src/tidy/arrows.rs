//! Which of our crates may know which: the arrows of `ARCHITECTURE.md`.

use super::Problem;
use crate::workspace::{Publish, Workspace};

/// Every published crate with those of ours it may depend on, in any `[dependencies]` table. Unpublished packages (tests,
/// benchmarks) may know all of these, and nobody may know them.
pub(super) const ARROWS: &[(&str, &[&str])] = &[
    ("shm-buffers", &[]),
    ("proc-pool", &["shm-buffers"]),
    ("log-bridge", &["shm-buffers"]),
    ("progress", &["shm-buffers"]),
    ("invoker", &["shm-buffers", "proc-pool", "log-bridge", "progress"]),
];

/// This tool must build while the crates do not.
const KNOWS_NOBODY: &str = "xtask";

pub(super) fn check(workspace: &Workspace) -> Vec<Problem> {
    let mut problems = Vec::new();
    for member in &workspace.members {
        let manifest = super::relative(&workspace.root, &member.dir.join("Cargo.toml"));
        let mut report = |message: String| problems.push(Problem::new(&manifest, 0, message));
        let arrows = ARROWS
            .iter()
            .find(|(name, _)| *name == member.name)
            .map(|(_, allowed)| *allowed);
        if arrows.is_none() && member.publish == Publish::Yes {
            report(format!(
                "`{}` has no place in the crate map: give it one in ARCHITECTURE.md and in tidy's ARROWS, or `publish = false`",
                member.name
            ));
        }
        let ours = member.dependencies.iter().filter_map(|dependency| {
            workspace
                .member(&dependency.name)
                .map(|known| (dependency.kind.as_str(), known))
        });
        for (kind, known) in ours {
            let allowed = match arrows {
                Some(allowed) => allowed.contains(&known.name.as_str()),
                None => member.name != KNOWS_NOBODY && known.publish == Publish::Yes,
            };
            if !allowed {
                report(format!(
                    "`{}` must not know `{}` ({kind} dependency)",
                    member.name, known.name
                ));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::workspace::{Dependency, Member};

    fn member(name: &str, publish: Publish, dependencies: &[(&str, &str)]) -> Member {
        Member {
            name: name.to_owned(),
            dir: PathBuf::from("/src").join(name),
            lib: None,
            publish,
            rust_version: None,
            features: Vec::new(),
            dependencies: dependencies
                .iter()
                .map(|&(name, kind)| Dependency {
                    name: name.to_owned(),
                    kind: kind.to_owned(),
                })
                .collect(),
        }
    }

    /// What is said of a workspace of all our crates, with these members in place of, or beside, the plain ones.
    fn said(special: Vec<Member>) -> Vec<String> {
        let mut members = special;
        for name in ["shm-buffers", "proc-pool", "log-bridge", "progress", "invoker"] {
            if !members.iter().any(|member| member.name == name) {
                members.push(member(name, Publish::Yes, &[("serde", "normal")]));
            }
        }
        let workspace = Workspace {
            root: "/src".into(),
            target: "/src/target".into(),
            members,
        };
        check(&workspace).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_drawn_arrows_are_allowed() {
        let all = ["shm-buffers", "proc-pool", "log-bridge", "progress"].map(|name| (name, "normal"));
        let suite = member(
            "pool-tests",
            Publish::No,
            &[("invoker", "normal"), ("proc-pool", "dev")],
        );
        let pool = member("proc-pool", Publish::Yes, &[("shm-buffers", "normal")]);
        assert_eq!(
            said(vec![member("invoker", Publish::Yes, &all), pool, suite]),
            [""; 0]
        );
    }

    #[test]
    fn siblings_and_upward_arrows_are_not_also_in_tests() {
        for (from, to, kind) in [
            ("proc-pool", "log-bridge", "normal"),
            ("progress", "proc-pool", "dev"),
            ("shm-buffers", "invoker", "dev"),
            ("log-bridge", "invoker", "build"),
        ] {
            let said = said(vec![member(from, Publish::Yes, &[(to, kind)])]);
            let expected = format!("{from}/Cargo.toml: `{from}` must not know `{to}` ({kind} dependency)");
            assert_eq!(said, [expected]);
        }
    }

    #[test]
    fn nobody_knows_unpublished_packages_and_xtask_knows_nobody() {
        let bench = || member("peers", Publish::No, &[]);
        let said_of = |who: Member| said(vec![bench(), who]).len();
        assert_eq!(said_of(member("invoker", Publish::Yes, &[("peers", "dev")])), 1);
        assert_eq!(said_of(member("other", Publish::No, &[("peers", "normal")])), 1);
        assert_eq!(
            said_of(member("xtask", Publish::No, &[("shm-buffers", "normal")])),
            1
        );
    }

    #[test]
    fn a_new_published_crate_needs_a_place() {
        let said = said(vec![member("utils", Publish::Yes, &[])]);
        assert!(said.len() == 1 && said[0].contains("no place"), "{said:?}");
    }
}
