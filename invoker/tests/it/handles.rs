//! Tasks submitted alone, on every executor.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use invoker::{Cancelled, Cause, Executor, Fault, Invoker, KillReason, PoolError, Workers};

use crate::executors::EXECUTORS;

/// Squares a number, once there is the file that it is told of.
fn square(_: &(), (n, file): (u64, String)) -> u64 {
    while !file.is_empty() && !std::fs::exists(&file).expect("its directory is there") {
        thread::yield_now();
    }
    assert_ne!(n, 13, "thirteen");
    n * n
}

fn free(n: u64) -> (u64, String) {
    (n, String::new())
}

/// The smallest executor of futures.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn outputs_errors_and_numbers_are_the_same_everywhere() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        let builder = Invoker::builder(square).model(()).executor(executor);
        let invoker = builder.workers(workers).build().expect("it builds");
        let mut handles: Vec<_> = (0..100).map(|n| (n, invoker.submit(free(n)))).collect();
        handles.rotate_left(50);
        for (n, handle) in handles {
            assert_eq!(handle.task(), n);
            let output = match n % 3 {
                0 => handle.wait(),
                1 => block_on(handle),
                _ => handle.wait_timeout(Duration::from_secs(60)).expect("in time"),
            };
            match output {
                Ok(square) => assert_eq!(square, n * n),
                Err(error) => {
                    assert_eq!((n, error.task), (13, 13), "{executor:?}");
                    let Fault::Panicked { message, .. } = error.fault else {
                        panic!("{executor:?}: {}", error.fault)
                    };
                    assert!(message.contains("thirteen"), "{message}");
                }
            }
        }
        // Beside a map, whose tasks have numbers of their own.
        let handle = invoker.submit(free(13));
        assert_eq!(invoker.map((0..50).map(free)).filter(Result::is_err).count(), 1);
        assert_eq!(handle.wait().expect_err("thirteen").task, 100);
        let tasks = invoker.finish().expect("it ends well").tasks;
        assert_eq!((tasks.done, tasks.failed), (99 + 49, 3), "{executor:?}");
    }
}

#[test]
fn what_has_not_begun_is_withdrawn_and_what_runs_is_killed_if_it_can_be() {
    let _watchdog = crate::watchdog::watchdog(120);
    for executor in [Executor::Processes, Executor::Threads] {
        let dir = tempfile::tempdir().expect("there is a temporary directory");
        let file = dir.path().join("go").to_str().expect("it is text").to_owned();
        let builder = Invoker::builder(square).model(()).executor(executor);
        let invoker = builder.workers(Workers::Count(1)).build().expect("it builds");
        // The first one is known to run as soon as it can't be withdrawn.
        let running = loop {
            let handle = invoker.submit((3, file.clone()));
            let slow = handle
                .wait_timeout(Duration::from_millis(5))
                .expect_err("it waits");
            match slow.cancel() {
                Cancelled::Running => break slow,
                cancelled => assert_eq!(cancelled, Cancelled::Withdrawn),
            }
        };
        let waiting = invoker.submit(free(4));
        assert!(!running.is_finished() && !waiting.is_finished());
        assert_eq!(waiting.cancel(), Cancelled::Withdrawn);
        assert_eq!(waiting.cancel(), Cancelled::Finished);
        let error = waiting.wait().expect_err("it was cancelled");
        assert!(matches!(error.fault, Fault::Cancelled), "{executor:?}: {error}");
        if executor == Executor::Processes {
            assert_eq!(running.kill(), Cancelled::Withdrawn);
            assert!(matches!(
                running.wait().expect_err("killed").fault,
                Fault::Cancelled
            ));
        } else {
            assert_eq!(running.kill(), Cancelled::Running);
            std::fs::write(&file, "").expect("the directory is writable");
            assert_eq!(running.wait().expect("it goes on"), 9);
        }
        assert_eq!(invoker.submit(free(5)).wait().expect("it runs"), 25);
    }
}

#[test]
fn who_submits_in_process_finds_the_output_there() {
    let _watchdog = crate::watchdog::watchdog(120);
    let builder = Invoker::builder(square).model(()).executor(Executor::InProcess);
    let invoker = builder.build().expect("it builds");
    let handle = invoker.submit(free(6));
    assert!(handle.is_finished());
    assert_eq!(
        (handle.cancel(), handle.kill()),
        (Cancelled::Finished, Cancelled::Finished)
    );
    drop(invoker);
    assert_eq!(handle.wait().expect("it ran"), 36);
}

#[test]
fn handles_outlive_their_invoker() {
    let _watchdog = crate::watchdog::watchdog(120);
    for executor in [Executor::Processes, Executor::Threads] {
        let dir = tempfile::tempdir().expect("there is a temporary directory");
        let file = dir.path().join("go").to_str().expect("it is text").to_owned();
        let builder = Invoker::builder(square).model(()).executor(executor);
        let invoker = builder.workers(Workers::Count(1)).build().expect("it builds");
        let handles: Vec<_> = (0..3).map(|n| invoker.submit((n, file.clone()))).collect();
        // A thread can only be let go.
        std::fs::write(&file, "").expect("the directory is writable");
        drop(invoker);
        for handle in handles {
            let (n, output) = (handle.task(), handle.wait());
            match output {
                Ok(square) => assert_eq!(square, n * n),
                // The one that was running, or the others.
                Err(error) => assert!(
                    matches!(
                        error.fault,
                        Fault::WorkerDied {
                            cause: Cause::Killed {
                                reason: KillReason::Shutdown
                            },
                            ..
                        } | Fault::Pool(PoolError::ShutDown)
                    ),
                    "{executor:?}: {error}"
                ),
            }
        }
        let invoker = Invoker::builder(square)
            .model(())
            .executor(executor)
            .build()
            .expect("it builds");
        let handles: Vec<_> = (0..20).map(|n| invoker.submit(free(n))).collect();
        invoker.finish().expect("it ends well");
        // It waits for them.
        let done = handles.into_iter().map(|handle| handle.wait().is_ok());
        assert_eq!(done.filter(|done| *done).count(), 19, "{executor:?}");
    }
}
