//! This pool's side of `cargo xtask bench peers`: the same tasks that pools of Python get, told as one line of JSON.

use std::process;
use std::time::{Duration, Instant};

use proc_pool::{BoxError, Builder, CallError, OutputBuf, Service, WorkerContext, Workers};
use serde_json::json;
use shm_buffers::{Backing, Segment, SegmentHandle, SegmentMut};

use crate::{Failure, WORKERS, null};

/// How long null ops are measured.
const LONG: Duration = Duration::from_millis(300);

pub(crate) fn tell(model: usize) -> Result<(), Failure> {
    let begun = Instant::now();
    let pool = null::pool(WORKERS)?;
    null::sum(pool.map_unordered(0..2))?;
    let start = begun.elapsed().as_secs_f64();
    let batched = rate(|tasks| null::sum(pool.map(0..tasks)))?;
    let single = rate(|tasks| (0..tasks).try_fold(0, |sum, task| Ok(sum + null::sum(pool.map([task]))?)))?;
    drop(pool);
    let (killed, killed_seconds) = killed()?;
    let [share, pss, peak] = share(model)?;
    println!(
        "{}",
        json!({
            "start": start, "batched": batched, "single": single, "killed": killed,
            "killed_seconds": killed_seconds, "share": share, "pss": pss, "peak": peak,
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

/// A worker that has read the whole model when it is ready.
struct Reader {
    /// Mapped as long as the worker lives.
    _model: Segment,
}

impl Service for Reader {
    fn start(_: &mut WorkerContext, handle: &[u8]) -> Result<Self, BoxError> {
        let handle: SegmentHandle = serde_json::from_slice(handle)?;
        let model = Segment::attach(&handle)?;
        std::hint::black_box(read(&model));
        Ok(Self { _model: model })
    }

    fn call(&mut self, _: &[u8], _: &mut OutputBuf) -> Result<(), CallError> {
        Ok(())
    }
}

/// A byte of every page.
fn read(model: &[u8]) -> u64 {
    model.iter().step_by(4096).map(|byte| u64::from(*byte)).sum()
}

/// Seconds until both workers have read a model that lies on the leader's heap; then everybody's memory and its peaks.
fn share(bytes: usize) -> Result<[f64; 3], Failure> {
    let model = vec![1_u8; bytes];
    let begun = Instant::now();
    let mut segment = SegmentMut::create(&Backing::Auto, bytes)?;
    segment.copy_at(0, &model);
    drop(model);
    let segment = segment.freeze()?;
    let pool = Builder::new()
        .workers(Workers::Count(WORKERS))
        .build_bytes::<Reader>(serde_json::to_vec(&segment.handle()?)?)?;
    let seconds = begun.elapsed().as_secs_f64();
    let pids = pool.pids().into_iter().map(|(_, pid)| pid);
    let (mut pss, mut peak) = (0.0, 0.0);
    for pid in pids.chain([process::id()]) {
        pss += kib(&format!("/proc/{pid}/smaps_rollup"), "Pss:")?;
        peak += kib(&format!("/proc/{pid}/status"), "VmHWM:")?;
    }
    Ok([seconds, pss * 1024.0, peak * 1024.0])
}

fn kib(path: &str, key: &str) -> Result<f64, Failure> {
    let text = std::fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or_else(|| format!("{path} has no {key}"))?.parse()?)
}
