//! [`Report`]: what a run took.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// What an invoker did and what it took: text by `Display`, anything else by serde.
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
    /// The shared model, with worker processes.
    pub model: Option<Model>,
    /// Memory, where the system tells.
    pub memory: Option<MemoryUse>,
    /// Worker processes.
    pub processes: Option<ProcessCounts>,
    /// Log events of worker processes.
    pub logs: Option<Logs>,
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

/// Memory in bytes at the end of the run. Proportional set size: a page shared by n processes counts 1/n in each.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct MemoryUse {
    /// The leader's.
    pub leader_pss: u64,
    /// Each worker's.
    pub workers_pss: Vec<u64>,
}

/// Counts of worker processes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ProcessCounts {
    /// Started.
    pub spawned: u64,
    /// Ended before they should.
    pub died: u64,
    /// Tasks sent to another worker because theirs died before it started them.
    pub resent: u64,
    /// Tasks run again after they had cost a worker.
    pub retried: u64,
}

/// Log events of worker processes; emitted = delivered + dropped.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Logs {
    /// Written by ops and what they use, as far as the leader's filter wants them.
    pub emitted: u64,
    /// Replayed in the leader.
    pub delivered: u64,
    /// Lost because a worker's ring was full.
    pub dropped: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            executor,
            workers,
            tasks,
            times,
            ..
        } = self;
        let plural = if *workers == 1 { "" } else { "s" };
        writeln!(f, "executor  {executor}, {workers} worker{plural}")?;
        write!(
            f,
            "tasks     {} done, {} failed in {}",
            tasks.done,
            tasks.failed,
            seconds(times.run)
        )?;
        write!(f, " ({:.0}/s)", tasks.per_second)?;
        if let Some(how) = self.interrupted {
            write!(f, ", interrupted ({how})")?;
        }
        if let Some(model) = &self.model {
            write!(
                f,
                "\nshared    {} in {} memory",
                bytes(model.bytes),
                model.backing
            )?;
            write!(
                f,
                ", moved in {}; workers started in {}",
                seconds(times.share),
                seconds(times.start)
            )?;
        }
        if let Some(memory) = &self.memory {
            write!(f, "\nmemory    PSS: leader {}", bytes(memory.leader_pss))?;
            if !memory.workers_pss.is_empty() {
                let each: Vec<String> = memory.workers_pss.iter().map(|pss| bytes(*pss)).collect();
                write!(f, ", workers {}", each.join(" + "))?;
            }
        }
        if let Some(ProcessCounts {
            spawned,
            died,
            resent,
            retried,
        }) = &self.processes
        {
            write!(
                f,
                "\nprocesses {spawned} started, {died} died, {resent} tasks resent, {retried} retried"
            )?;
        }
        if let Some(Logs {
            delivered, dropped, ..
        }) = &self.logs
        {
            write!(f, "\nlogs      {delivered} delivered, {dropped} dropped")?;
        }
        Ok(())
    }
}

fn seconds(seconds: f64) -> String {
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if time < Duration::from_secs(1) => format!("{:.1} ms", seconds * 1e3),
        _ => format!("{seconds:.2} s"),
    }
}

fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{n} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_tells_it_all() {
        let report = Report {
            executor: "processes",
            workers: 2,
            tasks: Tasks {
                done: 670,
                failed: 1,
                per_second: 1342.0,
            },
            interrupted: Some("cancel"),
            times: Times {
                share: 0.0042,
                start: 0.0095,
                run: 0.5,
            },
            model: Some(Model {
                bytes: 7 << 20,
                backing: "anonymous",
            }),
            memory: Some(MemoryUse {
                leader_pss: 12 << 20,
                workers_pss: vec![3 << 20, 1000],
            }),
            processes: Some(ProcessCounts {
                spawned: 3,
                died: 1,
                resent: 2,
                retried: 4,
            }),
            logs: Some(Logs {
                emitted: 10,
                delivered: 7,
                dropped: 3,
            }),
        };
        let expected = "executor  processes, 2 workers
tasks     670 done, 1 failed in 500.0 ms (1342/s), interrupted (cancel)
shared    7.0 MiB in anonymous memory, moved in 4.2 ms; workers started in 9.5 ms
memory    PSS: leader 12.0 MiB, workers 3.0 MiB + 1000 B
processes 3 started, 1 died, 2 tasks resent, 4 retried
logs      7 delivered, 3 dropped";
        assert_eq!(report.to_string(), expected);
    }

    #[test]
    fn what_there_was_not_is_not_told() {
        let report = Report {
            executor: "in-process",
            workers: 1,
            tasks: Tasks {
                done: 3,
                failed: 0,
                per_second: 2.0,
            },
            interrupted: None,
            times: Times {
                share: 0.0,
                start: 0.0,
                run: 1.5,
            },
            model: None,
            memory: None,
            processes: None,
            logs: None,
        };
        let expected = "executor  in-process, 1 worker\ntasks     3 done, 0 failed in 1.50 s (2/s)";
        assert_eq!(report.to_string(), expected);
    }
}
