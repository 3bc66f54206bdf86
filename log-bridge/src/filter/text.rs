//! A filter as one word of ASCII characters, for a [`SourceHandle`](crate::SourceHandle).
//!
//! The word is the level of spans, the default level, then `TARGET=LEVEL` for each target, all separated by commas. Other
//! than the text for people, it holds the level of spans, and a target may contain any characters.

use std::fmt::Write as _;

use tracing_core::LevelFilter;

use super::{Directive, Filter};

impl Filter {
    /// Returns the filter as one word.
    pub(crate) fn to_word(&self) -> String {
        let mut word = format!("{},{}", self.spans, self.default);
        for Directive { target, level } in &self.directives {
            word.push(',');
            push_escaped(&mut word, target);
            // Writing to a string does not fail.
            let _ = write!(word, "={level}");
        }
        word
    }

    /// Returns the filter of a word that [`to_word`](Self::to_word) has returned, or `None` for any other text.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        let mut parts = word.split(',');
        let (spans, default) = (level(parts.next()?)?, level(parts.next()?)?);
        let directives = parts.map(|part| {
            let (target, of_target) = part.split_once('=')?;
            Some(Directive {
                target: unescape(target)?,
                level: level(of_target)?,
            })
        });
        let directives = directives.collect::<Option<Vec<_>>>()?;
        Some(Self::new(default).spans(spans).directives(directives))
    }
}

fn level(text: &str) -> Option<LevelFilter> {
    text.parse().ok()
}

/// Appends `text`, with `%` and two digits for each byte that is no letter, digit, `_`, `-`, `:` or `/`.
pub(crate) fn push_escaped(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b':' | b'/' => out.push(byte.into()),
            // Writing to a string does not fail.
            _ => _ = write!(out, "%{byte:02x}"),
        }
    }
}

/// Returns the text that [`push_escaped`] has appended, or `None` if it is not such a text.
pub(crate) fn unescape(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_filter_survives_its_word() {
        let filter = Filter::new(LevelFilter::WARN)
            .spans(LevelFilter::TRACE)
            .target("a::b", LevelFilter::OFF)
            .target("", LevelFilter::INFO)
            .target("ü, \"=%.\n", LevelFilter::DEBUG);
        let word = filter.to_word();
        assert!(
            word.bytes()
                .all(|byte| byte.is_ascii_graphic() && !b"\"'.".contains(&byte)),
            "{word}"
        );
        assert_eq!(Filter::from_word(&word), Some(filter));
        assert_eq!(Filter::new(LevelFilter::INFO).to_word(), "off,info");
    }

    #[test]
    fn other_texts_are_no_filter() {
        for word in [
            "",
            "off",
            "off,loud",
            "off,info,",
            "off,info,a",
            "off,info,%=info",
            "off,info,%zz=info",
            "off,info,%ff=info",
            "off,info,%é=info",
        ] {
            assert_eq!(Filter::from_word(word), None, "{word}");
        }
        let twice = Filter::from_word("off,info,a=warn,a=debug").unwrap();
        assert_eq!(twice.to_string(), "info,a=warn");
    }
}
