//! The clock of a reporter: real time without the intervals in which the process was stopped, or a test's manual time.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The delay of a reading above which the process counts as stopped. A busy machine delays a thread by less, and a
/// person cannot stop and continue a job faster.
const STOP_THRESHOLD: Duration = Duration::from_secs(1);

/// The number of stops that the clock remembers, to convert moments before them.
const MAX_STOPS: usize = 16;

/// The time since the reporter was started.
#[derive(Debug)]
pub(crate) enum Clock {
    Real(Mutex<RunningTime>),
    /// Moves only by [`advance`](Clock::advance) and [`advance_to`](Clock::advance_to).
    Manual(Mutex<Duration>),
}

impl Clock {
    pub(crate) fn real() -> Self {
        Self::Real(Mutex::new(RunningTime::new(Instant::now())))
    }

    pub(crate) fn manual() -> Self {
        Self::Manual(Mutex::default())
    }

    pub(crate) fn is_manual(&self) -> bool {
        matches!(self, Self::Manual(_))
    }

    pub(crate) fn now(&self) -> Duration {
        match self {
            // The instant is taken with the lock held, so that readings are in order.
            Self::Real(time) => lock(time).read(Instant::now),
            Self::Manual(now) => *lock(now),
        }
    }

    /// Converts a moment in the past. A manual clock has no past and returns its current time.
    pub(crate) fn at(&self, moment: Instant) -> Duration {
        match self {
            Self::Real(time) => {
                let mut time = lock(time);
                time.read(Instant::now);
                time.at(moment)
            }
            Self::Manual(now) => *lock(now),
        }
    }

    /// Announces that the clock will be read at least once in each `interval`, until
    /// [`end_regular_reads`](Self::end_regular_reads).
    pub(crate) fn begin_regular_reads(&self, interval: Duration) {
        self.set_read_interval(Some(interval));
    }

    /// Announces that the next reading may come at any time.
    pub(crate) fn end_regular_reads(&self) {
        self.set_read_interval(None);
    }

    fn set_read_interval(&self, interval: Option<Duration>) {
        if let Self::Real(time) = self {
            let mut time = lock(time);
            time.read(Instant::now);
            time.read_interval = interval;
        }
    }

    /// Returns how often the process was stopped, as far as the clock noticed.
    pub(crate) fn stop_count(&self) -> u64 {
        match self {
            Self::Real(time) => lock(time).stop_count,
            Self::Manual(_) => 0,
        }
    }

    /// Moves a manual clock forward.
    pub(crate) fn advance(&self, by: Duration) {
        if let Self::Manual(now) = self {
            let mut now = lock(now);
            *now = now.saturating_add(by);
        }
    }

    /// Moves a manual clock to `time`, never back.
    pub(crate) fn advance_to(&self, time: Duration) {
        if let Self::Manual(now) = self {
            let mut now = lock(now);
            *now = time.max(*now);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A clock that stands still while the process is stopped.
///
/// The system does not report a stop to the process. But where one thread reads the clock regularly, a stop is an
/// interval without a reading.
#[derive(Debug)]
pub(crate) struct RunningTime {
    start: Instant,
    last_read: Instant,
    /// The longest time between two readings; `None` where the clock is not read regularly.
    read_interval: Option<Duration>,
    /// The total length of all stops.
    stopped: Duration,
    stop_count: u64,
    /// The last stops, newest first.
    stops: VecDeque<Stop>,
}

/// An interval in which the process was stopped.
#[derive(Debug)]
struct Stop {
    end: Instant,
    length: Duration,
}

impl RunningTime {
    fn new(start: Instant) -> Self {
        Self {
            start,
            last_read: start,
            read_interval: None,
            stopped: Duration::ZERO,
            stop_count: 0,
            stops: VecDeque::new(),
        }
    }

    fn read(&mut self, now: impl FnOnce() -> Instant) -> Duration {
        let now = now();
        let unread = now.saturating_duration_since(self.last_read);
        if let Some(interval) = self.read_interval
            && let Some(length) = unread.checked_sub(interval)
            && length > STOP_THRESHOLD
        {
            self.stopped += length;
            self.stop_count += 1;
            self.stops.truncate(MAX_STOPS - 1);
            self.stops.push_front(Stop { end: now, length });
        }
        self.last_read = now;
        self.at(now)
    }

    fn at(&self, moment: Instant) -> Duration {
        let later = self.stops.iter().take_while(|stop| stop.end > moment);
        let stopped = later.fold(self.stopped, |stopped, stop| {
            // If `moment` is within a stop, the part of the stop before it does not count either.
            let begin = stop.end - stop.length;
            stopped.saturating_sub(stop.length) + moment.saturating_duration_since(begin)
        });
        moment
            .saturating_duration_since(self.start)
            .saturating_sub(stopped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn an_interval_without_readings_does_not_count() {
        let start = Instant::now();
        let mut clock = RunningTime::new(start);
        clock.read_interval = Some(100 * MS);
        let mut at = |ms: u32| clock.read(|| start + ms * MS).as_millis();
        assert_eq!(at(90), 90);
        assert_eq!(at(1150), 1150, "late, as on a busy machine");
        assert_eq!(at(16_250), 1250, "stopped");
        assert_eq!(at(16_350), 1350, "continued");
        assert_eq!(at(30_000), 1450, "stopped again");
        assert_eq!(clock.stop_count, 2);
    }

    #[test]
    fn all_time_counts_without_regular_readings() {
        let start = Instant::now();
        let mut clock = RunningTime::new(start);
        assert_eq!(clock.read(|| start + 60_000 * MS), 60_000 * MS);
    }

    #[test]
    fn moments_before_a_stop_keep_their_time() {
        let start = Instant::now();
        let mut clock = RunningTime::new(start);
        clock.read_interval = Some(100 * MS);
        for ms in [100, 200, 10_300, 10_400, 20_500] {
            clock.read(|| start + ms * MS);
        }
        for (moment, time) in [
            (150, 150),
            (200, 200),
            (5000, 300),
            (10_350, 350),
            (15_000, 500),
            (20_500, 500),
            (20_600, 600),
        ] {
            assert_eq!(
                clock.at(start + moment * MS).as_millis(),
                time,
                "{moment} ms after the start"
            );
        }
    }

    #[test]
    fn memory_is_bounded_and_time_never_goes_back_with_many_stops() {
        let start = Instant::now();
        let mut clock = RunningTime::new(start);
        clock.read_interval = Some(100 * MS);
        let (mut now, mut last) = (start, Duration::ZERO);
        for step in 0..10_000u32 {
            now += MS * (step.wrapping_mul(2_654_435_761) >> 21);
            let at = clock.read(|| now);
            assert!(last <= at && at <= now - start, "step {step}");
            last = at;
        }
        assert!(clock.stop_count > 1000 && clock.stops.len() <= MAX_STOPS);
    }
}
