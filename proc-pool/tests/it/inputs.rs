//! Inputs of maps: infinite, slow, empty and panicking iterators, how far they are read ahead, and concurrent maps.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[cfg(target_os = "linux")]
use crate::support::{IsolatedTest, cpu_time, is_isolated, test_name};
use crate::support::{Rendezvous, pool, release, wait_for_release, watchdog};

#[test]
fn infinite_input_is_read_ahead_within_bounds() {
    let _watchdog = watchdog(60);
    let pool = pool(2, |n: u64| n * 2);
    for round in 0..3 {
        let pulled = Cell::new(0u64);
        let numbers = || {
            pulled.set(0);
            (0..).inspect(|n| pulled.set(*n))
        };
        let mut outputs = pool.map(numbers());
        assert_eq!(outputs.next().unwrap().unwrap(), 0);
        assert!(pulled.get() < 20_000, "{} in round {round}", pulled.get());
        let outputs: Vec<u64> = outputs.take(5000).map(Result::unwrap).collect();
        assert!(outputs.into_iter().eq((1..5001).map(|n| n * 2)));
        assert!(pool.map_unordered(numbers()).nth(5000).unwrap().is_ok());
        assert!(pulled.get() < 5000 + 20_000, "{} in round {round}", pulled.get());
    }
}

#[test]
fn a_map_takes_no_more_tasks_than_may_be_in_flight() {
    let _watchdog = watchdog(60);
    let pool = pool(2, |n: u64| match n % 7 {
        0 => panic!("divisible by 7"),
        _ => n,
    });
    for limit in [0, 1, 3, 100] {
        let taken = Cell::new(0);
        let tasks = || (0..1000).inspect(|n| taken.set(n + 1));
        for mut outputs in [pool.map(tasks()), pool.map_unordered(tasks())] {
            outputs.set_max_in_flight(limit);
            let mut returned = 0;
            for output in outputs {
                assert!(
                    taken.get() <= returned + limit.max(1) as u64,
                    "{limit}: {taken:?}, {returned}"
                );
                assert!(output.is_ok() || output.is_err_and(|error| error.task % 7 == 0));
                returned += 1;
            }
            assert_eq!(returned, 1000);
        }
    }
}

/// Before the duration of tasks is known, the pool takes no more tasks than it has workers.
#[test]
fn each_worker_receives_one_of_the_first_tasks() {
    let _watchdog = watchdog(60);
    let rendezvous = Rendezvous::new();
    let pool = pool(2, |path: String| wait_for_release(&path));
    let pulled = AtomicU64::new(0);
    let tasks = (0..6).map(|_| {
        pulled.fetch_add(1, Ordering::SeqCst);
        rendezvous.address.clone()
    });
    let mut outputs = pool.map(tasks);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let waiting = [rendezvous.accept(), rendezvous.accept()];
            assert_eq!(pulled.load(Ordering::SeqCst), 2);
            waiting.into_iter().for_each(release);
            (0..4).for_each(|_| rendezvous.release_next());
        });
        assert_eq!(outputs.by_ref().filter(Result::is_ok).count(), 6);
    });
}

#[test]
fn empty_input_yields_no_output() {
    let _watchdog = watchdog(60);
    let pool = pool(1, |n: u64| n);
    let mut outputs = pool.map([]);
    assert_eq!(outputs.size_hint(), (0, Some(0)));
    assert!(outputs.next().is_none() && outputs.next().is_none());
    assert!(pool.map_unordered([]).next().is_none());
    assert_eq!(pool.map([4]).next().unwrap().unwrap(), 4);
}

#[test]
fn pool_works_after_an_inputs_panic() {
    let _watchdog = watchdog(60);
    let pool = pool(2, |n: u64| n);
    for ordered in [true, false] {
        let input = || (0..1000u64).inspect(|n| assert!(*n != 500, "the input's bug"));
        let count = Cell::new(0);
        let drain = AssertUnwindSafe(|| {
            let count_one = |_| count.set(count.get() + 1);
            if ordered {
                pool.map(input()).for_each(count_one);
            } else {
                pool.map_unordered(input()).for_each(count_one);
            }
        });
        assert!(catch_unwind(drain).is_err());
        assert!(count.get() <= 500);
        assert_eq!(pool.map(0..100).filter(Result::is_ok).count(), 100);
    }
}

#[test]
fn map_continues_after_its_inputs_panic() {
    let _watchdog = watchdog(60);
    let pool = pool(2, |n: u64| n);
    let mut outputs = pool.map((0..100u64).filter(|n| {
        assert!(*n != 50, "the input's bug");
        true
    }));
    let mut seen = Vec::new();
    loop {
        match catch_unwind(AssertUnwindSafe(|| outputs.next())) {
            Ok(Some(output)) => seen.push(output.unwrap()),
            Ok(None) => break,
            Err(_) => {}
        }
    }
    assert!(seen.into_iter().eq((0..100).filter(|n| *n != 50)));
}

/// An output comes before a slow input has yielded many more tasks.
#[test]
fn slow_input_does_not_delay_outputs() {
    let _watchdog = watchdog(60);
    let pool = pool(2, |n: u64| n);
    // Widens the window.
    assert_eq!(pool.map(0..10_000).count(), 10_000);
    let pulled = Cell::new(0);
    let mut outputs = pool.map((0..1000).inspect(|n| {
        pulled.set(*n);
        std::thread::sleep(Duration::from_millis(20));
    }));
    for expected in 0..5 {
        assert_eq!(outputs.next().unwrap().unwrap(), expected);
        assert!(pulled.get() < expected + 10, "{} before {expected}", pulled.get());
    }
}

/// While the outputs are consumed slowly, the pool sleeps.
#[cfg(target_os = "linux")]
#[test]
fn slow_consumer_costs_no_cpu() {
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    let pool = pool(2, |n: u64| n);
    let mut outputs = pool.map(0..);
    assert!(outputs.by_ref().take(10_000).all(|r| r.is_ok()));
    let before = cpu_time();
    for _ in 0..5 {
        assert!(outputs.next().is_some());
        std::thread::sleep(Duration::from_millis(100));
    }
    let used = cpu_time() - before;
    assert!(used < Duration::from_millis(150), "{used:?} of 500 ms");
}

#[test]
fn dropped_map_does_not_affect_later_maps() {
    let _watchdog = watchdog(60);
    let pool = pool(2, |n: u64| n);
    for round in 0..20u64 {
        let offset = round * 1_000_000;
        let taken = pool.map(offset..).take(round as usize * 20).count();
        assert_eq!(taken, round as usize * 20);
        drop(pool.map_unordered(offset..));
        let outputs: Vec<u64> = pool.map(offset..offset + 50).map(Result::unwrap).collect();
        assert!(outputs.into_iter().eq(offset..offset + 50));
    }
}

#[test]
fn one_thread_can_alternate_between_two_maps() {
    let _watchdog = watchdog(60);
    let pool = pool(2, |n: u64| n + 1);
    let mut even = pool.map((0..3000).map(|n| n * 2));
    let mut odd = pool.map_unordered((0..3000).map(|n| n * 2 + 1));
    let mut sum = 0;
    for n in 0..3000 {
        assert_eq!(even.next().unwrap().unwrap(), n * 2 + 1);
        sum += odd.next().unwrap().unwrap();
    }
    assert!(even.next().is_none() && odd.next().is_none());
    assert_eq!(sum, (0..3000).map(|n| n * 2 + 2).sum::<u64>());
}

#[test]
fn four_threads_can_share_a_pool() {
    let _watchdog = watchdog(60);
    for workers in [1, 2, 5] {
        let pool = pool(workers, |n: u64| n * 3);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let pool = &pool;
                scope.spawn(move || {
                    for round in 0..30 {
                        let start = thread * 1_000_000 + round * 1000;
                        let input = start..start + 1 + round * 20;
                        let expected = input.clone().map(|n| n * 3);
                        if round % 2 == 0 {
                            assert!(pool.map(input).map(Result::unwrap).eq(expected));
                        } else {
                            let mut outputs: Vec<u64> =
                                pool.map_unordered(input).map(Result::unwrap).collect();
                            outputs.sort_unstable();
                            assert!(outputs.into_iter().eq(expected));
                        }
                    }
                });
            }
        });
        let stats = pool.bytes().stats();
        assert_eq!((stats.submitted, stats.failed), (stats.answered, 0));
    }
}

/// The caller of a slow task sleeps; the caller of quick tasks is still woken for each of its outputs.
#[test]
fn quick_tasks_do_not_wait_for_a_slow_tasks_caller() {
    let _watchdog = watchdog(60);
    let rendezvous = Rendezvous::new();
    let pool = pool(2, |wait: Option<String>| {
        if let Some(path) = wait {
            wait_for_release(&path);
        }
    });
    // Widens the windows of both workers.
    assert_eq!(pool.map((0..1000).map(|_| None)).count(), 1000);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert!(
                pool.map([Some(rendezvous.address.clone())])
                    .next()
                    .unwrap()
                    .is_ok()
            )
        });
        // So many that a wait of 50 ms for each would trigger the watchdog.
        for _ in 0..3000 {
            assert!(pool.map_unordered([None]).next().is_some());
        }
        rendezvous.release_next();
    });
}
