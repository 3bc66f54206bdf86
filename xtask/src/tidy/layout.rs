//! The shape of files: what each starts with, how long it may be, what it may be called, what `lib.rs` may hold.

use super::{File, Problem, source};

/// Lines that a file may have without its tests.
const MAX_LINES: usize = 500;

/// Names that say nothing of a file's duty.
const VAGUE: &[&str] = &["common", "util", "utils"];

/// The rules for every file by itself.
pub(super) fn check(file: &File) -> Vec<Problem> {
    let mut problems = Vec::new();
    if !file.path.ends_with(".rs") {
        return problems;
    }
    if let Some(part) = file
        .path
        .split('/')
        .find(|part| VAGUE.contains(&part.trim_end_matches(".rs")))
    {
        problems.push(Problem::new(
            &file.path,
            0,
            format!("`{part}` says nothing of its duty; name it after that"),
        ));
    }
    if !file.text.starts_with("//!") {
        problems.push(Problem::new(
            &file.path,
            1,
            "starts with no `//!` line that tells its duty",
        ));
    }
    let lines = lines_without_tests(file);
    if lines > MAX_LINES {
        let message =
            format!("{lines} lines without tests, more than {MAX_LINES}: it has two duties, split it");
        problems.push(Problem::new(&file.path, 0, message));
    }
    problems
}

/// A crate's manifest takes the lints of the workspace.
pub(super) fn check_manifests(manifests: &[String], files: &[File]) -> Vec<Problem> {
    let of_members = files.iter().filter(|file| manifests.contains(&file.path));
    let strays = of_members.filter(|file| {
        let mut lines = file
            .text
            .lines()
            .map(str::trim)
            .skip_while(|line| *line != "[lints]")
            .skip(1);
        !lines
            .by_ref()
            .take_while(|line| !line.starts_with('['))
            .any(|line| line == "workspace = true")
    });
    let message = "does not take the workspace's lints: add `[lints]` with `workspace = true`";
    strays.map(|file| Problem::new(&file.path, 0, message)).collect()
}

/// A library's root holds documentation, attributes, `mod x;` and `pub use`; and whatever exists for doctests only.
pub(super) fn check_library_roots(roots: &[String], files: &[File]) -> Vec<Problem> {
    files
        .iter()
        .filter(|file| roots.contains(&file.path))
        .flat_map(check_library_root)
        .collect()
}

fn check_library_root(file: &File) -> Vec<Problem> {
    let code = source::code(&file.text);
    let mut problems = Vec::new();
    let mut at = source::skip_blank(&code, 0);
    let mut for_doctests = false;
    while at < code.len() {
        if code[at..].starts_with('#') {
            let end = source::group_end(&code, at);
            for_doctests |= source::words(&code[at..end], "doctest").next().is_some();
            at = source::skip_blank(&code, end);
            continue;
        }
        let end = item_end(&code, at);
        let item = &code[at..end];
        if !for_doctests && !belongs_in_library_root(item) {
            let head: Vec<_> = item.split_whitespace().take(3).collect();
            let message = format!(
                "`{} ...` does not belong in lib.rs, which is docs, `mod x;` and `pub use`",
                head.join(" ")
            );
            problems.push(Problem::new(&file.path, source::line_of(&code, at), message));
        }
        for_doctests = false;
        at = source::skip_blank(&code, end);
    }
    problems
}

fn belongs_in_library_root(item: &str) -> bool {
    let item = item.trim();
    let public = item.strip_prefix("pub").map(str::trim_start);
    let item = match public {
        Some(rest) if rest.starts_with('(') => rest[source::group_end(rest, 0)..].trim_start(),
        Some(rest) => rest,
        None => item,
    };
    let is = |keyword: &str| {
        item.strip_prefix(keyword)
            .is_some_and(|rest| rest.starts_with(char::is_whitespace))
    };
    (is("mod") && item.ends_with(';')) || (is("use") && public.is_some())
}

/// The end of the item at `at`: its semicolon, or the brace that closes its body.
fn item_end(code: &str, at: usize) -> usize {
    let is_use = source::words(code[at..].lines().next().unwrap_or(""), "use")
        .next()
        .is_some();
    let mut at = at;
    while let Some(found) = code[at..].find([';', '(', '[', '{']) {
        at += found;
        match code.as_bytes()[at] {
            b';' => return at + 1,
            b'{' if !is_use => return source::group_end(code, at),
            _ => at = source::group_end(code, at),
        }
    }
    code.len()
}

fn lines_without_tests(file: &File) -> usize {
    let is_test_file = file
        .path
        .split('/')
        .any(|part| part == "tests" || part == "tests.rs");
    let code = source::code(&file.text);
    if is_test_file || code.contains("#![cfg(test)]") {
        return 0;
    }
    let tests: usize = source::test_modules(&code)
        .iter()
        .map(|range| source::line_of(&code, range.end) - source::line_of(&code, range.start) + 1)
        .sum();
    code.lines().count().saturating_sub(tests)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(path: &str, text: &str) -> Vec<String> {
        check(&File::new(path, text))
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    fn said_of_root(text: &str) -> Vec<usize> {
        let roots = ["a/src/lib.rs".to_owned()];
        let files = [
            File::new("a/src/lib.rs", text),
            File::new("a/src/b.rs", "fn f() {}"),
        ];
        check_library_roots(&roots, &files)
            .iter()
            .map(|problem| problem.line)
            .collect()
    }

    #[test]
    fn a_file_tells_its_duty_first() {
        assert_eq!(said("a/src/b.rs", "//! Bees.\n"), [""; 0]);
        for text in ["", "// Bees.\n", "\n//! Bees.\n", "use std::fs;\n//! Bees.\n"] {
            assert!(
                said("a/src/b.rs", text)[0].starts_with("a/src/b.rs:1: starts with no"),
                "{text:?}"
            );
        }
        assert_eq!(said("a/README.md", "# Bees\n"), [""; 0]);
    }

    #[test]
    fn names_say_something() {
        for path in [
            "a/src/common.rs",
            "a/src/utils.rs",
            "a/tests/it/common/mod.rs",
            "a/src/util.rs",
        ] {
            assert!(said(path, "//! X.\n")[0].contains("says nothing"), "{path}");
        }
        assert_eq!(said("a/src/uncommon.rs", "//! X.\n"), [""; 0]);
    }

    #[test]
    fn length_is_counted_without_tests() {
        let body = |lines: usize| format!("//! X.\n{}", "fn f() {}\n".repeat(lines - 1));
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "fn t() {}\n".repeat(900));
        assert_eq!(said("a/src/b.rs", &body(MAX_LINES)), [""; 0]);
        assert_eq!(said("a/src/b.rs", &(body(MAX_LINES) + &tests)), [""; 0]);
        let problems = said("a/src/b.rs", &(body(MAX_LINES + 1) + &tests));
        assert!(
            problems.len() == 1 && problems[0].contains("501 lines"),
            "{problems:?}"
        );
        assert_eq!(said("a/tests/it/main.rs", &body(900)), [""; 0]);
        assert_eq!(said("a/src/b/tests.rs", &body(900)), [""; 0]);
        assert_eq!(
            said("a/src/b.rs", &format!("//! X.\n#![cfg(test)]\n{}", body(900))),
            [""; 0]
        );
    }

    #[test]
    fn a_library_root_is_a_table_of_contents() {
        let text = "//! Bees; { and flowers.\n#![deny(unsafe_code)]\n#![doc = \"}\"]\n\n#[cfg(unix)]\nmod a;\n\
            pub mod b;\npub(crate) mod c;\n#[cfg(loom)]\npub use a::{self, x::{Y, Z}};\n\
            #[cfg(doctest)]\n#[doc = \"x\"]\nstruct Readme;\npub use b::*;\n";
        assert_eq!(said_of_root(text), [0; 0]);
    }

    #[test]
    fn anything_else_in_a_library_root_is_told() {
        for item in [
            "use std::fs;",
            "pub fn f(a: [u8; 2]) -> u8 { 1 }",
            "mod inline { fn f() {} }",
            "const X: [u8; 2] = [1; 2];",
            "pub struct Used { a: u8 }",
            "impl A { fn modify(&self) {} }",
            "pub module!();",
        ] {
            assert_eq!(
                said_of_root(&format!("//! X.\nmod a;\n{item}\npub use a::B;\n")),
                [3],
                "{item}"
            );
        }
    }

    #[test]
    fn manifests_take_the_lints_of_the_workspace() {
        let manifests = ["a/Cargo.toml".to_owned()];
        let said = |text: &str| check_manifests(&manifests, &[File::new("a/Cargo.toml", text)]).len();
        assert_eq!(
            said("[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n\n[dependencies]\n"),
            0
        );
        assert_eq!(said("[package]\nname = \"a\"\n"), 1);
        assert_eq!(said("[lints]\n[dependencies]\nworkspace = true\n"), 1);
        assert!(check_manifests(&manifests, &[File::new("Cargo.toml", "[workspace]\n")]).is_empty());
    }
}
