//! [`Chronicle`]: the processes of a pool, those that are there and those that were, with their times.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shm_buffers::slots::Slots;

use super::tally::{self, Counted, Tally};
use super::{Ending, Latency, Life, Times, Timing};
use crate::clock::Clock;
use crate::core::Incarnation;
use crate::error::WorkerId;
use crate::os::now_ns;
use crate::protocol::slot;

/// Ended processes that are remembered one by one, at most, and their samples.
const LIVES: usize = 1024;
const SAMPLES: usize = 1 << 16;

/// What a pool knows of its processes' times; cheap to clone. It can be asked at any time, also when the pool is gone.
#[derive(Clone)]
pub struct Chronicle(Arc<Mutex<Annals>>);

#[derive(Default)]
struct Annals {
    /// Of all processes that have ended.
    past: BTreeMap<WorkerId, Times>,
    present: Vec<Present>,
    ended: VecDeque<Life>,
    samples: usize,
    forgotten: u64,
    epoch: u64,
}

/// A process that is there.
struct Present {
    incarnation: Incarnation,
    pid: u32,
    spawned: u64,
    slots: Slots,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            worker: WorkerId(0),
            processes: 0,
            start: Duration::ZERO,
            attach: Duration::ZERO,
            wait: Duration::ZERO,
            blocked: Duration::ZERO,
            decode: Duration::ZERO,
            run: Duration::ZERO,
            encode: Duration::ZERO,
            tasks: 0,
            sampled: 0,
            latency: Latency::default(),
        }
    }
}

impl Default for Chronicle {
    fn default() -> Self {
        Self::new()
    }
}

impl Present {
    /// Adds its times up to `now`.
    fn add_to(&self, times: &mut Times, now: u64) {
        let counted = Counted::read(&self.slots, now, &mut times.latency);
        let born = counted.born.unwrap_or(now).max(self.spawned);
        let ready = counted.ready.unwrap_or(now).max(born);
        let sums = [
            (&mut times.start, Duration::from_nanos(born - self.spawned)),
            (&mut times.attach, Duration::from_nanos(ready - born)),
            (&mut times.wait, counted.wait),
            (&mut times.blocked, counted.blocked),
            (&mut times.decode, counted.decode),
            (&mut times.run, counted.run),
            (&mut times.encode, counted.encode),
        ];
        for (sum, time) in sums {
            *sum = sum.saturating_add(time);
        }
        times.processes += 1;
        times.tasks = times.tasks.saturating_add(counted.tasks);
        times.sampled = times.sampled.saturating_add(counted.sampled);
    }

    fn life(&self, epoch: u64, now: u64) -> Life {
        let counted = Counted::read(&self.slots, now, &mut Latency::default());
        let since = |ns: u64| Duration::from_nanos(ns.saturating_sub(epoch));
        Life {
            worker: self.incarnation.worker,
            restarts: self.incarnation.number.saturating_sub(1),
            pid: self.pid,
            spawned: since(self.spawned),
            born: counted.born.map(since),
            ready: counted.ready.map(since),
            ended: None,
            tasks: counted.tasks,
            samples: tally::samples(&self.slots, epoch),
        }
    }
}

impl Chronicle {
    /// Of nobody yet; from now on.
    pub fn new() -> Self {
        let annals = Annals {
            epoch: now_ns(),
            ..Annals::default()
        };
        Self(Arc::new(Mutex::new(annals)))
    }

    fn annals(&self) -> MutexGuard<'_, Annals> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn spawned(&self, incarnation: Incarnation, pid: u32, spawned: u64, slots: Slots) {
        self.annals().present.push(Present {
            incarnation,
            pid,
            spawned,
            slots,
        });
    }

    pub(crate) fn ended(&self, incarnation: Incarnation, ending: Ending) {
        let mut annals = self.annals();
        let found = annals.present.iter().position(|p| p.incarnation == incarnation);
        let Some(present) = found.map(|index| annals.present.swap_remove(index)) else {
            return;
        };
        let now = now_ns();
        let worker = incarnation.worker;
        let past = annals.past.entry(worker).or_insert_with(|| Times {
            worker,
            ..Times::default()
        });
        present.add_to(past, now);
        let mut life = present.life(annals.epoch, now);
        let end = Duration::from_nanos(now.saturating_sub(annals.epoch));
        life.ended = Some((end, ending));
        annals.samples += life.samples.len();
        annals.ended.push_back(life);
        while annals.ended.len() > LIVES || annals.samples > SAMPLES {
            let Some(oldest) = annals.ended.pop_front() else {
                break;
            };
            annals.samples -= oldest.samples.len();
            annals.forgotten += 1;
        }
    }

    /// A watch for a worker that is a thread of this process, ready from now on.
    pub fn stopwatch(&self, worker: WorkerId) -> Stopwatch {
        let slots = Slots::in_process(tally::slots(Timing::Samples));
        let now = now_ns();
        let tally = Tally::new(slots.clone(), now, now);
        let incarnation = Incarnation { worker, number: 1 };
        self.spawned(incarnation, std::process::id(), now, slots);
        Stopwatch {
            clock: Clock::new(Slots::in_process(slot::COUNT), tally),
            chronicle: self.clone(),
            incarnation,
        }
    }

    /// Where the time of each worker went, up to now, by its place.
    pub fn times(&self) -> Vec<Times> {
        let annals = self.annals();
        let mut all = annals.past.clone();
        let now = now_ns();
        for present in &annals.present {
            let worker = present.incarnation.worker;
            let times = all.entry(worker).or_insert_with(|| Times {
                worker,
                ..Times::default()
            });
            present.add_to(times, now);
        }
        all.into_values().collect()
    }

    /// The processes one by one, the last 1024 of those that have ended; fewer when they kept many samples.
    pub fn lives(&self) -> Vec<Life> {
        let annals = self.annals();
        let now = now_ns();
        let present = annals.present.iter().map(|p| p.life(annals.epoch, now));
        let mut lives: Vec<Life> = annals.ended.iter().cloned().chain(present).collect();
        lives.sort_by_key(|life| life.spawned);
        lives
    }

    /// How many ended processes are not among [`lives`](Self::lives) any more.
    pub fn forgotten(&self) -> u64 {
        self.annals().forgotten
    }

    /// How long ago it began.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(now_ns().saturating_sub(self.annals().epoch))
    }
}

impl fmt::Debug for Chronicle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let annals = self.annals();
        f.debug_struct("Chronicle")
            .field("present", &annals.present.len())
            .field("ended", &annals.ended.len())
            .finish_non_exhaustive()
    }
}

/// Measures the tasks of a worker that is a thread, as worker processes measure theirs. Dropped, its worker has ended.
pub struct Stopwatch {
    clock: Clock,
    chronicle: Chronicle,
    incarnation: Incarnation,
}

impl Stopwatch {
    /// Runs a task.
    #[inline]
    pub fn measure<R>(&mut self, run: impl FnOnce() -> R) -> R {
        self.clock.start();
        let output = run();
        self.clock.task_done();
        output
    }

    /// There is no task now.
    pub fn rest(&mut self) {
        self.clock.stop();
    }
}

impl Drop for Stopwatch {
    fn drop(&mut self) {
        self.clock.stop();
        self.chronicle.ended(self.incarnation, Ending::Finished);
    }
}

impl fmt::Debug for Stopwatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stopwatch")
            .field("worker", &self.incarnation.worker)
            .finish_non_exhaustive()
    }
}
