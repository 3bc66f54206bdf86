//! The crates put together by hand, without the facade: a shared model, worker processes, their logs and their progress.
use log_bridge::{Collector, SourceHandle, WorkerGuard};
use proc_pool::{BoxError, Builder, EntryPoint, TaskError, WorkerContext};
use progress::{Counters, CountersHandle, Outcome, Reporter, Total};
use shm_buffers::{Backing, Buffer, Image, SegmentHandle, share_move};
use std::{sync::Arc, time::Duration};

/// The state of a worker process: the shared model, its counters, and what sends its logs until it is dropped.
type Scorer = (Buffer<f64>, Counters, WorkerGuard);

fn start(context: &mut WorkerContext, weights: SegmentHandle) -> Result<Scorer, BoxError> {
    let (logs, counters) = context.worker_value::<(SourceHandle, CountersHandle)>()?;
    let logs = logs.connect()?.install()?;
    Ok((Image::attach(&weights)?.load()?, counters.connect()?, logs))
}

fn score((weights, counters, _): &mut Scorer, item: u32) -> f64 {
    if item == 13 {
        tracing::error!(item, "this one is too much");
        std::process::abort();
    }
    counters.counter(Outcome::Done).inc();
    weights[item as usize]
}

/// Returns the sum of all scores, and the items without a score.
fn sum() -> Result<(f64, Vec<(u32, TaskError)>), BoxError> {
    let reporter = Reporter::builder().start()?;
    tracing_subscriber::fmt().with_writer(reporter.writer()).init();
    let bar = reporter.bar("score", Total::Known(1000));
    let logs = Arc::new(Collector::new().spawn(Duration::from_millis(25))?);
    let (counted, opened, ended) = (bar.clone(), logs.clone(), logs);
    let image = share_move((0..1000).map(f64::from).collect::<Buffer<f64>>(), &Backing::Auto)?;
    let pool = Builder::new()
        .worker_value(move |worker| {
            Ok::<_, BoxError>((opened.open(worker.0.into())?, counted.remote_counters()?.1))
        })
        .on_worker_end(move |worker, _| {
            let removed = ended.remove(worker.0.into(), Duration::from_secs(1));
            removed.map(|it| it.last_records).unwrap_or_default()
        })
        .workers(2)
        .build(EntryPoint::op_with_state(start, score), &image.handle()?)?;
    let (mut sum, mut failed) = (0.0, Vec::new());
    for (item, output) in pool.map(0..1000).with_inputs() {
        match output {
            Ok(score) => sum += score,
            Err(error) => failed.push((item, error)),
        }
    }
    bar.add(Outcome::Failed, failed.len() as u64);
    pool.shutdown(Duration::from_secs(5))?; // the last logs have arrived
    reporter.finish();
    Ok((sum, failed))
}

fn main() -> Result<(), BoxError> {
    proc_pool::init();
    sum().map(|found| println!("{found:?}"))
}

#[cfg(test)]
mod tests {
    use proc_pool::Fault;

    proc_pool::init_in_tests!();

    #[test]
    fn all_but_one_are_scored_and_its_last_log_is_in_its_error() {
        let (sum, failed) = super::sum().expect("the pool works");
        assert_eq!(sum, f64::from((0..1000u32).sum::<u32>() - 13));
        let [(13, error)] = &failed[..] else {
            panic!("{failed:?}")
        };
        let Fault::WorkerDied { last_logs, .. } = &error.fault else {
            panic!("{error}")
        };
        assert!(
            last_logs.iter().any(|line| line.contains("too much")),
            "{last_logs:?}"
        );
    }
}
