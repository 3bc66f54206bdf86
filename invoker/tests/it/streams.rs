//! Outputs as a stream, on every executor.

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

fn all<S: Stream + Unpin>(mut stream: S, mut use_it: impl FnMut(S::Item)) {
    block_on(async {
        while let Some(item) = poll_fn(|context| Pin::new(&mut stream).poll_next(context)).await {
            use_it(item);
        }
    });
}

#[test]
fn a_stream_gives_what_a_map_gives() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        let builder = Invoker::builder(square)
            .model(())
            .executor(executor)
            .workers(workers);
        let invoker = builder.seed(1).build().expect("it builds");
        let mapped: Vec<_> = invoker.map(0..500).map(|out| out.map_err(|e| e.task)).collect();
        // Submitted tasks have numbers of their own.
        drop(invoker.submit(0));
        let mut streamed = Vec::new();
        all(invoker.stream(0..500), |out| {
            streamed.push(out.map_err(|e| e.task))
        });
        assert_eq!(streamed, mapped, "{executor:?}");

        let (mut unordered, mut failed) = (Vec::new(), Vec::new());
        all(invoker.stream_unordered(0..500), |out| match out {
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
        let tasks = invoker.finish().expect("it ends well").tasks;
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
        let invoker = builder.build().expect("it builds");
        let (mut taken, mut given) = (0, 0);
        let mut most = 0;
        let taken_now = std::cell::Cell::new(0);
        let tasks = (0..).inspect(|_| taken_now.set(taken_now.get() + 1));
        all(invoker.stream(tasks), |output| {
            given += 1;
            taken = taken_now.get();
            most = most.max(taken - given);
            if given == 50 {
                invoker.interrupter().interrupt(Interrupt::Finish);
            }
            assert!(!matches!(output, Err(error) if matches!(error.fault, Fault::Pool(_))));
        });
        assert_eq!((taken, taken), (given, taken_now.get()), "{executor:?}");
        assert!(
            given >= 50 && most < 8 * invoker.workers(),
            "{executor:?}: {given} {most}"
        );
    }
}
