//! Formats the time of emission instead of the time of replay.

use std::fmt;
use std::time::SystemTime;

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use super::replay::origin::current_timestamp;

/// A timer for [`tracing_subscriber::fmt`](mod@tracing_subscriber::fmt) that shows when the worker emitted a replayed event,
/// and the current time for any other event.
///
/// The format is RFC 3339 in UTC, with microseconds.
///
/// ```
/// let layer = tracing_subscriber::fmt::layer::<tracing_subscriber::Registry>()
///     .with_timer(log_bridge::EmissionTime);
/// # let _ = layer;
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EmissionTime;

impl FormatTime for EmissionTime {
    fn format_time(&self, out: &mut Writer<'_>) -> fmt::Result {
        let time = current_timestamp().unwrap_or_else(SystemTime::now);
        write!(out, "{}", humantime::format_rfc3339_micros(time))
    }
}
