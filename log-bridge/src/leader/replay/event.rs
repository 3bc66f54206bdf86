//! Emits the event of a record in the current span.

use tracing_core::field::{FieldSet, Value as Field};
use tracing_core::{Dispatch, Event, Kind, LevelFilter, Metadata};

#[cfg(feature = "log")]
use super::registry::LOG_RECORD_NAME;
use super::registry::{PLACEHOLDER_FIELDS, RegisteredCallsite, placeholder};
use super::values::{Verbatim, with_value_set};
use crate::leader::source::text::print_values;
use crate::wire::callsite::CallsiteInfo;
use crate::wire::error::Malformed;
#[cfg(feature = "log")]
use crate::wire::level::level_from_index;
use crate::wire::record::EventRecord;
use crate::wire::value::Values;

/// Emits an event, if the subscriber wants it.
#[inline]
pub(super) fn emit(
    dispatch: &Dispatch,
    callsite: &'static RegisteredCallsite,
    record: &EventRecord<'_>,
) -> Result<(), Malformed> {
    match record.header.repeats {
        0 => emit_values(dispatch, callsite, record.values, None),
        repeats => emit_values(dispatch, callsite.summary(), record.values, Some(&repeats)),
    }
}

#[inline]
fn emit_values(
    dispatch: &Dispatch,
    callsite: &'static RegisteredCallsite,
    values: Values<'_>,
    last: Option<&dyn Field>,
) -> Result<(), Malformed> {
    if callsite.is_never_enabled() {
        return values.for_each(drop);
    }
    // Per-layer filters keep their answer until the event that they were asked about: a malformed record must not come
    // between, or the next event of the bridge itself would be hidden.
    with_value_set(callsite, values, last, |values| {
        if callsite.enabled(dispatch) {
            dispatch.event(&Event::new(callsite.metadata(), values));
        }
    })
}

/// Emits an event whose callsite cannot be registered any more. The subscriber is asked about its original level and
/// target; the event itself has a [`placeholder`] for its callsite.
pub(super) fn emit_unregistered(
    dispatch: &Dispatch,
    callsite: &CallsiteInfo<'_>,
    record: &EventRecord<'_>,
) -> Result<(), Malformed> {
    let (mut message, mut fields) = (String::new(), String::new());
    print_values(&mut message, &mut fields, callsite, record)?;
    #[cfg(feature = "log")]
    if callsite.name == LOG_RECORD_NAME {
        emit_log_record(callsite, &format!("{message}{fields}"));
        return Ok(());
    }
    let placeholder = placeholder(callsite.level).metadata();
    if *placeholder.level() > LevelFilter::current() {
        return Ok(());
    }
    // A field set belongs to a static callsite, so the original fields cannot be part of it.
    let original = Metadata::new(
        placeholder.name(),
        callsite.target,
        *placeholder.level(),
        callsite.file,
        callsite.line,
        callsite.module_path,
        FieldSet::new(&PLACEHOLDER_FIELDS, placeholder.callsite()),
        Kind::EVENT,
    );
    if !dispatch.enabled(&original) {
        return Ok(());
    }
    let location = match (callsite.file, callsite.line) {
        (Some(file), Some(line)) => format!("{file}:{line}"),
        (file, _) => file.unwrap_or_default().to_owned(),
    };
    let values: [Option<&dyn Field>; 4] = [
        Some(&tracing_core::field::debug(Verbatim(&message))),
        Some(&callsite.target),
        Some(&location.as_str()),
        Some(&tracing_core::field::debug(Verbatim(fields.trim_start()))),
    ];
    dispatch.event(&Event::new(
        placeholder,
        &placeholder.fields().value_set_all(&values),
    ));
    Ok(())
}

/// Emits a record of the `log` crate as `tracing-log` does, into the thread's default subscriber: layers that know its
/// events see the original target.
#[cfg(feature = "log")]
fn emit_log_record(callsite: &CallsiteInfo<'_>, text: &str) {
    use tracing_log::{AsLog, log};
    let level = level_from_index(callsite.level.into());
    if level > LevelFilter::current() {
        return;
    }
    // It never fails.
    let _ = tracing_log::format_trace(
        &log::Record::builder()
            .level(level.as_log())
            .target(callsite.target)
            .module_path(callsite.module_path)
            .file(callsite.file)
            .line(callsite.line)
            .args(format_args!("{text}"))
            .build(),
    );
}
