//! Which tests were skipped, and why, in the output of a test run.

use std::io::{self, Write};

/// A test that did not test all it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Skip {
    pub(super) test: String,
    pub(super) reason: String,
    /// It ran, and came to something that wine lacks.
    pub(super) is_gap: bool,
}

/// Shows what it is given, and finds who says that he was skipped: by `#[ignore]`, or by a line of his own, which
/// libtest shows after his name (`--show-output`).
#[derive(Default)]
pub(super) struct Skips {
    line: Vec<u8>,
    /// Whose output is being shown.
    test: String,
    found: Vec<Skip>,
}

/// What tests say.
const GAP: &str = "not tested under wine: ";

impl Skips {
    /// One for each test and reason.
    pub(super) fn found(self) -> Vec<Skip> {
        self.found
    }

    fn hear(&mut self, line: &str) {
        let (test, reason, is_gap) = if let Some((_, gap)) = line.split_once(GAP) {
            (&*self.test, gap, true)
        } else if let Some((test, ignored)) = line
            .strip_prefix("test ")
            .and_then(|it| it.split_once(" ... ignored"))
        {
            let reason = ignored.strip_prefix(", ").unwrap_or("no reason given");
            (test, reason, false)
        } else {
            let shown = line.strip_prefix("---- ");
            if let Some(test) = shown.and_then(|it| it.strip_suffix(" stdout ----")) {
                self.test = test.to_owned();
            }
            return;
        };
        let skip = Skip {
            test: test.to_owned(),
            reason: reason.to_owned(),
            is_gap,
        };
        // A test of every backing says it for each.
        if !self.found.contains(&skip) {
            self.found.push(skip);
        }
    }
}

impl Write for Skips {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for &byte in bytes {
            if byte == b'\n' {
                let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
                self.hear(line.trim_end());
            } else {
                self.line.push(byte);
            }
        }
        io::stdout().write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_skip_has_its_test_and_its_reason() {
        let mut skips = Skips::default();
        let output = "test a::long ... ignored, takes an hour\ntest a::b ... ok\n\nsuccesses:\n\n---- a::b stdout \
                      ----\nhello\nnot tested under wine: OpenFile opens\nnot tested under wine: OpenFile opens\r\n";
        for line in output.lines() {
            skips.hear(line.trim_end());
        }
        let skip = |test: &str, reason: &str, is_gap| Skip {
            test: test.to_owned(),
            reason: reason.to_owned(),
            is_gap,
        };
        assert_eq!(
            skips.found(),
            [
                skip("a::long", "takes an hour", false),
                skip("a::b", "OpenFile opens", true)
            ]
        );
    }
}
