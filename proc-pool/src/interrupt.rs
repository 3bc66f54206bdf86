//! [`Interrupt`]: a pool's early end, asked for by the program or by a signal.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::driver::Driver;
use crate::error::PoolError;
use crate::os::Signal;
use crate::signals::{Answer, Subscription};
use crate::snapshot::Snapshot;

/// How a pool is interrupted: each harder than the one before. What was asked for once can't be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Interrupt {
    /// Maps take no more tasks from their inputs, and end once they have given what became of those they took.
    Finish,
    /// As `Finish`; and tasks that no worker has begun get [`PoolError::Interrupted`] as their error.
    Cancel,
    /// As `Cancel`; and the workers are killed. Tasks in progress get [`PoolError::Interrupted`], too.
    Kill,
}

/// What a pool does about the terminal's Ctrl-C, and about being asked to terminate.
///
/// Unless it is `Ignore`: the first Ctrl-C interrupts the pool as said here, the second one as [`Interrupt::Kill`], and
/// the third does what it would have done without the pool (ends the program, as a rule). A request to terminate
/// (SIGTERM; on Windows the closing of the console) comes from who will not ask twice: it is [`Interrupt::Cancel`] at
/// once and [`Interrupt::Kill`] five seconds later; and counts as a Ctrl-C for what comes after it. The program
/// goes on after its maps have ended; [`BytePool::interrupted`](crate::BytePool::interrupted) tells it why they did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnInterrupt {
    /// Nothing: it is the program's affair. By default it ends the program, and with it the workers.
    #[default]
    Ignore,
    /// [`Interrupt::Finish`].
    Finish,
    /// [`Interrupt::Cancel`].
    Cancel,
}

/// How long a pool that was asked to terminate has, before its workers are killed. Who asked will kill the whole
/// program, after ten seconds (containers) at the earliest.
const GRACE: Duration = Duration::from_secs(5);

/// What a pool does when it is interrupted.
pub(crate) trait Interruptible: Send + Sync {
    /// Nothing if it was interrupted as hard before.
    fn interrupt(&self, how: Interrupt);

    /// How hard it was.
    fn interrupted(&self) -> Option<Interrupt>;
}

impl Interruptible for Driver {
    fn interrupt(&self, how: Interrupt) {
        // A forked copy has nothing to interrupt.
        if self.check().is_ok() {
            self.core().interrupt(how);
            self.nudge();
        }
    }

    fn interrupted(&self) -> Option<Interrupt> {
        self.check().ok().and_then(|()| self.core().interrupted())
    }
}

/// Interrupts a pool, from any thread, for as long as it exists. Cheap to clone.
#[derive(Clone)]
pub struct Interrupter(Weak<dyn Interruptible>);

impl std::fmt::Debug for Interrupter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Interrupter").field(&self.interrupted()).finish()
    }
}

impl Interrupter {
    pub(crate) fn new(pool: &Arc<impl Interruptible + 'static>) -> Self {
        let pool: Arc<dyn Interruptible> = pool.clone();
        Self(Arc::downgrade(&pool))
    }

    /// Interrupts the pool. Does nothing when it is gone, or has been interrupted as hard before.
    pub fn interrupt(&self, how: Interrupt) {
        if let Some(pool) = self.0.upgrade() {
            pool.interrupt(how);
        }
    }

    fn interrupted(&self) -> Option<Interrupt> {
        self.0.upgrade().and_then(|pool| pool.interrupted())
    }
}

/// What is done with a pool's snapshot.
pub(crate) type Dump = Arc<dyn Fn(&Snapshot) + Send + Sync>;

/// What a pool does about signals.
#[derive(Clone, Default)]
pub(crate) struct Reactions {
    pub(crate) interrupt: OnInterrupt,
    pub(crate) dump: Option<Dump>,
}

impl Reactions {
    /// Reacts to signals until the subscription is dropped; `None` if there is nothing to react to.
    pub(crate) fn subscribe(self, driver: &Arc<Driver>) -> Result<Option<Subscription>, PoolError> {
        let dump = self.dump.map(|dump| {
            let driver = Arc::downgrade(driver);
            move || {
                if let Some(driver) = driver.upgrade() {
                    dump(&Snapshot::of(&driver));
                }
            }
        });
        self.interrupt.subscribe(Interrupter::new(driver), dump)
    }
}

impl OnInterrupt {
    /// Interrupts `pool` by signals until the subscription is dropped, and calls `dump` when a signal asks for that;
    /// `None` if there is nothing to react to.
    pub(crate) fn subscribe(
        self,
        pool: Interrupter,
        dump: Option<impl Fn() + Send + Sync + 'static>,
    ) -> Result<Option<Subscription>, PoolError> {
        let first = match self {
            Self::Ignore => None,
            Self::Finish => Some(Interrupt::Finish),
            Self::Cancel => Some(Interrupt::Cancel),
        };
        let mut wanted = Vec::new();
        wanted.extend(first.iter().flat_map(|_| [Signal::Interrupt, Signal::Terminate]));
        wanted.extend(dump.iter().map(|_| Signal::Dump));
        if wanted.is_empty() {
            return Ok(None);
        }
        let react = move |signal| match signal {
            Signal::Dump => {
                if let Some(dump) = &dump {
                    dump();
                }
                Answer::Done
            }
            Signal::Interrupt | Signal::Terminate => match stage(signal, first, pool.interrupted()) {
                Some(how) => {
                    pool.interrupt(how);
                    if (signal, how) == (Signal::Terminate, Interrupt::Cancel) {
                        kill_later(pool.clone());
                    }
                    Answer::Done
                }
                None => Answer::Exhausted,
            },
        };
        let subscribed = Subscription::new(wanted, Arc::new(react));
        subscribed.map(Some).map_err(PoolError::io("listen to signals"))
    }
}

/// What a signal means to a pool that was interrupted before, or was not; `None` when nothing is left to do.
fn stage(signal: Signal, first: Option<Interrupt>, before: Option<Interrupt>) -> Option<Interrupt> {
    match (before, signal) {
        (None, Signal::Terminate) => Some(Interrupt::Cancel),
        (None, _) => first,
        (Some(Interrupt::Finish | Interrupt::Cancel), _) => Some(Interrupt::Kill),
        (Some(Interrupt::Kill), _) => None,
    }
}

fn kill_later(pool: Interrupter) {
    let wait = move || {
        std::thread::sleep(GRACE);
        pool.interrupt(Interrupt::Kill);
    };
    // Without the thread, who asked has to kill the program himself.
    let _ = std::thread::Builder::new()
        .name("proc-pool grace".into())
        .spawn(wait);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_signal_is_harder_than_the_one_before() {
        use Interrupt::{Cancel, Finish, Kill};
        for signal in [Signal::Interrupt, Signal::Terminate] {
            for first in [Finish, Cancel] {
                let mut before = None;
                let mut stages = Vec::new();
                while let Some(how) = stage(signal, Some(first), before) {
                    stages.push(how);
                    before = Some(how);
                }
                let expected = match signal {
                    Signal::Terminate => [Cancel, Kill],
                    _ => [first, Kill],
                };
                assert_eq!(stages, expected, "{signal:?} {first:?}");
            }
        }
    }
}
