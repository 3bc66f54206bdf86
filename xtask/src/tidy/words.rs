//! Words that must not be committed: unfinished work, and paths of somebody's machine.

use super::{File, Problem};

/// Spelled in pieces, or this file would break its own rule.
const UNFINISHED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("todo", "!"),
    concat!("unimplemented", "!"),
];

/// Directories that only exist where somebody works.
const MACHINE_PATHS: &[&str] = &[
    concat!("/work", "/"),
    concat!("/tmp/s", "/"),
    concat!("/root", "/"),
];

pub(super) fn check(file: &File) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        let mut report = |message: String| problems.push(Problem::new(&file.path, index + 1, message));
        for word in UNFINISHED {
            if finds(line, word, |c| c.is_alphanumeric() || c == '_') {
                report(format!("`{word}`: finish it, or open an issue"));
            }
        }
        for path in MACHINE_PATHS {
            if finds(line, path, |c| c.is_alphanumeric() || "._-}".contains(c)) {
                report(format!("`{path}` is a path of one machine"));
            }
        }
    }
    problems
}

/// Whether `needle` stands in `line` where it is not the tail of something longer; if it ends in a letter, not its head
/// either.
fn finds(line: &str, needle: &str, joins: impl Fn(char) -> bool) -> bool {
    line.match_indices(needle).any(|(at, _)| {
        let begins = !line[..at].ends_with(&joins);
        let ends = !needle.ends_with(char::is_alphanumeric) || !line[at + needle.len()..].starts_with(&joins);
        begins && ends
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        check(&File::new("a.rs", text))
            .iter()
            .map(|problem| problem.line)
            .collect()
    }

    #[test]
    fn unfinished_work_is_found_in_code_and_comments() {
        for word in UNFINISHED {
            assert_eq!(
                lines(&format!("fn f() {{}}\n// {word} later\n    {word}(\"x\")")),
                [2, 3],
                "{word}"
            );
        }
    }

    #[test]
    fn longer_words_are_something_else() {
        assert_eq!(lines(concat!("MASTO", "DON TO", "DOS my_todo", "!()")), [0; 0]);
    }

    #[test]
    fn machine_paths_are_found_but_not_relative_ones() {
        for path in MACHINE_PATHS {
            assert_eq!(lines(&format!("`{path}x`")), [1], "{path}");
            assert_eq!(lines(&format!("file://{path}x")), [1], "{path}");
            assert_eq!(
                lines(&format!("a/net{path}x ..{path}x {{dir}}{path}x")),
                [0; 0],
                "{path}"
            );
        }
    }
}
