//! How many events one callsite may emit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How many events one callsite may emit in a given time; any more are dropped and counted.
///
/// ```
/// use std::time::Duration;
/// let limit = log_bridge::RateLimit::new(100, Duration::from_secs(1));
/// # let _ = limit;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    events: u32,
    /// Nanoseconds.
    per: u64,
}

impl RateLimit {
    /// Returns a limit of `events` in each window of length `per`.
    ///
    /// A window starts with the first event after the previous window has ended, so a burst across two windows may be
    /// twice as large.
    #[must_use]
    pub fn new(events: u32, per: Duration) -> Self {
        Self {
            events,
            per: u64::try_from(per.as_nanos()).unwrap_or(u64::MAX),
        }
    }
}

/// The current window of one callsite.
#[derive(Debug, Default)]
pub(super) struct RateWindow {
    /// Nanoseconds since the Unix epoch.
    start: AtomicU64,
    /// Events since then.
    events: AtomicU64,
}

impl RateWindow {
    /// Counts an event at `now`; returns whether it is within the limit. Threads that race for a new window may exceed the
    /// limit by one event each.
    pub(super) fn admits(&self, limit: RateLimit, now: u64) -> bool {
        let start = self.start.load(Ordering::Relaxed);
        if now.wrapping_sub(start) >= limit.per
            && self
                .start
                .compare_exchange(start, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.events.store(0, Ordering::Relaxed);
        }
        self.events.fetch_add(1, Ordering::Relaxed) < limit.events.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_admits_only_as_many_events_as_the_limit() {
        let window = RateWindow::default();
        let limit = RateLimit::new(2, Duration::from_nanos(10));
        let admitted: Vec<bool> = [100, 101, 109, 110, 111, 112, 300]
            .map(|now| window.admits(limit, now))
            .into();
        assert_eq!(admitted, [true, true, false, true, true, false, true]);
    }
}
