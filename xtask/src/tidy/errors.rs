//! How errors are printed: each message of a chain once, and `Debug` with the causes.

use super::{File, Problem};

const MESSAGE: &str = "#[error(";

/// Checks the types of one file that derive `thiserror::Error`.
pub(super) fn check(file: &File) -> Vec<Problem> {
    if !file.path.ends_with(".rs") || !file.path.contains("/src/") || file.path.starts_with("xtask/") {
        return Vec::new();
    }
    let mut problems = Vec::new();
    let mut derives_both = false;
    for (index, line) in file.text.lines().enumerate() {
        if line.starts_with("#[derive(") {
            derives_both = line.contains("Debug") && line.contains("thiserror::Error");
        } else if line.starts_with("pub enum ") || line.starts_with("pub struct ") {
            if std::mem::take(&mut derives_both) {
                let message =
                    "a public error prints its causes: use `debug_with_causes!` instead of deriving Debug";
                problems.push(Problem::new(&file.path, index + 1, message));
            }
        } else if !line.starts_with('#') {
            derives_both &= line.starts_with([' ', ')']);
        }
    }
    for (at, _) in file.text.match_indices(MESSAGE) {
        let rest = &file.text[at + MESSAGE.len()..];
        // The variant ends where the next one's message begins, or the type ends.
        let ends = [rest.find(MESSAGE), rest.find("\n}")];
        let rest = &rest[..ends.into_iter().flatten().min().unwrap_or(rest.len())];
        let Some((message, fields)) = rest.split_once(")]\n") else {
            continue;
        };
        let tuple = ["#[from]", "#[source]"].iter().any(|mark| fields.contains(mark));
        let named = fields.contains("source:");
        if tuple && (message.contains("{0") || message.contains(".0")) || named && message.contains("source")
        {
            let line = file.text[..at].matches('\n').count() + 1;
            let message =
                "the message contains its source's, so that reporters print it twice: leave it to `source`";
            problems.push(Problem::new(&file.path, line, message));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        let file = File {
            path: "proc-pool/src/error.rs".into(),
            text: text.into(),
        };
        check(&file).iter().map(|problem| problem.line).collect()
    }

    #[test]
    fn a_message_that_contains_its_sources_is_found() {
        let text = "#[derive(thiserror::Error)]\npub enum E {\n    #[error(\"a: {0}\")]\n    A(#[from] B),\n    \
                    #[error(\"c\")]\n    C(#[source] B),\n    #[error(\"d: {source}\")]\n    D { source: B },\n    \
                    #[error(\"e: {0}\")]\n    E(String),\n}\n";
        assert_eq!(lines(text), [3, 7]);
    }

    #[test]
    fn a_public_error_that_derives_debug_is_found() {
        let public = "#[derive(Debug, thiserror::Error)]\n#[non_exhaustive]\npub enum E {\n}\n";
        assert_eq!(lines(public), [3]);
        assert_eq!(lines(&public.replace("pub ", "pub(crate) ")), [] as [usize; 0]);
        assert_eq!(lines(&public.replace("Debug, ", "Clone, ")), [] as [usize; 0]);
        let several = "#[derive(Debug, thiserror::Error)]\n#[error(\n    \"a\"\n)]\npub struct E;\n";
        assert_eq!(lines(several), [5]);
    }
}
