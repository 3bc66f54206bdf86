//! Other code forks the leader: in the child, pools refuse to work; in the leader, they are not affected.

use std::os::unix::process::ExitStatusExt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use proc_pool::{CancelOutcome, Fault, Interrupt, OnInterrupt, PoolError, Stats, TaskError};

use rustix::process::Signal;

use crate::support::{
    Forked, IsolatedTest, builder, is_isolated, pool, reset_sigint, signal, test_name, watchdog,
};

/// Whether this is the error of a forked copy of `leader`'s pool.
fn is_refused<R>(output: Option<Result<R, TaskError>>, leader: u32) -> bool {
    let fault = output.and_then(Result::err).map(|error| error.fault);
    matches!(fault, Some(Fault::Pool(PoolError::Forked { pid })) if pid == leader)
}

/// Returns the number of the first check that fails, counted from 1.
fn check(checks: &[bool]) -> Result<(), u8> {
    match checks.iter().position(|ok| !ok) {
        Some(failed) => Err(failed as u8 + 1),
        None => Ok(()),
    }
}

#[test]
fn fork_during_a_map_affects_only_the_child() {
    // The threads of other tests may hold locks of the standard library.
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).run();
    }
    const TASKS: u64 = 3_000;
    let _watchdog = watchdog(240);
    let leader = std::process::id();
    for round in 0..20 {
        let unordered = round % 2 == 1;
        let mut owned = Some(pool(2, |n: u64| n * n));
        let pool = owned.as_ref().expect("the parent has not dropped it");
        let interrupter = pool.bytes().interrupter();
        let mut handle = Some(pool.submit(7));
        let mut awaited = Some(pool.submit(8));
        let run = |tasks| match unordered {
            true => pool.map_unordered(tasks),
            false => pool.map(tasks),
        };
        let mut map = Some(run(0..TASKS));
        let mut outputs: Vec<u64> = Vec::new();
        outputs.extend(
            map.as_mut()
                .expect("the parent has not dropped it")
                .take(300)
                .flatten(),
        );
        let child = Forked::run(|| {
            let mut map = map.take().expect("the parent has not dropped it");
            let mut awaited = awaited.take().expect("the parent has not dropped it");
            let mut context = Context::from_waker(Waker::noop());
            let polled = Pin::new(&mut awaited).poll(&mut context);
            check(&[
                is_refused(map.next(), leader),
                map.next().is_none(),
                is_refused(pool.map(0..10).next(), leader),
                pool.map(0..).count() == 1,
                pool.map(3..)
                    .with_inputs()
                    .map(|(task, output)| task == 3 && is_refused(Some(output), leader))
                    .eq([true]),
                is_refused(Some(pool.submit(1).wait()), leader),
                pool.submit(1).is_finished(),
                pool.submit(1).kill() == CancelOutcome::Finished,
                handle
                    .as_ref()
                    .is_some_and(|handle| handle.cancel() == CancelOutcome::Finished),
                is_refused(handle.take().map(|handle| handle.wait()), leader),
                match polled {
                    Poll::Ready(output) => is_refused(Some(output), leader),
                    Poll::Pending => false,
                },
                matches!(pool.resize(5), Err(PoolError::Forked { .. })),
                matches!(pool.bytes().wait_ready(), Err(PoolError::Forked { .. })),
                pool.bytes().pids().is_empty() && pool.snapshot().workers.is_empty(),
                pool.bytes().stats() == Stats::default() && pool.bytes().workers() == 0,
            ])?;
            interrupter.interrupt(Interrupt::Kill);
            pool.bytes().interrupt(Interrupt::Kill);
            drop((map, awaited, interrupter.clone()));
            check(&[pool.bytes().interrupted().is_none()])
        });
        // While the child runs its checks.
        outputs.extend(map.as_mut().expect("the parent has not dropped it").flatten());
        outputs.sort_unstable();
        assert!(outputs.into_iter().eq((0..TASKS).map(|n| n * n)), "round {round}");
        let status = child.wait();
        assert!(status.success(), "round {round}: {status}");
        assert_eq!(
            handle
                .take()
                .expect("the parent has not dropped it")
                .wait()
                .expect("the task succeeds"),
            49
        );
        drop((map, awaited));
        // The child drops its copy of the pool in one fork, and shuts it down in another.
        let dropped = Forked::run(|| {
            drop(owned.take());
            Ok(())
        });
        assert!(dropped.wait().success(), "round {round}");
        let shut_down = Forked::run(|| {
            let ended = owned.take().map(|pool| pool.shutdown(Duration::MAX));
            check(&[matches!(ended, Some(Err(PoolError::Forked { .. })))])
        });
        assert!(shut_down.wait().success(), "round {round}");
        let pool = owned.take().expect("the parent has not dropped it");
        assert_eq!(
            pool.map(0..1000).filter_map(Result::ok).count(),
            1000,
            "round {round}"
        );
        let stats = pool.shutdown(Duration::from_secs(30)).expect("the pool works");
        assert_eq!((stats.deaths, stats.spawned), (0, 2), "round {round}");
    }
}

#[test]
fn fork_while_another_thread_uses_the_pool_affects_only_the_child() {
    // The threads of other tests may hold locks of the standard library.
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).run();
    }
    let _watchdog = watchdog(120);
    let leader = std::process::id();
    let pool = pool(2, |n: u64| n * n);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // While this thread forks, the other one is anywhere in the pool's code, and may hold locks.
        let mapping = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let outputs = pool.map(0..500).map(|output| output.expect("the task succeeds"));
                assert!(outputs.eq((0..500).map(|n| n * n)));
            }
        });
        for round in 0..20 {
            let child = Forked::run(|| {
                check(&[
                    is_refused(pool.map(0..10).next(), leader),
                    is_refused(Some(pool.submit(1).wait()), leader),
                ])
            });
            let status = child.wait();
            assert!(status.success(), "round {round}: {status}");
        }
        done.store(true, Ordering::SeqCst);
        mapping.join().expect("all outputs are correct");
    });
    // An input that forks: the child continues in the middle of the map.
    let mut child = None;
    let input = (0..1000).inspect(|n| {
        if *n == 500 {
            child = Some(Forked::fork());
        }
    });
    let mut outputs = pool.map(input);
    match outputs.by_ref().find(Result::is_err) {
        None => {}
        // Only the child's outputs have errors.
        refused => Forked::exit(u8::from(
            !(is_refused(refused, leader) && outputs.next().is_none()),
        )),
    }
    drop(outputs);
    assert!(child.expect("the input has forked").wait().success());
    let stats = pool.shutdown(Duration::from_secs(30)).expect("the pool works");
    assert_eq!((stats.deaths, stats.submitted), (0, stats.answered));
}

#[test]
fn signal_to_a_forked_child_does_not_interrupt_the_parents_pool() {
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).run();
    }
    reset_sigint();
    let _watchdog = watchdog(60);
    let pool = builder(1)
        .on_interrupt(OnInterrupt::Finish)
        .build_op(|n: u64| n * n)
        .expect("the pool starts");
    for _ in 0..3 {
        let child = Forked::run(|| {
            signal(std::process::id(), Signal::INT);
            // The signal arrives before this call returns, or soon afterwards.
            loop {
                thread::yield_now();
            }
        });
        assert_eq!(child.wait().signal(), Some(Signal::INT.as_raw()));
    }
    assert_eq!(pool.map(0..100).filter_map(Result::ok).count(), 100);
    assert_eq!(pool.bytes().interrupted(), None);
}
