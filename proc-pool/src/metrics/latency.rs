//! [`Latency`]: a histogram of task times, with eight buckets per octave.

use std::fmt;
use std::time::Duration;

/// Number of buckets per octave.
const PER_OCTAVE: u32 = 8;
/// The shortest time that is distinguished from 0 is 2^6 ns.
const SHORTEST: u32 = 6;
/// The last octave starts at 2^45 ns; its last bucket also counts all longer times (2^46 ns are 19 hours).
const LONGEST: u32 = 45;
pub(super) const BUCKETS: usize = 1 + ((LONGEST - SHORTEST + 1) * PER_OCTAVE) as usize;

/// Returns the bucket of a time in nanoseconds.
pub(super) fn bucket(ns: u64) -> usize {
    if ns < 1 << SHORTEST {
        return 0;
    }
    let octave = ns.ilog2().min(LONGEST);
    let eighth = ((ns >> (octave - 3)) as u32).min(2 * PER_OCTAVE - 1) - PER_OCTAVE;
    (1 + (octave - SHORTEST) * PER_OCTAVE + eighth) as usize
}

/// Returns the middle of a bucket, in nanoseconds.
fn middle(bucket: usize) -> u64 {
    let Some(index) = bucket.checked_sub(1) else {
        return 1 << (SHORTEST - 1);
    };
    let (octave, eighth) = (index as u32 / PER_OCTAVE, index as u32 % PER_OCTAVE);
    let width = 1 << (SHORTEST + octave - 3);
    u64::from(PER_OCTAVE + eighth) * width + width / 2
}

/// How long single tasks took in their worker, from being taken from the ring to being answered.
///
/// A worker reads the clock about every 20 µs. So every task that takes longer is measured alone; shorter tasks between two
/// readings count with their mean. The times are kept in a histogram with eight buckets per octave: quantiles are within 6 %.
#[derive(Clone, PartialEq, Eq)]
pub struct Latency {
    counts: Vec<u64>,
    max_ns: u64,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            max_ns: 0,
        }
    }
}

impl Latency {
    /// Adds the counts that a worker wrote. They may be any numbers.
    pub(super) fn add(&mut self, counts: impl Iterator<Item = u64>, max_ns: u64) {
        for (sum, count) in self.counts.iter_mut().zip(counts) {
            *sum = sum.saturating_add(count);
        }
        self.max_ns = self.max_ns.max(max_ns);
    }

    /// Adds the tasks of another histogram.
    pub fn merge(&mut self, other: &Self) {
        self.add(other.counts.iter().copied(), other.max_ns);
    }

    /// Returns the number of tasks counted.
    pub fn count(&self) -> u64 {
        self.counts
            .iter()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Returns the time that the fraction `q` of all tasks did not exceed (0.5 for the median), or `None` without tasks.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let count = self.count();
        let rank = ((q.clamp(0.0, 1.0) * count as f64).ceil() as u64).max(1);
        let mut seen = 0_u64;
        let found = self.counts.iter().position(|in_bucket| {
            seen = seen.saturating_add(*in_bucket);
            seen >= rank
        })?;
        Some(Duration::from_nanos(middle(found).min(self.max_ns)))
    }

    /// Returns the longest time of a task, or `None` without tasks.
    pub fn max(&self) -> Option<Duration> {
        (self.count() > 0).then(|| Duration::from_nanos(self.max_ns))
    }
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latency")
            .field("count", &self.count())
            .field("median", &self.quantile(0.5))
            .field("max", &self.max())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_near_the_middle_of_its_bucket() {
        let mut previous = 0;
        for ns in (0..63).flat_map(|e| [1_u64 << e, (1 << e) + (1 << e) / 3, (2 << e) - 1]) {
            let at = bucket(ns);
            assert!(at >= previous && at < BUCKETS, "{ns} ns");
            previous = at;
            if (64..1 << 46).contains(&ns) {
                let off = middle(at).abs_diff(ns) as f64 / ns as f64;
                assert!(off <= 1.0 / 16.0 + 1e-9, "{ns} ns counts as {}", middle(at));
            }
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_weighted_by_tasks() {
        let mut latency = Latency::default();
        assert_eq!((latency.quantile(0.5), latency.max()), (None, None));
        let mut counts = [0; BUCKETS];
        counts[bucket(1_000)] = 90;
        counts[bucket(1_000_000)] = 10;
        latency.add(counts.into_iter(), 1_010_000);
        let near = |q: f64, ns: f64| {
            let found = latency.quantile(q).unwrap().as_nanos() as f64;
            assert!((found / ns - 1.0).abs() < 0.07, "{q}: {found}");
        };
        near(0.0, 1e3);
        near(0.5, 1e3);
        near(0.9, 1e3);
        near(0.91, 1e6);
        near(1.0, 1e6);
        let twice = latency.clone();
        latency.merge(&twice);
        assert_eq!(latency.count(), 200);
        assert_eq!(latency.max(), Some(Duration::from_nanos(1_010_000)));
    }

    #[test]
    fn forged_counts_do_not_overflow() {
        let mut latency = Latency::default();
        latency.add(std::iter::repeat_n(u64::MAX, BUCKETS), u64::MAX);
        latency.merge(&latency.clone());
        assert_eq!(latency.count(), u64::MAX);
        assert!(latency.quantile(0.5).is_some());
    }
}
