//! Bounds for the number of crates that the light crates bring, without procedural macros and C compilers: users of a ring, a
//! progress bar or a log wait for all of these. Counted on Linux, with `cargo tree`.

use std::collections::BTreeSet;

use anyhow::Result;

use super::Problem;
use crate::cargo_tree::{name, packages};
use crate::workspace::Workspace;

/// What one of our crates may bring.
struct Bound {
    name: &'static str,
    /// Arguments of cargo that choose the features.
    features: &'static str,
    /// The most crates beside itself.
    crates: usize,
    allows_macros: bool,
}

const BOUNDS: &[Bound] = &[
    Bound {
        name: "shm-buffers",
        features: "--no-default-features",
        crates: 9,
        allows_macros: false,
    },
    Bound {
        name: "progress",
        features: "--no-default-features",
        crates: 12,
        allows_macros: false,
    },
    Bound {
        name: "log-bridge",
        features: "",
        crates: 25,
        allows_macros: true,
    },
];

/// Crates that compile C or look for a compiler. So do those whose names end with `-sys`, unless they only declare functions.
const COMPILERS: &[&str] = &["bindgen", "cc", "cmake", "pkg-config", "vcpkg"];
/// Declarations only.
const DECLARATIONS: &[&str] = &["linux-raw-sys", "windows-sys"];

pub(super) fn check(workspace: &Workspace) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    for bound in BOUNDS {
        let tree = |edges: &str| {
            let Bound { name, features, .. } = bound;
            let target = "--target x86_64-unknown-linux-gnu --prefix none --format {p}";
            workspace
                .cargo(&format!(
                    "tree --package {name} {features} --edges {edges} {target}"
                ))
                .read()
        };
        problems.extend(check_tree(bound, &tree("normal")?, &tree("normal,build")?));
    }
    Ok(problems)
}

/// Checks the outputs of `cargo tree`: of what is linked or expanded, and of all of that and what its build scripts need.
fn check_tree(bound: &Bound, normal: &str, with_build: &str) -> Vec<Problem> {
    let others: BTreeSet<&str> = packages(normal).filter(|it| name(it) != bound.name).collect();
    let mut problems = Vec::new();
    let mut problem = |message: String| {
        problems.push(Problem::new(&format!("{}/Cargo.toml", bound.name), 0, message));
    };
    let (of, count, most) = (bound.describe(), others.len(), bound.crates);
    if count > most {
        let list: Vec<&str> = others.iter().map(|package| name(package)).collect();
        problem(format!(
            "{of} brings {count} crates, at most {most} are allowed: leave one out of {}",
            list.join(", ")
        ));
    }
    if !bound.allows_macros {
        for package in others.iter().filter(|it| it.contains("(proc-macro)")) {
            problem(format!(
                "{of} brings the procedural macro `{}`: write by hand what it derives",
                name(package)
            ));
        }
    }
    let compilers: BTreeSet<&str> = packages(with_build).map(name).filter(|it| needs_c(it)).collect();
    for package in compilers {
        problem(format!("{of} brings `{package}`, which takes a C compiler"));
    }
    problems
}

impl Bound {
    fn describe(&self) -> String {
        match self.features {
            "" => format!("`{}`", self.name),
            features => format!("`{}` with {features}", self.name),
        }
    }
}

fn needs_c(name: &str) -> bool {
    COMPILERS.contains(&name) || name.ends_with("-sys") && !DECLARATIONS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Bound = Bound {
        name: "progress",
        features: "--no-default-features",
        crates: 3,
        allows_macros: false,
    };
    const LIGHT: &str = "progress v0.1.0 (/src/progress)\nlibc v0.2.1\nshm-buffers v0.1.0 (/src/shm-buffers)\n\
                         libc v0.2.1\nlinux-raw-sys v0.12.1 (*)\n";

    fn messages(bound: &Bound, normal: &str, with_build: &str) -> Vec<String> {
        let problems = check_tree(bound, normal, with_build).into_iter();
        problems.map(|problem| problem.message).collect()
    }

    #[test]
    fn crates_are_counted_once_and_without_the_root() {
        assert_eq!(messages(&BOUND, LIGHT, LIGHT), [""; 0]);
        let two_versions = LIGHT.to_owned() + "libc v1.0.0\nlibc v1.0.0 (*)\n";
        let found = messages(&BOUND, &two_versions, LIGHT);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].contains("--no-default-features brings 4 crates, at most 3"),
            "{found:?}"
        );
    }

    #[test]
    fn macros_are_found_where_they_are_not_allowed() {
        let bound = Bound { crates: 9, ..BOUND };
        let tree =
            LIGHT.to_owned() + "thiserror-impl v2.0.1 (proc-macro)\nthiserror-impl v2.0.1 (proc-macro) (*)\n";
        let found = messages(&bound, &tree, &tree);
        assert!(
            matches!(&*found, [one] if one.contains("`thiserror-impl`")),
            "{found:?}"
        );
        let bound = Bound {
            allows_macros: true,
            ..bound
        };
        assert_eq!(messages(&bound, &tree, &tree), [""; 0]);
    }

    #[test]
    fn what_takes_a_c_compiler_is_found_in_build_dependencies() {
        let with_build = LIGHT.to_owned() + "zstd-sys v2.0.1\ncc v1.0.1\ncc v1.0.1 (*)\n";
        let found = messages(&BOUND, LIGHT, &with_build);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].contains("`cc`") && found[1].contains("`zstd-sys`"),
            "{found:?}"
        );
    }

    #[test]
    fn every_bound_is_of_a_crate_of_the_workspace() {
        let workspace = Workspace::load().expect("cargo describes the workspace");
        for bound in BOUNDS {
            assert!(workspace.member(bound.name).is_ok(), "{}", bound.name);
        }
    }
}
