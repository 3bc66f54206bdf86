//! Text from another process, made safe to show to a person.

use std::fmt;

/// Shows text that this process did not write on one line, without anything that a terminal obeys.
///
/// Control characters (ESC and the sequences that it starts, CR, LF, TAB, DEL, C1), line and paragraph separators,
/// controls of text direction, zero-width and unassigned characters are written as Rust escapes, such as `\u{1b}`,
/// `\n` or `\u{202e}`. All other text is unchanged, quotes and backslashes included.
///
/// Everything that a person reads and another process wrote goes through this one place: last log records, printed
/// lines, labels, error messages. Output for programs (JSON, fields of events) keeps the original.
///
/// ```
/// use shm_buffers::Printable;
/// let hostile = "done\r\n\u{1b}[2KINFO forged \u{202e}txt";
/// assert_eq!(Printable(hostile).to_string(), r"done\r\n\u{1b}[2KINFO forged \u{202e}txt");
/// assert_eq!(Printable("C:\\é \"日本\"").to_string(), "C:\\é \"日本\"");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Printable<'a>(
    /// The text as it came.
    pub &'a str,
);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `str::escape_debug` knows what is printable. It escapes a combining mark only at the start of a text, and
        // quotes and backslashes, which have to stay as they are.
        const KEPT: [char; 3] = ['"', '\'', '\\'];
        for part in self.0.split_inclusive(KEPT) {
            let text = part.strip_suffix(KEPT).unwrap_or(part);
            write!(f, "{}{}", text.escape_debug(), &part[text.len()..])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        let controls = (0..0x20).chain(0x7f..0xa0);
        let bidi = [0x061c, 0x200e, 0x200f].into_iter().chain(0x202a..=0x202e);
        let others = bidi
            .chain(0x2066..=0x2069)
            .chain([0x2028, 0x2029, 0x200b, 0xfeff]);
        for code in controls.chain(others) {
            let c = char::from_u32(code).unwrap();
            let shown = Printable(&format!("a{c}b")).to_string();
            assert!(
                shown.is_ascii() && shown.bytes().all(|b| b >= b' ' && b != 0x7f),
                "{code:x}: {shown:?}"
            );
            assert!(shown.starts_with("a\\") && shown.ends_with('b'), "{shown}");
        }
    }

    #[test]
    fn text_for_people_is_unchanged() {
        for text in [
            "",
            "plain",
            "\"quoted\" 'text' \\n C:\\dir\\",
            "é e\u{301} 日本語 😀 ✓",
            "עברית العربية",
        ] {
            assert_eq!(Printable(text).to_string(), text);
        }
    }
}
