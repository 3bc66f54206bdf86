//! `cargo xtask lines`: lines of code, without tests, comments, documentation and blank lines.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use proc_macro2::{Group, TokenStream, TokenTree};

use super::rust::{self, Source};
use crate::workspace::{self, Workspace};

/// Count the lines of code in the `src` directories of crates, without tests, comments, documentation and blank lines
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Count in these crates only, and list their files
    #[arg(value_name = "CRATE")]
    crates: Vec<String>,
}

/// Prints the number of lines of each crate, and of each file of crates that were named.
pub(crate) fn run(args: &Args, workspace: &Workspace) -> Result<()> {
    for name in &args.crates {
        workspace.member(name)?;
    }
    let files = super::files(workspace)?;
    for member in &workspace.members {
        let is_named = args.crates.iter().any(|name| *name == member.name.as_str());
        if !is_named && !args.crates.is_empty() {
            continue;
        }
        let directory = format!("{}/src/", workspace.relative(workspace::dir(member)));
        let mut sum = 0;
        let is_source = |path: &str| path.starts_with(&directory) && path.ends_with(".rs");
        for file in files.iter().filter(|file| is_source(&file.path)) {
            let source = Source::parse(file);
            ensure!(source.is_ok(), "{} cannot be read as Rust", file.path);
            let lines = source.map_or(0, |source| count(&source));
            sum += lines;
            if is_named && lines > 0 {
                println!("{lines:6}  {}", file.path);
            }
        }
        println!("{sum:6}  {}", member.name);
    }
    Ok(())
}

/// Returns the number of lines on which there is a token of code.
fn count(source: &Source<'_>) -> usize {
    let tokens: TokenStream = source.file.text.parse().unwrap_or_default();
    if source.is_test() {
        return 0;
    }
    let mut lines = BTreeSet::new();
    add_code(tokens.clone(), &mut lines);
    remove_tests(tokens, &mut lines);
    lines.len()
}

/// Adds the lines of all tokens, except those of documentation.
fn add_code(tokens: TokenStream, lines: &mut BTreeSet<usize>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let is_documentation = |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Group(it)) if rust::unspaced(it).starts_with("doc="));
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        if rust::is_punct(Some(token), '#') {
            let attribute = at + 1 + usize::from(rust::is_punct(tokens.get(at + 1), '!'));
            if is_documentation(tokens.get(attribute)) {
                at = attribute + 1;
                continue;
            }
        }
        at += 1;
        match token {
            TokenTree::Group(group) => {
                lines.extend([group.span_open().start().line, group.span_close().end().line]);
                add_code(group.stream(), lines);
            }
            token => lines.extend(token.span().start().line..=token.span().end().line),
        }
    }
}

/// Removes the lines of items that are for tests only, at any depth.
fn remove_tests(tokens: TokenStream, lines: &mut BTreeSet<usize>) {
    for item in rust::items(tokens) {
        if item.is_for_tests() {
            lines.retain(|line| !(item.first_line..=item.last_line).contains(line));
        } else {
            let bodies = item.body().map(Group::stream);
            bodies.into_iter().for_each(|body| remove_tests(body, lines));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::File;
    use super::*;

    fn lines(path: &str, text: &str) -> usize {
        let file = File::new(path, text);
        count(&Source::parse(&file).expect("it is Rust"))
    }

    #[test]
    fn only_code_counts() {
        let text = "//! Bees.\n\nuse a::{b,\n    c};\n\n/// Hives.\n#[must_use]\nfn f() {\n    // Why.\n    g(\"x\n\ny\");\n    /* a\n    b */\n\n}\n";
        assert_eq!(lines("a/src/b.rs", text), 2 + 3 + 3);
        assert_eq!(lines("a/src/b.rs", "//! Bees.\n"), 0);
    }

    #[test]
    fn tests_do_not_count_at_any_depth() {
        let text = "fn f() {}\nimpl A {\n    #[cfg(test)]\n    fn g() {\n    }\n}\n#[cfg(test)]\nmod tests {\n    fn t() {}\n}\n";
        assert_eq!(lines("a/src/b.rs", text), 3);
        assert_eq!(lines("a/src/b/tests.rs", text), 0);
        assert_eq!(lines("a/src/b.rs", &format!("#![cfg(test)]\n{text}")), 0);
    }
}
