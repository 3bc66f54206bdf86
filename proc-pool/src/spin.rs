//! [`Spinner`]: looking on for a moment before one sleeps.

use std::ops::ControlFlow;
use std::thread;
use std::time::{Duration, Instant};

/// How long somebody looks before he sleeps.
const LOOK: Duration = Duration::from_micros(50);
/// A core that was given away for longer went to somebody who has nothing to do with us.
const LOST: Duration = Duration::from_micros(200);
/// Waits without a look after the core was lost; doubles each time, and halves when it was not.
const SHY: u32 = 16;
const SHIEST: u32 = 1024;

/// Looks again and again, and gives way in between: whoever is waited for may have been put on this very core.
///
/// On a core with other work, who gives way loses his turn, for milliseconds; who sleeps is preferred once he is woken.
/// So after such a loss, the next waits are slept through at once.
#[derive(Debug, Default)]
pub(crate) struct Spinner {
    /// Waits that are still to be slept through.
    skip: u32,
    /// How many it will be after the next loss, at least.
    shy: u32,
}

impl Spinner {
    /// Looks until `look` breaks, for [`LOOK`] at most; `None` when it is time to sleep.
    pub(crate) fn look_on<B>(&mut self, look: impl FnMut() -> ControlFlow<B>) -> Option<B> {
        self.look_on_giving(look, thread::yield_now)
    }

    fn look_on_giving<B>(
        &mut self,
        mut look: impl FnMut() -> ControlFlow<B>,
        mut give_way: impl FnMut(),
    ) -> Option<B> {
        if let Some(skip) = self.skip.checked_sub(1) {
            self.skip = skip;
            return None;
        }
        let begun = Instant::now();
        loop {
            if let ControlFlow::Break(found) = look() {
                self.shy /= 2;
                return Some(found);
            }
            let given = Instant::now();
            give_way();
            let back = Instant::now();
            if back - given > LOST {
                self.shy = (self.shy * 2).clamp(SHY, SHIEST);
                self.skip = self.shy;
                return None;
            }
            if back - begun >= LOOK {
                self.shy /= 2;
                return None;
            }
        }
    }
}

/// Lets a moment pass, of a fraction of a microsecond.
pub(crate) fn pause() {
    for _ in 0..32 {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits that were slept through before somebody looked again.
    fn slept_through(spinner: &mut Spinner) -> u32 {
        (0..)
            .take_while(|_| spinner.look_on(|| ControlFlow::Break(())).is_none())
            .map(|_| 1)
            .sum()
    }

    #[test]
    fn what_comes_while_one_looks_is_found() {
        let (mut spinner, mut looks) = (Spinner::default(), 0);
        let found = spinner.look_on_giving(
            || {
                looks += 1;
                if looks == 3 {
                    ControlFlow::Break(looks)
                } else {
                    ControlFlow::Continue(())
                }
            },
            || {},
        );
        assert!(matches!(found, Some(3) | None), "{found:?}");
    }

    #[test]
    fn who_lost_the_core_sleeps_through_the_next_waits_and_learns() {
        let mut spinner = Spinner::default();
        let lose = |spinner: &mut Spinner| {
            let found: Option<()> =
                spinner.look_on_giving(|| ControlFlow::Continue(()), || thread::sleep(2 * LOST));
            assert_eq!(found, None);
        };
        lose(&mut spinner);
        assert_eq!(slept_through(&mut spinner), SHY);
        // It was not lost then, so the next loss counts as the first.
        lose(&mut spinner);
        assert_eq!(spinner.skip, SHY);
        for _ in 0..10 {
            spinner.skip = 0;
            lose(&mut spinner);
        }
        assert_eq!(slept_through(&mut spinner), SHIEST);
    }
}
