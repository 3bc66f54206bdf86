//! Where workers' time goes: what is measured, and the numbers that come of it.

mod chronicle;
mod latency;
pub(crate) mod tally;

pub use chronicle::{Chronicle, Stopwatch};
pub use latency::Latency;

use std::time::Duration;

use crate::error::{Cause, WorkerId};

/// How much workers tell of their time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Timing {
    /// Only what dispatch needs.
    Off,
    /// Totals and latencies. It costs a few clock readings in 200 µs of work.
    #[default]
    Totals,
    /// And up to 512 single tasks of each process, spread over its life.
    Samples,
}

/// When a sampled task got how far, for services that tell (see [`Service::call_timed`](crate::Service::call_timed)).
#[derive(Debug, Clone, Copy, Default)]
pub struct Laps {
    pub(crate) decoded: u64,
    pub(crate) ran: u64,
}

impl Laps {
    /// The task is decoded; it is run now.
    pub fn decoded(&mut self) {
        self.decoded = crate::os::now_ns();
    }

    /// The task was run; its output is encoded now.
    pub fn ran(&mut self) {
        self.ran = crate::os::now_ns();
    }
}

/// Where the time of one worker went, all processes that were in its place together.
///
/// `wait`, `blocked`, `decode`, `run` and `encode` add up to the time that its processes were ready. The last three are
/// the time it had tasks, divided as it was for the tasks [sampled](Self::sampled).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Times {
    /// Its place in the pool.
    pub worker: WorkerId,
    /// Processes that were in its place.
    pub processes: u64,
    /// From the decision to start a process to its [`init`](crate::init()).
    pub start: Duration,
    /// From there to being ready: the introduction, and the worker's own start, which attaches its model.
    pub attach: Duration,
    /// Without a task.
    pub wait: Duration,
    /// With outputs for which the leader made no room.
    pub blocked: Duration,
    /// Taking tasks from the ring and decoding them.
    pub decode: Duration,
    /// Running them; of a task that ended its process, all of its time.
    pub run: Duration,
    /// Encoding outputs and putting them into the ring.
    pub encode: Duration,
    /// Tasks that were timed.
    pub tasks: u64,
    /// Tasks of which decoding, running and encoding were timed: one about every 200 µs, so that each task is one
    /// that takes longer.
    pub sampled: u64,
    /// How long single tasks took, from being taken to being answered.
    pub latency: Latency,
}

/// One process in a worker's place. Times count from the pool's begin.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Life {
    /// The place.
    pub worker: WorkerId,
    /// Processes that were in this place before.
    pub restarts: u32,
    /// The process's id.
    pub pid: u32,
    /// When it was decided to start it.
    pub spawned: Duration,
    /// When it came to [`init`](crate::init()).
    pub born: Option<Duration>,
    /// When it was ready for tasks.
    pub ready: Option<Duration>,
    /// When it had ended, and how.
    pub ended: Option<(Duration, Ending)>,
    /// Tasks that it answered, as far as they were timed.
    pub tasks: u64,
    /// Some of its tasks, with [`Timing::Samples`].
    pub samples: Vec<Sample>,
}

/// Why a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// By itself or by force, of this cause.
    Died(Cause),
    /// It was told to, and replaced.
    Recycled,
    /// It was told to, because fewer workers were wanted.
    Dismissed,
    /// With its pool.
    Finished,
}

/// One task's times, from the pool's begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sample {
    /// How many tasks its process had begun before.
    pub before: u64,
    /// It was taken.
    pub begun: Duration,
    /// It was decoded.
    pub decoded: Duration,
    /// The op had returned.
    pub ran: Duration,
    /// Its output was with the leader.
    pub answered: Duration,
}
