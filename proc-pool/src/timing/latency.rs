//! [`Latency`]: how long tasks took, as a histogram with buckets of an eighth of an octave.

use std::fmt;
use std::time::Duration;

/// Buckets an octave.
const PER_OCTAVE: u32 = 8;
/// The shortest time that is told from 0 is 2^6 ns.
const SHORTEST: u32 = 6;
/// Times of 2^46 ns (19 hours) and more are one.
const LONGEST: u32 = 45;
pub(super) const BUCKETS: usize = 1 + ((LONGEST - SHORTEST + 1) * PER_OCTAVE) as usize;

/// The bucket of a time in nanoseconds.
pub(super) fn bucket(ns: u64) -> usize {
    if ns < 1 << SHORTEST {
        return 0;
    }
    let octave = ns.ilog2().min(LONGEST);
    let eighth = ((ns >> (octave - 3)) as u32).min(2 * PER_OCTAVE - 1) - PER_OCTAVE;
    (1 + (octave - SHORTEST) * PER_OCTAVE + eighth) as usize
}

/// The middle of a bucket, in nanoseconds.
fn middle(bucket: usize) -> u64 {
    let Some(index) = bucket.checked_sub(1) else {
        return 1 << (SHORTEST - 1);
    };
    let (octave, eighth) = (index as u32 / PER_OCTAVE, index as u32 % PER_OCTAVE);
    let width = 1 << (SHORTEST + octave - 3);
    u64::from(PER_OCTAVE + eighth) * width + width / 2
}

/// How long single tasks took in their worker, from being taken to being answered.
///
/// A worker reads the clock about every 20 µs. So each task that takes longer is known by itself; of shorter ones, those
/// that were run between two readings count with their mean. Quantiles are those of a histogram with eight buckets an octave,
/// that is within 6 %.
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
    /// Of what a worker has counted: any numbers.
    pub(super) fn add(&mut self, counts: impl Iterator<Item = u64>, max_ns: u64) {
        for (sum, count) in self.counts.iter_mut().zip(counts) {
            *sum = sum.saturating_add(count);
        }
        self.max_ns = self.max_ns.max(max_ns);
    }

    /// Takes in another's tasks.
    pub fn merge(&mut self, other: &Self) {
        self.add(other.counts.iter().copied(), other.max_ns);
    }

    /// Tasks counted.
    pub fn count(&self) -> u64 {
        self.counts
            .iter()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The time that the part `q` of all tasks did not exceed (0.5 for the median); `None` without tasks.
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

    /// No task took longer than this; `None` without tasks.
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
    fn every_time_has_a_bucket_whose_middle_is_near() {
        let mut before = 0;
        for ns in (0..63).flat_map(|e| [1_u64 << e, (1 << e) + (1 << e) / 3, (2 << e) - 1]) {
            let at = bucket(ns);
            assert!(at >= before && at < BUCKETS, "{ns} ns");
            before = at;
            if (64..1 << 46).contains(&ns) {
                let off = middle(at).abs_diff(ns) as f64 / ns as f64;
                assert!(off <= 1.0 / 16.0 + 1e-9, "{ns} ns is taken for {}", middle(at));
            }
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_of_tasks() {
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
    fn a_liar_makes_no_overflow() {
        let mut latency = Latency::default();
        latency.add(std::iter::repeat_n(u64::MAX, BUCKETS), u64::MAX);
        latency.merge(&latency.clone());
        assert_eq!(latency.count(), u64::MAX);
        assert!(latency.quantile(0.5).is_some());
    }
}
