//! Writing events and spans as records of bounded size.

use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing_core::field::{Field, Visit};
use tracing_core::{Event, Metadata, span};

use crate::wire::{self, Head, KIND_EVENT, MAX_DEPTH, VERSION, Value, clipped, put, put_site};

/// What replaces the end of a text that was too long.
const MARKER: &str = "…[truncated]";
/// Room that a value needs besides its text.
const OVERHEAD: usize = 16;
/// Sources of an error that travel with it.
const MAX_SOURCES: usize = 8;
const MAX_THREAD_NAME: usize = 64;

thread_local! {
    /// Whoever finds it taken runs inside a value's own `Debug`: what he logs is dropped and counted.
    pub(crate) static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

/// A thread's buffers, reused from event to event.
pub(crate) struct Scratch {
    frame: Vec<u8>,
    values: Vec<u8>,
    spans: Vec<u8>,
    site: Vec<u8>,
    blob: Vec<u8>,
    text: String,
    thread: u64,
    thread_name: Option<String>,
}

/// A span as it travels with each of its events.
pub(crate) struct EncodedSpan {
    /// Its unique id and its callsite.
    prefix: Vec<u8>,
    batches: u32,
    values: Vec<u8>,
    cut: u32,
}

/// Values of a span, encoded, not yet attached to it.
pub(crate) struct Batch {
    bytes: Vec<u8>,
    cut: u32,
}

impl EncodedSpan {
    /// The callsite and the first values of a new span.
    pub(crate) fn new(metadata: &Metadata<'_>, first: Batch) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut prefix = Vec::with_capacity(128);
        put(&mut prefix, &NEXT.fetch_add(1, Ordering::Relaxed));
        put_site(&mut prefix, &mut Vec::with_capacity(128), metadata);
        Self {
            prefix,
            batches: 1,
            values: first.bytes,
            cut: first.cut,
        }
    }

    /// Adds values recorded later, as long as they fit into `max` bytes together.
    pub(crate) fn record(&mut self, later: &Batch, max: usize) {
        self.cut += later.cut;
        if self.values.len() + later.bytes.len() > max {
            self.cut += 1;
            return;
        }
        self.values.extend_from_slice(&later.bytes);
        self.batches += 1;
    }

    fn len(&self) -> usize {
        self.prefix.len() + self.values.len() + OVERHEAD
    }
}

impl Batch {
    /// What a span has whose values could not be read.
    pub(crate) fn unreadable() -> Self {
        Self {
            bytes: vec![0],
            cut: 1,
        }
    }
}

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            frame: Vec::new(),
            values: Vec::new(),
            spans: Vec::new(),
            site: Vec::new(),
            blob: Vec::new(),
            text: String::new(),
            thread: NEXT.fetch_add(1, Ordering::Relaxed),
            thread_name: std::thread::current()
                .name()
                .map(|name| clipped(name, MAX_THREAD_NAME).to_owned()),
        }
    }

    /// The values of a new span.
    pub(crate) fn attributes(&mut self, attributes: &span::Attributes<'_>, room: usize) -> Batch {
        let (count, cut) = self.visit(room, Which::All, |visitor| attributes.record(visitor));
        self.batch(count, cut)
    }

    /// Values that a span got later.
    pub(crate) fn later(&mut self, record: &span::Record<'_>, room: usize) -> Batch {
        let (count, cut) = self.visit(room, Which::All, |visitor| record.record(visitor));
        self.batch(count, cut)
    }

    fn batch(&self, count: u32, cut: u32) -> Batch {
        let mut bytes = Vec::with_capacity(self.values.len() + 2);
        put(&mut bytes, &count);
        bytes.extend_from_slice(&self.values);
        Batch { bytes, cut }
    }

    /// The record of an event, at most `max` bytes; `None` if its metadata alone is larger.
    ///
    /// `each_span` hands over the spans from the leaf to the root, and stops when told to.
    pub(crate) fn event(
        &mut self,
        event: &Event<'_>,
        normalized: Option<&Metadata<'_>>,
        max: usize,
        each_span: impl FnOnce(&mut dyn FnMut(&EncodedSpan) -> Go),
    ) -> Option<&[u8]> {
        let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.frame.clear();
        self.frame.extend_from_slice(&[VERSION, KIND_EVENT]);
        put(
            &mut self.frame,
            &Head {
                timestamp: u64::try_from(timestamp.as_nanos()).unwrap_or(u64::MAX),
                thread: self.thread,
                thread_name: self.thread_name.as_deref(),
            },
        );
        let mut site = std::mem::take(&mut self.spans);
        site.clear();
        put_site(&mut site, &mut self.site, normalized.unwrap_or(event.metadata()));
        self.site.clear();
        put_site(
            &mut self.site,
            &mut self.blob,
            normalized.unwrap_or(event.metadata()),
        );
        if self.blob.len() > wire::MAX_SITE {
            return None;
        }
        let mut room = max.checked_sub(self.frame.len() + self.site.len() + 2 * OVERHEAD)?;
        // Values before spans, though they come after them: what they leave is left for spans.
        let which = normalized.map_or(Which::All, |_| Which::First);
        let (count, mut cut) = self.visit(room, which, |visitor| event.record(visitor));
        room -= self.values.len();
        self.spans.clear();
        let mut depth = 0_u32;
        each_span(&mut |span| {
            if span.len() > room || depth as usize == MAX_DEPTH {
                cut += 1;
                return Go::Stop;
            }
            room -= span.len();
            depth += 1;
            cut += span.cut;
            self.spans.extend_from_slice(&span.prefix);
            put(&mut self.spans, &span.batches);
            self.spans.extend_from_slice(&span.values);
            Go::On
        });
        put(&mut self.frame, &depth);
        self.frame.extend_from_slice(&self.spans);
        self.frame.extend_from_slice(&self.site);
        put(&mut self.frame, &count);
        self.frame.extend_from_slice(&self.values);
        put(&mut self.frame, &cut);
        Some(&self.frame)
    }

    /// Encodes values into `self.values`; gives how many, and how many were cut.
    fn visit(&mut self, room: usize, which: Which, record: impl FnOnce(&mut dyn Visit)) -> (u32, u32) {
        self.values.clear();
        let mut writer = Writer {
            out: &mut self.values,
            text: &mut self.text,
            room,
            which,
            count: 0,
            cut: 0,
        };
        record(&mut writer);
        (writer.count, writer.cut)
    }
}

/// Whether more is wanted.
#[derive(PartialEq, Eq)]
pub(crate) enum Go {
    On,
    Stop,
}

/// Which fields are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    All,
    /// The message of a `log` record; its other fields are metadata.
    First,
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    text: &'a mut String,
    room: usize,
    which: Which,
    count: u32,
    cut: u32,
}

impl Writer<'_> {
    fn wants(&self, field: &Field) -> bool {
        self.which == Which::All || field.index() == 0
    }

    fn value(&mut self, field: &Field, value: &Value<'_>) {
        if !self.wants(field) {
            return;
        }
        let start = self.out.len();
        put(self.out, &(field.index() as u32, value));
        if self.out.len() > self.room {
            self.out.truncate(start);
            self.cut += 1;
        } else {
            self.count += 1;
        }
    }

    /// Bytes that one text may take: half of what is left, so that no field starves those after it.
    fn most(&self) -> usize {
        self.room.saturating_sub(self.out.len() + OVERHEAD) / 2
    }

    /// Appends what `print` prints to the text buffer, shortened if need be.
    fn print(&mut self, most: usize, print: impl FnOnce(&mut dyn fmt::Write) -> fmt::Result) {
        let start = self.text.len();
        let max = start + most.saturating_sub(MARKER.len());
        let mut bounded = Bounded {
            text: self.text,
            max,
            full: Full::No,
        };
        // An error is either ours, about the bound, or that of a `Debug` that failed: what it printed is kept.
        let _ = print(&mut bounded);
        if bounded.full == Full::Yes {
            self.text.push_str(MARKER);
            self.cut += 1;
        }
    }

    fn with_text(&mut self, use_it: impl FnOnce(&mut Self, &str)) {
        let text = std::mem::take(self.text);
        use_it(self, &text);
        *self.text = text;
    }
}

impl Visit for Writer<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.value(field, &Value::F64(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.value(field, &Value::I64(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.value(field, &Value::U64(value));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.value(field, &Value::I128(value));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.value(field, &Value::U128(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.value(field, &Value::Bool(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if value.len() <= self.most() {
            return self.value(field, &Value::Str(value));
        }
        if self.wants(field) {
            self.text.clear();
            self.print(self.most(), |out| out.write_str(value));
            self.with_text(|writer, text| writer.value(field, &Value::Str(text)));
        }
    }

    fn record_bytes(&mut self, field: &Field, value: &[u8]) {
        let most = self.most();
        if value.len() > most {
            self.cut += 1;
        }
        self.value(field, &Value::Bytes(&value[..value.len().min(most)]));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        if !self.wants(field) {
            return;
        }
        self.text.clear();
        let most = self.most();
        let mut ends = Vec::with_capacity(2);
        for error in std::iter::successors(Some(value), |&error| error.source()).take(MAX_SOURCES) {
            // Each text has a length of its own on the wire.
            let left = most.saturating_sub(self.text.len() + ends.len() * 4);
            if left <= MARKER.len() && !ends.is_empty() {
                self.cut += 1;
                break;
            }
            self.print(left, |out| write!(out, "{error}"));
            ends.push(self.text.len());
        }
        self.with_text(|writer, text| {
            let starts = std::iter::once(0).chain(ends.iter().copied());
            let texts = starts.zip(&ends).map(|(start, end)| &text[start..*end]).collect();
            writer.value(field, &Value::Error(texts));
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.wants(field) {
            self.text.clear();
            self.print(self.most(), |out| write!(out, "{value:?}"));
            self.with_text(|writer, text| writer.value(field, &Value::Debug(text)));
        }
    }
}

#[derive(PartialEq, Eq)]
enum Full {
    No,
    Yes,
}

/// Takes text up to a length and then fails, so that an endless `Debug` ends.
struct Bounded<'a> {
    text: &'a mut String,
    max: usize,
    full: Full,
}

impl fmt::Write for Bounded<'_> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let kept = clipped(part, self.max.saturating_sub(self.text.len()));
        self.text.push_str(kept);
        if kept.len() == part.len() {
            return Ok(());
        }
        self.full = Full::Yes;
        Err(fmt::Error)
    }
}
