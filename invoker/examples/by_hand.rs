//! The crates put together by hand, without the facade: a shared model, worker processes, their logs and their progress.
//! To be copied and changed, by whoever has outgrown the facade.
//!
//! `cargo run -p invoker --example by_hand`

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use log_bridge::{Collector, CollectorHandle, Filter, WorkerGuard, WorkerLayer};
use proc_pool::{
    BoxError, Builder, EntryPoint, ExitCause, Fault, Observer, Worker, WorkerContext, WorkerId, Workers,
};
use progress::{Bar, Counters, Outcome, Reporter, Total};
use serde::{Deserialize, Serialize};
use shm_buffers::slots::Slots;
use shm_buffers::{Backing, Buffer, Image, SegmentHandle, ring, share_move};

/// Number of slots of a worker: those of the log bridge, then those of progress.
const SLOTS: usize = log_bridge::SLOTS + progress::SLOTS;
/// Maximum time to read the last log records of a worker that has ended.
const LAST_RECORDS_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Serialize, Deserialize)]
struct Model {
    weights: Buffer<f64>,
}

/// The initial value of every worker process.
#[derive(Serialize, Deserialize)]
struct Start {
    model: SegmentHandle,
    logs: Filter,
}

/// The state of a worker process.
struct Scorer {
    model: Model,
    counters: Counters,
    /// Flushes the logs when it is dropped.
    _logs: Option<WorkerGuard>,
}

impl Worker for Scorer {
    type Op = ();
    type Init = Start;
    type Task = u32;
    type Output = f64;

    fn start(context: &mut WorkerContext, (): (), init: Start) -> Result<Self, BoxError> {
        let slots = context.slots().clone();
        let logs = context.take_user_ring().map(|side| {
            let layer = WorkerLayer::builder(side, slots.part(0..log_bridge::SLOTS));
            layer.filter(init.logs).install()
        });
        Ok(Self {
            model: Image::attach(&init.model)?.load()?,
            counters: Counters::new(slots.part(log_bridge::SLOTS..SLOTS)),
            _logs: logs.transpose()?,
        })
    }

    fn run(&mut self, item: u32) -> f64 {
        if item == 13 {
            tracing::error!(item, "this one is too much");
            std::process::abort();
        }
        self.counters.counter(Outcome::Done).inc();
        self.model.weights[item as usize]
    }
}

/// Passes the logs of workers to the leader's subscriber, and their counts to its bar.
struct Watch {
    logs: CollectorHandle,
    bar: Bar,
    sources: Mutex<HashMap<WorkerId, progress::Source>>,
}

impl Observer for Watch {
    fn started(&self, worker: WorkerId, side: ring::Consumer, slots: Slots) {
        let id = log_bridge::Source::new(worker.0.into());
        if let Err(error) = self.logs.add(id, side, slots.part(0..log_bridge::SLOTS)) {
            tracing::warn!(%worker, %error, "the logs of a worker are lost");
        }
        let source = self.bar.add_source(slots.part(log_bridge::SLOTS..SLOTS));
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.insert(worker, source);
    }

    fn ended(&self, worker: WorkerId, _: &ExitCause) -> Vec<String> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(source) = sources.remove(&worker) {
            source.retire(); // its counts remain in the bar
        }
        let last = self.logs.remove(worker.0.into(), LAST_RECORDS_TIMEOUT);
        last.map_or_else(|_| Vec::new(), |removed| removed.last_records)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    proc_pool::init();
    let reporter = Reporter::builder().start()?;
    tracing_subscriber::fmt().with_writer(reporter.writer()).init();
    let bar = reporter.bar("score", Total::Known(1000));
    let counters = bar.counters();

    let weights = (0..1000).map(f64::from).collect();
    let image = share_move(Model { weights }, &Backing::Auto)?;
    let watch = Watch {
        logs: Collector::new().spawn(Duration::from_millis(25))?,
        bar,
        sources: Mutex::default(),
    };
    let start = Start {
        model: image.handle()?,
        logs: Filter::current(),
    };
    let builder = Builder::new().workers(Workers::Count(2)).slots(SLOTS);
    let pool = builder
        .observer(Arc::new(watch))
        .build(EntryPoint::worker::<Scorer>(()), &start)?;

    let mut sum = 0.0;
    let mut last_logs = Vec::new();
    for output in pool.map(0..1000) {
        match output.map_err(|error| error.fault) {
            Ok(score) => sum += score,
            Err(Fault::WorkerDied { last_logs: logs, .. }) => {
                counters.counter(Outcome::Failed).inc();
                last_logs.extend(logs);
            }
            Err(fault) => return Err(fault.into()),
        }
    }
    pool.shutdown(Duration::from_secs(5))?;
    reporter.finish();
    println!("the sum of the others is {sum}; the last words of the one: {last_logs:?}");

    // It is a test, too.
    assert_eq!(sum, f64::from((0..1000u32).sum::<u32>() - 13));
    assert!(
        last_logs.iter().any(|line| line.contains("too much")),
        "{last_logs:?}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    proc_pool::init_in_tests!();

    #[test]
    fn it_runs() {
        super::main().expect("it runs");
    }
}
