//! [`Report`] and its parts.

use std::io;
use std::path::Path;
use std::time::Duration;

use proc_pool::Interrupt;
use serde::{Deserialize, Serialize};
use shm_buffers::BackingKind;

use super::serialize;
use super::timeline::Timeline;
use crate::executor::Executor;

/// The counts, times and memory use of an invoker. `Display` prints text, [`to_json`](Self::to_json) returns JSON.
///
/// Serialized, times are numbers of seconds, and memory is in bytes.
///
/// ```
/// use invoker::{Executor, Invoker};
///
/// let invoker = Invoker::builder(|scale: &f64, n: u32| scale * f64::from(n)).model(2.0);
/// let invoker = invoker.executor(Executor::Inline).build()?;
/// let sum: f64 = invoker.map(0..1000).filter_map(Result::ok).sum();
/// println!("{sum}\n{}", invoker.report()); // during the run
/// let report = invoker.finish()?; // at the end
/// assert_eq!(report.tasks.done, 1000);
/// assert!(report.latency.is_some_and(|latency| latency.p50 <= latency.max));
/// println!("{}", report.to_json());
/// # Ok::<(), invoker::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// Where ops ran.
    pub executor: Executor,
    /// Number of workers.
    pub workers: usize,
    /// Numbers of tasks.
    pub tasks: TaskCounts,
    /// How the invoker was interrupted, if it was. Serialized as `finish`, `cancel` or `kill`.
    #[serde(with = "serialize::interrupt")]
    pub interrupted: Option<Interrupt>,
    /// Wall-clock times.
    pub times: RunTimes,
    /// How long single tasks took in their workers; `None` before the first.
    pub latency: Option<Latency>,
    /// How each worker spent its time.
    pub worker_times: Vec<WorkerTimes>,
    /// The shared model, with worker processes.
    pub model: Option<SharedModel>,
    /// Memory use, where the system reports it.
    pub memory: Option<MemoryUse>,
    /// Counts of worker processes, and of tasks that were sent again.
    pub processes: Option<ProcessCounts>,
    /// Log events of worker processes.
    pub logs: Option<LogCounts>,
    /// The outputs that the [journal](crate::Builder::journal) had and got.
    #[serde(default)]
    pub journal: Option<JournalCounts>,
    #[serde(skip)]
    pub(super) timeline: Timeline,
}

impl Report {
    /// Returns the report as one JSON object.
    pub fn to_json(&self) -> String {
        // Numbers, strings and lists of them always serialize.
        serde_json::to_string(self).unwrap_or_else(|e| unreachable!("a report is JSON: {e}"))
    }

    /// Writes the timeline of the run to a file for <https://ui.perfetto.dev> or `chrome://tracing`, in the JSON array format
    /// of Chrome's
    /// [Trace Event Format](https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsChNAySU).
    ///
    /// Each worker has a track, with the start, life and end of its processes (killed, died, recycled, with the cause). With
    /// [`Builder::trace`](crate::Builder::trace) it also has samples of tasks, up to 512 per process. The file holds the
    /// last 1024 processes. A deserialized report has no timeline.
    ///
    /// The file is written under another name and then renamed, so it is complete or absent. An existing `path` must be a
    /// regular file: devices, pipes and symbolic links are refused.
    ///
    /// # Errors
    /// If the file cannot be written. An old file at `path` is then unchanged.
    pub fn write_trace(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.timeline.write(path.as_ref())
    }
}

/// Numbers of tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TaskCounts {
    /// Tasks with an output.
    pub done: u64,
    /// Tasks with an error.
    pub failed: u64,
    /// Done and failed tasks per second of [`RunTimes::run`].
    pub per_second: f64,
}

/// Wall-clock times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunTimes {
    /// Moving the model into shared memory.
    #[serde(with = "serialize::seconds")]
    pub share: Duration,
    /// Starting the workers.
    #[serde(with = "serialize::seconds")]
    pub start: Duration,
    /// From the start of the first run to the end of the last one.
    #[serde(with = "serialize::seconds")]
    pub run: Duration,
    /// From the call of [`build`](crate::Builder::build) to the report.
    #[serde(with = "serialize::seconds")]
    pub total: Duration,
}

/// How long single tasks took in their workers: decoding, running and encoding.
///
/// Workers read the clock about every 20 µs. A longer task counts with its own time, shorter tasks count with the mean of
/// those between two readings. Quantiles are exact to 6 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Latency {
    /// The median.
    #[serde(with = "serialize::seconds")]
    pub p50: Duration,
    /// The 90th percentile.
    #[serde(with = "serialize::seconds")]
    pub p90: Duration,
    /// The 99th percentile.
    #[serde(with = "serialize::seconds")]
    pub p99: Duration,
    /// The maximum.
    #[serde(with = "serialize::seconds")]
    pub max: Duration,
    /// Number of tasks that were timed: all that workers answered.
    pub tasks: u64,
}

/// How one worker spent its time, summed over all its processes.
///
/// `wait`, `blocked`, `decode`, `run`, `encode` and `off_cpu` add up to the time in which the worker was ready. The proportions of
/// the last four are estimated from [`sampled`](Self::sampled) tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerTimes {
    /// Index of the worker.
    pub worker: u32,
    /// Number of its processes so far; with [`Executor::Inline`], the maximum number of concurrent callers.
    pub processes: u64,
    /// Starting processes, up to their [`init`](crate::init()).
    #[serde(with = "serialize::seconds")]
    pub start: Duration,
    /// From `init` to having the model: the handshake, mapping the image, and rebuilding what is in no buffer.
    #[serde(with = "serialize::seconds")]
    pub attach: Duration,
    /// From there to being ready: making the worker's state, see
    /// [`builder_with_state`](crate::Invoker::builder_with_state).
    #[serde(with = "serialize::seconds", default)]
    pub state: Duration,
    /// Waiting for a task.
    #[serde(with = "serialize::seconds")]
    pub wait: Duration,
    /// Waiting for the leader to make room for an output.
    #[serde(with = "serialize::seconds")]
    pub blocked: Duration,
    /// Decoding tasks; zero where tasks are not encoded.
    #[serde(with = "serialize::seconds")]
    pub decode: Duration,
    /// Running the op.
    #[serde(with = "serialize::seconds")]
    pub run: Duration,
    /// Encoding and sending outputs, as CPU time (on Windows, as wall-clock time).
    #[serde(with = "serialize::seconds")]
    pub encode: Duration,
    /// Between running a task and having sent its output, without a CPU: another thread had it, such as the leader that the output
    /// woke.
    #[serde(with = "serialize::seconds", default)]
    pub off_cpu: Duration,
    /// Number of tasks.
    pub tasks: u64,
    /// Number of tasks whose decoding, running and encoding were timed separately: about one every 200 µs, and each task that
    /// takes longer.
    pub sampled: u64,
}

/// The shared copy of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SharedModel {
    /// Bytes in shared memory: the model image, and the buffers that were in shared memory before.
    pub bytes: u64,
    /// Bytes in mapped files. The workers share them as well.
    #[serde(default)]
    pub mapped: u64,
    /// Bytes of buffers that were copied into the image although they were in shared memory or in a mapped file before.
    #[serde(default)]
    pub copied: u64,
    /// Bytes that each worker rebuilds on its heap, because they are in no [`Buffer`](crate::Buffer): an estimate, see
    /// [`ModelMemory::per_process`](crate::ModelMemory::per_process).
    #[serde(default)]
    pub per_worker: u64,
    /// Bytes that the leader freed when it moved the model, but that its allocator may keep; see
    /// [`ModelMemory::unreturned`](crate::ModelMemory::unreturned).
    #[serde(default)]
    pub unreturned: u64,
    /// Where it is stored. Serialized as `anonymous`, `named` or `file`.
    #[serde(with = "serialize::backing")]
    pub backing: BackingKind,
}

/// Memory use in bytes at the time of the report, while the workers exist.
///
/// In a proportional set size (PSS), a page that n processes share counts 1/n in each of them, so a sum counts the shared
/// model once. A resident set size (RSS) counts the model in every process that has touched it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MemoryUse {
    /// PSS of the leader.
    pub leader_pss: u64,
    /// PSS of each worker.
    pub workers_pss: Vec<u64>,
    /// Sum of all PSS.
    pub total_pss: u64,
    /// RSS of the leader.
    pub leader_rss: u64,
    /// Maximum RSS of the leader so far.
    pub leader_peak_rss: u64,
    /// RSS of each worker.
    pub workers_rss: Vec<u64>,
}

/// Counts of worker processes, and of tasks that were sent again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProcessCounts {
    /// Processes started.
    pub spawned: u64,
    /// Processes that ended unasked.
    pub died: u64,
    /// Processes started to replace another one.
    pub restarts: u64,
    /// Processes that were asked to end and replaced, after many tasks or because of their memory use.
    pub recycled: u64,
    /// Tasks sent to another worker because theirs died before it started them.
    pub resent: u64,
    /// Tasks run again after they had killed their worker.
    pub retried: u64,
    /// Tasks taken back from a worker that had not started them, because they waited behind a slow one.
    pub recalled: u64,
}

/// Counts of log events from worker processes: `emitted = delivered + dropped + waiting`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LogCounts {
    /// Events that workers wrote, after filtering.
    pub emitted: u64,
    /// Events replayed in the leader to a subscriber, or to a logger of the crate `log`.
    pub delivered: u64,
    /// Events lost because a worker's ring was full, the leader had no subscriber, or the subscriber was too slow at the end.
    pub dropped: u64,
    /// Events in flight; 0 at the end.
    pub waiting: u64,
}

/// The outputs that were read from a [journal](crate::Builder::journal), and those that were written to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JournalCounts {
    /// Number of outputs (and kept faults) that were returned from the journal; their tasks did not run. They count in
    /// [`TaskCounts::done`], but not in [`TaskCounts::per_second`].
    pub read: u64,
    /// Number of outputs (and kept faults) that were written.
    pub written: u64,
    /// Bytes of the file that these take.
    pub bytes: u64,
    /// Bytes at the end of the file that were cut: a leader was killed while it wrote them, or the power failed.
    pub torn: u64,
    /// Why the journal could not be written, if the run went on without it
    /// ([`OnWriteError::Continue`](crate::OnWriteError::Continue)).
    pub failed: Option<String>,
}
