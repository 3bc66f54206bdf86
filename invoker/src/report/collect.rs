//! Collects a [`Report`]: first what can be read only while the workers exist, then counts and times.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log_bridge::Tally;
use proc_pool::{History, ProcessMemory, Stats};
use run_journal::OpenJournal;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::rows::{
    JournalCounts, Latency, LogCounts, MemoryUse, ProcessCounts, Report, RunTimes, SharedModel, TaskCounts,
    WorkerTimes,
};
use super::timeline::Timeline;
use crate::executor::Executor;
use crate::run_progress::RunProgress;
use crate::runner::Runner;

/// The part of a report that is known after the start.
#[derive(Debug)]
pub(crate) struct ReportBase {
    /// The call of `build`.
    pub(crate) started: Instant,
    pub(crate) history: History,
    /// Where `finish` writes a trace.
    pub(crate) trace: Option<PathBuf>,
    pub(crate) journal: Option<Arc<OpenJournal>>,
}

impl Report {
    /// Creates a report without counts. The workers must still exist, because it reads their memory use.
    pub(crate) fn new<M, T, R>(executor: Executor, runner: &Runner<M, T, R>) -> Self
    where
        M: Send + Sync + 'static,
        T: Serialize + DeserializeOwned + Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        let mut times = RunTimes::default();
        let mut timeline = Timeline::default();
        let mut model = None;
        let mut workers_memory = Vec::new();
        if let Some(processes) = runner.processes() {
            let segment = processes.image.segment();
            // An attached image knows where it is by its handle.
            let backing = segment
                .backing()
                .or_else(|| Some(segment.handle().ok()?.backing()));
            let memory = processes.image.memory();
            model = backing.map(|backing| SharedModel {
                bytes: memory.shared,
                mapped: memory.mapped,
                copied: memory.copied,
                per_worker: memory.per_process,
                unreturned: memory.unreturned,
                backing,
            });
            timeline.model = Some(memory);
            workers_memory = processes.pool.memory();
            let (share, start) = (processes.share_time, processes.start_time);
            (times.share, times.start) = (share, start);
            timeline.leader = vec![
                ("share the model", Duration::ZERO, share),
                ("start the workers", share, share + start),
            ];
        }
        Self {
            executor,
            workers: runner.workers(),
            tasks: TaskCounts::default(),
            interrupted: runner.interrupted(),
            times,
            latency: None,
            worker_times: Vec::new(),
            model,
            memory: memory(workers_memory.into_iter().map(|(_, memory)| memory)),
            processes: None,
            logs: None,
            journal: None,
            timeline,
        }
    }

    /// Adds the counts of worker processes and of their logs.
    pub(crate) fn add_counts(&mut self, stats: &Stats, logs: &Tally) {
        self.processes = Some(ProcessCounts {
            spawned: stats.spawned,
            died: stats.deaths,
            restarts: 0,
            recycled: stats.recycled,
            resent: stats.resent,
            retried: stats.retried,
            recalled: stats.recalled,
        });
        let logs = logs.total();
        self.logs = Some(LogCounts {
            emitted: logs.emitted,
            delivered: logs.delivered,
            dropped: logs.dropped,
            waiting: logs.waiting(),
        });
    }

    /// Adds the numbers of tasks and all times; called last.
    pub(crate) fn add_times(&mut self, progress: &RunProgress, base: &ReportBase) {
        let (done, failed) = progress.counts();
        self.journal = base.journal.as_deref().map(JournalCounts::of);
        let read = self.journal.as_ref().map_or(0, |journal| journal.read);
        let run = progress.elapsed();
        self.times.run = run;
        self.tasks = TaskCounts {
            done,
            failed,
            per_second: match run.is_zero() {
                true => 0.0,
                false => (done + failed).saturating_sub(read) as f64 / run.as_secs_f64(),
            },
        };
        let workers = base.history.times();
        let mut latency = proc_pool::Latency::default();
        workers.iter().for_each(|times| latency.merge(&times.latency));
        self.latency = latency.max().and_then(|max| {
            Some(Latency {
                p50: latency.quantile(0.5)?,
                p90: latency.quantile(0.9)?,
                p99: latency.quantile(0.99)?,
                max,
                tasks: latency.count(),
            })
        });
        self.worker_times = workers.iter().map(WorkerTimes::from_pool).collect();
        if let Some(processes) = &mut self.processes {
            let restarts = workers.iter().map(|times| times.processes.saturating_sub(1));
            processes.restarts = restarts.sum();
        }
        let total = base.started.elapsed();
        self.times.total = total;
        self.timeline.processes = base.history.processes();
        self.timeline.offset = total.saturating_sub(base.history.elapsed());
        self.timeline.end = total;
        if let Some(started) = progress.started() {
            let start = started.saturating_duration_since(base.started);
            self.timeline.leader.push(("run", start, start + run));
        }
    }
}

impl JournalCounts {
    fn of(journal: &OpenJournal) -> Self {
        let (written, bytes) = journal.written();
        let failed = journal.error();
        Self {
            read: journal.read(),
            written,
            bytes,
            torn: journal.torn(),
            failed: failed.map(|error| format!("{:#}", shm_buffers::WithCauses(&error))),
        }
    }
}

/// Returns the memory use of the leader and of its workers.
fn memory(workers: impl Iterator<Item = ProcessMemory>) -> Option<MemoryUse> {
    let leader = ProcessMemory::of(std::process::id())?;
    let leader_pss = leader.proportional?;
    let workers: Vec<(u64, u64)> = workers
        .filter_map(|memory| Some((memory.proportional?, memory.resident)))
        .collect();
    let (workers_pss, workers_rss): (Vec<u64>, Vec<u64>) = workers.into_iter().unzip();
    Some(MemoryUse {
        leader_pss,
        total_pss: leader_pss + workers_pss.iter().sum::<u64>(),
        workers_pss,
        leader_rss: leader.resident,
        leader_peak_rss: ProcessMemory::peak_of(std::process::id()).unwrap_or(leader.resident),
        workers_rss,
    })
}

impl WorkerTimes {
    fn from_pool(times: &proc_pool::Times) -> Self {
        Self {
            worker: times.worker.0,
            processes: times.processes,
            start: times.start,
            attach: times.attach,
            state: times.state,
            wait: times.wait,
            blocked: times.blocked,
            decode: times.decode,
            run: times.run,
            encode: times.encode,
            off_cpu: times.off_cpu,
            tasks: times.tasks,
            sampled: times.sampled,
        }
    }
}
