//! The shape of files: their first line, length and name, and what a library's root may hold.

use super::rust::Source;
use super::{File, Problem};

/// Lines that a file may have without its tests.
const MAX_LINES: usize = 500;

/// Names that say nothing of a file's duty.
const VAGUE: &[&str] = &["common", "util", "utils"];

/// The rules for every Rust file by itself.
pub(super) fn check(source: &Source<'_>) -> Vec<Problem> {
    let File { path, text } = source.file;
    let mut problems = Vec::new();
    let is_vague = |part: &&str| VAGUE.contains(&part.trim_end_matches(".rs"));
    if let Some(part) = path.split('/').find(is_vague) {
        let message = format!("`{part}` says nothing of its duty; name it after that");
        problems.push(Problem::new(path, 0, message));
    }
    if !text.starts_with("//!") {
        let message = "starts with no `//!` line that says its duty";
        problems.push(Problem::new(path, 1, message));
    }
    let tests = source.items.iter().filter(|item| item.is_for_tests());
    let tests: usize = tests.map(|item| item.last_line - item.first_line + 1).sum();
    let lines = text.lines().count().saturating_sub(tests);
    if lines > MAX_LINES && !source.is_test() {
        let message =
            format!("{lines} lines without tests, more than {MAX_LINES}: it has two duties, split it");
        problems.push(Problem::new(path, 0, message));
    }
    problems
}

/// A crate's manifest takes the lints of the workspace.
pub(super) fn check_manifest(file: &File) -> Option<Problem> {
    let (_, lints) = file.text.split_once("[lints]\n").unwrap_or_default();
    let message = "does not take the workspace's lints: add `[lints]` with `workspace = true`";
    (!lints.starts_with("workspace = true\n")).then(|| Problem::new(&file.path, 0, message))
}

/// A library's root holds documentation, attributes, `mod x;` and `pub use`; and items for doctests.
pub(super) fn check_library_root(source: &Source<'_>) -> Vec<Problem> {
    let strays = source.items.iter().filter(|item| {
        let is_module = item.after("mod").is_some() && item.body().is_none();
        let is_reexport = item.after("use").is_some() && item.visibility() > 0;
        let is_for_doctests = item.attributes.iter().any(|it| it.starts_with("cfg(doctest"));
        !(item.tokens.is_empty() || is_module || is_reexport || is_for_doctests)
    });
    let problem = |line| {
        let message = "this item does not belong in lib.rs, which is docs, `mod x;` and `pub use`";
        Problem::new(&source.file.path, line, message)
    };
    strays.map(|item| problem(item.first_line)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::rust::lines;
    use super::*;

    #[test]
    fn file_has_a_telling_name_and_starts_with_its_duty() {
        assert_eq!(lines(check, "a/src/uncommon.rs", "//! X.\n"), [0; 0]);
        for path in ["a/src/common.rs", "a/src/utils.rs", "a/tests/it/common/mod.rs"] {
            assert_eq!(lines(check, path, "//! X.\n"), [0], "{path}");
        }
        for text in ["", "// Bees.\n", "\n//! Bees.\n", "use std::fs;\n"] {
            assert_eq!(lines(check, "a/src/b.rs", text), [1], "{text:?}");
        }
    }

    #[test]
    fn length_is_counted_without_tests() {
        let body = |lines: usize| format!("//! X.\n{}", "fn f() {}\n".repeat(lines - 1));
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "fn t() {}\n".repeat(900));
        let problems = |path, text: &str| lines(check, path, text).len();
        assert_eq!(problems("a/src/b.rs", &(body(MAX_LINES) + &tests)), 0);
        assert_eq!(problems("a/src/b.rs", &(body(MAX_LINES + 1) + &tests)), 1);
        assert_eq!(problems("a/tests/it/main.rs", &body(900)), 0);
        assert_eq!(problems("a/src/b/tests.rs", &body(900)), 0);
        let test_file = body(900).replacen('\n', "\n#![cfg(test)]\n", 1);
        assert_eq!(problems("a/src/b.rs", &test_file), 0);
    }

    #[test]
    fn library_root_is_a_table_of_contents() {
        let lines = |text: &str| lines(check_library_root, "a/src/lib.rs", text);
        let text = "//! Bees; { and flowers.\n#![deny(unsafe_code)]\n#![doc = \"}\"]\n\n#[cfg(unix)]\nmod a;\n\
            pub mod b;\npub(crate) mod c;\n#[cfg(loom)]\npub use a::{self, x::{Y, Z}};\n\
            #[cfg(doctest)]\n#[doc = \"x\"]\nstruct Readme;\npub use b::*;\n";
        assert_eq!(lines(text), [0; 0]);
        for item in [
            "use std::fs;",
            "pub fn f(a: [u8; 2]) -> u8 { 1 }",
            "mod inline { fn f() {} }",
            "const X: [u8; 2] = [1; 2];",
            "impl A { fn modify(&self) {} }",
            "pub module!();",
        ] {
            let text = format!("//! X.\nmod a;\n{item}\npub use a::B;\n");
            assert_eq!(lines(&text), [3], "{item}");
        }
    }

    #[test]
    fn manifest_takes_the_lints_of_the_workspace() {
        let is_found = |text: &str| check_manifest(&File::new("a/Cargo.toml", text)).is_some();
        assert!(!is_found(
            "[package]\n\n[lints]\nworkspace = true\n\n[dependencies]"
        ));
        assert!(is_found("[package]\nname = \"a\"\n"));
        assert!(is_found("[lints]\n[dependencies]\nworkspace = true\n"));
    }
}
