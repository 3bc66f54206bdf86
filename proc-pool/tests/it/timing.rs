//! Where workers' time goes, as their pool tells.

use std::thread;
use std::time::{Duration, Instant};

use proc_pool::{Builder, Cause, Ending, Times, Timing, Workers};

use crate::support::watchdog;

const PATIENCE: Duration = Duration::from_secs(50);

fn builder(workers: usize) -> Builder {
    Builder::new().workers(Workers::Count(workers))
}

/// The time in which a worker was ready.
fn ready(times: &Times) -> Duration {
    times.wait + times.blocked + times.decode + times.run + times.encode
}

#[test]
fn every_task_is_timed_once_and_the_parts_are_the_whole() {
    let _watchdog = watchdog(60);
    let begun = Instant::now();
    let pool = builder(2)
        .build_op(|ms: u64| thread::sleep(Duration::from_millis(ms)))
        .expect("it starts");
    assert_eq!(pool.map((0..40).map(|_| 5)).filter(Result::is_ok).count(), 40);
    let chronicle = pool.bytes().chronicle();
    let live = chronicle.times();
    assert!(
        live.iter()
            .all(|times| times.start > Duration::ZERO && times.attach > Duration::ZERO)
    );
    pool.shutdown(PATIENCE).expect("it did not fail");
    let times = chronicle.times();
    let elapsed = begun.elapsed();
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
            times.start + times.attach + ready(times) <= elapsed,
            "{times:?} in {elapsed:?}"
        );
        assert_eq!(times.latency.count(), times.tasks);
        // Each of them takes longer than the time between two samples.
        assert_eq!(times.sampled, times.tasks);
        assert!(
            times.run >= Duration::from_millis(5) * times.tasks as u32,
            "{times:?}"
        );
        let quick = times.latency.quantile(0.0).unwrap_or(PATIENCE);
        assert!(quick >= Duration::from_micros(4_600), "{times:?}");
    }
    // Once they have ended, the clock stands still.
    assert_eq!(times, chronicle.times());
}

#[test]
fn tiny_tasks_are_counted_and_some_of_them_sampled() {
    let _watchdog = watchdog(60);
    let pool = builder(1).build_op(|n: u64| n + 1).expect("it starts");
    assert_eq!(pool.map(0..100_000).filter(Result::is_ok).count(), 100_000);
    let chronicle = pool.bytes().chronicle();
    pool.shutdown(PATIENCE).expect("it did not fail");
    let [times] = &chronicle.times()[..] else {
        panic!("there was one worker")
    };
    assert_eq!((times.tasks, times.latency.count()), (100_000, 100_000));
    assert!((1..100_000 / 2).contains(&times.sampled), "{times:?}");
}

#[test]
fn lives_tell_of_deaths_and_recycling_with_samples_if_asked() {
    let _watchdog = watchdog(60);
    let pool = builder(1).recycle_after(10).timing(Timing::Samples);
    let pool = pool
        .build_op(|n: u64| match n {
            25 => std::process::exit(3),
            _ => thread::sleep(Duration::from_millis(1)),
        })
        .expect("it starts");
    assert_eq!(pool.map(0..30).filter(Result::is_err).count(), 1);
    let chronicle = pool.bytes().chronicle();
    pool.shutdown(PATIENCE).expect("it did not fail");
    let lives = chronicle.lives();
    let endings: Vec<_> = lives
        .iter()
        .map(|life| life.ended.clone().expect("it has").1)
        .collect();
    let died = Ending::Died(Cause::Exited { code: 3 });
    assert_eq!(
        endings,
        [Ending::Recycled, Ending::Recycled, died, Ending::Finished]
    );
    for (restarts, life) in (0..).zip(&lives) {
        assert_eq!((life.worker.0, life.restarts), (0, restarts));
        let (born, ready) = (
            life.born.expect("it came to init"),
            life.ready.expect("it was ready"),
        );
        let ended = life.ended.as_ref().expect("it ended").0;
        assert!(
            life.spawned <= born && born <= ready && ready <= ended,
            "{life:?}"
        );
        assert_eq!(life.samples.len() as u64, life.tasks, "{life:?}");
        let mut last = ready;
        for sample in &life.samples {
            assert!(last <= sample.begun && sample.answered <= ended, "{life:?}");
            assert!(sample.ran - sample.decoded >= Duration::from_millis(1));
            last = sample.answered;
        }
    }
    assert_eq!(lives.iter().map(|life| life.tasks).sum::<u64>(), 29);
    // The one that it died of counts as running, too.
    let times = &chronicle.times()[0];
    assert_eq!((times.processes, times.tasks, chronicle.forgotten()), (4, 29, 0));
}

#[test]
fn nothing_is_timed_when_it_is_off() {
    let _watchdog = watchdog(60);
    let pool = builder(1)
        .timing(Timing::Off)
        .build_op(|n: u64| n)
        .expect("it starts");
    assert_eq!(pool.map(0..100).filter(Result::is_ok).count(), 100);
    let times = pool.bytes().chronicle().times();
    assert_eq!(
        (times[0].tasks, times[0].latency.count(), ready(&times[0])),
        (0, 0, Duration::ZERO)
    );
}
