//! Prints a [`Report`] as text.

use std::fmt;
use std::time::Duration;

use shm_buffers::BackingKind;

use super::rows::{JournalCounts, Latency, LogCounts, ProcessCounts, Report, SharedModel, WorkerTimes};
use super::serialize::interrupt;

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
            write!(f, ", interrupted ({})", interrupt::name(how))?;
        }
        if let Some(Latency {
            p50, p90, p99, max, ..
        }) = self.latency
        {
            let [p50, p90, p99, max] = [p50, p90, p99, max].map(seconds);
            write!(f, "\nlatency   p50 {p50}, p90 {p90}, p99 {p99}, max {max}")?;
        }
        if let Some(model) = &self.model {
            shared(f, model)?;
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
        if let Some(LogCounts {
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
        if let Some(JournalCounts {
            read,
            written,
            bytes: of_file,
            torn,
            failed,
        }) = &self.journal
        {
            let of_file = bytes(*of_file);
            write!(
                f,
                "\njournal   {read} outputs read, {written} written ({of_file})"
            )?;
            if *torn > 0 {
                write!(f, ", {torn} bytes of a torn end cut")?;
            }
            if let Some(error) = failed {
                write!(f, "; stopped: {}", shm_buffers::Printable(error))?;
            }
        }
        table(f, &self.worker_times)
    }
}

/// Writes where the bytes of the model are.
fn shared(f: &mut fmt::Formatter<'_>, model: &SharedModel) -> fmt::Result {
    let mut parts = Vec::new();
    if model.bytes > 0 || model.mapped == 0 {
        let kind = match model.backing {
            // The image is a mapped file. Buffers beside it are not.
            BackingKind::File => "shared",
            kind => kind.as_str(),
        };
        parts.push(format!("{} in {kind} memory", bytes(model.bytes)));
    }
    if model.mapped > 0 {
        parts.push(format!("{} in mapped files", bytes(model.mapped)));
    }
    if model.copied > 0 {
        parts.push(format!("{} copied", bytes(model.copied)));
    }
    // The smallest model has a few.
    if model.per_worker >= 1024 {
        parts.push(format!("{} per worker", bytes(model.per_worker)));
    }
    write!(f, "\nshared    {}", parts.join(", "))?;
    // As little as that is no matter.
    const MIN_LEFT: u64 = 1 << 20;
    if model.unreturned > MIN_LEFT {
        let left = bytes(model.unreturned);
        write!(
            f,
            ", up to {left} left in the leader's allocator (free it by the allocator's own call)"
        )?;
    }
    Ok(())
}

/// Writes the times of the workers as a table.
fn table(f: &mut fmt::Formatter<'_>, workers: &[WorkerTimes]) -> fmt::Result {
    if workers.is_empty() {
        return Ok(());
    }
    const HEAD: [&str; 11] = [
        "worker", "start", "attach", "state", "wait", "blocked", "decode", "run", "encode", "off CPU",
        "tasks",
    ];
    let mut row = |cells: [String; 11]| {
        let [worker, cells @ ..] = cells;
        write!(f, "\n{worker:<9}")?;
        cells.iter().try_for_each(|cell| write!(f, " {cell:>9}"))
    };
    row(HEAD.map(str::to_owned))?;
    workers.iter().try_for_each(|it| {
        let times = [
            it.start, it.attach, it.state, it.wait, it.blocked, it.decode, it.run, it.encode, it.off_cpu,
        ];
        let [start, attach, state, wait, blocked, decode, run, encode, off_cpu] = times.map(seconds);
        let (worker, tasks) = (it.worker.to_string(), it.tasks.to_string());
        row([
            worker, start, attach, state, wait, blocked, decode, run, encode, off_cpu, tasks,
        ])
    })
}

fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if time < Duration::from_millis(1) {
        format!("{:.1} µs", seconds * 1e6)
    } else if time < Duration::from_secs(1) {
        format!("{:.1} ms", seconds * 1e3)
    } else {
        format!("{seconds:.2} s")
    }
}

pub(crate) fn bytes(n: u64) -> String {
    shm_buffers::ByteSize(n).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::rows::{MemoryUse, RunTimes, TaskCounts};
    use super::super::timeline::Timeline;
    use super::*;
    use crate::executor::Executor;
    use proc_pool::Interrupt;

    fn full() -> Report {
        Report {
            executor: Executor::Processes,
            workers: 2,
            tasks: TaskCounts {
                done: 670,
                failed: 1,
                per_second: 1342.0,
            },
            interrupted: Some(Interrupt::Cancel),
            times: RunTimes {
                share: Duration::from_micros(4200),
                start: Duration::from_micros(9500),
                run: Duration::from_millis(500),
                total: Duration::from_millis(520),
            },
            latency: Some(Latency {
                p50: Duration::from_micros(12),
                p90: Duration::from_micros(2100),
                p99: Duration::from_millis(500),
                max: Duration::from_millis(1500),
                tasks: 670,
            }),
            worker_times: vec![WorkerTimes {
                worker: 0,
                processes: 2,
                start: Duration::from_millis(3),
                attach: Duration::from_micros(1200),
                state: Duration::from_micros(800),
                wait: Duration::from_millis(200),
                blocked: Duration::ZERO,
                decode: Duration::from_millis(1),
                run: Duration::from_millis(297),
                encode: Duration::from_nanos(2_000_001),
                off_cpu: Duration::from_micros(100),
                tasks: 670,
                sampled: 300,
            }],
            model: Some(SharedModel {
                bytes: 7 << 20,
                mapped: 2 << 20,
                copied: 0,
                per_worker: 200_000_000,
                unreturned: 0,
                backing: BackingKind::Anonymous,
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
            logs: Some(LogCounts {
                emitted: 15,
                delivered: 7,
                dropped: 3,
                waiting: 5,
            }),
            journal: Some(JournalCounts {
                read: 600,
                written: 71,
                bytes: 3000,
                torn: 17,
                failed: Some("cannot write the journal `j`".to_owned()),
            }),
            timeline: Timeline::default(),
        }
    }

    fn minimal() -> Report {
        Report {
            executor: Executor::Inline,
            workers: 1,
            tasks: TaskCounts {
                done: 3,
                failed: 0,
                per_second: 2.0,
            },
            interrupted: None,
            times: RunTimes {
                run: Duration::from_millis(1500),
                total: Duration::from_millis(1500),
                ..RunTimes::default()
            },
            latency: None,
            worker_times: Vec::new(),
            model: None,
            memory: None,
            processes: None,
            logs: None,
            journal: None,
            timeline: Timeline::default(),
        }
    }

    #[test]
    fn the_text_has_every_part() {
        let expected = "executor  processes, 2 workers
tasks     670 done, 1 failed in 500.0 ms (1342/s), interrupted (cancel)
latency   p50 12.0 µs, p90 2.1 ms, p99 500.0 ms, max 1.50 s
shared    7.0 MiB in anonymous memory, 2.0 MiB in mapped files, 190.7 MiB per worker, moved in 4.2 ms; workers started in 9.5 ms
memory    PSS: leader 12.0 MiB, workers 3.0 MiB + 1000 B, together 15.0 MiB; peak RSS of the leader 20.0 MiB
processes 3 started, 1 died, 0 recycled; tasks: 2 resent, 4 retried, 5 recalled
logs      7 delivered, 3 dropped, 5 waiting
journal   600 outputs read, 71 written (2.9 KiB), 17 bytes of a torn end cut; stopped: cannot write the journal `j`
worker        start    attach     state      wait   blocked    decode       run    encode   off CPU     tasks
0            3.0 ms    1.2 ms  800.0 µs  200.0 ms    0.0 µs    1.0 ms  297.0 ms    2.0 ms  100.0 µs       670";
        assert_eq!(full().to_string(), expected);
    }

    #[test]
    fn the_text_leaves_out_parts_that_do_not_exist() {
        let expected = "executor  inline, 1 worker\ntasks     3 done, 0 failed in 1.50 s (2/s)";
        assert_eq!(minimal().to_string(), expected);
    }

    #[test]
    fn json_deserializes_to_the_same_report() {
        for report in [full(), minimal()] {
            let back: Report = serde_json::from_str(&report.to_json()).expect("just serialized");
            assert_eq!(back, report);
        }
        let json: serde_json::Value = serde_json::from_str(&full().to_json()).expect("it is JSON");
        assert_eq!(json["executor"], "processes");
        assert_eq!(json["interrupted"], "cancel");
        assert_eq!(json["model"]["backing"], "anonymous");
        assert_eq!(json["times"]["run"], 0.5);
        assert_eq!(json["worker_times"][0]["wait"], 0.2);
    }

    #[test]
    fn invalid_names_and_times_do_not_deserialize() {
        let json = full().to_json();
        for (field, wrong) in [
            (r#""interrupted":"cancel""#, r#""interrupted":"pause""#),
            (r#""backing":"anonymous""#, r#""backing":"tape""#),
            (r#""executor":"processes""#, r#""executor":"fork""#),
            (r#""run":0.5"#, r#""run":-0.5"#),
        ] {
            assert!(json.contains(field), "{json}");
            let report = serde_json::from_str::<Report>(&json.replace(field, wrong));
            assert!(report.is_err(), "{wrong}");
        }
    }
}
