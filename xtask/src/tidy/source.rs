//! Just enough of Rust's lexical structure to tell code from comments and literals, and tests from the rest.

use std::ops::Range;

/// The same text with comments and literals blanked out: same length, same line breaks.
pub(super) fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => line_end(bytes, at),
            b'/' if bytes[at..].starts_with(b"/*") => block_comment_end(bytes, at),
            b'"' => string_end(bytes, at),
            b'\'' => match char_end(text, at) {
                Some(end) => end,
                None => {
                    at += 1;
                    continue;
                }
            },
            b if is_word(b) => {
                let word = word_end(bytes, at);
                match raw_string_end(bytes, at, word) {
                    Some(end) => end,
                    None => {
                        at = word;
                        continue;
                    }
                }
            }
            _ => {
                at += 1;
                continue;
            }
        };
        code[at..end]
            .iter_mut()
            .filter(|byte| **byte != b'\n')
            .for_each(|byte| *byte = b' ');
        at = end;
    }
    // Blanked ranges begin and end at ASCII characters, so what is left is still whole characters.
    String::from_utf8(code).expect("only whole characters are blanked")
}

/// The line of a byte, counted from 1.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}

/// Where `word` stands in `code` as a whole word.
pub(super) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = code.as_bytes();
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let end = at + word.len();
        (at == 0 || !is_word(bytes[at - 1])) && (end == bytes.len() || !is_word(bytes[end]))
    })
}

/// The end of the bracketed text that starts at `open`, its closing bracket included; the end of the text if unclosed.
pub(super) fn group_end(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

/// Inline test modules of `code`, each from its `#[cfg(test)]` to its closing brace.
pub(super) fn test_modules(code: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for (start, _) in code.match_indices("#[cfg(") {
        let attribute_end = group_end(code, start + 1);
        let mentions_test = words(&code[start..attribute_end], "test").next().is_some();
        if !mentions_test || found.last().is_some_and(|last| last.contains(&start)) {
            continue;
        }
        let mut item = skip_blank(code, attribute_end);
        while code[item..].starts_with("#[") {
            item = skip_blank(code, group_end(code, item + 1));
        }
        let head_end = code[item..].find(['{', ';']).map_or(code.len(), |at| item + at);
        let head = &code[item..head_end];
        if code[head_end..].starts_with('{') && words(head, "mod").next().is_some() {
            found.push(start..group_end(code, head_end));
        }
    }
    found
}

/// The next byte at or after `at` that is no white space.
pub(super) fn skip_blank(code: &str, at: usize) -> usize {
    code[at..]
        .find(|c: char| !c.is_whitespace())
        .map_or(code.len(), |blank| at + blank)
}

fn is_word(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric() || !byte.is_ascii()
}

fn word_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..]
        .iter()
        .position(|byte| !is_word(*byte))
        .map_or(bytes.len(), |length| at + length)
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..]
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(bytes.len(), |length| at + length)
}

/// Block comments nest.
fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            (at, depth) = (at + 2, depth + 1);
        } else if bytes[at..].starts_with(b"*/") {
            (at, depth) = (at + 2, depth - 1);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], quote: usize) -> usize {
    let mut at = quote + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The end of the raw string whose prefix is the word `start..word` (`r`, `br`, `cr`).
fn raw_string_end(bytes: &[u8], start: usize, word: usize) -> Option<usize> {
    if !matches!(&bytes[start..word], b"r" | b"br" | b"cr") {
        return None;
    }
    let hashes = bytes[word..].iter().take_while(|byte| **byte == b'#').count();
    let quote = word + hashes;
    if bytes.get(quote) != Some(&b'"') {
        return None;
    }
    let closing = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
    let body = &bytes[quote + 1..];
    let length = body.windows(closing.len()).position(|window| window == closing);
    Some(length.map_or(bytes.len(), |length| quote + 1 + length + closing.len()))
}

/// The end of the character literal at a quote; `None` for a lifetime.
fn char_end(text: &str, quote: usize) -> Option<usize> {
    let mut chars = text[quote + 1..].char_indices();
    let (_, first) = chars.next()?;
    if first == '\\' {
        // Past the escaped character, which may itself be a quote.
        let body = quote + 3;
        return text.get(body..)?.find('\'').map(|length| body + length + 1);
    }
    let (length, second) = chars.next()?;
    (second == '\'').then_some(quote + 1 + length + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of a line of code, with white space squeezed.
    fn left(text: &str) -> String {
        let code = code(text);
        assert_eq!(code.len(), text.len());
        assert_eq!(code.lines().count(), text.lines().count());
        code.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_and_literals_are_blanked() {
        assert_eq!(left("a // unsafe\nb /* x /* y */ z */ c"), "a b c");
        assert_eq!(left(r#"f("unsafe \" {", x)"#), "f( , x)");
        assert_eq!(left(r##"f(r#"a " b"#, br"\", c)"##), "f( , , c)");
        assert_eq!(left(r"m('{', '\'', '\u{7d}', b'}', 'é', x)"), "m( , , , b , , x)");
    }

    #[test]
    fn lifetimes_and_raw_identifiers_are_code() {
        assert_eq!(
            left("fn f<'a>(r#type: &'a str) {}"),
            "fn f<'a>(r#type: &'a str) {}"
        );
    }

    #[test]
    fn unclosed_literals_end_with_the_text() {
        for text in ["\"abc", "/* abc", "r#\"abc\"", "'\\", "\"\\"] {
            assert_eq!(code(text).len(), text.len(), "{text}");
        }
    }

    #[test]
    fn words_are_whole() {
        let code = "unsafe_code unsafe unsafe{";
        assert_eq!(words(code, "unsafe").collect::<Vec<_>>(), [12, 19]);
    }

    #[test]
    fn test_modules_are_found_with_their_attributes_and_only_inline_ones() {
        let text = "#[cfg(test)]\nmod far;\nfn f() {}\n#[cfg(all(test, not(loom)))]\n#[allow(x)]\nmod t {\n {} }\nfn g() {}";
        let code = code(text);
        let found = test_modules(&code);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(
            (line_of(text, found[0].start), line_of(text, found[0].end)),
            (4, 7)
        );
        assert!(test_modules("#[cfg(unix)] mod t { }").is_empty());
        assert!(test_modules("#[cfg(test)] fn helper() { }").is_empty());
    }
}
