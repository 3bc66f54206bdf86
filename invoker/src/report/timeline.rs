//! [`Timeline`]: the lives of workers, as a file of trace events.
//!
//! Chrome's Trace Event Format, JSON array:
//! <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsChNAySU>. Times in it are microseconds.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use proc_pool::{Ending, Life};
use serde_json::{Value, json};
use shm_buffers::limits::SizeLimited;

/// When what happened, from the begin of the invoker's `build`.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Timeline {
    pub(crate) lives: Vec<Life>,
    /// To be added to the times of lives.
    pub(crate) offset: Duration,
    /// What the leader did: its name, begin and end.
    pub(crate) leader: Vec<(&'static str, Duration, Duration)>,
    /// The time of the report.
    pub(crate) end: Duration,
}

/// The one process of the file: places of workers are its threads, so that a restart is on its worker's track.
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

    /// Every event of the file, in no particular order.
    fn events(&self, mut put: impl FnMut(Value) -> io::Result<()>) -> io::Result<()> {
        let named = |what: &str, track: u32, name: String| json!({ "name": what, "ph": "M", "pid": PROCESS, "tid": track, "args": { "name": name } });
        put(named("process_name", LEADER, "invoker".to_owned()))?;
        put(named("thread_name", LEADER, "leader".to_owned()))?;
        for (name, begin, end) in &self.leader {
            put(slice(name, LEADER, *begin, *end, json!({})))?;
        }
        let mut workers: Vec<u32> = self.lives.iter().map(|life| life.worker.0).collect();
        workers.sort_unstable();
        workers.dedup();
        for worker in workers {
            put(named("thread_name", track(worker), format!("worker {worker}")))?;
        }
        for life in &self.lives {
            self.life(life, &mut put)?;
        }
        Ok(())
    }

    fn life(&self, life: &Life, put: &mut impl FnMut(Value) -> io::Result<()>) -> io::Result<()> {
        let track = track(life.worker.0);
        let at = |time: Duration| time + self.offset;
        let about = json!({ "pid": life.pid, "restarts": life.restarts });
        let end = life.ended.as_ref().map_or(self.end, |(end, _)| at(*end));
        let born = life.born.map_or(end, at);
        let ready = life.ready.map_or(end, at);
        if life.restarts > 0 {
            put(instant("restart", track, at(life.spawned), about.clone()))?;
        }
        put(slice("start", track, at(life.spawned), born, about.clone()))?;
        if life.born.is_some() {
            put(slice("attach", track, born, ready, about.clone()))?;
        }
        let (name, cause) = match &life.ended {
            None => ("alive", None),
            Some((_, Ending::Died(cause))) => match cause {
                proc_pool::Cause::Killed { .. } => ("killed", Some(cause.to_string())),
                _ => ("died", Some(cause.to_string())),
            },
            Some((_, Ending::Recycled)) => ("recycled", None),
            Some((_, Ending::Dismissed)) => ("dismissed", None),
            Some(_) => ("finished", None),
        };
        let about = json!({
            "pid": life.pid, "restarts": life.restarts, "tasks": life.tasks, "end": name, "cause": cause,
        });
        if life.ready.is_some() {
            put(slice("ready", track, ready, end, about.clone()))?;
        }
        if life.ended.is_some() {
            put(instant(name, track, end, about))?;
        }
        for sample in &life.samples {
            let us = |from: Duration, to: Duration| microseconds(to.saturating_sub(from));
            let parts = json!({
                "before": sample.before,
                "decode_us": us(sample.begun, sample.decoded),
                "run_us": us(sample.decoded, sample.ran),
                "encode_us": us(sample.ran, sample.answered),
            });
            put(slice("task", track, at(sample.begun), at(sample.answered), parts))?;
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

fn slice(name: &str, track: u32, begin: Duration, end: Duration, args: Value) -> Value {
    let duration = microseconds(end.saturating_sub(begin));
    json!({
        "name": name, "ph": "X", "ts": microseconds(begin), "dur": duration, "pid": PROCESS, "tid": track, "args": args,
    })
}

fn instant(name: &str, track: u32, at: Duration, args: Value) -> Value {
    json!({
        "name": name, "ph": "i", "s": "t", "ts": microseconds(at), "pid": PROCESS, "tid": track, "args": args,
    })
}
