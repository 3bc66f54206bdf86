//! Counts to which any thread adds.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::counts::{Counts, Outcome};
use super::slots::BYTES;

/// The largest number of shards.
const MAX_SHARDS: usize = 64;

/// Counts to which any thread adds. Each thread adds to one of a few shards, so that threads on different cores rarely
/// write the same cache line. The shards are allocated by the first addition.
#[derive(Debug, Default)]
pub(super) struct Shards(OnceLock<Box<[Shard]>>);

/// The numbers of some threads, on two cache lines of their own: adjacent lines are fetched in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard([AtomicU64; BYTES + 1]);

impl Shards {
    #[inline]
    pub(super) fn add(&self, outcome: Outcome, n: u64) {
        self.add_at(outcome.slot(), n);
    }

    #[inline]
    pub(super) fn add_bytes(&self, n: u64) {
        self.add_at(BYTES, n);
    }

    /// Returns the sum of all that was added.
    pub(super) fn sum(&self) -> Counts {
        let shards = self.0.get().into_iter().flatten();
        let counts = shards.map(|shard| Counts::from_numbers(|index| shard.0[index].load(Ordering::Relaxed)));
        counts.fold(Counts::default(), Counts::saturating_add)
    }

    #[inline]
    fn add_at(&self, index: usize, n: u64) {
        let shards = self.0.get_or_init(allocate);
        // The number of shards is a power of two.
        let shard = &shards[thread_number() & (shards.len() - 1)];
        shard.0[index].fetch_add(n, Ordering::Relaxed);
    }
}

/// Allocates one shard for each core that this process may use.
#[cold]
fn allocate() -> Box<[Shard]> {
    static COUNT: OnceLock<usize> = OnceLock::new();
    let count = *COUNT.get_or_init(|| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        cores.min(MAX_SHARDS).next_power_of_two()
    });
    (0..count).map(|_| Shard::default()).collect()
}

/// Returns a number of this thread. Threads that start one after the other have successive numbers.
#[inline]
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn additions_of_more_threads_than_shards_sum_exactly() {
        let shards = Shards::default();
        assert_eq!(shards.sum(), Counts::default());
        std::thread::scope(|scope| {
            for _ in 0..2 * MAX_SHARDS {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        shards.add(Outcome::Done, 1);
                        shards.add(Outcome::Failed, 2);
                        shards.add(Outcome::Retried, 3);
                        shards.add_bytes(4);
                    }
                });
            }
        });
        let expected = Counts {
            done: 128_000,
            failed: 256_000,
            retried: 384_000,
            bytes: 512_000,
        };
        assert_eq!(shards.sum(), expected);
    }
}
