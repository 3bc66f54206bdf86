//! Printing the time of emission instead of the time of replay.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use crate::replay::current_timestamp;

const DAY: u64 = 24 * 60 * 60;

/// A timer for [`tracing_subscriber::fmt`](mod@tracing_subscriber::fmt): replayed events show when they were emitted, others the time now.
/// UTC, RFC 3339, microseconds.
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
        rfc3339(out, current_timestamp().unwrap_or_else(SystemTime::now))
    }
}

/// The date by Howard Hinnant's `civil_from_days`, for days since 1970 only.
fn rfc3339(out: &mut dyn fmt::Write, time: SystemTime) -> fmt::Result {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / DAY, since.as_secs() % DAY);
    // Days since 0000-03-01, and the 400-year era they are in.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, leap) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    write!(
        out,
        "{:04}-{month:02}-{date:02}T{:02}:{:02}:{:02}.{:06}Z",
        era * 400 + year + leap,
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        since.subsec_micros()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_right() {
        // From `date -u -d @N +%FT%TZ`.
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000007Z"),
            (951_782_400, "2000-02-29T00:00:00.000007Z"),
            (951_868_799, "2000-02-29T23:59:59.000007Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000007Z"),
        ] {
            let mut text = String::new();
            rfc3339(&mut text, UNIX_EPOCH + Duration::new(seconds, 7_890)).unwrap();
            assert_eq!(text, expected);
        }
    }
}
