//! Records as lines of text.

use std::fmt::Write as _;

use shm_buffers::Printable;

use super::definitions::Definitions;
use crate::wire::callsite::CallsiteInfo;
use crate::wire::error::Malformed;
use crate::wire::level::level_from_index;
use crate::wire::record::{EventRecord, Frame, REPEATS_FIELD};
use crate::wire::value::Value;

/// Formats an event as one line without control characters, such as `WARN eval:user: my_crate::knn: no neighbours item=7`.
/// Returns `None` if the frame holds no event, or a malformed one.
pub(super) fn line(frame: &[u8], definitions: &Definitions) -> Option<String> {
    let Ok(Frame::Event(record)) = Frame::decode(frame) else {
        return None;
    };
    let callsite = CallsiteInfo::decode(definitions.events().metadata(record.callsite)?).ok()?;
    let RecordText { spans, text } = RecordText::new(&record, &callsite, definitions).ok()?;
    let mut line = format!("{} ", level_from_index(callsite.level.into()));
    if !spans.is_empty() {
        line.push_str(&spans);
        line.push(' ');
    }
    line.push_str(callsite.target);
    line.push_str(": ");
    line.push_str(&text);
    Some(Printable(&line).to_string())
}

/// The parts of an event as text.
pub(crate) struct RecordText {
    /// The names of its spans from the root, each with a colon.
    pub(crate) spans: String,
    /// Its message and fields.
    pub(crate) text: String,
}

impl RecordText {
    pub(crate) fn new(
        record: &EventRecord<'_>,
        callsite: &CallsiteInfo<'_>,
        definitions: &Definitions,
    ) -> Result<Self, Malformed> {
        let mut names = Vec::new();
        record.for_each_span(|_, span| {
            let metadata = definitions.spans().metadata(span.callsite);
            names.push(CallsiteInfo::decode(metadata.unwrap_or_default())?.name);
            Ok(())
        })?;
        let mut spans = String::new();
        for name in names.iter().rev() {
            spans.push_str(name);
            spans.push(':');
        }
        let (mut text, mut fields) = (String::new(), String::new());
        print_values(&mut text, &mut fields, callsite, record)?;
        text.push_str(&fields);
        Ok(Self { spans, text })
    }
}

/// Appends the message of an event to `message`, and its other values to `fields`, each after a blank.
pub(crate) fn print_values(
    message: &mut String,
    fields: &mut String,
    callsite: &CallsiteInfo<'_>,
    record: &EventRecord<'_>,
) -> Result<(), Malformed> {
    record.values.for_each(|(field, value)| {
        let name = usize::try_from(field)
            .ok()
            .and_then(|index| callsite.fields.get(index));
        // Writing to a string does not fail.
        let _ = match (name.copied().unwrap_or("?"), value) {
            ("message", Value::Str(text) | Value::Debug(text)) => message.write_str(text),
            (name, Value::Debug(text)) => write!(fields, " {name}={text}"),
            (name, Value::Str(value)) => write!(fields, " {name}={value:?}"),
            (name, Value::Bytes(value)) => write!(fields, " {name}={value:?}"),
            (name, Value::Error(messages)) => {
                let messages: Vec<&str> = messages.collect();
                write!(fields, " {name}={}", messages.join(": "))
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
        let _ = write!(fields, " {REPEATS_FIELD}={}", record.header.repeats);
    }
    Ok(())
}
