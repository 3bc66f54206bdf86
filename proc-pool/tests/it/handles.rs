//! Tasks submitted alone: waited for, awaited, cancelled; and tasks that are not to wait behind a slow one.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use proc_pool::{Cancelled, Fault, PoolError};

use crate::support::{Ear, hear_from, pool, watchdog};

/// Squares a number; waits to be allowed to, if it is told of somebody to ask.
fn square((number, ask): (u64, String)) -> u64 {
    if !ask.is_empty() {
        hear_from(&ask);
    }
    number * number
}

fn free(number: u64) -> (u64, String) {
    (number, String::new())
}

#[test]
fn handles_give_outputs_in_any_order_of_waiting() {
    let _watchdog = watchdog(60);
    let pool = pool(2, square);
    let mut handles: Vec<_> = (0..3000).map(|n| (n, pool.submit(free(n)))).collect();
    handles.rotate_left(1500);
    for (n, handle) in handles {
        assert_eq!(handle.task(), n);
        assert_eq!(handle.wait().expect("it runs"), n * n);
    }
    // And beside a map.
    let handle = pool.submit(free(7));
    assert_eq!(pool.map((0..1000).map(free)).filter_map(Result::ok).count(), 1000);
    assert_eq!(handle.wait().expect("it runs"), 49);
    let stats = pool.shutdown(Duration::from_secs(30)).expect("it works");
    assert_eq!((stats.submitted, stats.answered, stats.faulted), (4001, 4001, 0));
}

#[test]
fn who_does_not_want_to_wait_any_longer_keeps_the_handle() {
    let _watchdog = watchdog(60);
    let ear = Ear::new();
    let pool = pool(1, square);
    let slow = pool.submit((3, ear.path.clone()));
    let asking = ear.accept();
    let slow = slow
        .wait_timeout(Duration::from_millis(20))
        .expect_err("it waits");
    assert!(!slow.is_finished());
    drop(asking);
    // Its op fails to hear, which is its own panic.
    let error = slow.wait().expect_err("nobody answered");
    assert!(matches!(error.fault, Fault::Panicked { .. }), "{error}");
    assert_eq!(pool.submit(free(4)).wait().expect("it runs"), 16);
}

#[test]
fn what_has_not_begun_is_withdrawn_and_what_runs_is_killed_if_asked() {
    let _watchdog = watchdog(60);
    let ear = Ear::new();
    let pool = pool(1, square);
    // So that its worker takes more than one at a time.
    assert_eq!(pool.map((0..2000).map(free)).filter_map(Result::ok).count(), 2000);
    let running = pool.submit((3, ear.path.clone()));
    let asking = ear.accept();
    let waiting: Vec<_> = (0..100).map(|n| pool.submit(free(n))).collect();
    let kept = pool.submit(free(5));
    for handle in &waiting {
        assert_eq!(handle.cancel(), Cancelled::Withdrawn);
        assert_eq!(handle.cancel(), Cancelled::Finished);
    }
    for handle in waiting {
        let error = handle.wait().expect_err("it was withdrawn");
        assert!(matches!(error.fault, Fault::Cancelled), "{error}");
    }
    assert_eq!(running.cancel(), Cancelled::Running);
    assert_eq!(running.kill(), Cancelled::Withdrawn);
    let error = running.wait().expect_err("it was killed");
    assert!(matches!(error.fault, Fault::Cancelled), "{error}");
    assert_eq!(kept.wait().expect("it runs in the next process"), 25);
    drop(asking);
    let stats = pool.shutdown(Duration::from_secs(30)).expect("it works");
    assert_eq!(
        (stats.submitted, stats.answered, stats.faulted),
        (2102, 2001, 101)
    );
    assert_eq!(stats.deaths, 1);
}

#[test]
fn handles_that_are_dropped_are_not_run_and_not_missed() {
    let _watchdog = watchdog(60);
    let ear = Ear::new();
    let pool = pool(1, square);
    let running = pool.submit((3, ear.path.clone()));
    let mut asking = ear.accept();
    for n in 0..1000 {
        drop(pool.submit(free(n)));
    }
    std::io::Write::write_all(&mut asking, &[1]).expect("it is there");
    assert_eq!(running.wait().expect("it runs"), 9);
    let stats = pool.shutdown(Duration::from_secs(30)).expect("it works");
    assert_eq!((stats.submitted, stats.answered + stats.faulted), (1001, 1001));
    assert!(stats.faulted > 0, "{stats:?}");
}

/// Wakes a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            // Only the waker ends that.
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn handles_are_futures_of_any_runtime() {
    let _watchdog = watchdog(60);
    let pool = pool(2, square);
    for round in 0..20 {
        let handles: Vec<_> = (0..50).map(|n| pool.submit(free(n))).collect();
        let sum = block_on(async {
            let mut sum = 0;
            for handle in handles {
                sum += handle.await.expect("it runs");
            }
            sum
        });
        assert_eq!(sum, (0..50u64).map(|n| n * n).sum::<u64>(), "round {round}");
    }
    // Errors come that way, too.
    let error = block_on(pool.submit((1, "nowhere".to_owned()))).expect_err("nobody is there");
    assert!(matches!(error.fault, Fault::Panicked { .. }), "{error}");
}

#[test]
fn handles_outlive_their_pool() {
    let _watchdog = watchdog(60);
    let ear = Ear::new();
    let pool = pool(1, square);
    let running = pool.submit((3, ear.path.clone()));
    let _asking = ear.accept();
    let waiting = pool.submit(free(4));
    let awaited = pool.submit(free(5));
    let waiter = thread::spawn(move || block_on(awaited));
    drop(pool);
    for error in [
        running.wait().expect_err("its worker is gone"),
        waiting.wait().expect_err("its pool is gone"),
        waiter.join().expect("it ends").expect_err("its pool is gone"),
    ] {
        let gone = matches!(
            error.fault,
            Fault::Pool(PoolError::ShutDown) | Fault::WorkerDied { .. }
        );
        assert!(gone, "{error}");
    }
}

#[test]
fn shutting_down_waits_for_what_was_submitted() {
    let _watchdog = watchdog(60);
    let pool = pool(2, square);
    let handles: Vec<_> = (0..5000).map(|n| pool.submit(free(n))).collect();
    let stats = pool.shutdown(Duration::from_secs(60)).expect("it works");
    assert_eq!((stats.submitted, stats.answered), (5000, 5000));
    for (n, handle) in (0..).zip(handles) {
        assert_eq!(handle.wait().expect("it ran"), n * n);
    }
}

#[test]
fn nobody_waits_behind_a_slow_task_while_another_worker_is_idle() {
    let _watchdog = watchdog(120);
    let ear = Ear::new();
    let pool = pool(2, square);
    for round in 0..3u64 {
        // Tiny ones first, so that workers take hundreds at a time; then one in their middle that takes for ever.
        let slow = |n| n == 10_000 + 100 * round;
        let ask = |n| if slow(n) { ear.path.clone() } else { String::new() };
        let mut map = pool.map_unordered((0..20_000).map(|n| (n, ask(n))));
        for n in 0..19_999 {
            map.next()
                .expect("it is not over")
                .unwrap_or_else(|e| panic!("{n}: {e}"));
        }
        ear.answer();
        assert!(map.next().is_some_and(|result| result.is_ok()));
        assert!(map.next().is_none());
    }
    let stats = pool.shutdown(Duration::from_secs(30)).expect("it works");
    assert_eq!(
        (stats.submitted, stats.answered, stats.faulted),
        (60_000, 60_000, 0)
    );
    assert_eq!(stats.deaths, 0);
}

/// Takes as long as it is told.
fn nap(us: u64) -> u64 {
    thread::sleep(Duration::from_micros(us));
    us
}

#[test]
fn who_is_killed_takes_nobody_along() {
    let _watchdog = watchdog(120);
    let pool = pool(1, nap);
    for round in 0..60 {
        let us = round * 10;
        let (first, second) = (pool.submit(us), pool.submit(us));
        // It runs, is over, or has not begun: what is killed is that task, or nothing.
        thread::sleep(Duration::from_micros(300));
        let killed = first.kill();
        let third = pool.submit(us);
        match (first.wait(), killed) {
            (Err(error), Cancelled::Withdrawn) => {
                assert!(matches!(error.fault, Fault::Cancelled), "{error}");
            }
            (result, _) => assert_eq!(result.expect("it was over"), us),
        }
        for other in [second, third] {
            assert_eq!(other.wait().expect("nobody killed it"), us, "round {round}");
        }
    }
}
