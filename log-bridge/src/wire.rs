//! The records that cross: their layout, version, and checked decoding.
//!
//! All numbers are little-endian. A frame begins with the version and the kind. An event goes on with the rest of its
//! fixed header, then:
//!
//! ```text
//! thread name | callsite | values | span, leaf first | span | …
//! span:     unique id u64 | version u32 | length of batches u32 | callsite | batch | batch | …
//! batch:    number u32 | count of entries u16 | length of entries u16 | entry | entry | …
//! values:   entry | entry | …
//! entry:    position in the callsite's field set (varint) | tag u8 | value
//! callsite: 0 | length u16 | blob                     metadata for this record only
//!           1 | number u16 | length u16 | blob        metadata, and the number it has from now on
//!           2 | number u16                            the number of one defined before
//! ```
//!
//! The batch of number 0 has the values that a span was made with, a later one those of the `record` of its number; the
//! version is the number of the last. A batch whose values were replaced by later ones may be missing.
//!
//! A definition travels inside the first records that need it, so it is lost only if they are, and then the next one
//! carries it again: the worker refers to a number only once a record that defines it is in the ring.

use tracing_core::Level;

use crate::reader::{Reader, text, unzigzag};
use crate::site::SiteRef;
use crate::tally::LEVELS;

/// The first byte of every frame. Leader and worker are the same image, but a mismatch must be told, not guessed.
pub(crate) const VERSION: u8 = 3;
pub(crate) const KIND_EVENT: u8 = 0;
pub(crate) const KIND_DROPS: u8 = 1;

/// No frame is larger; what a peer sends beyond is refused before it is decoded.
pub(crate) const MAX_FRAME: usize = 64 * 1024;
/// No description of a callsite is larger.
pub(crate) const MAX_SITE: usize = 8 * 1024;
/// Callsites, of spans and of events each, that a source may number.
pub(crate) const MAX_SITES: usize = 4096;
/// Bytes of all callsites of events, and of those of spans, that a source may number.
pub(crate) const MAX_SITES_BYTES: usize = 1 << 20;
/// Spans that an event carries at most; the outermost are left out beyond.
pub(crate) const MAX_DEPTH: usize = 64;

/// Bytes of [`Header`].
pub(crate) const HEADER: usize = 32;
/// Bytes before the entries of a batch.
pub(crate) const BATCH_HEAD: usize = 8;

pub(crate) const TAG_FALSE: u8 = 0;
pub(crate) const TAG_TRUE: u8 = 1;
pub(crate) const TAG_I64: u8 = 2;
pub(crate) const TAG_U64: u8 = 3;
pub(crate) const TAG_I128: u8 = 4;
pub(crate) const TAG_U128: u8 = 5;
pub(crate) const TAG_F64: u8 = 6;
pub(crate) const TAG_STR: u8 = 7;
pub(crate) const TAG_BYTES: u8 = 8;
pub(crate) const TAG_DEBUG: u8 = 9;
pub(crate) const TAG_ERROR: u8 = 10;

/// What every event begins with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Header {
    /// How many values the event has.
    pub(crate) values: u16,
    /// How many values or spans were shortened or left out.
    pub(crate) cut: u16,
    pub(crate) depth: u8,
    pub(crate) name_len: u8,
    /// Nanoseconds since the Unix epoch.
    pub(crate) timestamp: u64,
    pub(crate) thread: u64,
    /// 0 for an event; for the summary of dropped ones how many they were.
    pub(crate) repeats: u32,
    pub(crate) values_len: u32,
}

impl Header {
    pub(crate) fn encode(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = VERSION;
        bytes[1] = KIND_EVENT;
        bytes[2..4].copy_from_slice(&self.values.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.cut.to_le_bytes());
        bytes[6] = self.depth;
        bytes[7] = self.name_len;
        bytes[8..16].copy_from_slice(&self.timestamp.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.thread.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.repeats.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.values_len.to_le_bytes());
        bytes
    }

    /// Makes an encoded event the summary of `repeats` dropped ones.
    pub(crate) fn summarize(frame: &mut [u8], repeats: u32) {
        if let Some(place) = frame.get_mut(24..28) {
            place.copy_from_slice(&repeats.to_le_bytes());
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Flaw> {
        Ok(Self {
            values: reader.u16()?,
            cut: reader.u16()?,
            depth: reader.u8()?,
            name_len: reader.u8()?,
            timestamp: reader.u64()?,
            thread: reader.u64()?,
            repeats: reader.u32()?,
            values_len: reader.u32()?,
        })
    }
}

/// A frame that no correct worker writes.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct DecodeError(#[from] Flaw);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flaw {
    #[error("log record of {0} bytes exceeds the largest of {MAX_FRAME}")]
    TooLarge(usize),
    #[error("log record has version {0}, expected {VERSION}: leader and worker are different builds")]
    Version(u8),
    #[error("log record is of unknown kind {0}")]
    Kind(u8),
    #[error("log record ends early: {wanted} more bytes expected, {left} are left")]
    Ends { wanted: usize, left: usize },
    #[error("log record has {0} bytes too many")]
    Trailing(usize),
    #[error("log record has {0} spans, at most {MAX_DEPTH} are allowed")]
    Depth(usize),
    #[error("log record has text that is not UTF-8")]
    Text,
    #[error("log record has a number of more than 64 bits")]
    Number,
    #[error("log record has a value of unknown type {0}")]
    Tag(u8),
    #[error("log record has a callsite of unknown form {0}")]
    SiteForm(u8),
    #[error("log record refers to callsite {0}, which is not defined")]
    SiteUnknown(u16),
    #[error("log record defines callsite {0} again as another one")]
    SiteRedefined(u16),
    #[error("log record defines callsites of more than {MAX_SITES_BYTES} bytes")]
    SitesTooLarge,
    #[error("callsite of {0} bytes exceeds the largest of {MAX_SITE}")]
    SiteTooLarge(usize),
    #[error("callsite has unknown level {0}")]
    Level(u8),
    #[error("value for field {field} of a callsite with {fields}")]
    Field { field: u64, fields: usize },
}

/// One typed value of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
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
    Error(Texts<'a>),
}

/// Texts one after the other, checked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Texts<'a>(&'a [u8]);

impl<'a> Iterator for Texts<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let mut reader = Reader::new(self.0);
        let text = reader.text().ok()?;
        self.0 = reader.rest();
        Some(text)
    }
}

/// A field's position in its callsite's field set, and its value.
pub(crate) type Entry<'a> = (u64, Value<'a>);

/// Encoded values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Values<'a> {
    count: u16,
    bytes: &'a [u8],
}

impl<'a> Values<'a> {
    /// How many there are, if nobody lied.
    pub(crate) fn len(self) -> usize {
        self.count.into()
    }

    /// Hands over each; what is left over is an error.
    #[inline]
    pub(crate) fn each(self, mut take: impl FnMut(Entry<'a>)) -> Result<(), Flaw> {
        let mut reader = Reader::new(self.bytes);
        for _ in 0..self.count {
            take(entry(&mut reader)?);
        }
        reader.end()
    }
}

#[inline]
fn entry<'a>(reader: &mut Reader<'a>) -> Result<Entry<'a>, Flaw> {
    let field = reader.varint()?;
    let value = match reader.u8()? {
        TAG_FALSE => Value::Bool(false),
        TAG_TRUE => Value::Bool(true),
        TAG_I64 => Value::I64(unzigzag(reader.varint()?)),
        TAG_U64 => Value::U64(reader.varint()?),
        TAG_I128 => Value::I128(i128::from_le_bytes(reader.array()?)),
        TAG_U128 => Value::U128(u128::from_le_bytes(reader.array()?)),
        TAG_F64 => Value::F64(f64::from_le_bytes(reader.array()?)),
        TAG_STR => Value::Str(reader.text()?),
        TAG_BYTES => {
            let len = reader.u16()?;
            Value::Bytes(reader.bytes(len.into())?)
        }
        TAG_DEBUG => Value::Debug(reader.text()?),
        TAG_ERROR => {
            let count = reader.u8()?;
            let whole = reader.rest();
            for _ in 0..count {
                reader.text()?;
            }
            Value::Error(Texts(&whole[..whole.len() - reader.rest().len()]))
        }
        tag => return Err(Flaw::Tag(tag)),
    };
    Ok((field, value))
}

/// One event with everything that belongs to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    pub(crate) header: Header,
    pub(crate) thread_name: Option<&'a str>,
    pub(crate) site: SiteRef<'a>,
    pub(crate) values: Values<'a>,
    spans: Reader<'a>,
}

/// One span on an event's path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpanRecord<'a> {
    /// Unique in its worker for ever.
    pub(crate) uid: u64,
    pub(crate) site: SiteRef<'a>,
    /// The number of the last [batch](Self::batches).
    pub(crate) version: u32,
    values: &'a [u8],
}

impl<'a> Record<'a> {
    /// The spans from the leaf to the root: the outermost are the first to be left out.
    pub(crate) fn each_span(
        &self,
        mut take: impl FnMut(usize, SpanRecord<'a>) -> Result<(), Flaw>,
    ) -> Result<(), Flaw> {
        let mut reader = self.spans;
        for index in 0..self.header.depth {
            let uid = reader.u64()?;
            let version = reader.u32()?;
            let len = reader.u32()?;
            let site = SiteRef::decode(&mut reader)?;
            let values = reader.bytes(len as usize)?;
            take(
                index.into(),
                SpanRecord {
                    uid,
                    site,
                    version,
                    values,
                },
            )?;
        }
        reader.end()
    }
}

impl<'a> SpanRecord<'a> {
    /// The values at creation, which have the number 0, then those of later `record`s with their numbers.
    pub(crate) fn batches(
        &self,
        mut take: impl FnMut(u32, Values<'a>) -> Result<(), Flaw>,
    ) -> Result<(), Flaw> {
        let mut reader = Reader::new(self.values);
        while !reader.rest().is_empty() {
            let number = reader.u32()?;
            let count = reader.u16()?;
            let len = reader.u16()?;
            let bytes = reader.bytes(len.into())?;
            take(number, Values { count, bytes })?;
        }
        Ok(())
    }
}

/// Reads past one entry; gives its field.
pub(crate) fn skip_entry(reader: &mut Reader<'_>) -> Result<u64, Flaw> {
    entry(reader).map(|(field, _)| field)
}

/// What a frame says.
#[derive(Debug)]
pub(crate) enum Frame<'a> {
    Event(Record<'a>),
    /// How many events of each level the worker has dropped so far.
    Drops([u64; LEVELS]),
}

impl<'a> Frame<'a> {
    /// Everything is checked, apart from what callsites say and the values of spans.
    pub(crate) fn decode(frame: &'a [u8]) -> Result<Self, Flaw> {
        if frame.len() > MAX_FRAME {
            return Err(Flaw::TooLarge(frame.len()));
        }
        let mut reader = Reader::new(frame);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(Flaw::Version(version));
        }
        match reader.u8()? {
            KIND_EVENT => {
                let header = Header::decode(&mut reader)?;
                if usize::from(header.depth) > MAX_DEPTH {
                    return Err(Flaw::Depth(header.depth.into()));
                }
                let name = text(reader.bytes(header.name_len.into())?)?;
                let site = SiteRef::decode(&mut reader)?;
                let values = Values {
                    count: header.values,
                    bytes: reader.bytes(header.values_len as usize)?,
                };
                Ok(Self::Event(Record {
                    header,
                    thread_name: (!name.is_empty()).then_some(name),
                    site,
                    values,
                    spans: reader,
                }))
            }
            KIND_DROPS => {
                let mut dropped = [0; LEVELS];
                for level in &mut dropped {
                    *level = reader.u64()?;
                }
                reader.end()?;
                Ok(Self::Drops(dropped))
            }
            kind => Err(Flaw::Kind(kind)),
        }
    }
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
#[inline]
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

/// Whether `frame` is right in every part.
#[cfg(test)]
pub(crate) fn check(frame: &[u8]) -> Result<(), Flaw> {
    use crate::site::Site;
    let check_site = |site: SiteRef<'_>| match site {
        SiteRef::Inline(blob) | SiteRef::Defines(_, blob) => Site::decode(blob).map(drop),
        SiteRef::Known(_) => Ok(()),
    };
    if let Frame::Event(record) = Frame::decode(frame)? {
        check_site(record.site)?;
        record.values.each(drop)?;
        record.each_span(|_, span| {
            check_site(span.site)?;
            span.batches(|_, values| values.each(drop))
        })?;
    }
    Ok(())
}

shm_buffers::debug_with_causes!(DecodeError);

#[cfg(test)]
mod tests {
    use super::*;

    /// What a worker writes: an event with all types of values in spans, the same again in short, and a notice.
    fn examples() -> Vec<Vec<u8>> {
        use tracing_subscriber::layer::SubscriberExt;
        let (producer, mut consumer) = shm_buffers::ring::in_process(8192);
        let slots = shm_buffers::slots::Slots::in_process(crate::SLOTS);
        let layer = crate::WorkerLayer::builder(producer, slots.clone())
            .max_record(1024)
            .build()
            .unwrap();
        let emit = |error: &std::io::Error| {
            tracing::info!(
                yes = true,
                no = false,
                int = i64::MIN,
                uint = u64::MAX,
                wide = i128::MIN,
                uwide = u128::MAX,
                float = -0.5,
                text = "text é",
                bytes = &b"\x00\xff"[..],
                debug = ?Some(1),
                error = error as &(dyn std::error::Error + 'static),
                "message"
            );
        };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let outer = tracing::info_span!("outer", a = 1, b = tracing::field::Empty).entered();
            outer.record("b", "later");
            let _inner = tracing::info_span!("inner").entered();
            let error = std::io::Error::other(std::fmt::Error);
            (0..2).for_each(|_| emit(&error));
            slots.slot(LEVELS + 1).set(7);
            emit(&error);
        });
        let mut frames = Vec::new();
        let mut frame = Vec::new();
        while consumer.pop(&mut frame).unwrap().is_some() {
            frames.push(std::mem::take(&mut frame));
        }
        frames
    }

    #[test]
    fn every_truncation_and_every_extension_is_an_error() {
        let frames = examples();
        assert_eq!(frames.len(), 4, "three events and a notice");
        assert!(
            frames[1].len() + 300 < frames[0].len(),
            "callsites are not sent again"
        );
        for mut frame in frames {
            assert_eq!(check(&frame), Ok(()));
            for len in 0..frame.len() {
                assert!(check(&frame[..len]).is_err(), "{len} bytes decoded");
            }
            frame.push(0);
            assert!(check(&frame).is_err());
        }
    }

    #[test]
    fn flipped_bytes_never_panic_neither_here_nor_in_a_replay() {
        use crate::{Collector, SLOTS, Source};
        use shm_buffers::{ring, slots::Slots};
        let frames = examples();
        let leader = tracing_core::Dispatch::new(tracing_subscriber::registry());
        for frame in &frames[..2] {
            for at in 0..frame.len() {
                for flip in [1, 0x80, 0xff] {
                    let mut flipped = frame.clone();
                    flipped[at] ^= flip;
                    let _ = check(&flipped);
                    let (mut producer, consumer) = ring::in_process(4096);
                    let mut collector = Collector::new().dispatch(leader.clone());
                    let slots = Slots::in_process(SLOTS);
                    collector.add(Source::new(1), consumer, slots).unwrap();
                    producer.push(&frames[0]).unwrap();
                    producer.push(&flipped).unwrap();
                    collector.drain();
                    let tally = collector.remove(1).unwrap().tally;
                    for level in tally.levels {
                        assert_eq!(level.emitted, level.delivered + level.dropped);
                    }
                }
            }
        }
    }

    #[test]
    fn other_versions_kinds_and_sizes_are_told_apart() {
        assert_eq!(check(&[9, 0]), Err(Flaw::Version(9)));
        assert_eq!(check(&[VERSION, 9]), Err(Flaw::Kind(9)));
        assert_eq!(check(&[]), Err(Flaw::Ends { wanted: 1, left: 0 }));
        let large = vec![VERSION; MAX_FRAME + 1];
        assert_eq!(check(&large), Err(Flaw::TooLarge(MAX_FRAME + 1)));
        let deep = Header {
            depth: 65,
            ..Header::default()
        };
        assert_eq!(check(&deep.encode()), Err(Flaw::Depth(65)));
        let mut drops = vec![VERSION, KIND_DROPS];
        drops.extend([0; 8 * LEVELS]);
        assert_eq!(check(&drops), Ok(()));
        drops.push(0);
        assert_eq!(check(&drops), Err(Flaw::Trailing(1)));
    }

    #[test]
    fn levels_have_indices_and_back() {
        for level in [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE] {
            assert_eq!(level_of(level_index(level)), level);
        }
        assert_eq!(clipped("aé", 2), "a");
    }
}
