//! Words that must not be committed: unfinished work, and paths of one machine.

use super::{File, Problem};

/// Spelled in pieces, or this file would break its own rule.
const UNFINISHED: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME")];

/// Directories of one developer's machine.
const MACHINE_PATHS: &[&str] = &[
    concat!("/work", "/"),
    concat!("/tmp", "/s/"),
    concat!("/", "root/"),
];

pub(super) fn check(file: &File) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        let mut report = |message: String| problems.push(Problem::new(&file.path, index + 1, message));
        for word in UNFINISHED {
            if contains(line, word, |c| c.is_alphanumeric() || c == '_') {
                report(format!("`{word}`: finish it, or open an issue"));
            }
        }
        for path in MACHINE_PATHS {
            if contains(line, path, |c| c.is_alphanumeric() || "._-}".contains(c)) {
                report(format!("`{path}` is a path of one machine"));
            }
        }
    }
    problems
}

/// Whether `line` contains `word` apart from characters that would make it a part of something longer. A word that does not
/// end with a letter may be followed by anything.
fn contains(line: &str, word: &str, joins: impl Fn(char) -> bool) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let begins = !line[..at].ends_with(&joins);
        begins && (!word.ends_with(char::is_alphanumeric) || !line[at + word.len()..].starts_with(&joins))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        let problems = check(&File::new("a.rs", text));
        problems.iter().map(|problem| problem.line).collect()
    }

    #[test]
    fn unfinished_work_is_found_as_a_whole_word() {
        for word in UNFINISHED {
            let text = format!("fn f() {{}}\n// {word} later\n    {word}(\"x\")");
            assert_eq!(lines(&text), [2, 3], "{word}");
        }
        assert_eq!(lines(concat!("MASTO", "DON TO", "DOS my_TO", "DO")), [0; 0]);
    }

    #[test]
    fn absolute_machine_paths_are_found() {
        for path in MACHINE_PATHS {
            assert_eq!(lines(&format!("`{path}x`\nfile://{path}x")), [1, 2], "{path}");
            let relative = format!("a/net{path}x ..{path}x {{dir}}{path}x");
            assert_eq!(lines(&relative), [0; 0], "{path}");
        }
    }
}
