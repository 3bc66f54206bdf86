//! Streams of outputs, with every executor.

use std::future::poll_fn;
use std::pin::Pin;

use futures_core::Stream;
use invoker::{Fault, Interrupt, Invoker};

use crate::executors::EXECUTORS;
use crate::handles::block_on;

fn square(_: &(), n: u64) -> (u64, Option<u64>) {
    assert_ne!(n % 100, 99, "ninety-nine");
    (n * n, invoker::task_seed())
}

fn for_each<S: Stream + Unpin>(mut stream: S, mut f: impl FnMut(S::Item)) {
    block_on(async {
        while let Some(item) = poll_fn(|context| Pin::new(&mut stream).poll_next(context)).await {
            f(item);
        }
    });
}

#[test]
fn a_stream_has_the_outputs_of_a_map() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        let builder = Invoker::builder(square)
            .model(())
            .executor(executor)
            .workers(workers);
        let invoker = builder.seed(1).build().expect("the invoker builds");
        let mapped: Vec<_> = invoker.map(0..500).map(|out| out.map_err(|e| e.task)).collect();
        // Submitted tasks are numbered separately.
        drop(invoker.submit(0));
        let mut streamed = Vec::new();
        for_each(invoker.stream(0..500), |out| {
            streamed.push(out.map_err(|e| e.task))
        });
        assert_eq!(streamed, mapped, "{executor:?}");

        let (mut unordered, mut failed) = (Vec::new(), Vec::new());
        for_each(invoker.stream_unordered(0..500), |out| match out {
            Ok(output) => unordered.push(output),
            Err(error) => failed.push(error.task),
        });
        unordered.sort_unstable();
        failed.sort_unstable();
        assert!(
            unordered.into_iter().eq(mapped.iter().filter_map(|out| out.ok())),
            "{executor:?}"
        );
        assert_eq!(failed, [99, 199, 299, 399, 499]);
        let tasks = invoker.finish().expect("no error").tasks;
        assert_eq!((tasks.done, tasks.failed), (3 * 495, 15));
    }
}

#[test]
fn an_endless_stream_is_bounded_and_can_be_interrupted() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        let builder = Invoker::builder(square)
            .model(())
            .executor(executor)
            .workers(workers);
        let invoker = builder.build().expect("the invoker builds");
        let (mut taken, mut received) = (0, 0);
        let mut max_in_flight = 0;
        let taken_now = std::cell::Cell::new(0);
        let tasks = (0..).inspect(|_| taken_now.set(taken_now.get() + 1));
        for_each(invoker.stream(tasks), |output| {
            received += 1;
            taken = taken_now.get();
            max_in_flight = max_in_flight.max(taken - received);
            if received == 50 {
                invoker.interrupter().interrupt(Interrupt::Finish);
            }
            assert!(!matches!(output, Err(error) if matches!(error.fault, Fault::Pool(_))));
        });
        assert_eq!((taken, taken), (received, taken_now.get()), "{executor:?}");
        assert!(
            received >= 50 && max_in_flight < 8 * invoker.workers(),
            "{executor:?}: {received} {max_in_flight}"
        );
    }
}
