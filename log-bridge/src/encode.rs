//! Writing events and spans as records of bounded size.

use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing_core::field::{Field, Visit};
use tracing_core::{Event, Metadata, span};

use crate::newest;
use crate::numbers::{Memory, NumberedSite, Numbers, RateLimit};
use crate::reader::{put_varint, zigzag};
use crate::site::{SiteRef, blob_of};
use crate::wire::{
    BATCH_HEAD, HEADER, Header, MAX_DEPTH, TAG_BYTES, TAG_DEBUG, TAG_ERROR, TAG_F64, TAG_FALSE, TAG_I64,
    TAG_I128, TAG_STR, TAG_TRUE, TAG_U64, TAG_U128, clipped,
};

/// What replaces the end of a text that was too long.
const MARKER: &str = "…[truncated]";
/// Room that a value needs besides its text.
const OVERHEAD: usize = 16;
/// What a span takes besides callsite and values.
const SPAN_HEAD: usize = 16;
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
    memory: Memory,
    /// Spans whose callsites the frame defines.
    defined: Vec<Arc<NumberedSite>>,
    thread: u64,
    thread_name: String,
}

/// A span as it travels with each of its events.
pub(crate) struct EncodedSpan {
    uid: u64,
    site: SpanSite,
    /// How often values were recorded after its creation.
    version: u32,
    values: Vec<u8>,
    cut: u16,
}

enum SpanSite {
    Numbered(Arc<NumberedSite>),
    Blob(Box<[u8]>),
}

/// Values of a span, encoded, not yet attached to it.
pub(crate) struct Batch {
    bytes: Vec<u8>,
    cut: u16,
}

impl EncodedSpan {
    /// The callsite and the first values of a new span; `None` if its metadata is too large.
    pub(crate) fn new(numbers: &Numbers, metadata: &'static Metadata<'static>, first: Batch) -> Option<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let site = match numbers.of_span(metadata) {
            Some(site) => SpanSite::Numbered(site),
            None => SpanSite::Blob(blob_of(metadata)?),
        };
        Some(Self {
            uid: NEXT.fetch_add(1, Ordering::Relaxed),
            site,
            version: 0,
            values: first.bytes,
            cut: first.cut,
        })
    }

    /// Adds values recorded later. If all do not fit into `max` bytes together, the newest of each field stay.
    pub(crate) fn record(&mut self, mut later: Batch, max: usize) {
        self.cut = self.cut.saturating_add(later.cut);
        let Some(version) = self.version.checked_add(1) else {
            self.cut = self.cut.saturating_add(1);
            return;
        };
        self.version = version;
        if let Some(number) = later.bytes.get_mut(..4) {
            number.copy_from_slice(&version.to_le_bytes());
        }
        self.values.extend_from_slice(&later.bytes);
        self.cut = self.cut.saturating_add(newest::keep(&mut self.values, max));
    }

    fn site(&self) -> SiteRef<'_> {
        match &self.site {
            SpanSite::Numbered(site) => site.reference(),
            SpanSite::Blob(blob) => SiteRef::Inline(blob),
        }
    }
}

impl Batch {
    /// What a span has whose values could not be read.
    pub(crate) fn unreadable() -> Self {
        Self {
            bytes: vec![0; BATCH_HEAD],
            cut: 1,
        }
    }
}

/// Why there is no record of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unwritten {
    /// Its metadata alone is too large.
    TooLarge,
    /// Its callsite has emitted enough.
    Limited,
}

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let current = std::thread::current();
        Self {
            frame: Vec::new(),
            values: Vec::new(),
            memory: Memory::new(),
            defined: Vec::new(),
            thread: NEXT.fetch_add(1, Ordering::Relaxed),
            thread_name: clipped(current.name().unwrap_or_default(), MAX_THREAD_NAME).to_owned(),
        }
    }

    /// The values of a new span.
    pub(crate) fn attributes(&mut self, attributes: &span::Attributes<'_>, room: usize) -> Batch {
        self.batch(room, |visitor| attributes.record(visitor))
    }

    /// Values that a span got later.
    pub(crate) fn later(&mut self, record: &span::Record<'_>, room: usize) -> Batch {
        self.batch(room, |visitor| record.record(visitor))
    }

    fn batch(&mut self, room: usize, record: impl FnOnce(&mut dyn Visit)) -> Batch {
        self.values.clear();
        self.values.extend_from_slice(&[0; BATCH_HEAD]);
        let mut writer = Writer::new(&mut self.values, room, Which::All);
        record(&mut writer);
        let (count, cut) = (writer.count, writer.cut);
        newest::put_head(&mut self.values, 0, 0, count);
        Batch {
            bytes: self.values.as_slice().into(),
            cut,
        }
    }

    /// The record of an event, at most `max` bytes, to be handed to `publish`, which tells whether it is in the ring.
    ///
    /// `each_span` hands over the spans from the leaf to the root, and stops when told to.
    pub(crate) fn event(
        &mut self,
        event: &Event<'_>,
        normalized: Option<&Metadata<'_>>,
        origin: &Origin<'_>,
        each_span: impl FnOnce(&mut dyn FnMut(&EncodedSpan) -> Go),
        publish: impl FnOnce(&[u8]) -> bool,
    ) -> Result<(), Unwritten> {
        let numbered = match normalized {
            None => self.memory.find(origin.numbers, event.metadata()),
            Some(_) => None,
        };
        let blob;
        let site = match numbered {
            Some(site) => {
                if origin.limit.is_some_and(|limit| !site.admits(limit, origin.now)) {
                    return Err(Unwritten::Limited);
                }
                site.reference()
            }
            None => {
                blob = blob_of(normalized.unwrap_or(event.metadata())).ok_or(Unwritten::TooLarge)?;
                SiteRef::Inline(&blob)
            }
        };
        let name = self.thread_name.as_bytes();
        if HEADER + name.len() + site.len() > origin.max {
            return Err(Unwritten::TooLarge);
        }
        let frame = &mut self.frame;
        frame.clear();
        frame.extend_from_slice(&[0; HEADER]);
        frame.extend_from_slice(name);
        site.put(frame);
        let start = frame.len();
        // Values before spans: what they leave is left for spans.
        let which = normalized.map_or(Which::All, |_| Which::First);
        let mut writer = Writer::new(frame, origin.max, which);
        event.record(&mut writer);
        let mut header = Header {
            values: writer.count,
            cut: writer.cut,
            depth: 0,
            name_len: name.len() as u8,
            timestamp: origin.now,
            thread: self.thread,
            repeats: 0,
            values_len: (frame.len() - start) as u32,
        };
        self.defined.clear();
        each_span(&mut |span| {
            let site = span.site();
            let taken = SPAN_HEAD + site.len() + span.values.len();
            if frame.len() + taken > origin.max || usize::from(header.depth) == MAX_DEPTH {
                header.cut = header.cut.saturating_add(1);
                return Go::Stop;
            }
            header.depth += 1;
            header.cut = header.cut.saturating_add(span.cut);
            frame.extend_from_slice(&span.uid.to_le_bytes());
            frame.extend_from_slice(&span.version.to_le_bytes());
            frame.extend_from_slice(&(span.values.len() as u32).to_le_bytes());
            site.put(frame);
            frame.extend_from_slice(&span.values);
            if let (SpanSite::Numbered(numbered), SiteRef::Defines(..)) = (&span.site, site) {
                self.defined.push(numbered.clone());
            }
            Go::On
        });
        frame[..HEADER].copy_from_slice(&header.encode());
        if publish(frame) {
            if let (Some(numbered), SiteRef::Defines(..)) = (numbered, site) {
                numbered.set_defined();
            }
            self.defined.drain(..).for_each(|span| span.set_defined());
        }
        Ok(())
    }
}

/// What a layer knows of an event besides the event.
pub(crate) struct Origin<'a> {
    pub(crate) numbers: &'a Numbers,
    pub(crate) limit: Option<RateLimit>,
    /// Nanoseconds since the Unix epoch.
    pub(crate) now: u64,
    /// Bytes of a record at most.
    pub(crate) max: usize,
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
    /// Where it has to end.
    end: usize,
    which: Which,
    count: u16,
    cut: u16,
}

impl<'a> Writer<'a> {
    fn new(out: &'a mut Vec<u8>, end: usize, which: Which) -> Self {
        Self {
            out,
            end,
            which,
            count: 0,
            cut: 0,
        }
    }

    /// Writes a value; what does not fit is taken back.
    #[inline]
    fn value(&mut self, field: &Field, tag: u8, put: impl FnOnce(&mut Self)) {
        if self.which == Which::First && field.index() != 0 {
            return;
        }
        let start = self.out.len();
        put_varint(self.out, field.index() as u64);
        self.out.push(tag);
        put(self);
        if self.out.len() > self.end {
            self.out.truncate(start);
            self.cut = self.cut.saturating_add(1);
        } else {
            self.count += 1;
        }
    }

    /// Bytes that one text may take: half of what is left, so that no field starves those after it.
    fn most(&self) -> usize {
        self.end.saturating_sub(self.out.len() + OVERHEAD) / 2
    }

    fn put_text(&mut self, text: &str, most: usize) {
        if text.len() <= most {
            self.out.extend_from_slice(&(text.len() as u16).to_le_bytes());
            self.out.extend_from_slice(text.as_bytes());
        } else {
            self.print(most, |out| out.write_str(text));
        }
    }

    /// Appends what `print` prints, after its length, shortened to `most` bytes if need be.
    #[inline]
    fn print(&mut self, most: usize, print: impl FnOnce(&mut dyn fmt::Write) -> fmt::Result) {
        self.out.extend_from_slice(&[0; 2]);
        let start = self.out.len();
        let mut bounded = Bounded {
            max: start + most.saturating_sub(MARKER.len()),
            out: self.out,
            full: Full::No,
        };
        // An error is either ours, about the bound, or that of a `Debug` that failed: what it printed is kept.
        let _ = print(&mut bounded);
        if bounded.full == Full::Yes {
            self.out.extend_from_slice(MARKER.as_bytes());
            self.cut = self.cut.saturating_add(1);
        }
        let len = (self.out.len() - start) as u16;
        self.out[start - 2..start].copy_from_slice(&len.to_le_bytes());
    }
}

impl Visit for Writer<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.value(field, TAG_F64, |w| w.out.extend_from_slice(&value.to_le_bytes()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.value(field, TAG_I64, |w| put_varint(w.out, zigzag(value)));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.value(field, TAG_U64, |w| put_varint(w.out, value));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.value(field, TAG_I128, |w| w.out.extend_from_slice(&value.to_le_bytes()));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.value(field, TAG_U128, |w| w.out.extend_from_slice(&value.to_le_bytes()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.value(field, if value { TAG_TRUE } else { TAG_FALSE }, |_| {});
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let most = self.most();
        self.value(field, TAG_STR, |w| w.put_text(value, most));
    }

    fn record_bytes(&mut self, field: &Field, value: &[u8]) {
        let kept = value.len().min(self.most());
        if kept < value.len() {
            self.cut = self.cut.saturating_add(1);
        }
        self.value(field, TAG_BYTES, |w| {
            w.out.extend_from_slice(&(kept as u16).to_le_bytes());
            w.out.extend_from_slice(&value[..kept]);
        });
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let most = self.most();
        self.value(field, TAG_ERROR, |w| {
            let start = w.out.len();
            w.out.push(0);
            for error in std::iter::successors(Some(value), |&error| error.source()).take(MAX_SOURCES) {
                let left = (start + most).saturating_sub(w.out.len() + 2);
                if left <= MARKER.len() && w.out[start] > 0 {
                    w.cut = w.cut.saturating_add(1);
                    break;
                }
                w.print(left, |out| write!(out, "{error}"));
                w.out[start] += 1;
            }
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let most = self.most();
        self.value(field, TAG_DEBUG, |w| {
            w.print(most, |out| write!(out, "{value:?}"));
        });
    }
}

#[derive(PartialEq, Eq)]
enum Full {
    No,
    Yes,
}

/// Takes text up to a length and then fails, so that an endless `Debug` ends.
struct Bounded<'a> {
    out: &'a mut Vec<u8>,
    max: usize,
    full: Full,
}

impl fmt::Write for Bounded<'_> {
    #[inline]
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let kept = clipped(part, self.max.saturating_sub(self.out.len()));
        self.out.extend_from_slice(kept.as_bytes());
        if kept.len() == part.len() {
            return Ok(());
        }
        self.full = Full::Yes;
        Err(fmt::Error)
    }
}
