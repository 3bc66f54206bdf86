//! [`Timeline`]: the lives of worker processes, as a file of trace events.
//!
//! Chrome's Trace Event Format, JSON array:
//! <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsChNAySU>. Times in it are microseconds.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use proc_pool::{ExitKind, ProcessHistory};
use serde_json::{Value, json};
use shm_buffers::ModelMemory;
use shm_buffers::limits::SizeLimited;

/// The events of an invoker. Times count from the call of `build`.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Timeline {
    pub(crate) processes: Vec<ProcessHistory>,
    /// The start of the clock of `processes`.
    pub(crate) offset: Duration,
    /// Phases of the leader: name, start and end.
    pub(crate) leader: Vec<(&'static str, Duration, Duration)>,
    /// The time of the report.
    pub(crate) end: Duration,
    /// Where the bytes of the model are.
    pub(crate) model: Option<ModelMemory>,
}

/// The only process of the file. Workers are its threads, so that all processes of a worker share one track.
const PROCESS: u32 = 1;
const LEADER: u32 = 0;

impl Timeline {
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        shm_buffers::replace_file(path, |file| {
            let mut file = BufWriter::new(SizeLimited::new(file));
            let mut separator = "[\n";
            self.events(|event| {
                file.write_all(separator.as_bytes())?;
                separator = ",\n";
                serde_json::to_writer(&mut file, &event).map_err(io::Error::from)
            })?;
            file.write_all(b"\n]\n")?;
            file.flush()
        })?;
        Ok(())
    }

    /// Calls `put` with every event of the file, in any order.
    fn events(&self, mut put: impl FnMut(Value) -> io::Result<()>) -> io::Result<()> {
        let named = |what: &str, track: u32, name: String| json!({ "name": what, "ph": "M", "pid": PROCESS, "tid": track, "args": { "name": name } });
        put(named("process_name", LEADER, "invoker".to_owned()))?;
        put(named("thread_name", LEADER, "leader".to_owned()))?;
        for (name, start, end) in &self.leader {
            put(slice(name, LEADER, *start, *end, json!({})))?;
        }
        if let Some(model) = &self.model {
            let bytes = json!({
                "shared": model.shared, "mapped": model.mapped, "copied": model.copied, "per_worker": model.per_process,
            });
            put(instant("model", LEADER, Duration::ZERO, bytes))?;
        }
        let mut workers: Vec<u32> = self.processes.iter().map(|process| process.worker.0).collect();
        workers.sort_unstable();
        workers.dedup();
        for worker in workers {
            put(named("thread_name", track(worker), format!("worker {worker}")))?;
        }
        for process in &self.processes {
            self.process_events(process, &mut put)?;
        }
        Ok(())
    }

    fn process_events(
        &self,
        process: &ProcessHistory,
        put: &mut impl FnMut(Value) -> io::Result<()>,
    ) -> io::Result<()> {
        let track = track(process.worker.0);
        let at = |time: Duration| time + self.offset;
        let about = json!({ "pid": process.pid, "restarts": process.restarts });
        let end = process.ended.as_ref().map_or(self.end, |(end, _)| at(*end));
        let born = process.initialized.map_or(end, at);
        let ready = process.ready.map_or(end, at);
        if process.restarts > 0 {
            put(instant("restart", track, at(process.spawned), about.clone()))?;
        }
        put(slice("start", track, at(process.spawned), born, about.clone()))?;
        if process.initialized.is_some() {
            let attached = process.attached.map_or(ready, at);
            put(slice("attach", track, born, attached, about.clone()))?;
            if process.attached.is_some() {
                put(slice("state", track, attached, ready, about.clone()))?;
            }
        }
        let (name, cause) = match &process.ended {
            None => ("alive", None),
            Some((_, ExitKind::Died(cause))) => match cause {
                proc_pool::ExitCause::Killed { .. } => ("killed", Some(cause.to_string())),
                _ => ("died", Some(cause.to_string())),
            },
            Some((_, ExitKind::Recycled)) => ("recycled", None),
            Some((_, ExitKind::ScaledDown)) => ("scaled down", None),
            Some(_) => ("finished", None),
        };
        let about = json!({
            "pid": process.pid, "restarts": process.restarts, "tasks": process.tasks, "end": name, "cause": cause,
        });
        if process.ready.is_some() {
            put(slice("ready", track, ready, end, about.clone()))?;
        }
        if process.ended.is_some() {
            put(instant(name, track, end, about))?;
        }
        for sample in &process.samples {
            let us = |from: Duration, to: Duration| microseconds(to.saturating_sub(from));
            let parts = json!({
                "before": sample.before,
                "decode_us": us(sample.started, sample.decoded),
                "run_us": us(sample.decoded, sample.ran),
                "encode_us": us(sample.ran, sample.answered),
            });
            put(slice(
                "task",
                track,
                at(sample.started),
                at(sample.answered),
                parts,
            ))?;
        }
        Ok(())
    }
}

fn track(worker: u32) -> u32 {
    worker + 1
}

fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn slice(name: &str, track: u32, start: Duration, end: Duration, args: Value) -> Value {
    let duration = microseconds(end.saturating_sub(start));
    json!({
        "name": name, "ph": "X", "ts": microseconds(start), "dur": duration, "pid": PROCESS, "tid": track, "args": args,
    })
}

fn instant(name: &str, track: u32, at: Duration, args: Value) -> Value {
    json!({
        "name": name, "ph": "i", "s": "t", "ts": microseconds(at), "pid": PROCESS, "tid": track, "args": args,
    })
}
