//! Putting a [`Report`] together, while the workers are there and when they have ended.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use log_bridge::Tally;
use proc_pool::{Chronicle, Interrupt, Memory, Stats};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Latency, Logs, MemoryUse, Model, ProcessCounts, Report, Tasks, Timeline, Times, WorkerTimes};
use crate::error::Error;
use crate::invoker::{Invoker, Place};
use crate::journal::Journal;

/// From when on a report tells, and of whom.
#[derive(Debug)]
pub(crate) struct Since {
    /// The call of `build`.
    pub(crate) begun: Instant,
    pub(crate) chronicle: Chronicle,
    /// Where to leave a trace at the end.
    pub(crate) trace: Option<PathBuf>,
}

impl<M, T, R> Invoker<M, T, R>
where
    M: Serialize + DeserializeOwned + Send + Sync + 'static,
    T: Serialize + DeserializeOwned + Send + 'static,
    R: Serialize + DeserializeOwned + Send + 'static,
{
    /// What it has done and taken up to now, while it goes on. It asks the system for the memory of each process, which takes
    /// about a millisecond for each gigabyte that they have.
    pub fn report(&self) -> Report {
        let mut report = self.begin_report();
        if let Place::Processes(processes) = &self.place {
            report.count(&processes.pool.bytes().stats(), &processes.watch.tally());
        }
        report.time(&self.journal, &self.since);
        report
    }

    /// Waits for the tasks that were submitted, lets the workers end and returns a report of the whole run. (Dropping an
    /// invoker kills worker processes.)
    ///
    /// Workers have five seconds to end, and then the leader's subscriber two to take what they have logged. Later events
    /// are dropped, and counted in [`Logs`].
    ///
    /// # Errors
    /// When the workers had failed, or the [`trace`](crate::Builder::trace) can't be written.
    pub fn finish(self) -> Result<Report, Error> {
        let mut report = self.begin_report();
        let interrupted = self.interrupted();
        let Self {
            journal,
            place,
            since,
            ..
        } = self;
        match place {
            Place::Local { pool, .. } => pool.shutdown(),
            Place::Processes(processes) => {
                let (stats, watch) = processes.end();
                // Whether the workers ended well or not: their logs are not lost by that.
                let logs = watch.finish();
                report.count(&stats?, &logs);
            }
        }
        report.time(&journal, &since);
        // Last, so that what workers logged to the end stands above the finished bar.
        journal.close(interrupted);
        if let Some(path) = &since.trace {
            report.write_trace(path).map_err(|source| Error::Os {
                step: "write the trace",
                source,
            })?;
        }
        Ok(report)
    }

    /// What has to be asked while the workers are there.
    fn begin_report(&self) -> Report {
        let mut theirs = Vec::new();
        let mut model = None;
        let mut leader = Vec::new();
        if let Place::Processes(processes) = &self.place {
            let backing = processes.image.segment().backing();
            model = backing.map(|backing| Model {
                bytes: processes.image.bytes(),
                backing: backing.name(),
            });
            theirs = processes.pool.bytes().memory();
            leader = vec![
                ("share the model", processes.share),
                ("start the workers", processes.start),
            ];
        }
        let seconds = |what| {
            let found = leader.iter().find(|(name, _)| *name == what);
            found.map_or(0.0, |(_, time): &(_, Duration)| time.as_secs_f64())
        };
        let times = Times {
            share: seconds("share the model"),
            start: seconds("start the workers"),
            run: 0.0,
            total: 0.0,
        };
        let mut timeline = Timeline::default();
        let mut begin = Duration::ZERO;
        for (name, time) in leader {
            timeline.leader.push((name, begin, begin + time));
            begin += time;
        }
        Report {
            executor: self.settings.executor.value.name(),
            workers: self.workers(),
            tasks: Tasks {
                done: 0,
                failed: 0,
                per_second: 0.0,
            },
            interrupted: self.interrupted().map(|how| match how {
                Interrupt::Finish => "finish",
                Interrupt::Cancel => "cancel",
                _ => "kill",
            }),
            times,
            latency: None,
            split: Vec::new(),
            model,
            memory: memory(theirs.into_iter().map(|(_, memory)| memory)),
            processes: None,
            logs: None,
            timeline,
        }
    }
}

/// The leader's and the workers'.
fn memory(workers: impl Iterator<Item = Memory>) -> Option<MemoryUse> {
    let leader = Memory::of(std::process::id())?;
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
        leader_peak_rss: Memory::peak_of(std::process::id()).unwrap_or(leader.resident),
        workers_rss,
    })
}

impl Report {
    /// What happened to processes.
    fn count(&mut self, stats: &Stats, logs: &Tally) {
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
        self.logs = Some(Logs {
            emitted: logs.emitted,
            delivered: logs.delivered,
            dropped: logs.dropped,
            waiting: logs.waiting(),
        });
    }

    /// What is left to tell when everything else was done.
    fn time(&mut self, journal: &Journal, since: &Since) {
        let (done, failed) = journal.counts();
        let run = journal.elapsed();
        self.times.run = run.as_secs_f64();
        self.tasks = Tasks {
            done,
            failed,
            per_second: match run.is_zero() {
                true => 0.0,
                false => (done + failed) as f64 / run.as_secs_f64(),
            },
        };
        let all = since.chronicle.times();
        let mut latency = proc_pool::Latency::default();
        all.iter().for_each(|times| latency.merge(&times.latency));
        let quantile = |q| latency.quantile(q).map(|time| time.as_secs_f64());
        self.latency = latency.max().and_then(|max| {
            Some(Latency {
                p50: quantile(0.5)?,
                p90: quantile(0.9)?,
                p99: quantile(0.99)?,
                max: max.as_secs_f64(),
                tasks: latency.count(),
            })
        });
        self.split = all.iter().map(WorkerTimes::of).collect();
        if let Some(processes) = &mut self.processes {
            let restarts = all.iter().map(|times| times.processes.saturating_sub(1));
            processes.restarts = restarts.sum();
        }
        let total = since.begun.elapsed();
        self.times.total = total.as_secs_f64();
        self.timeline.lives = since.chronicle.lives();
        self.timeline.offset = total.saturating_sub(since.chronicle.elapsed());
        self.timeline.end = total;
        if let Some(begun) = journal.begun() {
            let begin = begun.saturating_duration_since(since.begun);
            self.timeline.leader.push(("run", begin, begin + run));
        }
    }
}

impl WorkerTimes {
    fn of(times: &proc_pool::Times) -> Self {
        Self {
            worker: times.worker.0,
            processes: times.processes,
            start: times.start.as_secs_f64(),
            attach: times.attach.as_secs_f64(),
            wait: times.wait.as_secs_f64(),
            blocked: times.blocked.as_secs_f64(),
            decode: times.decode.as_secs_f64(),
            run: times.run.as_secs_f64(),
            encode: times.encode.as_secs_f64(),
            tasks: times.tasks,
            sampled: times.sampled,
        }
    }
}
