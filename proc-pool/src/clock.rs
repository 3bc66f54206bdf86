//! How a worker tells the leader the time that its tasks take.

use shm_buffers::slots::Slots;

use crate::os::now_ns;
use crate::protocol::slot;
use crate::timing::Laps;
use crate::timing::tally::Tally;

/// The clock is read about so often while there are tasks, in nanoseconds.
pub(crate) const READ: u64 = 20_000;
/// A task is sampled when the last one that was began so long ago, in nanoseconds.
const SAMPLE: u64 = 200_000;

/// Tells the leader how long tasks take, without asking the time for each tiny one.
#[derive(Debug)]
pub(crate) struct Clock {
    control: Slots,
    tally: Option<Tally>,
    since: Option<u64>,
    tasks: u64,
    /// Tasks until the clock is read.
    every: u64,
    /// Nanoseconds since then that no task is to blame for.
    excused: u64,
    /// The task that begins now is to be sampled: it is the first one since the clock was read.
    sample: bool,
    /// When the last one sampled began.
    sampled: u64,
    /// Tasks since the last one sampled.
    unsampled: u64,
}

impl Clock {
    pub(crate) fn new(control: Slots, tally: Option<Tally>) -> Self {
        Self {
            control,
            tally,
            since: None,
            tasks: 0,
            every: 1,
            excused: 0,
            sample: false,
            sampled: 0,
            unsampled: 0,
        }
    }

    /// Whether the task that begins is to be sampled.
    #[inline]
    pub(crate) fn is_sampling(&self) -> bool {
        self.sample
    }

    #[inline]
    pub(crate) fn start(&mut self) {
        if self.since.is_none() {
            let now = now_ns();
            if let Some(tally) = &self.tally {
                tally.resumed(now);
            }
            self.begin(now);
        }
    }

    #[inline]
    pub(crate) fn task_done(&mut self) {
        self.tasks += 1;
        if self.tasks >= self.every {
            let now = now_ns();
            self.read(now);
            self.begin(now);
        }
    }

    /// The task that was to be sampled is done.
    pub(crate) fn sample_done(&mut self, laps: Laps) {
        self.tasks += 1;
        let now = now_ns();
        if let (Some(tally), Some(begun)) = (&mut self.tally, self.since) {
            tally.sample(begun, laps, now, self.excused, self.unsampled + 1);
            self.sampled = begun;
        }
        self.read(now);
        self.unsampled = 0;
        self.begin(now);
    }

    pub(crate) fn stop(&mut self) {
        let Some(since) = self.since else { return };
        // Without a task since the clock was read, that was just now.
        let now = if self.tasks > 0 { now_ns() } else { since };
        self.read(now);
        if let Some(tally) = &self.tally {
            tally.rested(now);
        }
        self.since = None;
    }

    /// Since `begun`, the worker waited for room for its output.
    pub(crate) fn excuse(&mut self, begun: u64) {
        let ns = now_ns().saturating_sub(begun);
        if let Some(tally) = &self.tally {
            tally.blocked(ns);
        }
        self.excused += ns;
    }

    fn begin(&mut self, now: u64) {
        self.since = Some(now);
        self.excused = 0;
        self.sample = self.tally.is_some() && now.saturating_sub(self.sampled) >= SAMPLE;
        self.control.slot(slot::SINCE_NS).set(now);
    }

    fn read(&mut self, now: u64) {
        if let (Some(since), 1..) = (self.since, self.tasks) {
            let ns = now.saturating_sub(since).saturating_sub(self.excused);
            self.control.slot(slot::BUSY_NS).add(ns);
            self.control.slot(slot::BUSY_TASKS).add(self.tasks);
            if let Some(tally) = &self.tally {
                tally.batch(self.tasks, ns, READ / self.every);
            }
            self.every = (READ * self.tasks / ns.max(1)).clamp(1, 64);
            self.unsampled += self.tasks;
            self.tasks = 0;
        }
    }
}
