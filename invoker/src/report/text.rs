//! A [`Report`] as text.

use std::fmt;
use std::time::Duration;

use super::{Latency, Logs, ProcessCounts, Report, WorkerTimes};

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
        if let Some(Latency {
            p50, p90, p99, max, ..
        }) = self.latency
        {
            let [p50, p90, p99, max] = [p50, p90, p99, max].map(seconds);
            write!(f, "\nlatency   p50 {p50}, p90 {p90}, p99 {p99}, max {max}")?;
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
                write!(f, ", together {}", bytes(memory.total_pss))?;
            }
            write!(f, "; peak RSS of the leader {}", bytes(memory.leader_peak_rss))?;
        }
        if let Some(ProcessCounts {
            spawned,
            died,
            restarts: _,
            recycled,
            resent,
            retried,
            recalled,
        }) = &self.processes
        {
            write!(
                f,
                "\nprocesses {spawned} started, {died} died, {recycled} recycled; tasks: {resent} resent, {retried} retried, {recalled} recalled"
            )?;
        }
        if let Some(Logs {
            delivered,
            dropped,
            waiting,
            ..
        }) = &self.logs
        {
            write!(f, "\nlogs      {delivered} delivered, {dropped} dropped")?;
            if *waiting > 0 {
                write!(f, ", {waiting} waiting")?;
            }
        }
        split(f, &self.split)
    }
}

/// The workers' times as a table.
fn split(f: &mut fmt::Formatter<'_>, workers: &[WorkerTimes]) -> fmt::Result {
    if workers.is_empty() {
        return Ok(());
    }
    const HEAD: [&str; 9] = [
        "worker", "start", "attach", "wait", "blocked", "decode", "run", "encode", "tasks",
    ];
    let mut row = |cells: [String; 9]| {
        let [worker, cells @ ..] = cells;
        write!(f, "\n{worker:<9}")?;
        cells.iter().try_for_each(|cell| write!(f, " {cell:>9}"))
    };
    row(HEAD.map(str::to_owned))?;
    workers.iter().try_for_each(|it| {
        let times = [
            it.start, it.attach, it.wait, it.blocked, it.decode, it.run, it.encode,
        ];
        let [start, attach, wait, blocked, decode, run, encode] = times.map(seconds);
        let (worker, tasks) = (it.worker.to_string(), it.tasks.to_string());
        row([worker, start, attach, wait, blocked, decode, run, encode, tasks])
    })
}

pub(crate) fn seconds(seconds: f64) -> String {
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if time < Duration::from_millis(1) => format!("{:.1} µs", seconds * 1e6),
        Ok(time) if time < Duration::from_secs(1) => format!("{:.1} ms", seconds * 1e3),
        _ => format!("{seconds:.2} s"),
    }
}

pub(crate) fn bytes(n: u64) -> String {
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
    use super::super::{MemoryUse, Model, Tasks, Timeline, Times};
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
                total: 0.52,
            },
            latency: Some(Latency {
                p50: 12e-6,
                p90: 0.0021,
                p99: 0.5,
                max: 1.5,
                tasks: 670,
            }),
            split: vec![WorkerTimes {
                worker: 0,
                processes: 2,
                start: 0.003,
                attach: 0.0012,
                wait: 0.2,
                blocked: 0.0,
                decode: 0.001,
                run: 0.297,
                encode: 0.002,
                tasks: 670,
                sampled: 300,
            }],
            model: Some(Model {
                bytes: 7 << 20,
                backing: "anonymous",
            }),
            memory: Some(MemoryUse {
                leader_pss: 12 << 20,
                workers_pss: vec![3 << 20, 1000],
                total_pss: (15 << 20) + 1000,
                leader_rss: 14 << 20,
                leader_peak_rss: 20 << 20,
                workers_rss: vec![8 << 20, 8 << 20],
            }),
            processes: Some(ProcessCounts {
                spawned: 3,
                died: 1,
                restarts: 1,
                recycled: 0,
                resent: 2,
                retried: 4,
                recalled: 5,
            }),
            logs: Some(Logs {
                emitted: 15,
                delivered: 7,
                dropped: 3,
                waiting: 5,
            }),
            timeline: Timeline::default(),
        };
        let expected = "executor  processes, 2 workers
tasks     670 done, 1 failed in 500.0 ms (1342/s), interrupted (cancel)
latency   p50 12.0 µs, p90 2.1 ms, p99 500.0 ms, max 1.50 s
shared    7.0 MiB in anonymous memory, moved in 4.2 ms; workers started in 9.5 ms
memory    PSS: leader 12.0 MiB, workers 3.0 MiB + 1000 B, together 15.0 MiB; peak RSS of the leader 20.0 MiB
processes 3 started, 1 died, 0 recycled; tasks: 2 resent, 4 retried, 5 recalled
logs      7 delivered, 3 dropped, 5 waiting
worker        start    attach      wait   blocked    decode       run    encode     tasks
0            3.0 ms    1.2 ms  200.0 ms    0.0 µs    1.0 ms  297.0 ms    2.0 ms       670";
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
                total: 1.5,
            },
            latency: None,
            split: Vec::new(),
            model: None,
            memory: None,
            processes: None,
            logs: None,
            timeline: Timeline::default(),
        };
        let expected = "executor  in-process, 1 worker\ntasks     3 done, 0 failed in 1.50 s (2/s)";
        assert_eq!(report.to_string(), expected);
    }
}
