//! What time it is for a reporter: real time without the stretches in which the process was stopped, or what a test says.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The delay of a reading above which the process counts as stopped. A busy machine delays a thread by less, and a person
/// cannot stop and continue a job faster.
const SLACK: Duration = Duration::from_secs(1);

/// The number of stops that the clock remembers, to convert moments before them.
const REMEMBERED: usize = 16;

/// The time since the reporter was started.
#[derive(Debug)]
pub(crate) enum Clock {
    Running(Mutex<Awake>),
    Held(Mutex<Duration>),
}

impl Clock {
    pub(crate) fn running() -> Self {
        Self::Running(Mutex::new(Awake::new(Instant::now())))
    }

    pub(crate) fn held() -> Self {
        Self::Held(Mutex::default())
    }

    pub(crate) fn is_held(&self) -> bool {
        matches!(self, Self::Held(_))
    }

    pub(crate) fn now(&self) -> Duration {
        match self {
            // The instant is taken with the lock held, so that instants come in order.
            Self::Running(awake) => lock(awake).look(Instant::now),
            Self::Held(now) => *lock(now),
        }
    }

    /// The time at a moment in the past. A held clock has no past: its time is now.
    pub(crate) fn at(&self, then: Instant) -> Duration {
        match self {
            Self::Running(awake) => {
                let mut awake = lock(awake);
                awake.look(Instant::now);
                awake.at(then)
            }
            Self::Held(now) => *lock(now),
        }
    }

    /// Announces that the clock will be read again within `interval`, until [`rest`](Self::rest).
    pub(crate) fn read_every(&self, interval: Duration) {
        if let Self::Running(awake) = self {
            let mut awake = lock(awake);
            awake.look(Instant::now);
            awake.interval = Some(interval);
        }
    }

    /// Announces that the clock may not be read for a while.
    pub(crate) fn rest(&self) {
        if let Self::Running(awake) = self {
            let mut awake = lock(awake);
            awake.look(Instant::now);
            awake.interval = None;
        }
    }

    /// How often the process was stopped, as far as the clock knows.
    pub(crate) fn stops(&self) -> u64 {
        match self {
            Self::Running(awake) => lock(awake).count,
            Self::Held(_) => 0,
        }
    }

    /// Moves a held clock on.
    pub(crate) fn advance(&self, by: Duration) {
        if let Self::Held(now) = self {
            let mut now = lock(now);
            *now = now.saturating_add(by);
        }
    }

    /// Moves a held clock to `now`, never back.
    pub(crate) fn catch_up(&self, to: Duration) {
        if let Self::Held(now) = self {
            let mut now = lock(now);
            *now = to.max(*now);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A clock that stands still while the process is stopped.
///
/// No event announces a stop to the process. But where one thread reads the clock regularly, a stop is a stretch in which
/// no thread read it.
#[derive(Debug)]
pub(crate) struct Awake {
    start: Instant,
    /// When the clock was last read.
    read: Instant,
    /// How long until the next reading at most; `None` where it is not read regularly.
    interval: Option<Duration>,
    /// How long the process was stopped in all.
    lost: Duration,
    count: u64,
    stops: VecDeque<Stop>,
}

/// A stretch in which the process was stopped.
#[derive(Debug)]
struct Stop {
    end: Instant,
    lost: Duration,
}

impl Awake {
    fn new(start: Instant) -> Self {
        Self {
            start,
            read: start,
            interval: None,
            lost: Duration::ZERO,
            count: 0,
            stops: VecDeque::new(),
        }
    }

    fn look(&mut self, now: impl FnOnce() -> Instant) -> Duration {
        let now = now();
        let unread = now.saturating_duration_since(self.read);
        if let Some(interval) = self.interval
            && let Some(lost) = unread.checked_sub(interval)
            && lost > SLACK
        {
            self.lost += lost;
            self.count += 1;
            self.stops.truncate(REMEMBERED - 1);
            self.stops.push_front(Stop { end: now, lost });
        }
        self.read = now;
        self.at(now)
    }

    fn at(&self, then: Instant) -> Duration {
        let later = self.stops.iter().take_while(|stop| stop.end > then);
        let lost = later.fold(self.lost, |lost, stop| {
            // Of a stop that `then` is in, the time until `then` does not count either.
            let begin = stop.end - stop.lost;
            lost.saturating_sub(stop.lost) + then.saturating_duration_since(begin)
        });
        then.saturating_duration_since(self.start).saturating_sub(lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn time_in_which_nobody_reads_it_is_left_out() {
        let start = Instant::now();
        let mut clock = Awake::new(start);
        clock.interval = Some(100 * MS);
        let mut at = |ms: u32| clock.look(|| start + ms * MS).as_millis();
        assert_eq!(at(90), 90);
        assert_eq!(at(1150), 1150, "late, as on a busy machine");
        assert_eq!(at(16_250), 1250, "stopped");
        assert_eq!(at(16_350), 1350, "goes on");
        assert_eq!(at(30_000), 1450, "stopped again");
        assert_eq!(clock.count, 2);
    }

    #[test]
    fn without_regular_readings_nothing_is_left_out() {
        let start = Instant::now();
        let mut clock = Awake::new(start);
        assert_eq!(clock.look(|| start + 60_000 * MS), 60_000 * MS);
    }

    #[test]
    fn moments_before_a_stop_keep_their_time() {
        let start = Instant::now();
        let mut clock = Awake::new(start);
        clock.interval = Some(100 * MS);
        for ms in [100, 200, 10_300, 10_400, 20_500] {
            clock.look(|| start + ms * MS);
        }
        for (then, time) in [
            (150, 150),
            (200, 200),
            (5000, 300),
            (10_350, 350),
            (15_000, 500),
            (20_500, 500),
            (20_600, 600),
        ] {
            assert_eq!(
                clock.at(start + then * MS).as_millis(),
                time,
                "{then} ms after the start"
            );
        }
    }

    #[test]
    fn many_stops_take_no_room_and_time_never_goes_back() {
        let start = Instant::now();
        let mut clock = Awake::new(start);
        clock.interval = Some(100 * MS);
        let (mut now, mut last) = (start, Duration::ZERO);
        for step in 0..10_000u32 {
            now += MS * (step.wrapping_mul(2_654_435_761) >> 21);
            let at = clock.look(|| now);
            assert!(last <= at && at <= now - start, "step {step}");
            last = at;
        }
        assert!(clock.count > 1000 && clock.stops.len() <= REMEMBERED);
    }
}
