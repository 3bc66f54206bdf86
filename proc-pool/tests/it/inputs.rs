//! Lazy inputs: infinite, slow, empty, broken ones; how far they are read ahead; maps side by side.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::support::{pool, watchdog};

#[test]
fn an_infinite_input_is_read_ahead_within_bounds() {
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

/// Before anything is known of the tasks, no more are taken than there are workers.
#[test]
fn the_first_tasks_go_one_to_each_worker() {
    let _watchdog = watchdog(60);
    let ear = crate::support::Ear::new();
    let pool = pool(2, |path: String| crate::support::hear_from(&path));
    let pulled = AtomicU64::new(0);
    let tasks = (0..6).map(|_| {
        pulled.fetch_add(1, Ordering::SeqCst);
        ear.path.clone()
    });
    let mut outputs = pool.map(tasks);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let waiting = [ear.accept(), ear.accept()];
            assert_eq!(pulled.load(Ordering::SeqCst), 2);
            drop(waiting.map(|mut worker| std::io::Write::write_all(&mut worker, &[1])));
            (0..4).for_each(|_| ear.answer());
        });
        assert_eq!(outputs.by_ref().filter(Result::is_ok).count(), 6);
    });
}

#[test]
fn an_empty_input_ends_at_once() {
    let _watchdog = watchdog(60);
    let pool = pool(1, |n: u64| n);
    let mut outputs = pool.map([]);
    assert_eq!(outputs.size_hint(), (0, Some(0)));
    assert!(outputs.next().is_none() && outputs.next().is_none());
    assert!(pool.map_unordered([]).next().is_none());
    assert_eq!(pool.map([4]).next().unwrap().unwrap(), 4);
}

#[test]
fn an_input_that_panics_leaves_a_pool_that_works() {
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

/// The map itself goes on after its input's panic.
#[test]
fn a_map_outlives_its_inputs_panic() {
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

/// The output of the first task is not withheld until a slow input has given many.
#[test]
fn a_slow_input_delays_nobody() {
    let _watchdog = watchdog(60);
    let pool = pool(2, |n: u64| n);
    // A wide window.
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

/// Nobody has to burn a core while the outputs are used slowly.
#[cfg(target_os = "linux")]
#[test]
fn a_slow_consumer_costs_no_cpu() {
    if !crate::support::is_alone() {
        return crate::support::Alone::new(&crate::support::test_name!()).run();
    }
    let _watchdog = watchdog(60);
    let pool = pool(2, |n: u64| n);
    let mut outputs = pool.map(0..);
    assert!(outputs.by_ref().take(10_000).all(|r| r.is_ok()));
    let before = crate::support::cpu_time();
    for _ in 0..5 {
        assert!(outputs.next().is_some());
        std::thread::sleep(Duration::from_millis(100));
    }
    let used = crate::support::cpu_time() - before;
    assert!(used < Duration::from_millis(150), "{used:?} of 500 ms");
}

#[test]
fn a_map_dropped_in_the_middle_leaves_no_trace() {
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
fn two_maps_side_by_side_on_one_thread() {
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
fn four_threads_share_a_pool() {
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
        assert_eq!((stats.submitted, stats.faulted), (stats.answered, 0));
    }
}

/// A caller that sleeps for a slow task does not keep another one's quick tasks from being noticed.
#[test]
fn a_quick_task_does_not_wait_for_a_slow_ones_caller() {
    let _watchdog = watchdog(60);
    let ear = crate::support::Ear::new();
    let pool = pool(2, |wait: Option<String>| {
        if let Some(path) = wait {
            crate::support::hear_from(&path);
        }
    });
    // Known to be quick, so that both workers are idle and their windows wide.
    assert_eq!(pool.map((0..1000).map(|_| None)).count(), 1000);
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(pool.map([Some(ear.path.clone())]).next().unwrap().is_ok()));
        // Enough that a wait of 50 ms each would set the watchdog off.
        for _ in 0..3000 {
            assert!(pool.map_unordered([None]).next().is_some());
        }
        ear.answer();
    });
}
