//! [`Spinner`]: an adaptive spin before a thread parks. The event loop and the workers' main loop use it.

use std::ops::ControlFlow;
use std::thread;
use std::time::{Duration, Instant};

/// The spin budget: the longest time that a thread spins before it parks.
const BUDGET: Duration = Duration::from_micros(50);
/// A yield that takes longer than this gave the core to unrelated work.
const LOST: Duration = Duration::from_micros(200);
/// Number of waits that park immediately after the core was lost. It doubles with each loss up to `MAX_SKIPS`, and halves
/// with each spin that did not lose the core.
const MIN_SKIPS: u32 = 16;
const MAX_SKIPS: u32 = 1024;

/// Polls, yields, then parks; how often it spins at all adapts to the load of its core.
///
/// It yields between polls, because the thread that it waits for may have been scheduled on this very core. On a core with
/// other work, a thread that yields loses its time slice, for milliseconds, whereas a thread that sleeps is preferred when it
/// is woken. So after such a loss, the next waits park immediately.
#[derive(Debug, Default)]
pub(crate) struct Spinner {
    /// Number of next waits that park immediately.
    skip: u32,
    /// The last value of `skip` after a loss, halved since with each spin.
    penalty: u32,
}

impl Spinner {
    /// Polls until `poll` breaks, for [`BUDGET`] at most. Returns `None` when the thread should park.
    pub(crate) fn spin<B>(&mut self, poll: impl FnMut() -> ControlFlow<B>) -> Option<B> {
        self.spin_yielding(poll, thread::yield_now)
    }

    fn spin_yielding<B>(
        &mut self,
        mut poll: impl FnMut() -> ControlFlow<B>,
        mut yield_now: impl FnMut(),
    ) -> Option<B> {
        if let Some(skip) = self.skip.checked_sub(1) {
            self.skip = skip;
            return None;
        }
        let start = Instant::now();
        loop {
            if let ControlFlow::Break(found) = poll() {
                self.penalty /= 2;
                return Some(found);
            }
            let yielded = Instant::now();
            yield_now();
            let back = Instant::now();
            if back - yielded > LOST {
                self.penalty = (self.penalty * 2).clamp(MIN_SKIPS, MAX_SKIPS);
                self.skip = self.penalty;
                return None;
            }
            if back - start >= BUDGET {
                self.penalty /= 2;
                return None;
            }
        }
    }
}

/// Spins for a fraction of a microsecond.
pub(crate) fn pause() {
    for _ in 0..32 {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts the waits that park immediately until one polls again.
    fn count_skipped(spinner: &mut Spinner) -> u32 {
        (0..)
            .take_while(|_| spinner.spin(|| ControlFlow::Break(())).is_none())
            .map(|_| 1)
            .sum()
    }

    #[test]
    fn spin_returns_what_a_poll_finds() {
        let (mut spinner, mut polls) = (Spinner::default(), 0);
        let found = spinner.spin_yielding(
            || {
                polls += 1;
                if polls == 3 {
                    ControlFlow::Break(polls)
                } else {
                    ControlFlow::Continue(())
                }
            },
            || {},
        );
        assert!(matches!(found, Some(3) | None), "{found:?}");
    }

    #[test]
    fn waits_after_a_lost_core_park_immediately_and_more_of_them_each_time() {
        let mut spinner = Spinner::default();
        let lose = |spinner: &mut Spinner| {
            let found: Option<()> =
                spinner.spin_yielding(|| ControlFlow::Continue(()), || thread::sleep(2 * LOST));
            assert_eq!(found, None);
        };
        lose(&mut spinner);
        assert_eq!(count_skipped(&mut spinner), MIN_SKIPS);
        // The last spin did not lose the core, so the next loss counts as the first.
        lose(&mut spinner);
        assert_eq!(spinner.skip, MIN_SKIPS);
        for _ in 0..10 {
            spinner.skip = 0;
            lose(&mut spinner);
        }
        assert_eq!(count_skipped(&mut spinner), MAX_SKIPS);
    }
}
