//! Untrusted text for terminals and line-based files: one line, no control sequences, no reordering.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Returns `text` with every character that could move the cursor, start a new line, change the order of what is read, or
/// hide in it as a visible escape: `\n`, `\r`, `\t`, else `\u{1b}`.
///
/// A backslash stays as it is: the result is for reading, not for parsing.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            c if is_unsafe(c) => {
                let _ = write!(escaped, "{}", c.escape_unicode());
            }
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// Whether `c` is a control (C0, DEL, C1), a line or paragraph separator, or a format character that is invisible or
/// reorders text (Unicode Technical Report 36, section 3; the bidirectional controls of CVE-2021-42574). The joiners and
/// the variation selectors, which scripts and emoji need, are none of them.
pub(crate) fn is_unsafe(c: char) -> bool {
    matches!(c,
        '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' // controls
        | '\u{ad}' | '\u{180e}' | '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{feff}' // invisible
        | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{206f}' // bidirectional
        | '\u{2028}' | '\u{2029}' // line and paragraph separators
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}') // annotations, tags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_text_is_borrowed() {
        let family = "👨\u{200d}👩\u{200d}👧 C:\\temp é 推荐 می\u{200c}خواهم ❤\u{fe0f}";
        assert!(matches!(escape(family), Cow::Borrowed(same) if same == family));
    }

    #[test]
    fn controls_breaks_and_reordering_become_visible() {
        let cases = [
            ("a\nb\r\nc\td", "a\\nb\\r\\nc\\td"),
            ("\u{1b}[2Jx", "\\u{1b}[2Jx"),
            ("\u{1b}]0;title\u{7}", "\\u{1b}]0;title\\u{7}"),
            ("\u{9b}31m\u{7f}", "\\u{9b}31m\\u{7f}"),
            ("x\u{2028}y\u{2029}z\u{85}", "x\\u{2028}y\\u{2029}z\\u{85}"),
            ("\u{202e}gpj.exe\u{2069}", "\\u{202e}gpj.exe\\u{2069}"),
            ("\u{200b}\u{feff}\u{e0041}", "\\u{200b}\\u{feff}\\u{e0041}"),
        ];
        for (text, escaped) in cases {
            assert_eq!(escape(text), escaped);
        }
    }

    #[test]
    fn what_is_escaped_is_safe() {
        let all: String = (0..=0x10_ffff).filter_map(char::from_u32).collect();
        let escaped = escape(&all);
        assert!(!escaped.chars().any(|c| c.is_control() || is_unsafe(c)));
    }
}
