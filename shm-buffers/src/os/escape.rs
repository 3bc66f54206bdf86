//! Names and paths as printable ASCII characters without spaces and colons, and back.
//!
//! A `%` and hexadecimal digits stand for every other character: two digits for a byte; on Windows `%u` and four digits for a
//! UTF-16 code unit of a path. So paths that are not Unicode survive.

use std::fmt;
use std::path::{Path, PathBuf};

/// Displays a name or a path with escapes.
pub(super) struct Escaped<'a>(Original<'a>);

enum Original<'a> {
    Bytes(&'a [u8]),
    #[cfg(windows)]
    Path(&'a Path),
}

impl<'a> Escaped<'a> {
    pub(super) fn string(text: &'a str) -> Self {
        Self(Original::Bytes(text.as_bytes()))
    }

    pub(super) fn path(path: &'a Path) -> Self {
        #[cfg(unix)]
        return Self(Original::Bytes(std::os::unix::ffi::OsStrExt::as_bytes(
            path.as_os_str(),
        )));
        #[cfg(windows)]
        Self(Original::Path(path))
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'_' | b'-')
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;

        match self.0 {
            Original::Bytes(bytes) => bytes.iter().try_for_each(|&byte| match is_plain(byte) {
                true => f.write_char(byte.into()),
                false => write!(f, "%{byte:02x}"),
            }),
            #[cfg(windows)]
            Original::Path(path) => {
                let mut units = std::os::windows::ffi::OsStrExt::encode_wide(path.as_os_str());
                units.try_for_each(|unit| match u8::try_from(unit) {
                    Ok(byte) if is_plain(byte) => f.write_char(byte.into()),
                    _ => write!(f, "%u{unit:04x}"),
                })
            }
        }
    }
}

const INVALID: &str = "its name or path has a character or an escape that is not allowed there";

/// Restores a name.
pub(super) fn string(text: &str) -> Result<String, &'static str> {
    String::from_utf8(bytes(text)?).map_err(|_| INVALID)
}

/// Restores a path.
pub(super) fn path(text: &str) -> Result<PathBuf, &'static str> {
    #[cfg(unix)]
    let path = <std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes(text)?);
    #[cfg(windows)]
    let path = {
        let units = decode(text, |rest| {
            let digits = rest.strip_prefix(b"u").and_then(|rest| rest.get(..4));
            Some((1 + 4, digits?))
        })?;
        <std::ffi::OsString as std::os::windows::ffi::OsStringExt>::from_wide(&units)
    };
    Ok(path.into())
}

fn bytes(text: &str) -> Result<Vec<u8>, &'static str> {
    let units = decode(text, |rest| Some((2, rest.get(..2)?)))?;
    Ok(units.into_iter().map(|unit| unit as u8).collect())
}

/// Replaces the escapes of `text`. `escape` returns the length of the escape at the start of some bytes that follow a `%`, and
/// its digits. The result is not longer than the text.
fn decode(text: &str, escape: impl Fn(&[u8]) -> Option<(usize, &[u8])>) -> Result<Vec<u16>, &'static str> {
    let mut rest = text.as_bytes();
    let mut units = Vec::with_capacity(rest.len());
    while let Some((&first, after)) = rest.split_first() {
        if is_plain(first) {
            units.push(first.into());
            rest = after;
            continue;
        }
        let (len, digits) = Some(after)
            .filter(|_| first == b'%')
            .and_then(&escape)
            .ok_or(INVALID)?;
        let unit = digits.iter().try_fold(0, |unit, &digit| {
            let digit = char::from(digit).to_digit(16)?;
            Some(unit << 4 | digit as u16)
        });
        units.push(unit.ok_or(INVALID)?);
        rest = &after[len..];
    }
    Ok(units)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_are_not_unicode_survive() {
        #[cfg(unix)]
        let odd = std::os::unix::ffi::OsStringExt::from_vec((0..=255).collect());
        #[cfg(windows)]
        let odd =
            std::os::windows::ffi::OsStringExt::from_wide(&[0x41, 0xD800, 0x20, 0xFFFF, 0x3A, 0x5C, 0xDC00]);
        let odd: std::ffi::OsString = odd;
        let odd = PathBuf::from(odd);
        let text = Escaped::path(&odd).to_string();
        assert!(
            text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'),
            "{text}"
        );
        assert_eq!(path(&text), Ok(odd));
    }

    #[test]
    fn text_with_other_characters_or_escapes_is_refused() {
        for text in ["%", "%4", "%4g", "% 1", "%é", "a b", "a:b", "é", "%+1"] {
            assert_eq!(string(text), Err(INVALID), "{text}");
            assert!(path(text).is_err(), "{text}");
        }
        assert_eq!(string("%c3%A9"), Ok("é".to_owned()));
        assert_eq!(string("%c3"), Err(INVALID));
    }
}
