//! Records of workers as events of this process; and, during a replay, where they come from.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing_core::field::{DebugValue, Value as Field, ValueSet};
use tracing_core::{Dispatch, Event};

use crate::callsites::{Interned, stand_in};
use crate::wire::{DecodeError, Entry, Flaw, Frame, Head, Record, Site, Value, level_of};

thread_local! {
    static CURRENT: RefCell<Option<Emission>> = const { RefCell::new(None) };
}

struct Emission {
    timestamp: SystemTime,
    thread: u64,
    thread_name: Option<String>,
}

/// When the event that is being replayed on this thread was emitted; `None` outside of a replay.
///
/// For layers that have a use for it; [`EmissionTime`](crate::EmissionTime) is one.
pub fn current_timestamp() -> Option<SystemTime> {
    current(|emission| emission.timestamp)
}

/// The thread of the worker that emitted the event that is being replayed on this thread: its number, counted
/// from 1 in the order of their first events, and its name. `None` outside of a replay.
pub fn current_thread() -> Option<(u64, Option<String>)> {
    current(|emission| (emission.thread, emission.thread_name.clone()))
}

/// A thread that is ending and logs has none.
fn current<T>(read: impl FnOnce(&Emission) -> T) -> Option<T> {
    CURRENT
        .try_with(|current| current.borrow().as_ref().map(read))
        .ok()
        .flatten()
}

/// Ends the current emission, also when a subscriber panics.
struct Emitting;

impl Emitting {
    fn start(head: &Head<'_>) -> Self {
        CURRENT.set(Some(Emission {
            timestamp: UNIX_EPOCH + Duration::from_nanos(head.timestamp),
            thread: head.thread,
            thread_name: head.thread_name.map(str::to_owned),
        }));
        Self
    }
}

impl Drop for Emitting {
    fn drop(&mut self) {
        CURRENT.set(None);
    }
}

/// Runs `replay` with the time and thread of `head` as the current ones.
pub(crate) fn emitted<T>(head: &Head<'_>, replay: impl FnOnce() -> T) -> T {
    let _emitting = Emitting::start(head);
    replay()
}

/// Prints what another process's `Debug` printed.
struct Verbatim<'a>(&'a str);

impl fmt::Debug for Verbatim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Another process's error: its text, and its sources.
struct Reported {
    text: String,
    source: Option<Box<Reported>>,
}

impl Reported {
    fn new(texts: &[&str]) -> Self {
        let (first, rest) = texts.split_first().unwrap_or((&"", &[]));
        Self {
            text: (*first).to_owned(),
            source: (!rest.is_empty()).then(|| Box::new(Self::new(rest))),
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
    Plain(&'a dyn Field),
    Debug(DebugValue<Verbatim<'a>>),
    Error(Box<dyn std::error::Error + Send + Sync>),
}

impl<'a> Recordable<'a> {
    fn new(value: &'a Value<'a>) -> Self {
        match value {
            Value::Bool(value) => Self::Plain(value),
            Value::I64(value) => Self::Plain(value),
            Value::U64(value) => Self::Plain(value),
            Value::I128(value) => Self::Plain(value),
            Value::U128(value) => Self::Plain(value),
            Value::F64(value) => Self::Plain(value),
            Value::Str(value) => Self::Plain(value),
            Value::Bytes(value) => Self::Plain(value),
            Value::Debug(text) => Self::Debug(tracing_core::field::debug(Verbatim(text))),
            Value::Error(texts) => Self::Error(Box::new(Reported::new(&texts[..texts.len().min(64)]))),
        }
    }

    fn as_field(&self) -> &dyn Field {
        match self {
            Self::Plain(value) => *value,
            Self::Debug(value) => value,
            Self::Error(error) => error,
        }
    }
}

/// Hands `entries` as values of the callsite's fields to `use_it`.
pub(crate) fn with_values<T>(
    site: &'static Interned,
    entries: &[Entry<'_>],
    use_it: impl FnOnce(&ValueSet<'_>) -> T,
) -> Result<T, DecodeError> {
    let fields = site.metadata().fields();
    let recordable: Vec<(u32, Recordable<'_>)> = entries
        .iter()
        .map(|(field, value)| (*field, Recordable::new(value)))
        .collect();
    let mut values: Vec<Option<&dyn Field>> = vec![None; fields.len()];
    for (field, value) in &recordable {
        let place = values.get_mut(*field as usize).ok_or(Flaw::Field {
            field: *field,
            fields: fields.len(),
        })?;
        *place = Some(value.as_field());
    }
    Ok(use_it(&fields.value_set_all(&values)))
}

/// Emits an event in the current span, if it is wanted.
pub(crate) fn event(
    dispatch: &Dispatch,
    site: &'static Interned,
    entries: &[Entry<'_>],
) -> Result<(), DecodeError> {
    with_values(site, entries, |values| {
        if site.enabled(dispatch) {
            dispatch.event(&Event::new(site.metadata(), values));
        }
    })
}

/// Emits an event whose callsite is beyond the bound.
pub(crate) fn unregistered(
    dispatch: &Dispatch,
    site: &Site<'_>,
    entries: &[Entry<'_>],
) -> Result<(), DecodeError> {
    let (mut message, mut fields) = (String::new(), String::new());
    print_fields(&mut message, &mut fields, site, entries);
    let location = match (site.file, site.line) {
        (Some(file), Some(line)) => format!("{file}:{line}"),
        (file, _) => file.unwrap_or_default().to_owned(),
    };
    let entries = [
        (0, Value::Debug(&message)),
        (1, Value::Str(site.target)),
        (2, Value::Str(&location)),
        (3, Value::Debug(fields.trim_start())),
    ];
    event(dispatch, stand_in(site.level), &entries)
}

/// A record in one line, such as `WARN eval:user: my_crate::knn: no neighbours item=7`.
pub(crate) fn line(frame: &[u8]) -> Option<String> {
    let Ok(Frame::Event(Record {
        site, spans, values, ..
    })) = Frame::decode(frame)
    else {
        return None;
    };
    let site = Site::decode(site).ok()?;
    let mut line = format!("{} ", level_of(site.level.into()));
    for span in spans.iter().rev() {
        line.push_str(Site::decode(span.site).ok()?.name);
        line.push(':');
    }
    if !spans.is_empty() {
        line.push(' ');
    }
    line.push_str(site.target);
    line.push_str(": ");
    let mut fields = String::new();
    print_fields(&mut line, &mut fields, &site, &values);
    line.push_str(&fields);
    Some(line)
}

fn print_fields(message: &mut String, fields: &mut String, site: &Site<'_>, entries: &[Entry<'_>]) {
    for (field, value) in entries {
        let name = site.fields.get(*field as usize).copied().unwrap_or("?");
        // Writing to a string does not fail.
        let _ = match (name, value) {
            ("message", Value::Str(text) | Value::Debug(text)) => message.write_str(text),
            (_, Value::Debug(text)) => write!(fields, " {name}={text}"),
            (_, Value::Str(value)) => write!(fields, " {name}={value:?}"),
            (_, Value::Bytes(value)) => write!(fields, " {name}={value:?}"),
            (_, Value::Error(value)) => write!(fields, " {name}={}", value.join(": ")),
            (_, Value::Bool(value)) => write!(fields, " {name}={value}"),
            (_, Value::I64(value)) => write!(fields, " {name}={value}"),
            (_, Value::U64(value)) => write!(fields, " {name}={value}"),
            (_, Value::I128(value)) => write!(fields, " {name}={value}"),
            (_, Value::U128(value)) => write!(fields, " {name}={value}"),
            (_, Value::F64(value)) => write!(fields, " {name}={value}"),
        };
    }
}
