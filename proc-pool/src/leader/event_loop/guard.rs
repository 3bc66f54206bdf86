//! [`SchedulerGuard`]: the locked scheduler.

use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, MutexGuard};
use std::task::Waker;
use std::time::Duration;

use crate::leader::scheduler::Scheduler;
use crate::panics::guarded;
use crate::wire::apart::Locked;

/// The locked scheduler. After it is unlocked, the wakers of tasks with new outcomes are called, and buffers of tasks are dropped.
pub(crate) struct SchedulerGuard<'a> {
    scheduler: Option<MutexGuard<'a, Scheduler>>,
    _locked: Locked,
}

impl<'a> SchedulerGuard<'a> {
    #[inline]
    pub(super) fn new(scheduler: MutexGuard<'a, Scheduler>) -> Self {
        Self {
            scheduler: Some(scheduler),
            _locked: Locked::new(),
        }
    }

    /// Unlocks the scheduler and sleeps until `changed` is notified, or for `timeout`.
    pub(super) fn sleep(mut self, changed: &Condvar, timeout: Duration) {
        let woken = self.jobs.take_woken();
        if let Some(scheduler) = self.scheduler.take() {
            drop(changed.wait_timeout(scheduler, timeout));
        }
        wake_all(woken);
    }
}

/// Calls wakers, which run user code, with nothing locked.
fn wake_all(woken: Vec<Waker>) {
    for waker in woken {
        // If it panics, that concerns neither this thread nor the other wakers.
        let _ = guarded(|| waker.wake());
    }
}

impl Deref for SchedulerGuard<'_> {
    type Target = Scheduler;

    fn deref(&self) -> &Scheduler {
        self.scheduler.as_deref().expect(LOCKED)
    }
}

impl DerefMut for SchedulerGuard<'_> {
    fn deref_mut(&mut self) -> &mut Scheduler {
        self.scheduler.as_deref_mut().expect(LOCKED)
    }
}

const LOCKED: &str = "locked until it is dropped";

impl Drop for SchedulerGuard<'_> {
    fn drop(&mut self) {
        if let Some(mut scheduler) = self.scheduler.take() {
            let woken = scheduler.jobs.take_woken();
            drop(scheduler);
            wake_all(woken);
        }
    }
}
