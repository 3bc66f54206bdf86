//! [`Report`]: what a run took.

mod collect;
mod text;
mod timeline;

pub(crate) use collect::Since;
pub(crate) use text::bytes;
pub(crate) use timeline::Timeline;

use std::io;
use std::path::Path;

use serde::Serialize;

/// What an invoker did and what it took: text by `Display`, JSON by [`to_json`](Self::to_json), anything else by serde.
///
/// ```
/// use invoker::{Executor, Invoker};
///
/// let invoker = Invoker::builder(|scale: &f64, n: u32| scale * f64::from(n)).model(2.0);
/// let invoker = invoker.executor(Executor::InProcess).build()?;
/// let sum: f64 = invoker.map(0..1000).filter_map(Result::ok).sum();
/// println!("{sum}\n{}", invoker.report()); // while it runs
/// let report = invoker.finish()?; // at the end
/// assert_eq!(report.tasks.done, 1000);
/// assert!(report.latency.is_some_and(|latency| latency.p50 <= latency.max));
/// println!("{}", report.to_json());
/// # Ok::<(), invoker::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// `processes`, `threads` or `in-process`.
    pub executor: &'static str,
    /// Number of workers.
    pub workers: usize,
    /// Tasks.
    pub tasks: Tasks,
    /// How it was interrupted, if it was: `finish`, `cancel` or `kill`.
    pub interrupted: Option<&'static str>,
    /// Times.
    pub times: Times,
    /// How long single tasks took in their workers; `None` before the first.
    pub latency: Option<Latency>,
    /// Where each worker's time went.
    pub split: Vec<WorkerTimes>,
    /// The shared model, with worker processes.
    pub model: Option<Model>,
    /// Memory, where the system tells.
    pub memory: Option<MemoryUse>,
    /// Worker processes.
    pub processes: Option<ProcessCounts>,
    /// Log events of worker processes.
    pub logs: Option<Logs>,
    #[serde(skip)]
    timeline: Timeline,
}

impl Report {
    /// As one JSON object: the fields' names, times in seconds, memory in bytes.
    pub fn to_json(&self) -> String {
        // Its types are numbers, texts and lists of them.
        serde_json::to_string(self).unwrap_or_else(|e| unreachable!("a report is JSON: {e}"))
    }

    /// Writes the run's timeline to a file for `chrome://tracing` or <https://ui.perfetto.dev>: a track for each worker with
    /// its processes' starts, lives and ends (killed, died, recycled, with the cause), and, if
    /// [`trace`](crate::Builder::trace) was asked for, up to 512 tasks of each process, spread over its life. It tells of
    /// the last 1024 processes at most, so that it is never large.
    ///
    /// It is the JSON array format of Chrome's
    /// [Trace Event Format](https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsChNAySU).
    ///
    /// The file is written whole or not at all, with another name first, and replaces only a regular file: a device, a pipe or
    /// a symbolic link at `path` is refused.
    ///
    /// # Errors
    /// When the file can't be written. The old file is still there then.
    pub fn write_trace(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.timeline.write(path.as_ref())
    }
}

/// Numbers of tasks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Tasks {
    /// With an output.
    pub done: u64,
    /// With an error.
    pub failed: u64,
    /// Done and failed ones, per second of [`Times::run`].
    pub per_second: f64,
}

/// Wall-clock times in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Times {
    /// Moving the model into shared memory.
    pub share: f64,
    /// Starting the workers.
    pub start: f64,
    /// From the first run's begin to the last one's end.
    pub run: f64,
    /// From the call of [`build`](crate::Builder::build) to the report.
    pub total: f64,
}

/// How long single tasks took in their workers, in seconds: decoding, running, encoding.
///
/// Workers read the clock about every 20 µs. Tasks that take longer count each by itself, shorter ones with the mean of those
/// between two readings. Quantiles are within 6 %.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Latency {
    /// The median.
    pub p50: f64,
    /// What 90 % of the tasks did not exceed.
    pub p90: f64,
    /// What 99 % did not exceed.
    pub p99: f64,
    /// What none exceeded.
    pub max: f64,
    /// Tasks that were timed: all that workers answered.
    pub tasks: u64,
}

/// Where the time of one worker went, in seconds, all processes that were in its place together.
///
/// `wait`, `blocked`, `decode`, `run` and `encode` add up to the time that it was ready. How the last three divide is known
/// from [`sampled`](Self::sampled) tasks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct WorkerTimes {
    /// Its place.
    pub worker: u32,
    /// Processes that were in its place; with [`Executor::InProcess`](crate::Executor::InProcess), callers at the same time.
    pub processes: u64,
    /// Starting its processes, up to their [`init`](crate::init()).
    pub start: f64,
    /// From there to being ready: attaching the model.
    pub attach: f64,
    /// Without a task.
    pub wait: f64,
    /// With outputs that the leader had no room for.
    pub blocked: f64,
    /// Decoding tasks; nothing where they are not encoded.
    pub decode: f64,
    /// In the op.
    pub run: f64,
    /// Encoding outputs.
    pub encode: f64,
    /// Tasks.
    pub tasks: u64,
    /// Tasks whose decoding, running and encoding were timed: one about every 200 µs, and each that takes longer.
    pub sampled: u64,
}

/// The one copy of the model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Model {
    /// Bytes of its image, and of the buffers that stayed where they had been built.
    pub bytes: u64,
    /// Where it is: `anonymous`, `named` or `file`.
    pub backing: &'static str,
}

/// Memory in bytes at the time of the report, which is before the workers end.
///
/// Proportional set size (PSS): a page shared by n processes counts 1/n in each, so that the sum counts the one copy of the
/// model once. Resident set size (RSS) counts it in every process that has touched it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct MemoryUse {
    /// The leader's.
    pub leader_pss: u64,
    /// Each worker's.
    pub workers_pss: Vec<u64>,
    /// Of leader and workers together.
    pub total_pss: u64,
    /// The leader's resident set.
    pub leader_rss: u64,
    /// The largest that it has been.
    pub leader_peak_rss: u64,
    /// Each worker's resident set.
    pub workers_rss: Vec<u64>,
}

/// Counts of worker processes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ProcessCounts {
    /// Started.
    pub spawned: u64,
    /// Ended before they should.
    pub died: u64,
    /// Started in place of one that had ended.
    pub restarts: u64,
    /// Told to end and replaced, because they had run many tasks, or grown.
    pub recycled: u64,
    /// Tasks sent to another worker because theirs died before it started them.
    pub resent: u64,
    /// Tasks run again after they had cost a worker.
    pub retried: u64,
    /// Tasks taken back from a worker that had not begun them, because they waited behind a slow one.
    pub recalled: u64,
}

/// Log events of worker processes; emitted = delivered + dropped + waiting.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Logs {
    /// Written by ops and what they use, as far as the leader's filter wants them.
    pub emitted: u64,
    /// Replayed in the leader: a subscriber, or a logger of the `log` crate, was asked.
    pub delivered: u64,
    /// Lost: a worker's ring was full, the leader had no subscriber, or the subscriber was too slow at the end.
    pub dropped: u64,
    /// On their way; none at the end.
    pub waiting: u64,
}
