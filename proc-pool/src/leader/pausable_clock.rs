//! [`PausableClock`]: time without the periods in which this process was stopped.
//!
//! Stopping a terminal's job, a container or a laptop stops leader and workers alike, and a worker must not be blamed for that
//! time. A process is not notified of a stop, and could not react to it, but it can notice that it reads the clock long after it
//! meant to. The clock leaves out the time by which such a reading is late, so frequent readings leave out almost all of a stop.

use std::time::{Duration, Instant};

/// How late a reading may be before the delay is left out. An idle machine delays a reading by less; on a busy machine, which may
/// delay it more, workers had to wait as well.
const SLACK: Duration = Duration::from_millis(20);

/// A clock that stands still while this process does.
#[derive(Debug)]
pub(crate) struct PausableClock {
    /// When the next reading is expected at the latest.
    due: Instant,
    /// The time left out so far.
    paused: Duration,
}

impl PausableClock {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            due: now,
            paused: Duration::ZERO,
        }
    }

    /// Returns this clock's time at `now`. It never goes back.
    pub(crate) fn at(&mut self, now: Instant) -> Instant {
        let late = now.saturating_duration_since(self.due);
        if late > SLACK {
            self.paused += late - SLACK;
            self.due = now;
        }
        now - self.paused
    }

    /// Promises that the clock will be read within `wait` from `now`.
    pub(crate) fn expect_read_within(&mut self, wait: Duration, now: Instant) {
        self.at(now);
        self.due = now + wait;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn late_part_of_a_late_reading_is_left_out() {
        let start = Instant::now();
        let mut clock = PausableClock::new(start);
        clock.expect_read_within(100 * MS, start);
        assert_eq!(clock.at(start + 70 * MS), start + 70 * MS);
        assert_eq!(clock.at(start + 110 * MS), start + 110 * MS, "within the slack");
        assert_eq!(clock.at(start + 3000 * MS), start + 120 * MS, "stopped");
        assert_eq!(clock.at(start + 3010 * MS), start + 130 * MS, "running again");
        clock.expect_read_within(1000 * MS, start + 3010 * MS);
        assert_eq!(clock.at(start + 4010 * MS), start + 1130 * MS);
    }

    #[test]
    fn clock_never_goes_back_and_never_ahead() {
        let start = Instant::now();
        let mut clock = PausableClock::new(start);
        let (mut now, mut last) = (start, start);
        for step in 0..10_000u32 {
            now += MS * (step.wrapping_mul(2_654_435_761) >> 26);
            if step % 3 == 0 {
                clock.expect_read_within(MS * (step % 40), now);
            }
            let at = clock.at(now);
            assert!(last <= at && at <= now, "step {step}");
            last = at;
        }
    }
}
