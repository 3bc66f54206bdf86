//! Callsites on the wire: their encoded metadata, and the short references to it.

use tracing_core::Metadata;

use super::bytes::{ByteReader, prefix};
use super::error::Malformed;
use super::level::{LEVELS, level_index};
use super::limits::{MAX_CALLSITE, MAX_CALLSITES};

/// Bytes of one string of a callsite, other than the names of its fields.
const MAX_STRING: usize = 512;

const FORM_INLINE: u8 = 0;
const FORM_DEFINES: u8 = 1;
const FORM_NUMBER: u8 = 2;

/// How a record refers to a callsite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallsiteRef<'a> {
    /// Encoded metadata, for this record only.
    Inline(&'a [u8]),
    /// Encoded metadata, and the number that stands for it from now on.
    Defines(u16, &'a [u8]),
    /// The number of a callsite that an earlier record has defined.
    Number(u16),
}

impl<'a> CallsiteRef<'a> {
    pub(crate) fn decode(reader: &mut ByteReader<'a>) -> Result<Self, Malformed> {
        let form = reader.u8()?;
        let number = match form {
            FORM_INLINE => 0,
            FORM_DEFINES | FORM_NUMBER => reader.u16()?,
            form => return Err(Malformed::CallsiteForm(form)),
        };
        if usize::from(number) >= MAX_CALLSITES {
            return Err(Malformed::UndefinedCallsite(number));
        }
        if form == FORM_NUMBER {
            return Ok(Self::Number(number));
        }
        let len = usize::from(reader.u16()?);
        if len > MAX_CALLSITE {
            return Err(Malformed::CallsiteTooLarge(len));
        }
        let encoded = reader.bytes(len)?;
        Ok(match form {
            FORM_INLINE => Self::Inline(encoded),
            _ => Self::Defines(number, encoded),
        })
    }

    /// Appends the reference to a record.
    #[inline]
    pub(crate) fn put(self, out: &mut Vec<u8>) {
        match self {
            Self::Number(number) => {
                let [low, high] = number.to_le_bytes();
                out.extend_from_slice(&[FORM_NUMBER, low, high]);
            }
            Self::Inline(encoded) => {
                out.push(FORM_INLINE);
                put_encoded(out, encoded);
            }
            Self::Defines(number, encoded) => {
                out.push(FORM_DEFINES);
                out.extend_from_slice(&number.to_le_bytes());
                put_encoded(out, encoded);
            }
        }
    }

    /// Returns how many bytes [`put`](Self::put) appends.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Number(_) => 3,
            Self::Inline(encoded) => 3 + encoded.len(),
            Self::Defines(_, encoded) => 5 + encoded.len(),
        }
    }
}

fn put_encoded(out: &mut Vec<u8>, encoded: &[u8]) {
    // At most MAX_CALLSITE bytes.
    out.extend_from_slice(&(encoded.len() as u16).to_le_bytes());
    out.extend_from_slice(encoded);
}

/// The decoded metadata of a callsite.
#[derive(Debug, PartialEq)]
pub(crate) struct CallsiteInfo<'a> {
    /// The index of its level.
    pub(crate) level: u8,
    pub(crate) name: &'a str,
    pub(crate) target: &'a str,
    pub(crate) module_path: Option<&'a str>,
    pub(crate) file: Option<&'a str>,
    pub(crate) line: Option<u32>,
    pub(crate) fields: Vec<&'a str>,
}

const HAS_MODULE: u8 = 1;
const HAS_FILE: u8 = 2;
const HAS_LINE: u8 = 4;

impl<'a> CallsiteInfo<'a> {
    pub(crate) fn decode(encoded: &'a [u8]) -> Result<Self, Malformed> {
        if encoded.len() > MAX_CALLSITE {
            return Err(Malformed::CallsiteTooLarge(encoded.len()));
        }
        let mut reader = ByteReader::new(encoded);
        let level = reader.u8()?;
        if usize::from(level) >= LEVELS {
            return Err(Malformed::Level(level));
        }
        let has = reader.u8()?;
        let name = reader.text()?;
        let target = reader.text()?;
        let module_path = (has & HAS_MODULE > 0).then(|| reader.text()).transpose()?;
        let file = (has & HAS_FILE > 0).then(|| reader.text()).transpose()?;
        let line = (has & HAS_LINE > 0).then(|| reader.u32()).transpose()?;
        let fields = (0..reader.u16()?)
            .map(|_| reader.text())
            .collect::<Result<_, _>>()?;
        reader.end()?;
        Ok(Self {
            level,
            name,
            target,
            module_path,
            file,
            line,
            fields,
        })
    }

    /// Decodes only the name.
    pub(crate) fn decode_name(encoded: &'a [u8]) -> Result<&'a str, Malformed> {
        let mut reader = ByteReader::new(encoded);
        reader.bytes(2)?;
        reader.text()
    }
}

/// Encodes the metadata of a callsite; returns `None` if that takes more than [`MAX_CALLSITE`] bytes.
pub(crate) fn encode_metadata(metadata: &Metadata<'_>) -> Option<Box<[u8]>> {
    let mut out = Vec::with_capacity(256);
    let put_text = |out: &mut Vec<u8>, text: &str, max: usize| {
        let text = prefix(text, max);
        out.extend_from_slice(&(text.len() as u16).to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    };
    let flag = |is: bool, flag: u8| if is { flag } else { 0 };
    out.push(level_index(*metadata.level()) as u8);
    out.push(
        flag(metadata.module_path().is_some(), HAS_MODULE)
            | flag(metadata.file().is_some(), HAS_FILE)
            | flag(metadata.line().is_some(), HAS_LINE),
    );
    put_text(&mut out, metadata.name(), MAX_STRING);
    put_text(&mut out, metadata.target(), MAX_STRING);
    for text in [metadata.module_path(), metadata.file()].into_iter().flatten() {
        put_text(&mut out, text, MAX_STRING);
    }
    if let Some(line) = metadata.line() {
        out.extend_from_slice(&line.to_le_bytes());
    }
    out.extend_from_slice(&(metadata.fields().len() as u16).to_le_bytes());
    for field in metadata.fields() {
        put_text(&mut out, field.name(), MAX_CALLSITE);
    }
    (out.len() <= MAX_CALLSITE).then(|| out.into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_callsite::leak_metadata;

    #[test]
    fn metadata_comes_back_and_truncated_metadata_is_an_error() {
        let encoded = encode_metadata(leak_metadata(7)).unwrap();
        let info = CallsiteInfo::decode(&encoded).unwrap();
        assert_eq!((info.level, info.target, info.line), (1, "target", Some(7)));
        assert_eq!((info.file, info.module_path), (Some("file"), None));
        assert_eq!(info.fields, ["message", "a"]);
        assert_eq!(CallsiteInfo::decode_name(&encoded), Ok("name"));
        assert!((0..encoded.len()).all(|len| CallsiteInfo::decode(&encoded[..len]).is_err()));
        assert_eq!(
            CallsiteInfo::decode(&[0; MAX_CALLSITE + 1]),
            Err(Malformed::CallsiteTooLarge(MAX_CALLSITE + 1))
        );
        assert_eq!(CallsiteInfo::decode(&[5, 0]), Err(Malformed::Level(5)));
    }

    #[test]
    fn references_come_back_and_are_bounded() {
        for callsite in [
            CallsiteRef::Inline(b"x"),
            CallsiteRef::Defines(7, b"yz"),
            CallsiteRef::Number(4095),
        ] {
            let mut out = Vec::new();
            callsite.put(&mut out);
            assert_eq!(out.len(), callsite.len());
            assert_eq!(CallsiteRef::decode(&mut ByteReader::new(&out)), Ok(callsite));
            out.pop();
            assert!(CallsiteRef::decode(&mut ByteReader::new(&out)).is_err());
        }
        let decode = |bytes: &'static [u8]| CallsiteRef::decode(&mut ByteReader::new(bytes));
        assert_eq!(
            decode(&[FORM_NUMBER, 0, 16]),
            Err(Malformed::UndefinedCallsite(4096))
        );
        assert_eq!(decode(&[3]), Err(Malformed::CallsiteForm(3)));
        assert_eq!(
            decode(&[FORM_INLINE, 255, 255]),
            Err(Malformed::CallsiteTooLarge(65535))
        );
    }
}
