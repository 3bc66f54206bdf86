//! Records for the logger of the `log` crate, in a process that has no subscriber.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use tracing_core::Level;
use tracing_log::{AsLog, log};

use super::origin;
use crate::leader::source::reader::{RecordReader, SourceError};
use crate::leader::source::text::RecordText;
use crate::wire::callsite::CallsiteInfo;
use crate::wire::error::Malformed;
use crate::wire::level::{LEVELS, level_from_index};
use crate::wire::record::{EventRecord, Frame};

const TARGET: &str = "log_bridge";

/// Logs an event of worker `id`.
pub(super) fn log_event(id: u64, frame: &[u8], reader: &Mutex<RecordReader>) -> Result<(), Malformed> {
    let Frame::Event(record) = Frame::decode(frame)? else {
        return Ok(());
    };
    // The logger must not be called under the lock.
    let Some((metadata, text)) = render(id, &record, reader)? else {
        return Ok(());
    };
    let callsite = CallsiteInfo::decode(&metadata)?;
    origin::replaying(&record, || {
        log::logger().log(
            &log::Record::builder()
                .level(level_from_index(callsite.level.into()).as_log())
                .target(callsite.target)
                .module_path(callsite.module_path)
                .file(callsite.file)
                .line(callsite.line)
                .args(format_args!("{text}"))
                .build(),
        );
    });
    Ok(())
}

/// Returns the encoded metadata of an event and its text, or `None` if the logger does not want its level.
fn render(
    id: u64,
    record: &EventRecord<'_>,
    reader: &Mutex<RecordReader>,
) -> Result<Option<(Vec<u8>, String)>, Malformed> {
    let reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
    let definitions = reader.definitions();
    let Some(metadata) = definitions.events().metadata(record.callsite) else {
        return Ok(None);
    };
    let callsite = CallsiteInfo::decode(metadata)?;
    if level_from_index(callsite.level.into()).as_log() > log::max_level() {
        return Ok(None);
    }
    let RecordText { spans, text } = RecordText::new(record, &callsite, definitions)?;
    Ok(Some((
        metadata.to_vec(),
        format!("worker{{id={id}}}:{spans} {text}"),
    )))
}

/// Logs how many events of each level were dropped.
pub(super) fn log_drops(id: u64, dropped: [u64; LEVELS]) {
    let mut counts = String::new();
    for (index, count) in dropped.iter().enumerate().filter(|(_, count)| **count > 0) {
        let level = level_from_index(index).as_str().to_ascii_lowercase();
        // Writing to a string does not fail.
        let _ = write!(counts, " {level}={count}");
    }
    log::warn!(target: TARGET, "worker{{id={id}}}: log events dropped{counts}");
}

/// Logs why a stream was abandoned.
pub(super) fn log_failure(id: u64, error: &SourceError) {
    log::error!(target: TARGET, "worker{{id={id}}}: log stream abandoned: {error}");
}

/// Logs a line that worker `id` has printed.
pub(crate) fn log_line(id: u64, target: &str, level: Level, line: &str) {
    log::log!(target: target, level.as_log(), "worker{{id={id}}}: {line}");
}
