//! [`OnInterrupt`] and [`Interrupter`]: end the maps of a pool early, when the program or a signal requests it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::error::PoolError;
use crate::leader::event_loop::EventLoop;
use crate::leader::interrupt::Interrupt;
use crate::leader::snapshot::Snapshot;
use crate::os::Signal;
use crate::pool::signals::{Reaction, Subscription};

/// How a pool reacts to Ctrl-C, and to a request to terminate (SIGTERM; on Windows, when the console is closed).
///
/// With [`Default`](Self::Default), the pool does not react. With the others:
///
/// - The first Ctrl-C interrupts the pool in the given way, the second one with [`Interrupt::Kill`]. The third has the effect
///   that it would have without the pool; usually it ends the program.
/// - A request to terminate usually comes only once. It interrupts the pool with [`Interrupt::Cancel`] immediately, and with
///   [`Interrupt::Kill`] five seconds later. For later signals, it counts as a Ctrl-C.
///
/// The program continues after its maps have ended; [`BytePool::interrupted`](crate::BytePool::interrupted) returns why they
/// did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnInterrupt {
    /// The program's own behaviour: the pool installs no handler. Unless the program has handlers itself, the signal ends the
    /// program, and the workers end with it.
    #[default]
    Default,
    /// Interrupts the pool with [`Interrupt::Finish`].
    Finish,
    /// Interrupts the pool with [`Interrupt::Cancel`].
    Cancel,
}

/// The time between a request to terminate and the kill of the workers. Service managers and container runtimes kill the whole
/// program some time after such a request; the shortest usual time is ten seconds.
const GRACE: Duration = Duration::from_secs(5);

/// A pool that can be interrupted.
pub trait Interruptible: Send + Sync {
    /// Interrupts the pool. Does nothing if it was interrupted at least as hard before.
    fn interrupt(&self, how: Interrupt);

    /// Returns how the pool was interrupted, if it was.
    fn interrupted(&self) -> Option<Interrupt>;
}

impl Interruptible for EventLoop {
    fn interrupt(&self, how: Interrupt) {
        // A forked copy has nothing to interrupt.
        if self.check().is_ok() {
            self.scheduler().interrupt(how);
            self.nudge();
        }
    }

    fn interrupted(&self) -> Option<Interrupt> {
        self.check().ok().and_then(|()| self.scheduler().interrupted())
    }
}

/// Interrupts a pool from any thread. It does not keep the pool alive, and is cheap to clone.
#[derive(Clone)]
#[must_use = "an interrupter does nothing by itself"]
pub struct Interrupter(Weak<dyn Interruptible>);

impl std::fmt::Debug for Interrupter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Interrupter").field(&self.interrupted()).finish()
    }
}

impl Interrupter {
    /// Makes the interrupter of a pool.
    #[doc(hidden)]
    pub fn new(pool: &Arc<impl Interruptible + 'static>) -> Self {
        let pool: Arc<dyn Interruptible> = pool.clone();
        Self(Arc::downgrade(&pool))
    }

    /// Interrupts the pool. Does nothing if the pool was dropped, or was interrupted at least as hard before.
    pub fn interrupt(&self, how: Interrupt) {
        if let Some(pool) = self.0.upgrade() {
            pool.interrupt(how);
        }
    }

    /// Returns how the pool was interrupted, if it was and still exists.
    pub fn interrupted(&self) -> Option<Interrupt> {
        self.0.upgrade().and_then(|pool| pool.interrupted())
    }
}

/// The user's callback for snapshots of a pool.
pub(crate) type Dump = Arc<dyn Fn(&Snapshot) + Send + Sync>;

/// How a pool reacts to signals.
#[derive(Clone, Default)]
pub(crate) struct Reactions {
    pub(crate) interrupt: OnInterrupt,
    pub(crate) dump: Option<Dump>,
}

impl Reactions {
    /// Subscribes to the signals to which the pool reacts. Returns `None` if it reacts to no signal.
    pub(crate) fn subscribe(self, event_loop: &Arc<EventLoop>) -> Result<Option<Subscription>, PoolError> {
        let dump = self.dump.map(|dump| {
            let event_loop = Arc::downgrade(event_loop);
            move || {
                if let Some(event_loop) = event_loop.upgrade() {
                    dump(&event_loop.snapshot());
                }
            }
        });
        self.interrupt.subscribe(Interrupter::new(event_loop), dump)
    }
}

impl OnInterrupt {
    /// Interrupts `pool` by signals until the subscription is dropped, and calls `dump` when a signal asks for that;
    /// `None` if there is nothing to react to.
    ///
    /// # Errors
    /// [`PoolError::Io`] if handlers cannot be installed.
    #[doc(hidden)]
    pub fn subscribe(
        self,
        pool: Interrupter,
        dump: Option<impl Fn() + Send + Sync + 'static>,
    ) -> Result<Option<Subscription>, PoolError> {
        let first = match self {
            Self::Default => None,
            Self::Finish => Some(Interrupt::Finish),
            Self::Cancel => Some(Interrupt::Cancel),
        };
        let mut signals = Vec::new();
        signals.extend(first.iter().flat_map(|_| [Signal::Interrupt, Signal::Terminate]));
        signals.extend(dump.iter().map(|_| Signal::Dump));
        if signals.is_empty() {
            return Ok(None);
        }
        let react = move |signal| match signal {
            Signal::Dump => {
                if let Some(dump) = &dump {
                    dump();
                }
                Reaction::Done
            }
            Signal::Interrupt | Signal::Terminate => match escalate(signal, first, pool.interrupted()) {
                Some(how) => {
                    pool.interrupt(how);
                    if (signal, how) == (Signal::Terminate, Interrupt::Cancel) {
                        kill_later(pool.clone());
                    }
                    Reaction::Done
                }
                None => Reaction::Exhausted,
            },
        };
        let subscribed = Subscription::new(signals, Arc::new(react));
        subscribed.map(Some).map_err(PoolError::io("listen to signals"))
    }
}

/// Returns how a signal interrupts a pool that was interrupted as in `before`; `None` if nothing is left to do.
fn escalate(signal: Signal, first: Option<Interrupt>, before: Option<Interrupt>) -> Option<Interrupt> {
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
    // Without the thread, the kill is left to the process that has requested the termination.
    let _ = std::thread::Builder::new()
        .name("proc-pool grace".into())
        .spawn(wait);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_signal_interrupts_harder_than_the_one_before() {
        use Interrupt::{Cancel, Finish, Kill};
        for signal in [Signal::Interrupt, Signal::Terminate] {
            for first in [Finish, Cancel] {
                let mut before = None;
                let mut stages = Vec::new();
                while let Some(how) = escalate(signal, Some(first), before) {
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
