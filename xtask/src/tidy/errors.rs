//! How errors are printed: each message of a chain once, and `Debug` with the causes.

use proc_macro2::{Delimiter, TokenTree};

use super::Problem;
use super::rust::{Item, Source, unspaced};

/// Checks the types of one file that derive `thiserror::Error`.
pub(super) fn check(source: &Source<'_>) -> Vec<Problem> {
    let path = &source.file.path;
    if !path.contains("/src/") || path.starts_with("xtask/") {
        return Vec::new();
    }
    let mut problems = Vec::new();
    for item in &source.items {
        let is_derive = |it: &&String| it.starts_with("derive(") && it.contains("thiserror::Error");
        let derive = item.attributes.iter().find(is_derive);
        if derive.is_some_and(|derive| derive.contains("Debug")) && item.visibility() == 1 {
            let message =
                "a public error prints its causes: use `debug_with_causes!` instead of deriving Debug";
            problems.push(Problem::new(path, item.first_line, message));
        }
        for line in repeated_messages(item) {
            let message =
                "the message contains its source's, so that reporters print it twice: leave it to `source`";
            problems.push(Problem::new(path, line, message));
        }
    }
    problems
}

/// Returns the lines of messages of a struct, or an enum's variants, that contain those of their sources.
fn repeated_messages(item: &Item) -> Vec<usize> {
    let mut lines = Vec::new();
    let own = item.attributes.iter().find(|it| it.starts_with("error("));
    let mut message = own.map(|message| (message.clone(), item.first_line));
    let mut tokens = item.tokens.clone();
    if let (Some(_), Some(body)) = (item.after("enum"), item.body()) {
        tokens = body.stream().into_iter().collect();
    }
    for token in &tokens {
        match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket => {
                let attribute = unspaced(group);
                if attribute.starts_with("error(") {
                    message = Some((attribute, group.span().start().line));
                }
            }
            TokenTree::Group(fields) => {
                if let Some((_, line)) = message.take_if(|(message, _)| repeats(message, &unspaced(fields))) {
                    lines.push(line);
                }
            }
            TokenTree::Punct(punct) if punct.as_char() == ',' => message = None,
            _ => {}
        }
    }
    lines
}

fn repeats(message: &str, fields: &str) -> bool {
    let is_tuple = ["#[from]", "#[source]"].iter().any(|mark| fields.contains(mark));
    let prints_field = message.contains("{0") || message.contains(".0");
    is_tuple && prints_field || fields.contains("source:") && message.contains("source")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        super::super::rust::lines(check, "proc-pool/src/error.rs", text)
    }

    #[test]
    fn message_that_contains_its_sources_is_found() {
        let text = "#[derive(thiserror::Error)]\npub enum E {\n    #[error(\"a: {0}\")]\n    A(#[from] B),\n    \
                    #[error(\"c\")]\n    C(#[source] B),\n    #[error(\"d: {source}\")]\n    D { source: B },\n    \
                    #[error(\"e: {0}\")]\n    E(String),\n    #[error(\"f {0}\")]\n    F,\n    G(#[from] B),\n}\n";
        assert_eq!(lines(text), [3, 7]);
        let text = "#[derive(thiserror::Error)]\n#[error(\"a: {source}\")]\nstruct E {\n    source: B,\n}\n";
        assert_eq!(lines(text), [1]);
    }

    #[test]
    fn public_error_that_derives_debug_is_found() {
        let public = "#[derive(Debug, thiserror::Error)]\n#[non_exhaustive]\npub enum E {\n}\n";
        assert_eq!(lines(public), [1]);
        assert_eq!(lines(&public.replace("pub ", "pub(crate) ")), [0; 0]);
        assert_eq!(lines(&public.replace("Debug, ", "Clone, ")), [0; 0]);
    }
}
