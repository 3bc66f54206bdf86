//! Submitted tasks, with every executor.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use invoker::{CancelOutcome, Executor, ExitCause, Fault, Invoker, KillReason, PoolError};

use crate::executors::EXECUTORS;

/// Squares a number, after the file exists if a path is given.
fn square(_: &(), (n, file): (u64, String)) -> u64 {
    while !file.is_empty() && !std::fs::exists(&file).expect("its directory is there") {
        thread::yield_now();
    }
    assert_ne!(n, 13, "thirteen");
    n * n
}

fn unblocked(n: u64) -> (u64, String) {
    (n, String::new())
}

/// A minimal executor of futures.
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
fn outputs_errors_and_numbers_are_the_same_with_every_executor() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        let builder = Invoker::builder(square).model(()).executor(executor);
        let invoker = builder.workers(workers).build().expect("the invoker builds");
        let mut handles: Vec<_> = (0..100).map(|n| (n, invoker.submit(unblocked(n)))).collect();
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
        // The tasks of a map are numbered separately.
        let handle = invoker.submit(unblocked(13));
        assert_eq!(
            invoker.map((0..50).map(unblocked)).filter(Result::is_err).count(),
            1
        );
        assert_eq!(handle.wait().expect_err("thirteen").task, 100);
        let tasks = invoker.finish().expect("no error").tasks;
        assert_eq!((tasks.done, tasks.failed), (99 + 49, 3), "{executor:?}");
    }
}

#[test]
fn a_waiting_task_is_withdrawn_and_a_running_one_is_killed_in_a_process() {
    let _watchdog = crate::watchdog::watchdog(120);
    for executor in [Executor::Processes, Executor::Threads] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("go").to_str().expect("UTF-8").to_owned();
        let builder = Invoker::builder(square).model(()).executor(executor);
        let invoker = builder.workers(1).build().expect("the invoker builds");
        // A task that cannot be withdrawn is running.
        let running = loop {
            let handle = invoker.submit((3, file.clone()));
            let slow = handle
                .wait_timeout(Duration::from_millis(5))
                .expect_err("it waits");
            match slow.cancel() {
                CancelOutcome::StillRunning => break slow,
                cancelled => assert_eq!(cancelled, CancelOutcome::Withdrawn),
            }
        };
        let waiting = invoker.submit(unblocked(4));
        assert!(!running.is_finished() && !waiting.is_finished());
        assert_eq!(waiting.cancel(), CancelOutcome::Withdrawn);
        assert_eq!(waiting.cancel(), CancelOutcome::Finished);
        let error = waiting.wait().expect_err("it was cancelled");
        assert!(matches!(error.fault, Fault::Cancelled), "{executor:?}: {error}");
        if executor == Executor::Processes {
            assert_eq!(running.kill(), CancelOutcome::Withdrawn);
            assert!(matches!(
                running.wait().expect_err("killed").fault,
                Fault::Cancelled
            ));
        } else {
            assert_eq!(running.kill(), CancelOutcome::StillRunning);
            std::fs::write(&file, "").expect("writable");
            assert_eq!(running.wait().expect("a thread goes on"), 9);
        }
        assert_eq!(invoker.submit(unblocked(5)).wait().expect("no task fails"), 25);
    }
}

#[test]
fn an_inline_task_is_finished_when_submit_returns() {
    let _watchdog = crate::watchdog::watchdog(120);
    let builder = Invoker::builder(square).model(()).executor(Executor::Inline);
    let invoker = builder.build().expect("the invoker builds");
    let handle = invoker.submit(unblocked(6));
    assert!(handle.is_finished());
    assert_eq!(
        (handle.cancel(), handle.kill()),
        (CancelOutcome::Finished, CancelOutcome::Finished)
    );
    drop(invoker);
    assert_eq!(handle.wait().expect("no task fails"), 36);
}

#[test]
fn handles_outlive_their_invoker() {
    let _watchdog = crate::watchdog::watchdog(120);
    for executor in [Executor::Processes, Executor::Threads] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("go").to_str().expect("UTF-8").to_owned();
        let builder = Invoker::builder(square).model(()).executor(executor);
        let invoker = builder.workers(1).build().expect("the invoker builds");
        let handles: Vec<_> = (0..3).map(|n| invoker.submit((n, file.clone()))).collect();
        // A thread cannot be killed.
        std::fs::write(&file, "").expect("writable");
        drop(invoker);
        for handle in handles {
            let (n, output) = (handle.task(), handle.wait());
            match output {
                Ok(square) => assert_eq!(square, n * n),
                // The running task, or a waiting one.
                Err(error) => assert!(
                    matches!(
                        error.fault,
                        Fault::WorkerDied {
                            cause: ExitCause::Killed {
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
            .expect("the invoker builds");
        let handles: Vec<_> = (0..20).map(|n| invoker.submit(unblocked(n))).collect();
        invoker.finish().expect("no error");
        // `finish` waits for submitted tasks.
        let done = handles.into_iter().map(|handle| handle.wait().is_ok());
        assert_eq!(done.filter(|done| *done).count(), 19, "{executor:?}");
    }
}
