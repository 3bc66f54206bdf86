//! When periodic lines are due.

use std::time::Duration;

/// When periodic lines are due: once early, to show that the job works, and then at the caller's interval.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    next: Duration,
    interval: Duration,
}

impl Schedule {
    /// The first lines are due after a second, or after `interval` if that is shorter.
    pub(crate) fn new(interval: Duration) -> Self {
        Self {
            next: interval.min(Duration::from_secs(1)),
            interval,
        }
    }

    /// Whether lines are due at `now`, in which case the next ones are scheduled.
    pub(super) fn is_due(&mut self, now: Duration) -> bool {
        let due = now >= self.next;
        if due {
            // Times are multiples of the interval after the first. Missed ones are skipped.
            let next = self.next.saturating_add(self.interval);
            self.next = next.max(now.saturating_add(self.interval / 2));
        }
        due
    }
}
