//! How a worker tells the leader the time that its tasks take.

use shm_buffers::slots::Slots;

use crate::os::now_ns;
use crate::protocol::slot;

/// Tells the leader how long tasks take, without asking the time for each tiny one.
pub(crate) struct Clock {
    since: Option<u64>,
    tasks: u64,
    /// Tasks until the clock is read.
    every: u64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            since: None,
            tasks: 0,
            every: 1,
        }
    }

    #[inline]
    pub(crate) fn start(&mut self, control: &Slots) {
        if self.since.is_none() {
            self.begin(control, now_ns());
        }
    }

    #[inline]
    pub(crate) fn task_done(&mut self, control: &Slots) {
        self.tasks += 1;
        if self.tasks >= self.every {
            let now = now_ns();
            self.read(control, now);
            self.begin(control, now);
        }
    }

    pub(crate) fn stop(&mut self, control: &Slots) {
        if self.tasks > 0 {
            self.read(control, now_ns());
        }
        self.since = None;
    }

    fn begin(&mut self, control: &Slots, now: u64) {
        self.since = Some(now);
        control.slot(slot::SINCE_NS).set(now);
    }

    fn read(&mut self, control: &Slots, now: u64) {
        if let (Some(since), 1..) = (self.since, self.tasks) {
            let ns = now.saturating_sub(since);
            control.slot(slot::BUSY_NS).add(ns);
            control.slot(slot::BUSY_TASKS).add(self.tasks);
            // About every 20 µs.
            self.every = (20_000 * self.tasks / ns.max(1)).clamp(1, 64);
            self.tasks = 0;
        }
    }
}
