//! Handles of single tasks: waiting, awaiting, cancelling, killing; and tasks queued behind a slow one.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use proc_pool::{CancelOutcome, Fault, PoolError};

use crate::support::{Rendezvous, pool, release, wait_for_release, watchdog};

/// Squares a number; waits to be released first if the task names a rendezvous.
fn square((number, rendezvous): (u64, String)) -> u64 {
    if !rendezvous.is_empty() {
        wait_for_release(&rendezvous);
    }
    number * number
}

fn free(number: u64) -> (u64, String) {
    (number, String::new())
}

#[test]
fn handles_can_be_waited_for_in_any_order() {
    let _watchdog = watchdog(60);
    let pool = pool(2, square);
    let mut handles: Vec<_> = (0..3000).map(|n| (n, pool.submit(free(n)))).collect();
    handles.rotate_left(1500);
    for (n, handle) in handles {
        assert_eq!(handle.task(), n);
        assert_eq!(handle.wait().expect("the task succeeds"), n * n);
    }
    // While a map runs, too.
    let handle = pool.submit(free(7));
    assert_eq!(pool.map((0..1000).map(free)).filter_map(Result::ok).count(), 1000);
    assert_eq!(handle.wait().expect("the task succeeds"), 49);
    let stats = pool.shutdown(Duration::from_secs(30)).expect("the pool works");
    assert_eq!((stats.submitted, stats.answered, stats.failed), (4001, 4001, 0));
}

#[test]
fn wait_timeout_returns_the_handle() {
    let _watchdog = watchdog(60);
    let rendezvous = Rendezvous::new();
    let pool = pool(1, square);
    let slow = pool.submit((3, rendezvous.address.clone()));
    let waiting_op = rendezvous.accept();
    let slow = slow
        .wait_timeout(Duration::from_millis(20))
        .expect_err("the task waits");
    assert!(!slow.is_finished());
    drop(waiting_op);
    // The op is never released, and panics.
    let error = slow.wait().expect_err("the op panics");
    assert!(matches!(error.fault, Fault::Panicked { .. }), "{error}");
    assert_eq!(pool.submit(free(4)).wait().expect("the task succeeds"), 16);
}

#[test]
fn cancel_withdraws_waiting_tasks_and_kill_ends_a_running_one() {
    let _watchdog = watchdog(60);
    let rendezvous = Rendezvous::new();
    let pool = pool(1, square);
    // Widens the window of the worker to more than one task.
    assert_eq!(pool.map((0..2000).map(free)).filter_map(Result::ok).count(), 2000);
    let running = pool.submit((3, rendezvous.address.clone()));
    let waiting_op = rendezvous.accept();
    let waiting: Vec<_> = (0..100).map(|n| pool.submit(free(n))).collect();
    assert!(running.is_running() && !running.is_finished());
    assert!(!waiting.iter().any(|handle| handle.is_running()));
    let kept = pool.submit(free(5));
    for handle in &waiting {
        assert_eq!(handle.cancel(), CancelOutcome::Withdrawn);
        assert_eq!(handle.cancel(), CancelOutcome::Finished);
    }
    for handle in waiting {
        let error = handle.wait().expect_err("the task was withdrawn");
        assert!(matches!(error.fault, Fault::Cancelled), "{error}");
    }
    assert_eq!(running.cancel(), CancelOutcome::StillRunning);
    assert_eq!(running.kill(), CancelOutcome::Withdrawn);
    let error = running.wait().expect_err("the task was killed");
    assert!(matches!(error.fault, Fault::Cancelled), "{error}");
    assert_eq!(kept.wait().expect("the task runs in the next process"), 25);
    drop(waiting_op);
    let stats = pool.shutdown(Duration::from_secs(30)).expect("the pool works");
    assert_eq!((stats.submitted, stats.answered, stats.failed), (2102, 2001, 101));
    assert_eq!(stats.deaths, 1);
}

#[test]
fn dropped_handle_withdraws_its_task() {
    let _watchdog = watchdog(60);
    let rendezvous = Rendezvous::new();
    let pool = pool(1, square);
    let running = pool.submit((3, rendezvous.address.clone()));
    let waiting = rendezvous.accept();
    for n in 0..1000 {
        drop(pool.submit(free(n)));
    }
    release(waiting);
    assert_eq!(running.wait().expect("the task succeeds"), 9);
    let stats = pool.shutdown(Duration::from_secs(30)).expect("the pool works");
    assert_eq!((stats.submitted, stats.answered + stats.failed), (1001, 1001));
    assert!(stats.failed > 0, "{stats:?}");
}

/// Wakes a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls a future to its end on this thread.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            // Until the waker unparks it.
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn handle_is_a_future_of_any_runtime() {
    let _watchdog = watchdog(60);
    let pool = pool(2, square);
    for round in 0..20 {
        let handles: Vec<_> = (0..50).map(|n| pool.submit(free(n))).collect();
        let sum = block_on(async {
            let mut sum = 0;
            for handle in handles {
                sum += handle.await.expect("the task succeeds");
            }
            sum
        });
        assert_eq!(sum, (0..50u64).map(|n| n * n).sum::<u64>(), "round {round}");
    }
    // Errors as well.
    let error = block_on(pool.submit((1, "nowhere".to_owned()))).expect_err("the op panics");
    assert!(matches!(error.fault, Fault::Panicked { .. }), "{error}");
}

#[test]
fn handle_outlives_its_pool() {
    let _watchdog = watchdog(60);
    let rendezvous = Rendezvous::new();
    let pool = pool(1, square);
    let running = pool.submit((3, rendezvous.address.clone()));
    let _asking = rendezvous.accept();
    let waiting = pool.submit(free(4));
    let awaited = pool.submit(free(5));
    let waiter = thread::spawn(move || block_on(awaited));
    drop(pool);
    for error in [
        running.wait().expect_err("its worker is gone"),
        waiting.wait().expect_err("its pool is gone"),
        waiter
            .join()
            .expect("no thread panics")
            .expect_err("its pool is gone"),
    ] {
        let gone = matches!(
            error.fault,
            Fault::Pool(PoolError::ShutDown) | Fault::WorkerDied { .. }
        );
        assert!(gone, "{error}");
    }
}

#[test]
fn shutdown_waits_for_submitted_tasks() {
    let _watchdog = watchdog(60);
    let pool = pool(2, square);
    let handles: Vec<_> = (0..5000).map(|n| pool.submit(free(n))).collect();
    let stats = pool.shutdown(Duration::from_secs(60)).expect("the pool works");
    assert_eq!((stats.submitted, stats.answered), (5000, 5000));
    for (n, handle) in (0..).zip(handles) {
        assert_eq!(handle.wait().expect("the task succeeds"), n * n);
    }
}

#[test]
fn tasks_behind_a_slow_task_move_to_an_idle_worker() {
    let _watchdog = watchdog(120);
    let rendezvous = Rendezvous::new();
    let pool = pool(2, square);
    for round in 0..3u64 {
        // Tiny tasks widen the windows to hundreds of tasks; one in their middle runs until the test releases it.
        let slow = |n| n == 10_000 + 100 * round;
        let at = |n| {
            if slow(n) {
                rendezvous.address.clone()
            } else {
                String::new()
            }
        };
        let mut map = pool.map_unordered((0..20_000).map(|n| (n, at(n))));
        for n in 0..19_999 {
            map.next()
                .expect("more outputs come")
                .unwrap_or_else(|e| panic!("{n}: {e}"));
        }
        rendezvous.release_next();
        assert!(map.next().is_some_and(|result| result.is_ok()));
        assert!(map.next().is_none());
    }
    let stats = pool.shutdown(Duration::from_secs(30)).expect("the pool works");
    assert_eq!(
        (stats.submitted, stats.answered, stats.failed),
        (60_000, 60_000, 0)
    );
    assert_eq!(stats.deaths, 0);
}

#[test]
fn tasks_that_become_longer_are_shared_with_an_idle_worker() {
    let _watchdog = watchdog(120);
    let rendezvous = Rendezvous::new();
    let pool = pool(2, |(us, rendezvous): (u64, String)| {
        nap(us);
        if !rendezvous.is_empty() {
            wait_for_release(&rendezvous);
        }
        std::process::id()
    });
    // One worker waits. Tiny tasks widen the window of the other one to hundreds of tasks, so it gets all of the longer ones.
    let blocked = pool.submit((0, rendezvous.address.clone()));
    let waiting = rendezvous.accept();
    let naps = (0..20_400).map(|n| (if n < 20_000 { 0 } else { 500 }, String::new()));
    let mut pids = pool.map(naps).map(|pid| pid.expect("the task succeeds"));
    let other = pids.by_ref().take(20_010).last().expect("many outputs");
    // From now on there is an idle worker, while no task takes long enough to be one that others wait behind.
    release(waiting);
    let idle = blocked.wait().expect("the task succeeds");
    assert_ne!(idle, other);
    assert!(pids.any(|pid| pid == idle), "the idle worker got no task");
}

/// Sleeps for `us` microseconds.
fn nap(us: u64) -> u64 {
    thread::sleep(Duration::from_micros(us));
    us
}

#[test]
fn kill_ends_only_its_own_task() {
    let _watchdog = watchdog(120);
    let pool = pool(1, nap);
    for round in 0..60 {
        let us = round * 10;
        let (first, second) = (pool.submit(us), pool.submit(us));
        // The first task waits, runs or has ended: the kill ends that task, or nothing.
        thread::sleep(Duration::from_micros(300));
        let killed = first.kill();
        let third = pool.submit(us);
        match (first.wait(), killed) {
            (Err(error), CancelOutcome::Withdrawn) => {
                assert!(matches!(error.fault, Fault::Cancelled), "{error}");
            }
            (result, _) => assert_eq!(result.expect("the task ended before the kill"), us),
        }
        for other in [second, third] {
            assert_eq!(
                other.wait().expect("the kill was for another task"),
                us,
                "round {round}"
            );
        }
    }
}
