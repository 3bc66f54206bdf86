//! Pools without processes keep the same promises, but for isolation.

use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proc_pool::{BoxError, Cancelled, Fault, Interrupt, LocalPool, OnInterrupt, PoolError, Workers};

use crate::support::watchdog;

type Ask = Box<dyn FnOnce() + Send>;

/// Does what it is told, then squares.
fn square((n, ask): (u64, Option<Ask>)) -> u64 {
    ask.into_iter().for_each(|ask| ask());
    assert_ne!(n, 13, "thirteen");
    n * n
}

fn free(n: u64) -> (u64, Option<Ask>) {
    (n, None)
}

fn threads(workers: usize) -> LocalPool<(u64, Option<Ask>), u64> {
    let pool = LocalPool::threads(Workers::Count(workers), OnInterrupt::Ignore, |_| Ok(square));
    pool.expect("it starts")
}

/// A task that tells when it has begun, and waits until it may end.
fn held() -> ((u64, Option<Ask>), mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (begun, has_begun) = mpsc::channel();
    let (end, may_end) = mpsc::channel::<()>();
    let ask: Ask = Box::new(move || {
        begun.send(()).expect("the test waits");
        // Hanging up will do, too.
        let _ = may_end.recv();
    });
    ((5, Some(ask)), has_begun, end)
}

#[test]
fn outputs_in_order_as_they_come_and_one_by_one() {
    let _watchdog = watchdog(60);
    let caller = LocalPool::caller(OnInterrupt::Ignore, |_| Ok(square)).expect("it starts");
    for pool in [threads(1), threads(3), caller] {
        let outputs: Vec<_> = pool.map((0..1000).map(free)).collect();
        for (n, output) in (0..).zip(outputs) {
            match output {
                Ok(output) => assert_eq!(output, n * n),
                Err(error) => {
                    assert_eq!((n, error.task), (13, 13));
                    assert!(
                        matches!(error.fault, Fault::Panicked { message, .. } if message.contains("thirteen"))
                    );
                }
            }
        }
        let mut outputs: Vec<_> = pool
            .map_unordered((20..900).map(free))
            .map(Result::unwrap)
            .collect();
        outputs.sort_unstable();
        assert!(outputs.into_iter().eq((20..900).map(|n| n * n)));
        assert_eq!(
            pool.map((20..).map(free)).take(5).filter(Result::is_ok).count(),
            5
        );
        let handle = pool.submit(free(7));
        assert_eq!((handle.task(), handle.wait().unwrap()), (0, 49));
        assert_eq!(pool.submit(free(13)).wait().unwrap_err().task, 1);
        let (told, heard) = mpsc::channel();
        let handle = pool.submit(free(13)).numbered(70);
        let handle = handle.inspect(move |output| told.send(output.is_err()).expect("the test listens"));
        assert_eq!((handle.task(), handle.wait().unwrap_err().task), (70, 70));
        assert_eq!(heard.try_recv(), Ok(true));
    }
}

#[test]
fn each_thread_has_a_worker_of_its_own_that_need_not_be_sent() {
    let _watchdog = watchdog(60);
    let started = Arc::new(AtomicUsize::new(0));
    let count = started.clone();
    let pool = LocalPool::threads(Workers::Count(3), OnInterrupt::Ignore, move |worker| {
        count.fetch_add(1, Ordering::SeqCst);
        let mine = Rc::new(u64::from(worker.0));
        Ok(move |n: u64| (*mine, n))
    });
    let pool = pool.expect("it starts");
    assert_eq!((pool.workers(), started.load(Ordering::SeqCst)), (3, 3));
    assert!(
        pool.map(0..100)
            .zip(0..)
            .all(|(out, n)| matches!(out, Ok((worker, m)) if worker < 3 && m == n))
    );

    let refuse = |worker: proc_pool::WorkerId| -> Result<fn(u64) -> u64, BoxError> {
        match worker.0 {
            1 => Err("not me".into()),
            _ => Ok(|n| n),
        }
    };
    let pool = LocalPool::threads(Workers::Count(3), OnInterrupt::Ignore, refuse);
    match pool.map(drop) {
        Err(PoolError::Start { worker, reason, .. }) => {
            assert_eq!((worker.0, &*reason), (1, "failed to start: not me"));
        }
        other => panic!("{other:?}"),
    }
    let none = LocalPool::threads(Workers::Count(0), OnInterrupt::Ignore, refuse);
    assert!(matches!(
        none.map(drop),
        Err(PoolError::WorkerCount { asked: 0, .. })
    ));
}

#[test]
fn handles_wait_poll_and_cancel() {
    let _watchdog = watchdog(60);
    let pool = threads(1);
    let (task, has_begun, end) = held();
    let running = pool.submit(task);
    has_begun.recv().expect("it begins");
    let (first, second) = (pool.submit(free(2)), pool.submit(free(3)));
    assert_eq!(running.cancel(), Cancelled::Running);
    assert_eq!(running.kill(), Cancelled::Running);
    assert_eq!(first.cancel(), Cancelled::Withdrawn);
    assert_eq!(first.cancel(), Cancelled::Finished);
    assert!(matches!(first.wait().unwrap_err().fault, Fault::Cancelled));
    let running = running
        .wait_timeout(Duration::from_millis(1))
        .expect_err("it waits");
    let mut polled = pin!(running);
    let mut context = Context::from_waker(Waker::noop());
    assert!(polled.as_mut().poll(&mut context).is_pending());
    end.send(()).expect("it waits");
    assert_eq!(second.wait().unwrap(), 9);
    match polled.as_mut().poll(&mut context) {
        Poll::Ready(output) => assert_eq!(output.unwrap(), 25),
        Poll::Pending => panic!("it was before the second"),
    }
    // What was dropped does not run.
    let (task, has_begun, end) = held();
    let running = pool.submit(task);
    has_begun.recv().expect("it begins");
    let (task, never, _end) = held();
    drop(pool.submit(task));
    drop(end);
    assert_eq!(
        (running.wait().unwrap(), pool.submit(free(4)).wait().unwrap()),
        (25, 16)
    );
    assert!(never.recv().is_err());
}

#[test]
fn what_waits_is_refused_when_the_pool_is_interrupted_or_dropped() {
    let _watchdog = watchdog(60);
    for how in [Some(Interrupt::Cancel), Some(Interrupt::Kill), None] {
        let pool = threads(1);
        let (task, has_begun, end) = held();
        let running = pool.submit(task);
        has_begun.recv().expect("it begins");
        let waiting = pool.submit(free(2));
        let interrupter = pool.interrupter();
        match how {
            Some(how) => {
                interrupter.interrupt(how);
                assert_eq!(pool.interrupted(), Some(how));
                let error = waiting.wait().unwrap_err();
                assert!(
                    matches!(error.fault, Fault::Pool(PoolError::Interrupted)),
                    "{error}"
                );
                let late = pool.submit(free(3)).wait().unwrap_err();
                assert!(
                    matches!(late.fault, Fault::Pool(PoolError::Interrupted)),
                    "{late}"
                );
                assert_eq!(pool.map((0..).map(free)).count(), 0);
                end.send(()).expect("it waits");
                pool.shutdown();
            }
            None => {
                let dropping = std::thread::spawn(move || drop(pool));
                let error = waiting.wait().unwrap_err();
                assert!(matches!(error.fault, Fault::Pool(PoolError::ShutDown)), "{error}");
                end.send(()).expect("it waits");
                dropping.join().expect("no panic");
            }
        }
        assert_eq!(running.wait().unwrap(), 25);
        // The pool is gone.
        interrupter.interrupt(Interrupt::Kill);
    }
}

#[test]
fn a_pool_that_is_shut_down_has_done_all() {
    let _watchdog = watchdog(60);
    let pool = threads(2);
    let handles: Vec<_> = (20..300).map(|n| pool.submit(free(n))).collect();
    pool.shutdown();
    assert!(handles.iter().all(proc_pool::Handle::is_finished));
    assert!(
        handles
            .into_iter()
            .map(|handle| handle.wait().unwrap())
            .eq((20..300).map(|n| n * n))
    );
}
