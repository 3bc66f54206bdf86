//! Rates and ETAs: pure functions of counts and the caller's time.

use std::time::Duration;

/// The shortest time over which a rate is smoothed.
const WINDOW: Duration = Duration::from_secs(5);

/// The smallest number of counted steps over which a rate is smoothed.
const STEPS: f64 = 8.0;

/// A rate in steps per second: a time-weighted exponential moving average.
///
/// Each change of the count by `n` after `d` seconds is a sample `n / d`, and
///
/// ```text
/// a   = exp(-d / tau)
/// num = a * num + (1 - a) * n / d        rate = num / den
/// den = a * den + (1 - a)
/// ```
///
/// This is the moving average EMA_next for irregularly spaced samples (A. Eckner, *Algorithms for Unevenly Spaced
/// Time Series: Moving Averages and Other Rolling Operators*, 2012), normalised by the sum of its weights so that it
/// starts unbiased (D. Kingma, J. Ba, *Adam*, 2014, section 3). `tau` is 5 seconds, or the time that 8 steps took on
/// average since the start if that is longer, so that slow tasks don't make it jump.
///
/// With no change for `g` seconds, the next sample can be `1 / g` at most. Once that is below the rate, the returned
/// rate falls towards it with the same weights. So a stall shows within `tau`, and its effect ends within `tau` too.
///
/// ```
/// use progress::Rate;
/// use std::time::Duration;
/// let mut rate = Rate::new(Duration::ZERO, 0);
/// rate.observe(Duration::from_secs(2), 100);
/// assert_eq!(rate.per_second(Duration::from_secs(2)), Some(50.0));
/// ```
#[derive(Debug, Clone)]
pub struct Rate {
    start: Duration,
    changed: Duration,
    count: u64,
    steps: u64,
    step_measure: StepMeasure,
    num: f64,
    den: f64,
}

/// How the steps are counted over which the rate is smoothed.
#[derive(Debug, Clone, Copy)]
enum StepMeasure {
    /// The count is a number of steps.
    Counts,
    /// The count is a number of small parts of steps, and each change of it is one step.
    Changes,
}

impl Rate {
    /// Returns a rate without a sample, for a count that is `count` at `now`. Times are durations since any fixed
    /// moment.
    pub fn new(now: Duration, count: u64) -> Self {
        Self {
            start: now,
            changed: now,
            count,
            steps: 0,
            step_measure: StepMeasure::Counts,
            num: 0.0,
            den: 0.0,
        }
    }

    /// Returns a rate for a count of small parts of steps.
    pub(crate) fn for_parts(now: Duration, count: u64) -> Self {
        Self {
            step_measure: StepMeasure::Changes,
            ..Self::new(now, count)
        }
    }

    /// Adds the count at `now` as a sample. A count that is lower than before is a correction and not a sample.
    pub fn observe(&mut self, now: Duration, count: u64) {
        if count <= self.count {
            self.count = count;
            return;
        }
        let passed = now.saturating_sub(self.changed).as_secs_f64();
        if passed == 0.0 {
            return; // part of the next sample
        }
        let n = count - self.count;
        self.steps = self.steps.saturating_add(match self.step_measure {
            StepMeasure::Counts => n,
            StepMeasure::Changes => 1,
        });
        let keep = (-passed / self.tau(now)).exp();
        self.num = keep * self.num + (1.0 - keep) * n as f64 / passed;
        self.den = keep * self.den + (1.0 - keep);
        self.count = count;
        self.changed = now;
    }

    /// Returns the rate at `now` in counts per second, or `None` before the first change of the count.
    #[must_use]
    pub fn per_second(&self, now: Duration) -> Option<f64> {
        if self.den == 0.0 {
            return None;
        }
        let rate = self.num / self.den;
        let gap = now.saturating_sub(self.changed).as_secs_f64();
        if gap * rate <= 1.0 {
            return Some(rate);
        }
        let keep = (-gap / self.tau(self.changed)).exp();
        Some(keep * rate + (1.0 - keep) / gap)
    }

    fn tau(&self, now: Duration) -> f64 {
        let per_step = now.saturating_sub(self.start).as_secs_f64() / self.steps as f64;
        (STEPS * per_step).max(WINDOW.as_secs_f64())
    }
}

/// Returns how long `remaining` steps take at the rate `per_second`, or `None` if they never end or the time is too
/// long for a [`Duration`].
///
/// ```
/// use std::time::Duration;
/// assert_eq!(progress::eta(60, 2.0), Some(Duration::from_secs(30)));
/// assert_eq!(progress::eta(60, 0.0), None);
/// ```
#[must_use]
pub fn eta(remaining: u64, per_second: f64) -> Option<Duration> {
    if remaining == 0 {
        return Some(Duration::ZERO);
    }
    Duration::try_from_secs_f64(remaining as f64 / per_second).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(s: f64) -> Duration {
        Duration::from_secs_f64(s)
    }

    /// Counts `per_tick` steps in each tenth of a second from second `from` to second `to`.
    fn run(rate: &mut Rate, count: &mut u64, from: u32, to: u32, per_tick: u64) {
        for tick in from * 10 + 1..=to * 10 {
            *count += per_tick;
            rate.observe(secs(f64::from(tick) / 10.0), *count);
        }
    }

    #[track_caller]
    fn assert_near(value: Option<f64>, wanted: f64, share: f64) {
        let value = value.expect("a rate");
        assert!(
            (value - wanted).abs() <= share * wanted,
            "{value} is not {wanted} within {share}"
        );
    }

    #[test]
    fn rate_is_none_before_the_first_count() {
        let mut rate = Rate::new(secs(3.0), 7);
        rate.observe(secs(9.0), 7);
        assert_eq!(rate.per_second(secs(9.0)), None);
    }

    #[test]
    fn steady_rate_is_exact_from_the_first_sample() {
        let (mut rate, mut count) = (Rate::new(secs(0.0), 0), 0);
        for second in 0..20 {
            run(&mut rate, &mut count, second, second + 1, 230);
            assert_near(rate.per_second(secs(f64::from(second + 1))), 2300.0, 1e-9);
        }
    }

    #[test]
    fn rate_follows_a_change_within_a_few_windows() {
        let (mut rate, mut count) = (Rate::new(secs(0.0), 0), 0);
        run(&mut rate, &mut count, 0, 30, 100);
        run(&mut rate, &mut count, 30, 35, 10);
        // After one tau, 1/e of the difference is left.
        assert_near(
            rate.per_second(secs(35.0)),
            100.0 + 900.0 * (-1.0_f64).exp(),
            0.01,
        );
        run(&mut rate, &mut count, 35, 60, 10);
        assert_near(rate.per_second(secs(60.0)), 100.0, 0.06);
    }

    #[test]
    fn stall_lowers_the_rate_and_its_effect_ends() {
        let (mut rate, mut count) = (Rate::new(secs(0.0), 0), 0);
        run(&mut rate, &mut count, 0, 10, 100);
        let stalled = rate.per_second(secs(70.0)).expect("a rate");
        assert!(stalled < 1.0, "{stalled}/s after a minute without a count");
        run(&mut rate, &mut count, 70, 85, 100);
        assert_near(rate.per_second(secs(85.0)), 1000.0, 0.06);
    }

    #[test]
    fn rate_of_slow_tasks_is_smooth() {
        // Two workers, half a minute a task, which end at nearly the same time.
        let mut rate = Rate::new(secs(0.0), 0);
        let mut count = 0;
        for round in 1..=20 {
            for end in [30.0, 30.5] {
                count += 1;
                rate.observe(secs(f64::from(round - 1) * 30.0 + end), count);
            }
            if round > 3 {
                for later in [0.5, 10.0, 29.0] {
                    let now = secs(f64::from(round) * 30.0 + later);
                    assert_near(rate.per_second(now), 1.0 / 15.0, 0.35);
                }
            }
        }
    }

    #[test]
    fn rate_of_parts_of_slow_tasks_is_smooth() {
        // Two workers, half a minute a task, each of which reports at half of a task.
        let mut rate = Rate::for_parts(secs(0.0), 0);
        for half in 1..=40_u32 {
            for (worker, end) in [15.0, 15.5].into_iter().enumerate() {
                let halves = u64::from(half - 1) * 2 + worker as u64 + 1;
                rate.observe(secs(f64::from(half - 1) * 15.0 + end), halves * 500);
            }
            if half > 6 {
                let now = secs(f64::from(half) * 15.0 + 10.0);
                assert_near(rate.per_second(now), 1000.0 / 15.0, 0.35);
            }
        }
    }

    #[test]
    fn lower_count_is_a_correction_and_not_a_sample() {
        let (mut rate, mut count) = (Rate::new(secs(0.0), 0), 0);
        run(&mut rate, &mut count, 0, 5, 10);
        rate.observe(secs(5.05), 100);
        rate.observe(secs(5.1), 110);
        assert_near(rate.per_second(secs(5.1)), 100.0, 0.01);
    }

    #[test]
    fn two_counts_at_one_moment_are_one_sample() {
        let mut rate = Rate::new(secs(0.0), 0);
        rate.observe(secs(0.0), 50);
        assert_eq!(rate.per_second(secs(0.0)), None);
        rate.observe(secs(1.0), 100);
        assert_near(rate.per_second(secs(1.0)), 100.0, 1e-9);
    }

    #[test]
    fn eta_is_the_remaining_count_over_the_rate() {
        assert_eq!(eta(5510, 2300.0), Some(secs(5510.0 / 2300.0)));
        assert_eq!(eta(0, 0.0), Some(Duration::ZERO));
        assert_eq!(eta(1, 0.0), None);
        assert_eq!(eta(u64::MAX, f64::MIN_POSITIVE), None);
    }
}
