//! [`LineSplitter`]: the lines that another process prints.

use std::borrow::Cow;

/// Splits the output of another process into lines of bounded length.
///
/// Text after a carriage return replaces the text before it, as on a terminal, unless the line ends there: of a progress
/// bar, only the last state is a line. Bytes that are not UTF-8 are replaced.
///
/// ```
/// use shm_buffers::LineSplitter;
/// let mut splitter = LineSplitter::new(4096);
/// let mut lines = Vec::new();
/// splitter.push(b"ready\r\n10 %\r2", |line| lines.push(line.text.into_owned()));
/// splitter.push(b"0 %\r", |line| lines.push(line.text.into_owned()));
/// splitter.finish(|line| lines.push(line.text.into_owned()));
/// assert_eq!(lines, ["ready", "20 %"]);
/// ```
#[derive(Debug)]
pub struct LineSplitter {
    /// The bytes of the line that has not ended yet.
    bytes: Vec<u8>,
    max_line: usize,
    /// Bytes of that line beyond `max_line`.
    cut: u64,
    cursor: Cursor,
}

/// A line that a [`LineSplitter`] has found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutputLine<'a> {
    /// The text, without its line ending.
    pub text: Cow<'a, str>,
    /// The number of bytes that were cut off because the line was too long.
    pub cut: u64,
}

/// Where the next byte of a line goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cursor {
    AtEnd,
    /// After a carriage return: the next byte replaces the line, unless it ends the line.
    AtStart,
}

impl LineSplitter {
    /// Returns a splitter that keeps the first `max_line` bytes of each line.
    #[must_use]
    pub fn new(max_line: usize) -> Self {
        Self {
            bytes: Vec::new(),
            max_line,
            cut: 0,
            cursor: Cursor::AtEnd,
        }
    }

    /// Adds output, and passes each line that ends in it to `each`.
    pub fn push(&mut self, output: &[u8], mut each: impl FnMut(OutputLine<'_>)) {
        for part in output.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            match part {
                [part @ .., b'\n'] => {
                    self.put(part);
                    self.end_line(&mut each);
                }
                [part @ .., b'\r'] => {
                    self.put(part);
                    self.cursor = Cursor::AtStart;
                }
                part => self.put(part),
            }
        }
    }

    /// Ends the output: passes its last line to `each`, if that has any text and no line ending.
    pub fn finish(&mut self, each: impl FnOnce(OutputLine<'_>)) {
        if !self.bytes.is_empty() {
            self.end_line(each);
        }
    }

    fn put(&mut self, part: &[u8]) {
        if !part.is_empty() && self.cursor == Cursor::AtStart {
            self.bytes.clear();
            self.cut = 0;
            self.cursor = Cursor::AtEnd;
        }
        let kept = part.len().min(self.max_line - self.bytes.len());
        self.bytes.extend_from_slice(&part[..kept]);
        self.cut += (part.len() - kept) as u64;
    }

    fn end_line(&mut self, each: impl FnOnce(OutputLine<'_>)) {
        each(OutputLine {
            text: String::from_utf8_lossy(&self.bytes),
            cut: self.cut,
        });
        self.bytes.clear();
        self.cut = 0;
        self.cursor = Cursor::AtEnd;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 16;

    /// Returns the text and the cut bytes of each line.
    fn lines(parts: &[&[u8]]) -> Vec<(String, u64)> {
        let mut splitter = LineSplitter::new(MAX);
        let mut lines = Vec::new();
        let mut each = |line: OutputLine<'_>| lines.push((line.text.into_owned(), line.cut));
        for part in parts {
            splitter.push(part, &mut each);
            assert!(splitter.bytes.len() <= MAX);
        }
        splitter.finish(&mut each);
        lines
    }

    fn complete(lines: &[&str]) -> Vec<(String, u64)> {
        lines.iter().map(|&line| (line.to_owned(), 0)).collect()
    }

    #[test]
    fn lines_are_joined_from_parts_and_end_with_any_line_ending() {
        let parts: [&[u8]; 4] = [b"a\nb", b"c", b"\r\n\n", b"\xffd"];
        assert_eq!(lines(&parts), complete(&["a", "bc", "", "\u{fffd}d"]));
        assert_eq!(lines(&[b"a\n"]), complete(&["a"]));
        assert_eq!(lines(&[]), complete(&[]));
    }

    #[test]
    fn text_after_a_carriage_return_replaces_the_line() {
        let parts: [&[u8]; 3] = [b"10 %\r20 %\r", b"100 %\r", b"\ndone\n"];
        assert_eq!(lines(&parts), complete(&["100 %", "done"]));
        assert_eq!(lines(&[b"\r10 %", b"\r20 %\r\r"]), complete(&["20 %"]));
        assert_eq!(lines(&[b"a long line is cut\rnewest\n"]), complete(&["newest"]));
    }

    #[test]
    fn long_lines_are_cut_and_the_next_ones_are_complete() {
        let exact = [b'x'; MAX];
        let text = "x".repeat(MAX);
        let parts: [&[u8]; 5] = [&exact, b"\n", &exact, b"yyy", b"y\nnext\n"];
        let expected = [(text.clone(), 0), (text, 4), ("next".to_owned(), 0)];
        assert_eq!(lines(&parts), expected);
    }
}
