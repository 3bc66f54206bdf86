//! [`Awake`]: time that leaves out the stretches in which this process did not run.
//!
//! Who stops a terminal's job, a container or a laptop stops leader and workers alike. Nothing may be held against
//! a worker for that time. A process is not told of it (and could not listen); but it can notice that it looks at the
//! clock long after it meant to. What is left out is the time after that: who looks often counts little of a stop.

use std::time::{Duration, Instant};

/// How late a look may be before the time until then is left out. An idle machine is less than one late, a busy one
/// sometimes more: then its workers had to wait as well.
const SLACK: Duration = Duration::from_millis(20);

/// A clock that stands still while this process does.
#[derive(Debug)]
pub(crate) struct Awake {
    /// When somebody means to look.
    due: Instant,
    lost: Duration,
}

impl Awake {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            due: now,
            lost: Duration::ZERO,
        }
    }

    /// This clock's time at `now`. Never goes back.
    pub(crate) fn at(&mut self, now: Instant) -> Instant {
        let late = now.saturating_duration_since(self.due);
        if late > SLACK {
            self.lost += late - SLACK;
            self.due = now;
        }
        now - self.lost
    }

    /// Somebody will look within `wait` from `now`.
    pub(crate) fn look_within(&mut self, wait: Duration, now: Instant) {
        self.at(now);
        self.due = now + wait;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn time_until_a_late_look_is_left_out() {
        let start = Instant::now();
        let mut clock = Awake::new(start);
        clock.look_within(100 * MS, start);
        assert_eq!(clock.at(start + 70 * MS), start + 70 * MS);
        assert_eq!(clock.at(start + 110 * MS), start + 110 * MS, "hardly late");
        assert_eq!(clock.at(start + 3000 * MS), start + 120 * MS, "stopped");
        assert_eq!(clock.at(start + 3010 * MS), start + 130 * MS, "goes on");
        clock.look_within(1000 * MS, start + 3010 * MS);
        assert_eq!(clock.at(start + 4010 * MS), start + 1130 * MS);
    }

    #[test]
    fn it_never_goes_back_and_never_ahead() {
        let start = Instant::now();
        let mut clock = Awake::new(start);
        let (mut now, mut last) = (start, start);
        for step in 0..10_000u32 {
            now += MS * (step.wrapping_mul(2_654_435_761) >> 26);
            if step % 3 == 0 {
                clock.look_within(MS * (step % 40), now);
            }
            let at = clock.at(now);
            assert!(last <= at && at <= now, "step {step}");
            last = at;
        }
    }
}
