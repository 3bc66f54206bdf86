//! Chunks of tiny tasks, and folds in the workers.

use std::ops::Range;
use std::time::Duration;

use invoker::{
    BoxError, Buffer, Executor, ExitCause, Fault, Interrupt, Invoker, Items, PoolError, Processes,
    WithContext,
};

use crate::executors::EXECUTORS;

fn weighted(weights: &Buffer<u64>, n: u64) -> u64 {
    let weight = weights[n as usize % weights.len()];
    assert_ne!(weight, 99, "a weight of 99");
    weight * n
}

#[test]
fn a_fold_is_the_same_everywhere() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        let builder = Invoker::builder(weighted).fold(0, |sum, output| *sum += output);
        let invoker = builder
            .model(vec![1, 2].into())
            .executor(executor)
            .workers(workers)
            .build()
            .expect("it builds");
        let sum = invoker
            .reduce(0..100_000, |one, other| one + other)
            .expect("no chunk fails");
        assert_eq!(
            sum,
            Some((0..100_000).map(|n| (1 + n % 2) * n).sum()),
            "{executor:?}"
        );
        assert_eq!(
            invoker.reduce(7..7, |one, other| one + other).expect("no chunk"),
            None
        );

        let builder = Invoker::builder(weighted).fold(0, |sum, output| *sum += output);
        let invoker = builder
            .model(vec![3].into())
            .executor(executor)
            .workers(workers)
            .build()
            .expect("it builds");
        let tasks = (0..100_000).filter(|n| n % 3 == 0);
        let sum = invoker
            .reduce(Items(tasks.clone()), |one, other| one + other)
            .expect("no chunk fails");
        assert_eq!(sum, Some(3 * tasks.sum::<u64>()), "{executor:?}");
        let chunks = invoker
            .map_chunks(Items(0..1000))
            .map(|sum| sum.expect("no chunk fails"));
        assert_eq!(chunks.sum::<u64>(), 3 * 499_500);
    }
}

#[test]
fn outputs_are_combined_in_order() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        let state = |_: &()| Ok::<_, BoxError>(0);
        let number = |_: &(), _: &mut u32, n: u32| n;
        let builder = Invoker::builder_with_state(state, number).fold(Vec::new(), |list, n| list.push(n));
        let invoker = builder
            .model(())
            .executor(executor)
            .workers(workers)
            .build()
            .expect("it builds");
        let list = invoker
            .reduce(0..5000, |one, other| [one, other].concat())
            .expect("no chunk fails");
        assert!(
            list.expect("there are tasks").into_iter().eq(0..5000),
            "{executor:?}"
        );
    }
}

#[test]
fn a_panic_in_op_or_fold_is_the_error_of_its_chunk() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        let builder = Invoker::builder(weighted).fold(0_u64, |sum, output| {
            assert_ne!(output, 70_000, "seventy thousand");
            *sum += output;
        });
        let invoker = builder
            .model(vec![1].into())
            .executor(executor)
            .workers(workers)
            .build()
            .expect("it builds");
        let failed: Vec<_> = invoker
            .map_chunks(0..100_000_u64)
            .filter_map(Result::err)
            .collect();
        let [error] = &failed[..] else {
            panic!("{failed:?}")
        };
        assert!(
            matches!(&error.fault, Fault::Panicked { message, .. } if message.contains("seventy")),
            "{error}"
        );
        let error = invoker
            .reduce(0..100_000, |one, other| one + other)
            .expect_err("a chunk fails");
        assert!(matches!(error.fault, Fault::Panicked { .. }), "{error}");
        assert_eq!(
            invoker
                .reduce(0..10, |one, other| one + other)
                .expect("no chunk fails"),
            Some(45)
        );

        let builder = Invoker::builder(weighted).fold(0_u64, |sum, output| *sum += output);
        let invoker = builder
            .model(vec![1, 99].into())
            .executor(executor)
            .workers(workers)
            .build()
            .expect("it builds");
        assert!(
            invoker
                .map_chunks(0..1000_u64)
                .all(|sum| sum.is_err() || sum.is_ok_and(|sum| sum % 2 == 0))
        );
    }
}

#[test]
fn a_worker_killed_in_a_chunk_costs_that_chunk() {
    let _watchdog = crate::watchdog::watchdog(120);
    fn numbers(run: &WithContext<(), u32>, range: Range<u32>) -> Vec<u32> {
        range
            .inspect(|n| {
                if *n == run.context {
                    std::process::abort()
                }
            })
            .collect()
    }
    for workers in [1, 3] {
        let builder = Invoker::builder(numbers).context(5000).model(());
        let invoker = builder
            .executor(Processes::new())
            .workers(workers)
            .build()
            .expect("it builds");
        let (mut expected, mut lost) = (0, None);
        for chunk in invoker.map_chunks(0..10_000) {
            match chunk {
                Ok(chunk) => {
                    if let Some(first) = lost.take() {
                        assert!((first..chunk[0]).contains(&5000));
                        expected = chunk[0];
                    }
                    assert!(chunk.iter().copied().eq(expected..expected + chunk.len() as u32));
                    expected += chunk.len() as u32;
                }
                Err(error) => {
                    let Fault::WorkerDied { cause, .. } = &error.fault else {
                        panic!("{error}")
                    };
                    assert!(
                        matches!(cause, ExitCause::Signal { .. } | ExitCause::Exception { .. }),
                        "{cause}"
                    );
                    assert_eq!(lost.replace(expected), None);
                }
            }
        }
        assert_eq!(expected, 10_000);
        let error = invoker
            .reduce(0..10_000, |one, _| one)
            .expect_err("a chunk is lost");
        assert!(matches!(error.fault, Fault::WorkerDied { .. }), "{error}");
    }
}

#[test]
fn a_deadline_is_for_a_chunk() {
    let _watchdog = crate::watchdog::watchdog(120);
    let slow = |_: &(), n: u32| {
        if n == 500 {
            std::thread::sleep(Duration::from_secs(100));
        }
        n
    };
    let options = Processes::new().deadline(Duration::from_millis(300));
    let builder = Invoker::builder(slow)
        .fold(0_u64, |count, _| *count += 1)
        .model(());
    let invoker = builder.executor(options).workers(2).build().expect("it builds");
    let (done, failed): (Vec<_>, Vec<_>) = invoker.map_chunks(0..1000).partition(Result::is_ok);
    assert!(
        matches!(&failed[..], [Err(error)] if matches!(error.fault, Fault::TimedOut { .. })),
        "{failed:?}"
    );
    let counted: u64 = done.into_iter().filter_map(Result::ok).sum();
    // The first chunk is the largest.
    assert!((1000 - 1000 / 16..1000).contains(&counted), "{counted}");
}

#[test]
fn an_interrupted_reduction_is_an_error() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        let builder = Invoker::builder(|_: &(), n: u64| n)
            .fold(0, |sum, n| *sum += n)
            .model(());
        let invoker = builder
            .executor(executor)
            .workers(workers)
            .build()
            .expect("it builds");
        let interrupter = invoker.interrupter();
        let mut calls = 0;
        let reduced = invoker.reduce(0..u64::MAX, |one: u64, other| {
            calls += 1;
            if calls == 3 {
                interrupter.interrupt(Interrupt::Finish);
            }
            one.wrapping_add(other)
        });
        let error = reduced.expect_err("it did not end");
        assert!(
            matches!(error.fault, Fault::Pool(PoolError::Interrupted)),
            "{executor:?}: {error}"
        );
        // The error is that of the first chunk that was not taken.
        assert_eq!(error.task, calls + 1);
    }
}

#[test]
fn fewer_tasks_than_workers_are_single() {
    let _watchdog = crate::watchdog::watchdog(120);
    let builder = Invoker::builder(|_: &(), n: u8| n).fold((0, 0), |sum, n| {
        sum.0 += u32::from(n);
        sum.1 += 1;
    });
    let invoker = builder
        .model(())
        .executor(Executor::Threads)
        .workers(4)
        .build()
        .expect("it builds");
    let chunks: Vec<(u32, u32)> = invoker
        .map_chunks(1..4)
        .collect::<Result<_, _>>()
        .expect("no chunk fails");
    assert_eq!(chunks, [(1, 1), (2, 1), (3, 1)]);
}
