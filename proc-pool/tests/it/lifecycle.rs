//! Whole pools: shutting them down, dropping them, several at a time, one inside a worker of another.

use std::thread;
use std::time::Duration;

use proc_pool::{Fault, Interrupt, PoolError};

use crate::support::{
    Rendezvous, builder, ends_within, hang, pids, pool, report, wait_for_release, watchdog,
};

#[test]
fn idle_workers_exit_when_the_pool_shuts_down() {
    let _watchdog = watchdog(60);
    for _ in 0..5 {
        let pool = pool(3, |n: u64| n);
        assert_eq!(pool.map(0..100).count(), 100);
        let pids = pids(&pool);
        let began = std::time::Instant::now();
        let stats = pool.shutdown(Duration::from_secs(50)).expect("the pool works");
        assert_eq!((stats.answered, stats.deaths, stats.spawned), (100, 0, 3));
        assert!(ends_within(&pids, 0));
        assert!(
            began.elapsed() < Duration::from_secs(40),
            "the workers were killed"
        );
    }
}

#[test]
fn pool_that_replaces_a_worker_shuts_down() {
    let _watchdog = watchdog(60);
    for _ in 0..5 {
        let pool = pool(2, |n: u64| if n == 1 { std::process::exit(9) } else { n });
        assert_eq!(pool.map(0..2).filter(Result::is_err).count(), 1);
        let began = std::time::Instant::now();
        pool.shutdown(Duration::from_secs(50)).expect("the pool works");
        assert!(
            began.elapsed() < Duration::from_secs(40),
            "the workers were killed"
        );
    }
}

#[test]
fn drop_and_shutdown_kill_hung_workers() {
    let _watchdog = watchdog(60);
    for shutdown in [true, false] {
        let rendezvous = Rendezvous::new();
        let pool = pool(2, |(path, n): (String, u32)| {
            if n == 1 {
                report(&path, std::process::id());
                hang();
            }
        });
        let pids = pids(&pool);
        // The second task's output comes from one worker; the other one reports its pid, and hangs.
        let tasks = [(rendezvous.address.clone(), 1), (rendezvous.address.clone(), 0)];
        let mut outputs = pool.map_unordered(tasks);
        assert!(outputs.next().expect("one output").is_ok());
        let hung = rendezvous.receive();
        drop(outputs);
        assert!(pids.contains(&hung));
        if shutdown {
            pool.shutdown(Duration::from_millis(50)).expect("the pool works");
        } else {
            drop(pool);
        }
        assert!(ends_within(&pids, 0));
    }
}

#[test]
fn drop_is_quick_at_any_time() {
    let _watchdog = watchdog(60);
    for taken in [0, 1, 10, 1000] {
        let pool = pool(2, |n: u64| vec![n; 100]);
        let pids = pids(&pool);
        assert_eq!(pool.map(0..).take(taken).count(), taken);
        drop(pool);
        assert!(ends_within(&pids, 0));
    }
}

#[test]
fn outputs_of_one_pool_can_be_tasks_of_another() {
    let _watchdog = watchdog(60);
    let double = pool(2, |n: u64| n * 2);
    let text = pool(1, |n: u64| n.to_string());
    let square = pool(2, |n: u64| n * n);
    let doubles = double.map(0..500).map(Result::unwrap);
    let texts = text.map(doubles).map(|r| r.unwrap().parse::<u64>().unwrap());
    assert!(
        square
            .map(texts)
            .map(Result::unwrap)
            .eq((0..500).map(|n| n * n * 4))
    );
}

/// A worker has called `init`, too, so it can have workers of its own.
#[test]
fn worker_can_have_a_pool() {
    let _watchdog = watchdog(60);
    let outer = pool(2, |n: u64| {
        let inner = builder(2)
            .build_op(|n: u64| (n + 1, std::process::id()))
            .expect("workers may have pools");
        let outputs: Vec<(u64, u32)> = inner.map(n..n + 10).map(|r| r.expect("no task fails")).collect();
        assert!(outputs.iter().map(|(n, _)| *n).eq(n + 1..n + 11));
        assert!(outputs.iter().all(|(_, pid)| *pid != std::process::id()));
        outputs[0].1
    });
    let inner: Vec<u32> = outer.map(0..4).map(|r| r.expect("no task fails")).collect();
    assert!(ends_within(&inner, 2000));
}

#[test]
fn shutdown_reports_a_failure_that_happens_during_it() {
    let _watchdog = watchdog(60);
    let rendezvous = Rendezvous::new();
    let pool = pool(1, |address: String| wait_for_release(&address));
    let blocked = pool.submit(rendezvous.address.clone());
    let waiting = rendezvous.accept();
    let interrupter = pool.bytes().interrupter();
    let ended = thread::scope(|scope| {
        let ended = scope.spawn(|| pool.shutdown(Duration::from_secs(30)));
        // Most likely the shutdown waits for the task by now; if not, the result is the same.
        thread::sleep(Duration::from_millis(100));
        interrupter.interrupt(Interrupt::Kill);
        ended.join().expect("no thread panics")
    });
    drop(waiting);
    assert!(matches!(ended, Err(PoolError::Interrupted)), "{ended:?}");
    let error = blocked.wait().expect_err("its worker is gone");
    assert!(
        matches!(error.fault, Fault::Pool(PoolError::Interrupted)),
        "{error}"
    );
}
