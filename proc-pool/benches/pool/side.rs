//! This pool's side of `cargo xtask bench peers`: the same tasks that pools of Python get, told as one line of JSON.

use std::path::Path;
use std::process;
use std::time::{Duration, Instant};

use proc_pool::{BoxError, Builder, Worker, WorkerContext, Workers};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shm_buffers::{Backing, Buffer, Image, SegmentHandle, share_move};

use crate::{Failure, WORKERS, factors, null};

/// How long null ops are measured.
const LONG: Duration = Duration::from_millis(300);

/// Of a model of so many bytes, and recommendations for so many users.
pub(crate) fn tell(model: usize, users: u32) -> Result<(), Failure> {
    let begun = Instant::now();
    let pool = null::pool(WORKERS)?;
    null::sum(pool.map_unordered(0..2))?;
    let start = begun.elapsed().as_secs_f64();
    let batched = rate(|tasks| null::sum(pool.map(0..tasks)))?;
    let single = rate(|tasks| (0..tasks).try_fold(0, |sum, task| Ok(sum + null::sum(pool.map([task]))?)))?;
    drop(pool);
    let (killed, killed_seconds) = killed()?;
    let (share, memory) = share(model)?;
    let top = factors::tell(users)?;
    println!(
        "{}",
        json!({
            "start": start, "batched": batched, "single": single, "killed": killed,
            "killed_seconds": killed_seconds, "share": share, "pss": memory.map(|(pss, _)| pss),
            "peak": memory.map(|(_, peak)| peak), "bare": top.bare, "top": top.pool,
            "checksum": top.checksum.to_string(),
        })
    );
    Ok(())
}

/// Tasks per second, of as many as take about as long as is to be measured.
fn rate(mut run: impl FnMut(u64) -> Result<u64, Failure>) -> Result<f64, Failure> {
    let mut tasks = 256;
    loop {
        let begun = Instant::now();
        let sum = run(tasks)?;
        let time = begun.elapsed();
        if sum != (0..tasks).sum::<u64>() {
            return Err(format!("the sum of {tasks} outputs is wrong: {sum}").into());
        }
        if time >= LONG {
            return Ok(tasks as f64 / time.as_secs_f64());
        }
        tasks *= 2;
    }
}

fn deadly(task: u64) -> u64 {
    if task == 500 {
        process::abort();
    }
    task
}

/// What is left of 1,000 tasks of which one ends its worker, and the seconds until that is known.
fn killed() -> Result<(String, f64), Failure> {
    let pool = Builder::new().workers(Workers::Count(WORKERS)).build_op(deadly)?;
    let begun = Instant::now();
    let outputs = pool.map(0..1000).filter(Result::is_ok).count();
    let seconds = begun.elapsed().as_secs_f64();
    Ok((
        format!("{outputs} outputs, {} error(s), goes on", 1000 - outputs),
        seconds,
    ))
}

#[derive(Serialize, Deserialize)]
struct Model {
    bytes: Buffer<u8>,
}

/// A worker that has read the whole model when it is ready.
struct Reader {
    /// Mapped as long as the worker lives.
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

/// A byte of every page.
fn read(model: &[u8]) -> u64 {
    model.iter().step_by(4096).map(|byte| u64::from(*byte)).sum()
}

/// Seconds until both workers have read a model that lies on the leader's heap; then everybody's memory and its peaks,
/// where the system tells them.
fn share(bytes: usize) -> Result<(f64, Option<(f64, f64)>), Failure> {
    let bytes = vec![1_u8; bytes].into();
    let begun = Instant::now();
    let image = share_move(Model { bytes }, &Backing::Auto)?;
    let pool = Builder::new()
        .workers(Workers::Count(WORKERS))
        .build::<Reader>((), &image.handle()?)?;
    pool.bytes().wait_ready()?;
    let seconds = begun.elapsed().as_secs_f64();
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

fn kib(path: &str, key: &str) -> Result<f64, Failure> {
    let text = std::fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or_else(|| format!("{path} has no {key}"))?.parse()?)
}
