//! Rust sources as tokens: comments and literals are apart from code, tests from the rest.

use proc_macro2::{Delimiter, Group, LexError, TokenStream, TokenTree};

use super::{File, Problem};

/// A Rust file as items.
pub(super) struct Source<'a> {
    pub(super) file: &'a File,
    pub(super) items: Vec<Item>,
}

/// Tokens up to a `;` or the `}` of a body, with the attributes before them; or one inner attribute.
#[derive(Default)]
pub(super) struct Item {
    /// The contents of the attributes' brackets, without blanks.
    pub(super) attributes: Vec<String>,
    /// Empty for an inner attribute (`#![...]`).
    pub(super) tokens: Vec<TokenTree>,
    /// Counted from 1, attributes included.
    pub(super) first_line: usize,
    pub(super) last_line: usize,
}

impl<'a> Source<'a> {
    pub(super) fn parse(file: &'a File) -> Result<Self, Problem> {
        let failed = |error: LexError| {
            let line = error.span().start().line;
            Problem::new(&file.path, line, format!("cannot be read as Rust: {error}"))
        };
        let tokens: TokenStream = file.text.parse().map_err(failed)?;
        let items = items(tokens);
        Ok(Self { file, items })
    }

    /// Whether the whole file holds tests: by its path, or with `#![cfg(test)]`.
    pub(super) fn is_test(&self) -> bool {
        let mut parts = self.file.path.split('/');
        let is_inner_test = |item: &Item| item.tokens.is_empty() && item.is_for_tests();
        parts.any(|part| part == "tests" || part == "tests.rs") || self.items.iter().any(is_inner_test)
    }
}

impl Item {
    pub(super) fn is_for_tests(&self) -> bool {
        let is_test = |it: &String| it.starts_with("cfg(test") || it.starts_with("cfg(all(test");
        self.attributes.iter().any(is_test)
    }

    /// The number of tokens of the visibility: 0, 1 for `pub`, 2 for `pub(...)`.
    pub(super) fn visibility(&self) -> usize {
        let is_pub = self.tokens.first().is_some_and(|it| is_ident(it, "pub"));
        let is_limited = matches!(self.tokens.get(1), Some(TokenTree::Group(it)) if it.delimiter() == Delimiter::Parenthesis);
        usize::from(is_pub) + usize::from(is_pub && is_limited)
    }

    /// The tokens after `pub` and `keyword`, if that is what the item starts with.
    pub(super) fn after(&self, keyword: &str) -> Option<&[TokenTree]> {
        let (first, rest) = self.tokens.get(self.visibility()..)?.split_first()?;
        is_ident(first, keyword).then_some(rest)
    }

    /// The body in braces, if the item ends with one.
    pub(super) fn body(&self) -> Option<&Group> {
        match self.tokens.last()? {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => Some(group),
            _ => None,
        }
    }
}

/// The contents of a group without blanks, also within literals.
pub(super) fn unspaced(group: &Group) -> String {
    group.stream().to_string().replace([' ', '\n'], "")
}

pub(super) fn is_ident(token: &TokenTree, name: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == name)
}

fn is_braces(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
}

pub(super) fn is_punct(token: Option<&TokenTree>, char: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == char)
}

/// Splits the tokens of a file or module into items.
pub(super) fn items(tokens: TokenStream) -> Vec<Item> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut items = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let (first, mut item) = (at, Item::default());
        let is_inner = is_punct(tokens.get(at + 1), '!') && is_punct(tokens.get(at), '#');
        while is_punct(tokens.get(at), '#') {
            at += 1 + usize::from(is_inner);
            if let Some(TokenTree::Group(attribute)) = tokens.get(at) {
                item.attributes.push(unspaced(attribute));
            }
            at += 1;
            if is_inner {
                break;
            }
        }
        while !is_inner && at < tokens.len() {
            let token = &tokens[at];
            let is_last = is_punct(Some(token), ';') || is_braces(token) && item.after("use").is_none();
            item.tokens.push(token.clone());
            at += 1;
            if is_last {
                break;
            }
        }
        item.first_line = tokens[first].span().start().line;
        item.last_line = tokens[at - 1].span().end().line;
        items.push(item);
    }
    items
}

/// The lines of the problems that a rule finds in a file with this path and text.
#[cfg(test)]
pub(super) fn lines(rule: fn(&Source<'_>) -> Vec<Problem>, path: &str, text: &str) -> Vec<usize> {
    let file = File::new(path, text);
    let source = Source::parse(&file).expect("it is Rust");
    rule(&source).iter().map(|problem| problem.line).collect()
}
