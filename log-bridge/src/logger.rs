//! Records of workers for the logger of the `log` crate, in a process that has no subscriber.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use tracing_core::Level;
use tracing_log::{AsLog, log};

use crate::intake::{Intake, SourceError};
use crate::replay::{self, Told};
use crate::site::Site;
use crate::tally::LEVELS;
use crate::wire::{Flaw, Frame, level_of};

const TARGET: &str = "log_bridge";

/// Asks the logger about an event of worker `id`.
pub(crate) fn log(id: u64, frame: &[u8], intake: &Mutex<Intake>) -> Result<(), Flaw> {
    let Frame::Event(record) = Frame::decode(frame)? else {
        return Ok(());
    };
    // Under the lock is only what is ours: the logger is code of others.
    let (blob, text) = {
        let intake = intake.lock().unwrap_or_else(PoisonError::into_inner);
        let sites = intake.sites();
        let Some(blob) = sites.event(record.site) else {
            return Ok(());
        };
        let site = Site::decode(blob)?;
        if level_of(site.level.into()).as_log() > log::max_level() {
            return Ok(());
        }
        let Told { spans, text } = replay::told(&record, &site, sites)?;
        (blob.to_vec(), format!("worker{{id={id}}}:{spans} {text}"))
    };
    let site = Site::decode(&blob)?;
    replay::emitted(&record, || {
        log::logger().log(
            &log::Record::builder()
                .level(level_of(site.level.into()).as_log())
                .target(site.target)
                .module_path(site.module_path)
                .file(site.file)
                .line(site.line)
                .args(format_args!("{text}"))
                .build(),
        );
    });
    Ok(())
}

/// Says how many events of each level were dropped.
pub(crate) fn log_drops(id: u64, dropped: [u64; LEVELS]) {
    let mut counts = String::new();
    for (index, count) in dropped.iter().enumerate().filter(|(_, count)| **count > 0) {
        // Writing to a string does not fail.
        let _ = write!(
            counts,
            " {}={count}",
            level_of(index).as_str().to_ascii_lowercase()
        );
    }
    log::warn!(target: TARGET, "worker{{id={id}}}: log events dropped{counts}");
}

/// Says why a stream was given up.
pub(crate) fn log_failure(id: u64, error: &SourceError) {
    log::error!(target: TARGET, "worker{{id={id}}}: log stream given up: {error}");
}

/// Asks the logger about a line that worker `id` printed.
pub(crate) fn log_line(id: u64, target: &str, level: Level, line: &str) {
    log::log!(target: target, level.as_log(), "worker{{id={id}}}: {line}");
}
