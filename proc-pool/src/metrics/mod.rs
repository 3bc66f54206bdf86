//! Where the time of workers goes. Workers write their times into shared slots ([`worker_metrics`], driven by [`clock`]); the
//! leader reads them and keeps them beyond the end of a process ([`History`]).

pub(crate) mod clock;
mod history;
mod latency;
pub(crate) mod worker_metrics;

pub use history::{History, Stopwatch};
pub use latency::Latency;

use std::time::Duration;

use crate::error::{ExitCause, WorkerId};

/// How much workers measure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Timing {
    /// Only what the dispatch of tasks needs.
    Off,
    /// Totals and latencies. This costs a few clock readings per 200 µs of work.
    #[default]
    Totals,
    /// `Totals`, and the times of up to 512 single tasks of each process, spread over its lifetime.
    Samples,
}

/// The times at which a sampled task was decoded and run, for services that record them (see
/// [`Service::call_timed`](crate::Service::call_timed)).
#[derive(Debug, Clone, Copy, Default)]
pub struct PhaseTimes {
    pub(crate) decoded: u64,
    pub(crate) ran: u64,
    /// CPU time of the thread at `ran`, if the system measures it.
    pub(crate) ran_cpu: Option<u64>,
}

impl PhaseTimes {
    /// Records that the task is decoded and its run starts now.
    pub fn decoded(&mut self) {
        self.decoded = crate::os::now_ns();
    }

    /// Records that the task has run and the encoding of its output starts now.
    pub fn ran(&mut self) {
        self.ran = crate::os::now_ns();
        self.ran_cpu = crate::os::thread_cpu_ns();
    }
}

/// Where the time of one worker went, summed over all of its processes.
///
/// `wait`, `blocked`, `decode`, `run`, `encode` and `off_cpu` add up to the time during which its processes were ready. The last
/// four share the time with tasks in the proportions of the [sampled](Self::sampled) tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Times {
    /// The worker's index.
    pub worker: WorkerId,
    /// Number of processes that this worker had, the current one included.
    pub processes: u64,
    /// Time from the decision to start a process to its call of [`init`](crate::init()).
    pub start: Duration,
    /// Time from there to having attached what the process shares: the handshake, and the worker's own start, up to its call of
    /// [`WorkerContext::mark_attached`](crate::WorkerContext::mark_attached) or else to its end.
    pub attach: Duration,
    /// Time from there to being ready: the rest of the worker's own start, which makes its state.
    pub state: Duration,
    /// Time without a task.
    pub wait: Duration,
    /// Time spent with finished outputs for which the leader made no room.
    pub blocked: Duration,
    /// Time spent taking tasks from the ring and decoding them.
    pub decode: Duration,
    /// Time spent running tasks; for a task that ended its process, all of its time.
    pub run: Duration,
    /// CPU time spent encoding outputs and writing them into the ring. On Windows, where no clock of threads is fine enough, it is
    /// wall-clock time.
    pub encode: Duration,
    /// Time between running a task and answering it in which the worker was not on a CPU: another thread had it, for example the
    /// leader, which the answer woke.
    pub off_cpu: Duration,
    /// Number of tasks that were timed.
    pub tasks: u64,
    /// Number of tasks of which decoding, running and encoding were timed separately: about one every 200 µs, and so every task
    /// that takes longer.
    pub sampled: u64,
    /// Latencies of single tasks, from being taken from the ring to being answered.
    pub latency: Latency,
}

/// The history of one worker process. All times are offsets from the creation of the [`History`], that is of the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessHistory {
    /// The index of the worker whose process this is.
    pub worker: WorkerId,
    /// Number of processes that this worker had before.
    pub restarts: u32,
    /// The process id.
    pub pid: u32,
    /// When the pool decided to start it.
    pub spawned: Duration,
    /// When it called [`init`](crate::init()).
    pub initialized: Option<Duration>,
    /// When it had attached what it shares, for a process that was ready.
    pub attached: Option<Duration>,
    /// When it was ready for tasks.
    pub ready: Option<Duration>,
    /// When and how it ended; `None` while it is alive.
    pub ended: Option<(Duration, ExitKind)>,
    /// Number of tasks that it answered and timed.
    pub tasks: u64,
    /// The times of some of its tasks, with [`Timing::Samples`].
    pub samples: Vec<Sample>,
}

/// How the life of a worker process ended, as a [`ProcessHistory`] reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitKind {
    /// It ended unexpectedly or was killed.
    Died(ExitCause),
    /// It stopped when asked to, and was replaced.
    Recycled,
    /// It stopped when asked to, because fewer workers were requested.
    ScaledDown,
    /// It ended with its pool.
    Finished,
}

/// The times of one task, as offsets from the creation of the [`History`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sample {
    /// Number of tasks that its process had started before.
    pub before: u64,
    /// When the worker took it from the ring.
    pub started: Duration,
    /// When it was decoded.
    pub decoded: Duration,
    /// When the op returned.
    pub ran: Duration,
    /// When its output was in the ring.
    pub answered: Duration,
}
