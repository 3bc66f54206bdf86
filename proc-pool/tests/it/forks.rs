//! A leader that is forked by other code: the child's copies refuse, and the leader's pool is unharmed.

use std::os::unix::process::ExitStatusExt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use proc_pool::{
    Builder, Cancelled, Fault, Interrupt, LocalPool, OnInterrupt, PoolError, Stats, TaskError, Workers,
};

use crate::crash::Forked;
use crate::support::{Alone, is_alone, pool, test_name, watchdog};

/// Whether that is the refusal of a copy of `leader`'s pool.
fn refuses<R>(output: Option<Result<R, TaskError>>, leader: u32) -> bool {
    let fault = output.and_then(Result::err).map(|error| error.fault);
    matches!(fault, Some(Fault::Pool(PoolError::Forked { pid })) if pid == leader)
}

/// Numbers the first check that fails.
fn check(checks: &[bool]) -> Result<(), u8> {
    match checks.iter().position(|ok| !ok) {
        Some(failed) => Err(failed as u8 + 1),
        None => Ok(()),
    }
}

#[test]
fn a_leader_that_forks_while_a_map_runs_keeps_its_outputs_and_the_child_is_refused() {
    // Other tests' threads hold locks of the standard library's now and then.
    if !is_alone() {
        return Alone::new(&test_name!()).run();
    }
    const TASKS: u64 = 3_000;
    let _watchdog = watchdog(240);
    let leader = std::process::id();
    for round in 0..20 {
        let unordered = round % 2 == 1;
        let mut owned = Some(pool(2, |n: u64| n * n));
        let pool = owned.as_ref().expect("it is there");
        let interrupter = pool.bytes().interrupter();
        let mut handle = Some(pool.submit(7));
        let mut awaited = Some(pool.submit(8));
        let run = |tasks| match unordered {
            true => pool.map_unordered(tasks),
            false => pool.map(tasks),
        };
        let mut map = Some(run(0..TASKS));
        let mut outputs: Vec<u64> = Vec::new();
        outputs.extend(map.as_mut().expect("it is there").take(300).flatten());
        let child = Forked::run(|| {
            let mut map = map.take().expect("it is there");
            let mut awaited = awaited.take().expect("it is there");
            let mut context = Context::from_waker(Waker::noop());
            let polled = Pin::new(&mut awaited).poll(&mut context);
            check(&[
                refuses(map.next(), leader),
                map.next().is_none(),
                refuses(pool.map(0..10).next(), leader),
                pool.map(0..).count() == 1,
                refuses(Some(pool.submit(1).wait()), leader),
                pool.submit(1).is_finished(),
                pool.submit(1).kill() == Cancelled::Finished,
                handle
                    .as_ref()
                    .is_some_and(|handle| handle.cancel() == Cancelled::Finished),
                refuses(handle.take().map(|handle| handle.wait()), leader),
                match polled {
                    Poll::Ready(output) => refuses(Some(output), leader),
                    Poll::Pending => false,
                },
                matches!(pool.resize(Workers::Count(5)), Err(PoolError::Forked { .. })),
                matches!(pool.bytes().wait_ready(), Err(PoolError::Forked { .. })),
                pool.bytes().pids().is_empty() && pool.snapshot().workers.is_empty(),
                pool.bytes().stats() == Stats::default() && pool.bytes().workers() == 0,
            ])?;
            interrupter.interrupt(Interrupt::Kill);
            pool.bytes().interrupt(Interrupt::Kill);
            drop((map, awaited, interrupter.clone()));
            check(&[pool.bytes().interrupted().is_none()])
        });
        // While the child does all that.
        outputs.extend(map.as_mut().expect("it is there").flatten());
        outputs.sort_unstable();
        assert!(outputs.into_iter().eq((0..TASKS).map(|n| n * n)), "round {round}");
        let status = child.wait();
        assert!(status.success(), "round {round}: {status}");
        assert_eq!(handle.take().expect("it is there").wait().expect("it runs"), 49);
        drop((map, awaited));
        // The end of the child's copy of the pool itself: first without, then with a wait for its workers.
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
        let pool = owned.take().expect("it is there");
        assert_eq!(
            pool.map(0..1000).filter_map(Result::ok).count(),
            1000,
            "round {round}"
        );
        let stats = pool.shutdown(Duration::from_secs(30)).expect("it works");
        assert_eq!((stats.deaths, stats.spawned), (0, 2), "round {round}");
    }
}

#[test]
fn a_fork_in_the_middle_of_the_pools_work_harms_neither_side() {
    // Other tests' threads hold locks of the standard library's now and then.
    if !is_alone() {
        return Alone::new(&test_name!()).run();
    }
    let _watchdog = watchdog(120);
    let leader = std::process::id();
    let pool = pool(2, |n: u64| n * n);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        // While this thread forks, that one is anywhere in the pool's code, with locks held.
        let mapping = scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                let outputs = pool.map(0..500).map(|output| output.expect("it runs"));
                assert!(outputs.eq((0..500).map(|n| n * n)));
            }
        });
        for round in 0..20 {
            let child = Forked::run(|| {
                check(&[
                    refuses(pool.map(0..10).next(), leader),
                    refuses(Some(pool.submit(1).wait()), leader),
                ])
            });
            let status = child.wait();
            assert!(status.success(), "round {round}: {status}");
        }
        over.store(true, Ordering::SeqCst);
        mapping.join().expect("all outputs are right");
    });
    // An input that forks: the child goes on in the middle of the map.
    let mut child = None;
    let input = (0..1000).inspect(|n| {
        if *n == 500 {
            child = Some(Forked::go_on());
        }
    });
    let mut outputs = pool.map(input);
    let first = outputs.by_ref().find(Result::is_err);
    match first {
        None => {}
        // The child's.
        refused => Forked::exit(u8::from(!(refuses(refused, leader) && outputs.next().is_none()))),
    }
    drop(outputs);
    assert!(child.expect("it was forked").wait().success());
    let stats = pool.shutdown(Duration::from_secs(30)).expect("it works");
    assert_eq!((stats.deaths, stats.submitted), (0, stats.answered));
}

#[test]
fn the_threads_of_a_local_pool_are_not_missed_in_a_forked_child() {
    // Other tests' threads hold locks of the standard library's now and then.
    if !is_alone() {
        return Alone::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    let leader = std::process::id();
    let build = || LocalPool::threads(Workers::Count(2), OnInterrupt::Ignore, |_| Ok(|n: u64| n * n));
    let mut owned = Some(build().expect("it starts"));
    let pool = owned.as_ref().expect("it is there");
    let handle = pool.submit(3);
    let child = Forked::run(|| {
        let mut map = pool.map(0..10);
        check(&[
            refuses(map.next(), leader),
            map.next().is_none(),
            refuses(Some(pool.submit(1).wait()), leader),
            handle.is_finished() && handle.cancel() == Cancelled::Finished,
        ])
    });
    assert!(child.wait().success());
    assert_eq!(handle.wait().expect("it runs"), 9);
    let child = Forked::run(|| {
        drop(owned.take());
        Ok(())
    });
    assert!(child.wait().success());
    let outputs = owned.as_ref().expect("it is there").map(0..100);
    assert!(
        outputs
            .map(|output| output.expect("it runs"))
            .eq((0..100).map(|n| n * n))
    );
}

#[test]
fn a_signal_of_a_forked_child_is_not_its_parents() {
    if !is_alone() {
        return Alone::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    let pool = Builder::new()
        .workers(Workers::Count(1))
        .on_interrupt(OnInterrupt::Finish)
        .build_op(|n: u64| n * n)
        .expect("it starts");
    for _ in 0..3 {
        let child = Forked::run(|| {
            crate::support::signal(std::process::id(), rustix::process::Signal::INT);
            // It comes before that returns, or soon.
            loop {
                thread::yield_now();
            }
        });
        assert_eq!(child.wait().signal(), Some(rustix::process::Signal::INT.as_raw()));
    }
    assert_eq!(pool.map(0..100).filter_map(Result::ok).count(), 100);
    assert_eq!(pool.bytes().interrupted(), None);
}
