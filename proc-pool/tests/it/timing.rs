//! Times that a pool reports: of phases, tasks and processes.

use std::thread;
use std::time::{Duration, Instant};

use proc_pool::{ExitCause, ExitKind, Times, Timing};

use crate::support::{builder, watchdog};

/// How long a shutdown waits for its workers.
const GRACE: Duration = Duration::from_secs(50);

/// Returns the time during which a worker was ready.
fn ready(times: &Times) -> Duration {
    times.wait + times.blocked + times.decode + times.run + times.encode + times.off_cpu
}

#[test]
fn phase_times_add_up_and_cover_every_task() {
    let _watchdog = watchdog(60);
    let started = Instant::now();
    let pool = builder(2)
        .build_op(|ms: u64| thread::sleep(Duration::from_millis(ms)))
        .expect("the pool starts");
    assert_eq!(pool.map((0..40).map(|_| 5)).filter(Result::is_ok).count(), 40);
    let history = pool.bytes().history();
    let live = history.times();
    assert!(
        live.iter()
            .all(|times| times.start > Duration::ZERO && times.attach > Duration::ZERO)
    );
    pool.shutdown(GRACE).expect("the pool works");
    let times = history.times();
    let elapsed = started.elapsed();
    assert_eq!(
        times
            .iter()
            .map(|t| (t.worker.0, t.processes))
            .collect::<Vec<_>>(),
        [(0, 1), (1, 1)]
    );
    assert_eq!(times.iter().map(|t| t.tasks).sum::<u64>(), 40);
    for times in &times {
        assert!(
            times.start + times.attach + times.state + ready(times) <= elapsed,
            "{times:?} in {elapsed:?}"
        );
        assert_eq!(times.latency.count(), times.tasks);
        // Each task takes longer than the time between two samples.
        assert_eq!(times.sampled, times.tasks);
        assert!(
            times.run >= Duration::from_millis(5) * times.tasks as u32,
            "{times:?}"
        );
        let quick = times.latency.quantile(0.0).unwrap_or(GRACE);
        assert!(quick >= Duration::from_micros(4_600), "{times:?}");
    }
    // The times of ended processes do not change.
    assert_eq!(times, history.times());
}

#[test]
fn tiny_tasks_are_all_counted_and_partly_sampled() {
    let _watchdog = watchdog(60);
    let pool = builder(1).build_op(|n: u64| n + 1).expect("the pool starts");
    assert_eq!(pool.map(0..100_000).filter(Result::is_ok).count(), 100_000);
    let history = pool.bytes().history();
    pool.shutdown(GRACE).expect("the pool works");
    let [times] = &history.times()[..] else {
        panic!("there was one worker")
    };
    assert_eq!((times.tasks, times.latency.count()), (100_000, 100_000));
    assert!((1..100_000 / 2).contains(&times.sampled), "{times:?}");
}

#[test]
fn process_history_has_deaths_recycling_and_samples() {
    let _watchdog = watchdog(60);
    let pool = builder(1).recycle_after(10).timing(Timing::Samples);
    let pool = pool
        .build_op(|n: u64| match n {
            25 => std::process::exit(3),
            _ => thread::sleep(Duration::from_millis(1)),
        })
        .expect("the pool starts");
    assert_eq!(pool.map(0..30).filter(Result::is_err).count(), 1);
    let history = pool.bytes().history();
    pool.shutdown(GRACE).expect("the pool works");
    let lives = history.processes();
    let endings: Vec<_> = lives
        .iter()
        .map(|life| life.ended.clone().expect("the process has ended").1)
        .collect();
    let died = ExitKind::Died(ExitCause::Exited { code: 3 });
    assert_eq!(
        endings,
        [ExitKind::Recycled, ExitKind::Recycled, died, ExitKind::Finished]
    );
    for (restarts, life) in (0..).zip(&lives) {
        assert_eq!((life.worker.0, life.restarts), (0, restarts));
        let (born, ready) = (
            life.initialized.expect("the process called init"),
            life.ready.expect("the worker was ready"),
        );
        let ended = life.ended.as_ref().expect("the process has ended").0;
        assert!(
            life.spawned <= born && born <= ready && ready <= ended,
            "{life:?}"
        );
        assert_eq!(life.samples.len() as u64, life.tasks, "{life:?}");
        let mut last = ready;
        for sample in &life.samples {
            assert!(last <= sample.started && sample.answered <= ended, "{life:?}");
            assert!(sample.ran - sample.decoded >= Duration::from_millis(1));
            last = sample.answered;
        }
    }
    assert_eq!(lives.iter().map(|life| life.tasks).sum::<u64>(), 29);
    // The task that ended a process is not counted.
    let times = &history.times()[0];
    assert_eq!((times.processes, times.tasks, history.forgotten()), (4, 29, 0));
}

#[test]
fn no_times_are_measured_when_timing_is_off() {
    let _watchdog = watchdog(60);
    let pool = builder(1)
        .timing(Timing::Off)
        .build_op(|n: u64| n)
        .expect("the pool starts");
    assert_eq!(pool.map(0..100).filter(Result::is_ok).count(), 100);
    let times = pool.bytes().history().times();
    assert_eq!(
        (times[0].tasks, times[0].latency.count(), ready(&times[0])),
        (0, 0, Duration::ZERO)
    );
}
