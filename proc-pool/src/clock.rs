//! How a worker tells the leader the time that its tasks take.

use std::time::Instant;

use shm_buffers::slots::Slots;

use crate::protocol::slot;

/// Tells the leader how long tasks take, without asking the time for each tiny one.
pub(crate) struct Clock {
    since: Option<Instant>,
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
    pub(crate) fn start(&mut self) {
        if self.since.is_none() {
            self.since = Some(Instant::now());
        }
    }

    #[inline]
    pub(crate) fn task_done(&mut self, control: &Slots) {
        self.tasks += 1;
        if self.tasks >= self.every {
            self.read(control);
            self.since = Some(Instant::now());
        }
    }

    pub(crate) fn stop(&mut self, control: &Slots) {
        self.read(control);
        self.since = None;
    }

    fn read(&mut self, control: &Slots) {
        if let (Some(since), 1..) = (self.since, self.tasks) {
            let ns = since.elapsed().as_nanos() as u64;
            control.slot(slot::BUSY_NS).add(ns);
            control.slot(slot::BUSY_TASKS).add(self.tasks);
            // About every 20 µs.
            self.every = (20_000 * self.tasks / ns.max(1)).clamp(1, 64);
            self.tasks = 0;
        }
    }
}
