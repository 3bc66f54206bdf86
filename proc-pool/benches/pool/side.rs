//! This pool's side of `cargo xtask bench peers`: runs the tasks that the pools of Python run, and prints the results as one
//! line of JSON.

use std::path::Path;
use std::process;
use std::time::{Duration, Instant};

use proc_pool::{BoxError, Builder, EntryPoint, Worker, WorkerContext, Workers};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shm_buffers::{Backing, Buffer, Image, SegmentHandle, share_move};

use crate::{Failure, WORKERS, factors, null, payloads};

/// The minimum duration of a measurement of null ops.
const DURATION: Duration = Duration::from_millis(300);

/// Measures with a model of `model` bytes, and with recommendations for `users` users.
pub(crate) fn run(model: usize, users: u32) -> Result<(), Failure> {
    let started = Instant::now();
    let pool = null::pool(WORKERS)?;
    null::sum(pool.map_unordered(0..2))?;
    let start = started.elapsed().as_secs_f64();
    let batched = rate(|tasks| null::sum(pool.map(0..tasks)))?;
    let single = rate(|tasks| (0..tasks).try_fold(0, |sum, task| Ok(sum + null::sum(pool.map([task]))?)))?;
    drop(pool);
    let payloads = payloads()?;
    let (killed, killed_seconds) = killed()?;
    let (share, memory) = share(model)?;
    let top = factors::run(users)?;
    let mut found = json!({
        "start": start, "batched": batched, "single": single, "killed": killed,
        "killed_seconds": killed_seconds, "share": share, "pss": memory.map(|(pss, _)| pss),
        "peak": memory.map(|(_, peak)| peak), "bare": top.bare, "top": top.pool,
        "checksum": top.checksum.to_string(),
    });
    for (key, rate) in payloads {
        found[key] = rate.into();
    }
    println!("{found}");
    Ok(())
}

/// The sizes of payloads, in bytes, as in `measures.py`.
const PAYLOADS: [usize; 5] = [4 << 10, 32 << 10, 128 << 10, 1 << 20, 8 << 20];

/// Returns bytes a second of ordered outputs and echoes, by the names that `compare.py` has for them.
fn payloads() -> Result<Vec<(String, f64)>, Failure> {
    let mut found = Vec::new();
    for bytes in PAYLOADS {
        let outputs = payloads::outputs_pool(bytes)?;
        let rate = flow(bytes, |tasks| payloads::sum(outputs.map(0..tasks), bytes))?;
        found.push((format!("outputs {bytes}"), rate));
        let echoes = payloads::echo_pool()?;
        let rate = flow(bytes, |tasks| {
            let inputs = (0..tasks).map(|task| {
                let mut input = vec![0; bytes];
                input[..8].copy_from_slice(&task.to_ne_bytes());
                input
            });
            echoes.map(inputs).map(|output| payloads::number(&output?)).sum()
        })?;
        found.push((format!("echoes {bytes}"), rate));
    }
    Ok(found)
}

/// Returns the bytes a second of tasks with payloads of this size.
fn flow(bytes: usize, run: impl FnMut(u64) -> Result<u64, Failure>) -> Result<f64, Failure> {
    Ok(rate_from(16, run)? * bytes as f64)
}

/// Returns the tasks per second, of a number of tasks that takes at least [`DURATION`]; at first `tasks` are tried.
fn rate_from(mut tasks: u64, mut run: impl FnMut(u64) -> Result<u64, Failure>) -> Result<f64, Failure> {
    loop {
        let started = Instant::now();
        let sum = run(tasks)?;
        let time = started.elapsed();
        if sum != (0..tasks).sum::<u64>() {
            return Err(format!("the sum of {tasks} outputs is wrong: {sum}").into());
        }
        if time >= DURATION {
            return Ok(tasks as f64 / time.as_secs_f64());
        }
        tasks *= 2;
    }
}

fn rate(run: impl FnMut(u64) -> Result<u64, Failure>) -> Result<f64, Failure> {
    rate_from(256, run)
}

/// Aborts its worker for one task.
fn abort_once(task: u64) -> u64 {
    if task == 500 {
        process::abort();
    }
    task
}

/// Runs 1,000 tasks of which one aborts its worker. Returns a description of the results, and the seconds.
fn killed() -> Result<(String, f64), Failure> {
    let pool = Builder::new()
        .workers(Workers::Count(WORKERS))
        .build_op(abort_once)?;
    let started = Instant::now();
    let outputs = pool.map(0..1000).filter(Result::is_ok).count();
    let seconds = started.elapsed().as_secs_f64();
    Ok((
        format!("{outputs} outputs, {} error(s), goes on", 1000 - outputs),
        seconds,
    ))
}

#[derive(Serialize, Deserialize)]
struct Model {
    bytes: Buffer<u8>,
}

/// A worker that reads the whole model before it is ready.
struct Reader {
    /// Stays mapped until the worker ends.
    _model: Model,
}

impl Worker for Reader {
    type Op = ();
    type Init = SegmentHandle;
    type Task = ();
    type Output = ();

    fn start(_: &mut WorkerContext, (): (), handle: SegmentHandle) -> Result<Self, BoxError> {
        let model: Model = Image::attach(&handle)?.load()?;
        std::hint::black_box(read(&model.bytes));
        Ok(Self { _model: model })
    }

    fn run(&mut self, (): ()) {}
}

/// Reads a byte of every page.
fn read(model: &[u8]) -> u64 {
    model.iter().step_by(4096).map(|byte| u64::from(*byte)).sum()
}

/// Shares a model from the leader's heap. Returns the seconds until both workers have read it; and, where the system reports
/// them, the proportional memory of all processes and the sum of their peaks, in bytes.
fn share(bytes: usize) -> Result<(f64, Option<(f64, f64)>), Failure> {
    let bytes = vec![1_u8; bytes].into();
    let started = Instant::now();
    let image = share_move(Model { bytes }, &Backing::Auto)?;
    let pool = Builder::new()
        .workers(Workers::Count(WORKERS))
        .build(EntryPoint::worker::<Reader>(()), &image.handle()?)?;
    pool.bytes().wait_ready()?;
    let seconds = started.elapsed().as_secs_f64();
    if !Path::new("/proc/self/smaps_rollup").exists() {
        return Ok((seconds, None));
    }
    let pids = pool.bytes().pids().into_iter().map(|(_, pid)| pid);
    let (mut pss, mut peak) = (0.0, 0.0);
    for pid in pids.chain([process::id()]) {
        pss += kib(&format!("/proc/{pid}/smaps_rollup"), "Pss:")?;
        peak += kib(&format!("/proc/{pid}/status"), "VmHWM:")?;
    }
    Ok((seconds, Some((pss * 1024.0, peak * 1024.0))))
}

/// Returns the number after `key` in a file of `/proc`.
fn kib(path: &str, key: &str) -> Result<f64, Failure> {
    let text = std::fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or_else(|| format!("{path} has no {key}"))?.parse()?)
}
