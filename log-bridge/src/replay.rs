//! Records of workers as events of this process; and, during a replay, where they come from.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use shm_buffers::Printable;
use tracing_core::field::{DebugValue, FieldSet, Value as Field, ValueSet};
use tracing_core::{Dispatch, Event, Kind, LevelFilter, Metadata};

#[cfg(feature = "log")]
use crate::callsites::LOG_RECORD;
use crate::callsites::{Interned, REPEATS, STAND_IN, stand_in};
use crate::known::KnownSites;
use crate::site::Site;
use crate::wire::{Flaw, Frame, Record, Texts, Value, Values, level_of};

thread_local! {
    static CURRENT: RefCell<Emission> = const {
        RefCell::new(Emission {
            replays: Replays::No,
            timestamp: 0,
            thread: 0,
            thread_name: String::new(),
        })
    };
}

/// The buffer of the name is reused from event to event.
struct Emission {
    replays: Replays,
    timestamp: u64,
    thread: u64,
    thread_name: String,
}

#[derive(PartialEq, Eq)]
enum Replays {
    Yes,
    No,
}

/// When the event that is being replayed on this thread was emitted; `None` outside of a replay.
///
/// For layers that have a use for it; [`EmissionTime`](crate::EmissionTime) is one.
pub fn current_timestamp() -> Option<SystemTime> {
    current(|emission| UNIX_EPOCH + Duration::from_nanos(emission.timestamp))
}

/// The thread of the worker that emitted the event that is being replayed on this thread: its number, counted
/// from 1 in the order of their first events, and its name. `None` outside of a replay.
pub fn current_thread() -> Option<(u64, Option<String>)> {
    current(|emission| {
        let name = Some(&emission.thread_name).filter(|name| !name.is_empty());
        (emission.thread, name.cloned())
    })
}

/// A thread that is ending and logs has none.
fn current<T>(read: impl FnOnce(&Emission) -> T) -> Option<T> {
    CURRENT
        .try_with(|current| {
            let current = current.borrow();
            (current.replays == Replays::Yes).then(|| read(&current))
        })
        .ok()
        .flatten()
}

/// Ends the current emission, also when a subscriber panics.
struct Emitting;

impl Emitting {
    fn start(record: &Record<'_>) -> Self {
        CURRENT.with_borrow_mut(|current| {
            current.replays = Replays::Yes;
            current.timestamp = record.header.timestamp;
            current.thread = record.header.thread;
            current.thread_name.clear();
            current
                .thread_name
                .push_str(record.thread_name.unwrap_or_default());
        });
        Self
    }
}

impl Drop for Emitting {
    fn drop(&mut self) {
        CURRENT.with_borrow_mut(|current| current.replays = Replays::No);
    }
}

/// Runs `replay` with the time and thread of `record` as the current ones.
pub(crate) fn emitted<T>(record: &Record<'_>, replay: impl FnOnce() -> T) -> T {
    let _emitting = Emitting::start(record);
    replay()
}

/// Prints what another process's `Debug` printed.
struct Verbatim<'a>(&'a str);

impl fmt::Debug for Verbatim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Sources of an error that are taken over.
const MAX_SOURCES: usize = 64;

/// Another process's error: its text, and its sources.
struct Reported {
    text: String,
    source: Option<Box<Reported>>,
}

impl Reported {
    fn new(texts: Texts<'_>) -> Self {
        let mut texts: Vec<&str> = texts.take(MAX_SOURCES).collect();
        let mut source = None;
        while texts.len() > 1 {
            source = texts.pop().map(|text| Box::new(Self::of(text, source)));
        }
        Self::of(texts.pop().unwrap_or_default(), source)
    }

    fn of(text: &str, source: Option<Box<Self>>) -> Self {
        Self {
            text: text.to_owned(),
            source,
        }
    }
}

impl fmt::Debug for Reported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Reported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Reported {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// A value in the form that `tracing` records; its traits are sealed, so each type is given its own.
enum Recordable<'a> {
    Bool(bool),
    I64(i64),
    U64(u64),
    I128(i128),
    U128(u128),
    F64(f64),
    Str(&'a str),
    Bytes(&'a [u8]),
    Debug(DebugValue<Verbatim<'a>>),
    Error(Box<dyn std::error::Error + Send + Sync>),
}

impl<'a> Recordable<'a> {
    #[inline]
    fn new(value: Value<'a>) -> Self {
        match value {
            Value::Bool(value) => Self::Bool(value),
            Value::I64(value) => Self::I64(value),
            Value::U64(value) => Self::U64(value),
            Value::I128(value) => Self::I128(value),
            Value::U128(value) => Self::U128(value),
            Value::F64(value) => Self::F64(value),
            Value::Str(value) => Self::Str(value),
            Value::Bytes(value) => Self::Bytes(value),
            Value::Debug(text) => Self::Debug(tracing_core::field::debug(Verbatim(text))),
            Value::Error(texts) => Self::Error(Box::new(Reported::new(texts))),
        }
    }

    #[inline]
    fn as_field(&self) -> &dyn Field {
        match self {
            Self::Bool(value) => value,
            Self::I64(value) => value,
            Self::U64(value) => value,
            Self::I128(value) => value,
            Self::U128(value) => value,
            Self::F64(value) => value,
            Self::Str(value) => value,
            Self::Bytes(value) => value,
            Self::Debug(value) => value,
            Self::Error(error) => error,
        }
    }
}

/// Values that need no allocation, and the fields of a callsite that may have them.
const FEW_VALUES: usize = 12;
const FEW_FIELDS: usize = 32;

/// Hands `values` as values of the callsite's fields to `use_it`; `last` is that of the last field.
#[inline]
pub(crate) fn with_values<T>(
    site: &'static Interned,
    values: Values<'_>,
    last: Option<&dyn Field>,
    use_it: impl FnOnce(&ValueSet<'_>) -> T,
) -> Result<T, Flaw> {
    let fields = site.metadata().fields();
    if values.len() <= FEW_VALUES && fields.len() <= FEW_FIELDS {
        let mut few = [const { (0, Recordable::Bool(false)) }; FEW_VALUES];
        let mut count = 0;
        values.each(|(field, value)| {
            few[count] = (field, Recordable::new(value));
            count += 1;
        })?;
        let mut places = [None; FEW_FIELDS];
        let places = &mut places[..fields.len()];
        fill(places, &few[..count], last)?;
        Ok(use_it(&fields.value_set_all(places)))
    } else {
        let mut many = Vec::new();
        values.each(|(field, value)| many.push((field, Recordable::new(value))))?;
        let mut places = vec![None; fields.len()];
        fill(&mut places, &many, last)?;
        Ok(use_it(&fields.value_set_all(&places)))
    }
}

#[inline]
fn fill<'r>(
    places: &mut [Option<&'r dyn Field>],
    values: &'r [(u64, Recordable<'_>)],
    last: Option<&'r dyn Field>,
) -> Result<(), Flaw> {
    let fields = places.len();
    for (field, value) in values {
        let place = usize::try_from(*field)
            .ok()
            .and_then(|index| places.get_mut(index));
        *place.ok_or(Flaw::Field {
            field: *field,
            fields,
        })? = Some(value.as_field());
    }
    if let (Some(place), Some(_)) = (places.last_mut(), last) {
        *place = last;
    }
    Ok(())
}

/// Emits an event in the current span, if it is wanted.
#[inline]
pub(crate) fn event(dispatch: &Dispatch, site: &'static Interned, record: &Record<'_>) -> Result<(), Flaw> {
    match record.header.repeats {
        0 => emit(dispatch, site, record.values, None),
        repeats => emit(dispatch, site.repeated(), record.values, Some(&repeats)),
    }
}

#[inline]
fn emit(
    dispatch: &Dispatch,
    site: &'static Interned,
    values: Values<'_>,
    last: Option<&dyn Field>,
) -> Result<(), Flaw> {
    if !site.enabled(dispatch) {
        return values.each(drop);
    }
    with_values(site, values, last, |values| {
        dispatch.event(&Event::new(site.metadata(), values));
    })
}

/// Emits an event whose callsite is beyond the bound: subscribers are asked with its own level and target.
pub(crate) fn unregistered(dispatch: &Dispatch, site: &Site<'_>, record: &Record<'_>) -> Result<(), Flaw> {
    let (mut message, mut fields) = (String::new(), String::new());
    print_fields(&mut message, &mut fields, site, record)?;
    #[cfg(feature = "log")]
    if site.name == LOG_RECORD {
        log_record(site, &format!("{message}{fields}"));
        return Ok(());
    }
    let stand_in = stand_in(site.level).metadata();
    if *stand_in.level() > LevelFilter::current() {
        return Ok(());
    }
    // Its fields are those of the stand-in: field sets belong to callsites, and those are static.
    let original = Metadata::new(
        stand_in.name(),
        site.target,
        *stand_in.level(),
        site.file,
        site.line,
        site.module_path,
        FieldSet::new(&STAND_IN, stand_in.callsite()),
        Kind::EVENT,
    );
    if !dispatch.enabled(&original) {
        return Ok(());
    }
    let location = match (site.file, site.line) {
        (Some(file), Some(line)) => format!("{file}:{line}"),
        (file, _) => file.unwrap_or_default().to_owned(),
    };
    let values: [Option<&dyn Field>; 4] = [
        Some(&tracing_core::field::debug(Verbatim(&message))),
        Some(&site.target),
        Some(&location.as_str()),
        Some(&tracing_core::field::debug(Verbatim(fields.trim_start()))),
    ];
    dispatch.event(&Event::new(stand_in, &stand_in.fields().value_set_all(&values)));
    Ok(())
}

/// Emits a record of the `log` crate as `tracing-log` does, so that whoever knows its events sees the original target.
/// The thread's default subscriber is asked.
#[cfg(feature = "log")]
fn log_record(site: &Site<'_>, text: &str) {
    use tracing_log::{AsLog, log};
    let level = level_of(site.level.into());
    if level > LevelFilter::current() {
        return;
    }
    // It never fails.
    let _ = tracing_log::format_trace(
        &log::Record::builder()
            .level(level.as_log())
            .target(site.target)
            .module_path(site.module_path)
            .file(site.file)
            .line(site.line)
            .args(format_args!("{text}"))
            .build(),
    );
}

/// A record in one line for a person, such as `WARN eval:user: my_crate::knn: no neighbours item=7`.
pub(crate) fn line(frame: &[u8], sites: &KnownSites) -> Option<String> {
    let Ok(Frame::Event(record)) = Frame::decode(frame) else {
        return None;
    };
    let site = Site::decode(sites.event(record.site)?).ok()?;
    let Told { spans, text } = told(&record, &site, sites).ok()?;
    let mut line = format!("{} ", level_of(site.level.into()));
    if !spans.is_empty() {
        line.push_str(&spans);
        line.push(' ');
    }
    line.push_str(site.target);
    line.push_str(": ");
    line.push_str(&text);
    Some(Printable(&line).to_string())
}

/// A record as text.
pub(crate) struct Told {
    /// The names of its spans from the root, each with a colon.
    pub(crate) spans: String,
    /// Message and fields.
    pub(crate) text: String,
}

pub(crate) fn told(record: &Record<'_>, site: &Site<'_>, sites: &KnownSites) -> Result<Told, Flaw> {
    let mut names = Vec::new();
    record.each_span(|_, span| {
        names.push(Site::decode(sites.span(span.site).unwrap_or_default())?.name);
        Ok(())
    })?;
    let mut spans = String::new();
    for name in names.iter().rev() {
        spans.push_str(name);
        spans.push(':');
    }
    let (mut text, mut fields) = (String::new(), String::new());
    print_fields(&mut text, &mut fields, site, record)?;
    text.push_str(&fields);
    Ok(Told { spans, text })
}

fn print_fields(
    message: &mut String,
    fields: &mut String,
    site: &Site<'_>,
    record: &Record<'_>,
) -> Result<(), Flaw> {
    record.values.each(|(field, value)| {
        let name = usize::try_from(field)
            .ok()
            .and_then(|index| site.fields.get(index));
        // Writing to a string does not fail.
        let _ = match (name.copied().unwrap_or("?"), value) {
            ("message", Value::Str(text) | Value::Debug(text)) => message.write_str(text),
            (name, Value::Debug(text)) => write!(fields, " {name}={text}"),
            (name, Value::Str(value)) => write!(fields, " {name}={value:?}"),
            (name, Value::Bytes(value)) => write!(fields, " {name}={value:?}"),
            (name, Value::Error(texts)) => {
                let texts: Vec<&str> = texts.collect();
                write!(fields, " {name}={}", texts.join(": "))
            }
            (name, Value::Bool(value)) => write!(fields, " {name}={value}"),
            (name, Value::I64(value)) => write!(fields, " {name}={value}"),
            (name, Value::U64(value)) => write!(fields, " {name}={value}"),
            (name, Value::I128(value)) => write!(fields, " {name}={value}"),
            (name, Value::U128(value)) => write!(fields, " {name}={value}"),
            (name, Value::F64(value)) => write!(fields, " {name}={value}"),
        };
    })?;
    if record.header.repeats > 0 {
        let _ = write!(fields, " {REPEATS}={}", record.header.repeats);
    }
    Ok(())
}
