//! [`Printable`]: text of another process, made safe to print.

use std::fmt;

/// Displays untrusted text on one line, without anything that a terminal interprets.
///
/// These characters are written as Rust escapes, such as `\u{1b}`, `\n` or `\u{202e}`:
///
/// - control characters (ESC and thus every escape sequence, CR, LF, TAB, DEL, C1), line and paragraph separators;
/// - controls of text direction, which change the order of what is read (CVE-2021-42574);
/// - invisible format characters, and characters that are unassigned or for private use.
///
/// All other text is unchanged, including spaces, quotes and backslashes: the result is for reading, not for parsing.
/// Emoji sequences and some scripts need invisible characters, so these are kept where they have an effect: the joiners
/// U+200C and U+200D after a character outside ASCII, a variation selector such as U+FE0F after a visible character.
///
/// Everything that a person reads and another process wrote is displayed by this type: last log records, printed
/// lines, labels, error messages. Output for programs (JSON, fields of events) keeps the original.
///
/// ```
/// use shm_buffers::Printable;
/// let hostile = "done\r\n\u{1b}[2KINFO forged \u{202e}txt";
/// assert_eq!(Printable(hostile).to_string(), r"done\r\n\u{1b}[2KINFO forged \u{202e}txt");
/// assert_eq!(Printable("C:\\é \"日本\" ❤\u{fe0f}").to_string(), "C:\\é \"日本\" ❤\u{fe0f}");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Printable<'a>(
    /// The original text.
    pub &'a str,
);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut previous = None;
        let mut written = 0;
        for (at, c) in self.0.char_indices() {
            if is_unchanged(previous, c) {
                previous = Some(c);
            } else {
                write!(f, "{}{}", &self.0[written..at], c.escape_debug())?;
                written = at + c.len_utf8();
                previous = None;
            }
        }
        f.write_str(&self.0[written..])
    }
}

/// Whether `c` is displayed as it is. `previous` is the character before it, or `None` at the start of the text and
/// after an escape.
fn is_unchanged(previous: Option<char>, c: char) -> bool {
    match c {
        ' '..='~' => true,
        _ if is_joiner(c) => previous.is_some_and(|previous| !previous.is_ascii() && !is_joiner(previous)),
        _ if is_variation_selector(c) => {
            previous.is_some_and(|previous| !is_joiner(previous) && !is_variation_selector(previous))
        }
        '\u{2028}' | '\u{2029}' => false,
        _ if c.is_whitespace() => !c.is_control(),
        _ => is_graphic(previous, c),
    }
}

fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}')
}

fn is_variation_selector(c: char) -> bool {
    matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}')
}

/// Whether the tables of the standard library contain `c` as printable. A combining mark is not printable without a
/// character before it.
fn is_graphic(previous: Option<char>, c: char) -> bool {
    // `str::escape_debug` escapes combining marks at the start of a text only; `char::escape_debug` always escapes
    // them.
    let mut text = [b'_'; 5];
    let end = 1 + c.encode_utf8(&mut text[1..]).len();
    let start = usize::from(previous.is_none());
    std::str::from_utf8(&text[start..end]).is_ok_and(|text| text.escape_debug().last() == Some(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        Printable(text).to_string()
    }

    #[test]
    fn controls_and_invisible_characters_are_escaped_everywhere() {
        let controls = (0..0x20).chain(0x7f..0xa0);
        let bidi = [0x061c, 0x200e, 0x200f].into_iter().chain(0x202a..=0x202e);
        let invisible = [0xad, 0x180e, 0x200b, 0x2060, 0xfeff, 0xfff9, 0xe0041, 0xe000];
        let others = bidi
            .chain(0x2066..=0x206f)
            .chain([0x2028, 0x2029])
            .chain(invisible);
        for code in controls.chain(others) {
            let c = char::from_u32(code).unwrap();
            let escaped = c.escape_debug();
            assert_eq!(shown(&format!("{c}b")), format!("{escaped}b"), "{code:x}");
            assert_eq!(shown(&format!("é{c}b")), format!("é{escaped}b"), "{code:x}");
        }
    }

    #[test]
    fn escape_sequences_and_line_breaks_are_visible() {
        for (text, escaped) in [
            ("a\nb\r\nc\td\0", r"a\nb\r\nc\td\0"),
            ("\u{1b}]0;title\u{7}", r"\u{1b}]0;title\u{7}"),
            ("\u{9b}31m\u{7f}", r"\u{9b}31m\u{7f}"),
            ("x\u{2028}y\u{85}", r"x\u{2028}y\u{85}"),
            ("\u{202e}gpj.exe\u{2069}", r"\u{202e}gpj.exe\u{2069}"),
        ] {
            assert_eq!(shown(text), escaped);
        }
    }

    #[test]
    fn displayed_text_has_no_controls_whatever_the_input() {
        let all: String = (0..=0x10_ffff).filter_map(char::from_u32).collect();
        let shown = shown(&all);
        assert!(!shown.chars().any(char::is_control));
        assert_eq!(Printable(&shown).to_string(), shown);
    }

    #[test]
    fn readable_text_is_unchanged() {
        for text in [
            "",
            "plain",
            "\"quoted\" 'text' \\n C:\\dir\\",
            "é e\u{301} \"\u{301} 日本語\u{3000}😀 ✓ 5\u{a0}%",
            "עברית العربية",
        ] {
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn joiners_and_variation_selectors_are_kept_in_sequences() {
        for text in [
            "👨\u{200d}👩\u{200d}👧",
            "❤\u{fe0f}\u{200d}🔥",
            "1\u{fe0f}\u{20e3}",
            "می\u{200c}خواهم",
            "র\u{200d}\u{9cd}য",
            "葛\u{e0100}",
        ] {
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn joiners_and_variation_selectors_without_effect_are_escaped() {
        for (text, escaped) in [
            ("\u{200d}é", r"\u{200d}é"),
            ("ad\u{200d}min", r"ad\u{200d}min"),
            ("é\u{200d}\u{200c}", "é\u{200d}\\u{200c}"),
            ("\n\u{200d}", r"\n\u{200d}"),
            ("\u{fe0f}a", r"\u{fe0f}a"),
            ("a\u{fe0f}\u{fe0e}\u{e0100}", "a\u{fe0f}\\u{fe0e}\\u{e0100}"),
        ] {
            assert_eq!(shown(text), escaped);
        }
    }

    #[test]
    fn a_combining_mark_without_a_base_is_escaped() {
        assert_eq!(shown("\u{301}a"), r"\u{301}a");
        assert_eq!(shown("\n\u{301}"), r"\n\u{301}");
    }
}
