//! The records that cross: their types, version, and checked decoding.
//!
//! A frame is the version, the kind, and a postcard-encoded body. Metadata of a callsite travels as a blob of its
//! own, so that the leader recognises a callsite by its bytes without decoding it again.

use serde::ser::SerializeSeq;
use serde::{Deserialize, Serialize};
use tracing_core::{Level, Metadata, field::FieldSet};

use crate::tally::LEVELS;

/// The first byte of every frame. Leader and worker are the same image, but a mismatch must be told, not guessed.
pub(crate) const VERSION: u8 = 1;
pub(crate) const KIND_EVENT: u8 = 0;
pub(crate) const KIND_DROPS: u8 = 1;

/// No frame is larger; what a peer sends beyond is refused before it is decoded.
pub(crate) const MAX_FRAME: usize = 64 * 1024;
/// No description of a callsite is larger.
pub(crate) const MAX_SITE: usize = 8 * 1024;
/// Spans that an event carries at most; the outermost are left out beyond.
pub(crate) const MAX_DEPTH: usize = 64;
/// Bytes of one string of a callsite at most.
const MAX_NAME: usize = 512;

/// One typed value of a field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Value<'a> {
    Bool(bool),
    I64(i64),
    U64(u64),
    I128(i128),
    U128(u128),
    F64(f64),
    Str(&'a str),
    Bytes(&'a [u8]),
    /// What `Debug` or `Display` printed.
    Debug(&'a str),
    /// What an error and its sources printed.
    Error(#[serde(borrow)] Vec<&'a str>),
}

/// A field's position in its callsite's field set, and its value.
pub(crate) type Entry<'a> = (u32, Value<'a>);

/// One event with everything that belongs to it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record<'a> {
    #[serde(borrow)]
    pub(crate) head: Head<'a>,
    /// From the leaf to the root: the outermost are the first to be left out.
    pub(crate) spans: Vec<SpanRecord<'a>>,
    pub(crate) site: &'a [u8],
    pub(crate) values: Vec<Entry<'a>>,
    /// How many values or spans were shortened or left out.
    pub(crate) cut: u32,
}

/// When and where an event was emitted.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Head<'a> {
    /// Nanoseconds since the Unix epoch.
    pub(crate) timestamp: u64,
    pub(crate) thread: u64,
    #[serde(borrow)]
    pub(crate) thread_name: Option<&'a str>,
}

/// One span on an event's path.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SpanRecord<'a> {
    /// Unique in its worker for ever.
    pub(crate) uid: u64,
    pub(crate) site: &'a [u8],
    /// The values at creation, then those of each later `record`.
    #[serde(borrow)]
    pub(crate) batches: Vec<Vec<Entry<'a>>>,
}

/// The metadata of a callsite.
#[derive(Debug, PartialEq, Deserialize)]
pub(crate) struct Site<'a> {
    /// 0 is ERROR, 4 is TRACE.
    pub(crate) level: u8,
    pub(crate) name: &'a str,
    pub(crate) target: &'a str,
    #[serde(borrow)]
    pub(crate) module_path: Option<&'a str>,
    #[serde(borrow)]
    pub(crate) file: Option<&'a str>,
    pub(crate) line: Option<u32>,
    pub(crate) fields: Vec<&'a str>,
}

/// [`Site`] as the worker writes it, straight from the metadata.
#[derive(Serialize)]
struct SiteOf<'a> {
    level: u8,
    name: &'a str,
    target: &'a str,
    module_path: Option<&'a str>,
    file: Option<&'a str>,
    line: Option<u32>,
    fields: Names<'a>,
}

struct Names<'a>(&'a FieldSet);

impl Serialize for Names<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The iterator of a field set does not know its length, and postcard needs it.
        let mut names = serializer.serialize_seq(Some(self.0.len()))?;
        for field in self.0 {
            names.serialize_element(field.name())?;
        }
        names.end()
    }
}

/// What a frame says.
#[derive(Debug)]
pub(crate) enum Frame<'a> {
    Event(Record<'a>),
    /// How many events of each level the worker has dropped so far.
    Drops([u64; LEVELS]),
}

/// A frame that no correct worker writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct DecodeError(#[from] Flaw);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flaw {
    #[error("log record of {0} bytes exceeds the largest of {MAX_FRAME}")]
    TooLarge(usize),
    #[error("log record of {0} bytes has no header")]
    NoHeader(usize),
    #[error("log record has version {0}, expected {VERSION}: leader and worker are different builds")]
    Version(u8),
    #[error("log record is of unknown kind {0}")]
    Kind(u8),
    #[error("log record does not decode")]
    Body(#[source] postcard::Error),
    #[error("log record has {0} bytes too many")]
    Trailing(usize),
    #[error("log record has {0} spans, at most {MAX_DEPTH} are allowed")]
    Depth(usize),
    #[error("callsite of {0} bytes exceeds the largest of {MAX_SITE}")]
    SiteTooLarge(usize),
    #[error("callsite has unknown level {0}")]
    Level(u8),
    #[error("value for field {field} of a callsite with {fields}")]
    Field { field: u32, fields: usize },
}

impl<'a> Frame<'a> {
    pub(crate) fn decode(frame: &'a [u8]) -> Result<Self, DecodeError> {
        if frame.len() > MAX_FRAME {
            return Err(Flaw::TooLarge(frame.len()).into());
        }
        let [version, kind, body @ ..] = frame else {
            return Err(Flaw::NoHeader(frame.len()).into());
        };
        if *version != VERSION {
            return Err(Flaw::Version(*version).into());
        }
        match *kind {
            KIND_EVENT => {
                let record: Record<'a> = exactly(body)?;
                if record.spans.len() > MAX_DEPTH {
                    return Err(Flaw::Depth(record.spans.len()).into());
                }
                Ok(Self::Event(record))
            }
            KIND_DROPS => Ok(Self::Drops(exactly(body)?)),
            kind => Err(Flaw::Kind(kind).into()),
        }
    }
}

impl<'a> Site<'a> {
    pub(crate) fn decode(site: &'a [u8]) -> Result<Self, DecodeError> {
        if site.len() > MAX_SITE {
            return Err(Flaw::SiteTooLarge(site.len()).into());
        }
        let site: Self = exactly(site)?;
        if usize::from(site.level) >= LEVELS {
            return Err(Flaw::Level(site.level).into());
        }
        Ok(site)
    }
}

fn exactly<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(Flaw::Trailing(rest.len()).into()),
        Err(error) => Err(Flaw::Body(error).into()),
    }
}

/// Appends the encoding of `value`.
pub(crate) fn put<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    struct Appending<'a>(&'a mut Vec<u8>);
    impl postcard::ser_flavors::Flavor for Appending<'_> {
        type Output = ();
        fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
            self.0.push(byte);
            Ok(())
        }
        fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
            self.0.extend_from_slice(bytes);
            Ok(())
        }
        fn finalize(self) -> postcard::Result<()> {
            Ok(())
        }
    }
    let done = postcard::serialize_with_flavor(value, Appending(out));
    debug_assert!(
        done.is_ok(),
        "our types have known lengths, and a vector takes everything"
    );
}

/// Appends the metadata of a callsite as a blob; `scratch` is overwritten.
pub(crate) fn put_site(out: &mut Vec<u8>, scratch: &mut Vec<u8>, metadata: &Metadata<'_>) {
    scratch.clear();
    put(
        scratch,
        &SiteOf {
            level: level_index(*metadata.level()) as u8,
            name: clipped(metadata.name(), MAX_NAME),
            target: clipped(metadata.target(), MAX_NAME),
            module_path: metadata.module_path().map(|s| clipped(s, MAX_NAME)),
            file: metadata.file().map(|s| clipped(s, MAX_NAME)),
            line: metadata.line(),
            fields: Names(metadata.fields()),
        },
    );
    put(out, scratch.as_slice());
}

/// As much of `text` as fits into `max` bytes.
pub(crate) fn clipped(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// 0 for ERROR, 4 for TRACE.
pub(crate) fn level_index(level: Level) -> usize {
    match level {
        Level::ERROR => 0,
        Level::WARN => 1,
        Level::INFO => 2,
        Level::DEBUG => 3,
        Level::TRACE => 4,
    }
}

/// The level of an index made by [`level_index`]; TRACE beyond.
pub(crate) fn level_of(index: usize) -> Level {
    [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG]
        .get(index)
        .copied()
        .unwrap_or(Level::TRACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Vec<u8> {
        let values = vec![
            (0, Value::Bool(true)),
            (1, Value::I64(-1)),
            (2, Value::U64(u64::MAX)),
            (3, Value::I128(i128::MIN)),
            (4, Value::U128(u128::MAX)),
            (5, Value::F64(-0.5)),
            (6, Value::Str("text")),
            (7, Value::Bytes(b"\x00\xff")),
            (8, Value::Debug("Some(1)")),
            (9, Value::Error(vec!["outer", "inner"])),
        ];
        let record = Record {
            head: Head {
                timestamp: 1_700_000_000_000_000_000,
                thread: 2,
                thread_name: Some("main"),
            },
            spans: vec![SpanRecord {
                uid: 9,
                site: b"site",
                batches: vec![values.clone(), vec![]],
            }],
            site: b"other",
            values,
            cut: 3,
        };
        let mut frame = vec![VERSION, KIND_EVENT];
        put(&mut frame, &record);
        frame
    }

    #[test]
    fn every_truncation_and_every_extension_is_an_error() {
        let mut frame = example();
        assert!(matches!(Frame::decode(&frame), Ok(Frame::Event(r)) if r.cut == 3 && r.values.len() == 10));
        for len in 0..frame.len() {
            assert!(Frame::decode(&frame[..len]).is_err(), "{len} bytes decoded");
        }
        frame.push(0);
        assert_eq!(Frame::decode(&frame).unwrap_err(), Flaw::Trailing(1).into());
    }

    #[test]
    fn flipped_bytes_never_panic() {
        let frame = example();
        for at in 0..frame.len() {
            for flip in [1, 0x80, 0xff] {
                let mut frame = frame.clone();
                frame[at] ^= flip;
                if let Ok(Frame::Event(record)) = Frame::decode(&frame) {
                    let _ = Site::decode(record.site);
                }
            }
        }
    }

    #[test]
    fn other_versions_kinds_and_sizes_are_told_apart() {
        assert_eq!(Frame::decode(&[9, 0]).unwrap_err(), Flaw::Version(9).into());
        assert_eq!(Frame::decode(&[VERSION, 9]).unwrap_err(), Flaw::Kind(9).into());
        let large = vec![VERSION; MAX_FRAME + 1];
        assert_eq!(
            Frame::decode(&large).unwrap_err(),
            Flaw::TooLarge(MAX_FRAME + 1).into()
        );
        let large = vec![0; MAX_SITE + 1];
        assert_eq!(
            Site::decode(&large).unwrap_err(),
            Flaw::SiteTooLarge(MAX_SITE + 1).into()
        );
    }

    #[test]
    fn levels_have_indices_and_back() {
        for level in [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE] {
            assert_eq!(level_of(level_index(level)), level);
        }
        assert_eq!(clipped("aé", 2), "a");
    }
}
