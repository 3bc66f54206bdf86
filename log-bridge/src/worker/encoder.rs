//! Encodes events and spans as records of bounded size.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing_core::field::Visit;
use tracing_core::{Event, Metadata, span};

use super::callsites::{CallsiteCache, CallsiteTable, NumberedCallsite};
use super::rate_limit::RateLimit;
use super::span_values;
use super::values::{Fields, ValueWriter};
use crate::wire::bytes::prefix;
use crate::wire::callsite::{CallsiteRef, encode_metadata};
use crate::wire::limits::MAX_SPANS;
use crate::wire::record::{EVENT_HEADER, EventHeader, UPDATE_HEADER, write_update_header};

/// Bytes of a span besides its callsite and updates.
const SPAN_HEADER: usize = 16;
const MAX_THREAD_NAME: usize = 64;

thread_local! {
    static ENCODER: RefCell<Encoder> = RefCell::new(Encoder::new());
}

/// Calls `encode` with this thread's encoder.
///
/// Returns `None` if the thread is ending, or if the encoder is in use: then this is called by the `Debug` of a value that
/// is being encoded.
pub(super) fn with_encoder<T>(encode: impl FnOnce(&mut Encoder) -> T) -> Option<T> {
    ENCODER
        .try_with(|encoder| {
            let mut encoder = encoder.try_borrow_mut().ok()?;
            Some(encode(&mut encoder))
        })
        .ok()
        .flatten()
}

/// The buffers of a thread, reused from event to event.
pub(super) struct Encoder {
    frame: Vec<u8>,
    values: Vec<u8>,
    callsites: CallsiteCache,
    /// The spans whose callsites the frame defines.
    defined: Vec<Arc<NumberedCallsite>>,
    thread: u64,
    thread_name: String,
}

/// A span, encoded for the records of its events.
pub(super) struct EncodedSpan {
    uid: u64,
    callsite: SpanCallsite,
    /// The number of its last update.
    version: u32,
    updates: Vec<u8>,
    truncated: u16,
}

enum SpanCallsite {
    Numbered(Arc<NumberedCallsite>),
    Inline(Box<[u8]>),
}

/// Values for a span, encoded and not attached to it yet.
pub(super) struct SpanUpdate {
    bytes: Vec<u8>,
    truncated: u16,
}

impl EncodedSpan {
    /// Returns a new span with its first update, or `None` if its metadata is too large.
    pub(super) fn new(
        callsites: &CallsiteTable,
        metadata: &'static Metadata<'static>,
        first: SpanUpdate,
    ) -> Option<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let callsite = match callsites.find(metadata) {
            Some(numbered) => SpanCallsite::Numbered(numbered),
            None => SpanCallsite::Inline(encode_metadata(metadata)?),
        };
        Some(Self {
            uid: NEXT.fetch_add(1, Ordering::Relaxed),
            callsite,
            version: 0,
            updates: first.bytes,
            truncated: first.truncated,
        })
    }

    /// Adds a later update. If all updates exceed `max` bytes, only the newest value of each field is kept.
    pub(super) fn record(&mut self, mut update: SpanUpdate, max: usize) {
        self.truncated = self.truncated.saturating_add(update.truncated);
        let Some(version) = self.version.checked_add(1) else {
            self.truncated = self.truncated.saturating_add(1);
            return;
        };
        self.version = version;
        if let Some(number) = update.bytes.get_mut(..4) {
            number.copy_from_slice(&version.to_le_bytes());
        }
        self.updates.extend_from_slice(&update.bytes);
        let lost = span_values::shorten(&mut self.updates, max);
        self.truncated = self.truncated.saturating_add(lost);
    }

    fn callsite(&self) -> CallsiteRef<'_> {
        match &self.callsite {
            SpanCallsite::Numbered(numbered) => numbered.reference(),
            SpanCallsite::Inline(metadata) => CallsiteRef::Inline(metadata),
        }
    }
}

impl SpanUpdate {
    /// Returns an update without values, for values that could not be encoded.
    pub(super) fn lost() -> Self {
        Self {
            bytes: vec![0; UPDATE_HEADER],
            truncated: 1,
        }
    }
}

/// Why an event has no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotEncoded {
    MetadataTooLarge,
    RateLimited,
}

/// Data for the record of an event that the event itself does not contain.
pub(super) struct EventContext<'a> {
    pub(super) callsites: &'a CallsiteTable,
    pub(super) rate_limit: Option<RateLimit>,
    /// Nanoseconds since the Unix epoch.
    pub(super) now: u64,
    /// Bytes that the record may have.
    pub(super) max_record: usize,
}

impl Encoder {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let current = std::thread::current();
        Self {
            frame: Vec::new(),
            values: Vec::new(),
            callsites: CallsiteCache::new(),
            defined: Vec::new(),
            thread: NEXT.fetch_add(1, Ordering::Relaxed),
            thread_name: prefix(current.name().unwrap_or_default(), MAX_THREAD_NAME).to_owned(),
        }
    }

    /// Encodes the values that a span is created with, in at most `max` bytes.
    pub(super) fn attributes(&mut self, attributes: &span::Attributes<'_>, max: usize) -> SpanUpdate {
        self.span_update(max, |visitor| attributes.record(visitor))
    }

    /// Encodes the values of a `Span::record`, in at most `max` bytes.
    pub(super) fn recorded(&mut self, record: &span::Record<'_>, max: usize) -> SpanUpdate {
        self.span_update(max, |visitor| record.record(visitor))
    }

    fn span_update(&mut self, max: usize, record: impl FnOnce(&mut dyn Visit)) -> SpanUpdate {
        self.values.clear();
        self.values.extend_from_slice(&[0; UPDATE_HEADER]);
        let mut writer = ValueWriter::new(&mut self.values, max, Fields::All);
        record(&mut writer);
        let (count, truncated) = (writer.count, writer.truncated);
        write_update_header(&mut self.values, 0, 0, count);
        SpanUpdate {
            bytes: self.values.as_slice().into(),
            truncated,
        }
    }

    /// Encodes an event and passes the record to `publish`, which returns whether it was written into the ring.
    ///
    /// `for_each_span` passes the spans that the event is in to its argument, the innermost first, until that returns
    /// [`ControlFlow::Break`]. `log_metadata` is the metadata of a record of the `log` crate.
    pub(super) fn event(
        &mut self,
        event: &Event<'_>,
        log_metadata: Option<&Metadata<'_>>,
        context: &EventContext<'_>,
        for_each_span: impl FnOnce(&mut dyn FnMut(&EncodedSpan) -> ControlFlow<()>),
        publish: impl FnOnce(&[u8]) -> bool,
    ) -> Result<(), NotEncoded> {
        let numbered = match log_metadata {
            None => self.callsites.find(context.callsites, event.metadata()),
            Some(_) => None,
        };
        let encoded;
        let callsite = match numbered {
            Some(numbered) => {
                if context
                    .rate_limit
                    .is_some_and(|limit| !numbered.admits(limit, context.now))
                {
                    return Err(NotEncoded::RateLimited);
                }
                numbered.reference()
            }
            None => {
                encoded = encode_metadata(log_metadata.unwrap_or(event.metadata()))
                    .ok_or(NotEncoded::MetadataTooLarge)?;
                CallsiteRef::Inline(&encoded)
            }
        };
        let name = self.thread_name.as_bytes();
        if EVENT_HEADER + name.len() + callsite.len() > context.max_record {
            return Err(NotEncoded::MetadataTooLarge);
        }
        let frame = &mut self.frame;
        frame.clear();
        frame.extend_from_slice(&[0; EVENT_HEADER]);
        frame.extend_from_slice(name);
        callsite.put(frame);
        let start = frame.len();
        // The event's own values come first; spans get the space that is left.
        let fields = log_metadata.map_or(Fields::All, |_| Fields::OnlyFirst);
        let mut writer = ValueWriter::new(frame, context.max_record, fields);
        event.record(&mut writer);
        let mut header = EventHeader {
            value_count: writer.count,
            truncated: writer.truncated,
            span_count: 0,
            name_len: name.len() as u8,
            timestamp: context.now,
            thread: self.thread,
            repeats: 0,
            values_len: (frame.len() - start) as u32,
        };
        self.defined.clear();
        for_each_span(&mut |span| {
            let callsite = span.callsite();
            let bytes = SPAN_HEADER + callsite.len() + span.updates.len();
            if frame.len() + bytes > context.max_record || usize::from(header.span_count) == MAX_SPANS {
                header.truncated = header.truncated.saturating_add(1);
                return ControlFlow::Break(());
            }
            header.span_count += 1;
            header.truncated = header.truncated.saturating_add(span.truncated);
            frame.extend_from_slice(&span.uid.to_le_bytes());
            frame.extend_from_slice(&span.version.to_le_bytes());
            frame.extend_from_slice(&(span.updates.len() as u32).to_le_bytes());
            callsite.put(frame);
            frame.extend_from_slice(&span.updates);
            if let (SpanCallsite::Numbered(numbered), CallsiteRef::Defines(..)) = (&span.callsite, callsite) {
                self.defined.push(numbered.clone());
            }
            ControlFlow::Continue(())
        });
        frame[..EVENT_HEADER].copy_from_slice(&header.encode());
        if publish(frame) {
            if let (Some(numbered), CallsiteRef::Defines(..)) = (numbered, callsite) {
                numbered.set_defined();
            }
            self.defined.drain(..).for_each(|span| span.set_defined());
        }
        Ok(())
    }
}
