//! Records: events with their spans, and drop reports. Their layout is described in [the module above](super).

use super::bytes::{ByteReader, utf8};
use super::callsite::CallsiteRef;
use super::error::{Malformed, VERSION};
use super::level::LEVELS;
use super::limits::{MAX_FRAME, MAX_SPANS};
use super::value::Values;

pub(crate) const KIND_EVENT: u8 = 0;
const KIND_DROPS: u8 = 1;

/// Bytes of an encoded [`EventHeader`].
pub(crate) const EVENT_HEADER: usize = 32;
/// Bytes before the values of a span update.
pub(crate) const UPDATE_HEADER: usize = 8;

/// The name of the field that a summary has in addition: the number of dropped events that it stands for.
pub(crate) const REPEATS_FIELD: &str = "repeats";

/// The fixed part of an event record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct EventHeader {
    /// The number of the event's own values.
    pub(crate) value_count: u16,
    /// How many values or spans were shortened or left out.
    pub(crate) truncated: u16,
    pub(crate) span_count: u8,
    /// Bytes of the thread's name.
    pub(crate) name_len: u8,
    /// Nanoseconds since the Unix epoch.
    pub(crate) timestamp: u64,
    /// The number of the thread, counted from 1 in the order of first events.
    pub(crate) thread: u64,
    /// 0 for an event; for a summary, the number of dropped events.
    pub(crate) repeats: u32,
    /// Bytes of the event's own values.
    pub(crate) values_len: u32,
}

impl EventHeader {
    pub(crate) fn encode(self) -> [u8; EVENT_HEADER] {
        let mut bytes = [0; EVENT_HEADER];
        bytes[0] = VERSION;
        bytes[1] = KIND_EVENT;
        bytes[2..4].copy_from_slice(&self.value_count.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.truncated.to_le_bytes());
        bytes[6] = self.span_count;
        bytes[7] = self.name_len;
        bytes[8..16].copy_from_slice(&self.timestamp.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.thread.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.repeats.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.values_len.to_le_bytes());
        bytes
    }

    /// Turns an encoded event into the summary of `repeats` dropped events.
    pub(crate) fn make_summary(frame: &mut [u8], repeats: u32) {
        if let Some(field) = frame.get_mut(24..28) {
            field.copy_from_slice(&repeats.to_le_bytes());
        }
    }

    fn decode(reader: &mut ByteReader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            value_count: reader.u16()?,
            truncated: reader.u16()?,
            span_count: reader.u8()?,
            name_len: reader.u8()?,
            timestamp: reader.u64()?,
            thread: reader.u64()?,
            repeats: reader.u32()?,
            values_len: reader.u32()?,
        })
    }
}

/// An event with its values and spans.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EventRecord<'a> {
    pub(crate) header: EventHeader,
    pub(crate) thread_name: Option<&'a str>,
    pub(crate) callsite: CallsiteRef<'a>,
    pub(crate) values: Values<'a>,
    spans: ByteReader<'a>,
}

/// One of the spans that an event is in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpanRecord<'a> {
    /// Unique among all spans of its worker; never used again.
    pub(crate) uid: u64,
    pub(crate) callsite: CallsiteRef<'a>,
    /// The number of the last [update](Self::for_each_update).
    pub(crate) version: u32,
    updates: &'a [u8],
}

impl<'a> EventRecord<'a> {
    /// Decodes the spans, from the innermost to the outermost, and passes each to `take` with its index.
    pub(crate) fn for_each_span(
        &self,
        mut take: impl FnMut(usize, SpanRecord<'a>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let mut reader = self.spans;
        for index in 0..self.header.span_count {
            let uid = reader.u64()?;
            let version = reader.u32()?;
            let len = reader.u32()?;
            let callsite = CallsiteRef::decode(&mut reader)?;
            let updates = reader.bytes(len as usize)?;
            take(
                index.into(),
                SpanRecord {
                    uid,
                    callsite,
                    version,
                    updates,
                },
            )?;
        }
        reader.end()
    }
}

impl<'a> SpanRecord<'a> {
    /// Decodes the updates and passes each to `take` with its number: 0 has the values that the span was created with,
    /// a later one those of one `Span::record`.
    pub(crate) fn for_each_update(
        &self,
        mut take: impl FnMut(u32, Values<'a>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let mut reader = ByteReader::new(self.updates);
        while !reader.rest().is_empty() {
            let (number, count, len) = read_update_header(&mut reader)?;
            take(number, Values::new(count, reader.bytes(len.into())?))?;
        }
        Ok(())
    }
}

/// Reads the header of a span update: its number, and the number and length of its values.
pub(crate) fn read_update_header(reader: &mut ByteReader<'_>) -> Result<(u32, u16, u16), Malformed> {
    Ok((reader.u32()?, reader.u16()?, reader.u16()?))
}

/// Fills in the header of the span update that takes all of `out` from `start` on.
pub(crate) fn write_update_header(out: &mut [u8], start: usize, number: u32, count: u16) {
    let len = (out.len() - start - UPDATE_HEADER) as u16;
    let header = &mut out[start..start + UPDATE_HEADER];
    header[..4].copy_from_slice(&number.to_le_bytes());
    header[4..6].copy_from_slice(&count.to_le_bytes());
    header[6..8].copy_from_slice(&len.to_le_bytes());
}

/// Appends a drop report: the number of events of each level that the worker has dropped so far.
pub(crate) fn put_drops(out: &mut Vec<u8>, dropped: &[u64; LEVELS]) {
    out.extend_from_slice(&[VERSION, KIND_DROPS]);
    for level in dropped {
        out.extend_from_slice(&level.to_le_bytes());
    }
}

/// Returns whether a frame that was decoded before holds an event.
pub(crate) fn is_event(frame: &[u8]) -> bool {
    frame.get(1) == Some(&KIND_EVENT)
}

/// A decoded frame.
#[derive(Debug)]
pub(crate) enum Frame<'a> {
    Event(EventRecord<'a>),
    /// The number of events of each level that the worker has dropped so far.
    Drops([u64; LEVELS]),
}

impl<'a> Frame<'a> {
    /// Decodes a frame. Callsites and the values of spans are checked only when they are decoded.
    pub(crate) fn decode(frame: &'a [u8]) -> Result<Self, Malformed> {
        if frame.len() > MAX_FRAME {
            return Err(Malformed::TooLarge(frame.len()));
        }
        let mut reader = ByteReader::new(frame);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(Malformed::Version(version));
        }
        match reader.u8()? {
            KIND_EVENT => {
                let header = EventHeader::decode(&mut reader)?;
                if usize::from(header.span_count) > MAX_SPANS {
                    return Err(Malformed::TooManySpans(header.span_count.into()));
                }
                let name = utf8(reader.bytes(header.name_len.into())?)?;
                let callsite = CallsiteRef::decode(&mut reader)?;
                let values = Values::new(header.value_count, reader.bytes(header.values_len as usize)?);
                Ok(Self::Event(EventRecord {
                    header,
                    thread_name: (!name.is_empty()).then_some(name),
                    callsite,
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
            kind => Err(Malformed::Kind(kind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode_error(frame: &[u8]) -> Malformed {
        Frame::decode(frame).expect_err("a malformed frame")
    }

    #[test]
    fn other_versions_kinds_and_sizes_have_their_own_errors() {
        assert_eq!(decode_error(&[9, 0]), Malformed::Version(9));
        assert_eq!(decode_error(&[VERSION, 9]), Malformed::Kind(9));
        let empty = Malformed::UnexpectedEnd { expected: 1, left: 0 };
        assert_eq!(decode_error(&[]), empty);
        let large = vec![VERSION; MAX_FRAME + 1];
        assert_eq!(decode_error(&large), Malformed::TooLarge(MAX_FRAME + 1));
        let deep = EventHeader {
            span_count: 65,
            ..EventHeader::default()
        };
        assert_eq!(decode_error(&deep.encode()), Malformed::TooManySpans(65));
    }

    #[test]
    fn a_drop_report_has_one_number_for_each_level() {
        let mut report = Vec::new();
        put_drops(&mut report, &[1, 2, 3, 4, 5]);
        assert!(matches!(
            Frame::decode(&report),
            Ok(Frame::Drops([1, 2, 3, 4, 5]))
        ));
        report.push(0);
        assert_eq!(decode_error(&report), Malformed::TrailingBytes(1));
    }
}
