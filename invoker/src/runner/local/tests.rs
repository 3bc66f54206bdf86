//! Pools without processes behave the same, except for isolation.

use std::num::NonZeroUsize;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proc_pool::{BoxError, CancelOutcome, Fault, Interrupt, OnInterrupt, PoolError};

use super::LocalPool;
use crate::watchdog::watchdog;

fn threads_of(workers: usize) -> NonZeroUsize {
    NonZeroUsize::new(workers).expect("not zero")
}

type Callback = Box<dyn FnOnce() + Send>;

/// Calls the callback, then squares the number.
fn square((n, callback): (u64, Option<Callback>)) -> u64 {
    callback.into_iter().for_each(|callback| callback());
    assert_ne!(n, 13, "thirteen");
    n * n
}

fn free(n: u64) -> (u64, Option<Callback>) {
    (n, None)
}

fn threads(workers: usize) -> LocalPool<(u64, Option<Callback>), u64> {
    let pool = LocalPool::threads(threads_of(workers), OnInterrupt::Default, |_| Ok(square));
    pool.expect("the pool starts")
}

/// Returns a task that squares 5, a receiver of the message that it has started, and a sender that lets it end.
fn held() -> ((u64, Option<Callback>), mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (started, has_started) = mpsc::channel();
    let (end, may_end) = mpsc::channel::<()>();
    let callback: Callback = Box::new(move || {
        started.send(()).expect("the test waits");
        // Dropping the sender lets it end, too.
        let _ = may_end.recv();
    });
    ((5, Some(callback)), has_started, end)
}

#[test]
fn maps_and_handles_yield_outputs_and_panics() {
    let _watchdog = watchdog(60);
    let caller = LocalPool::caller(OnInterrupt::Default, |_| Ok(square)).expect("the pool starts");
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
        let (inspected, is_error) = mpsc::channel();
        let handle = pool.submit(free(13)).with_task(70);
        let handle = handle.inspect(move |output| inspected.send(output.is_err()).expect("the test listens"));
        assert_eq!((handle.task(), handle.wait().unwrap_err().task), (70, 70));
        assert_eq!(is_error.try_recv(), Ok(true));
    }
}

#[test]
fn each_thread_has_an_op_of_its_own_that_need_not_be_send() {
    let _watchdog = watchdog(60);
    let started = Arc::new(AtomicUsize::new(0));
    let count = started.clone();
    let pool = LocalPool::threads(threads_of(3), OnInterrupt::Default, move |worker| {
        count.fetch_add(1, Ordering::SeqCst);
        let index = Rc::new(u64::from(worker.0));
        Ok(move |n: u64| (*index, n))
    });
    let pool = pool.expect("the pool starts");
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
    let pool = LocalPool::threads(threads_of(3), OnInterrupt::Default, refuse);
    match pool.map(drop) {
        Err(PoolError::Start { worker, reason, .. }) => {
            assert_eq!((worker.0, &*reason), (1, "failed to start: not me"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn handle_can_be_waited_for_polled_and_cancelled() {
    let _watchdog = watchdog(60);
    let pool = threads(1);
    let (task, has_started, end) = held();
    let running = pool.submit(task);
    has_started.recv().expect("the task starts");
    let (first, second) = (pool.submit(free(2)), pool.submit(free(3)));
    assert_eq!(running.cancel(), CancelOutcome::StillRunning);
    assert_eq!(running.kill(), CancelOutcome::StillRunning);
    assert_eq!(first.cancel(), CancelOutcome::Withdrawn);
    assert_eq!(first.cancel(), CancelOutcome::Finished);
    assert!(matches!(first.wait().unwrap_err().fault, Fault::Cancelled));
    let running = running
        .wait_timeout(Duration::from_millis(1))
        .expect_err("the task waits");
    let mut polled = pin!(running);
    let mut context = Context::from_waker(Waker::noop());
    assert!(polled.as_mut().poll(&mut context).is_pending());
    end.send(()).expect("the task waits");
    assert_eq!(second.wait().unwrap(), 9);
    match polled.as_mut().poll(&mut context) {
        Poll::Ready(output) => assert_eq!(output.unwrap(), 25),
        Poll::Pending => panic!("it was before the second"),
    }
    // A task whose handle is dropped does not run.
    let (task, has_started, end) = held();
    let running = pool.submit(task);
    has_started.recv().expect("the task starts");
    let (task, has_not_started, _end) = held();
    drop(pool.submit(task));
    drop(end);
    assert_eq!(
        (running.wait().unwrap(), pool.submit(free(4)).wait().unwrap()),
        (25, 16)
    );
    assert!(has_not_started.recv().is_err());
}

#[test]
fn waiting_tasks_fail_when_the_pool_is_interrupted_or_dropped() {
    let _watchdog = watchdog(60);
    for how in [Some(Interrupt::Cancel), Some(Interrupt::Kill), None] {
        let pool = threads(1);
        let (task, has_started, end) = held();
        let running = pool.submit(task);
        has_started.recv().expect("the task starts");
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
                end.send(()).expect("the task waits");
                pool.shutdown();
            }
            None => {
                let dropping = std::thread::spawn(move || drop(pool));
                let error = waiting.wait().unwrap_err();
                assert!(matches!(error.fault, Fault::Pool(PoolError::ShutDown)), "{error}");
                end.send(()).expect("the task waits");
                dropping.join().expect("no thread panics");
            }
        }
        assert_eq!(running.wait().unwrap(), 25);
        // Without the pool, this does nothing.
        interrupter.interrupt(Interrupt::Kill);
    }
}

#[test]
fn shutdown_waits_for_all_tasks() {
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

/// A waker that panics.
struct PanickingWaker;

impl std::task::Wake for PanickingWaker {
    fn wake(self: Arc<Self>) {
        panic!("a waker panics");
    }
}

#[test]
fn threads_of_a_local_pool_survive_panicking_wakers_and_drops() {
    /// An output whose drop panics on a thread of the pool.
    struct Output(bool);

    impl Drop for Output {
        fn drop(&mut self) {
            assert!(!self.0 || std::thread::panicking(), "an output's drop panics");
        }
    }

    let _watchdog = watchdog(60);
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let (start, started) = std::sync::mpsc::channel::<()>();
    let wait = Arc::new(std::sync::Mutex::new(wait));
    let pool = LocalPool::threads(threads_of(1), OnInterrupt::Default, move |_| {
        let (start, wait) = (start.clone(), wait.clone());
        Ok(move |panics: bool| {
            let _ = start.send(());
            let _ = wait.lock().unwrap().recv();
            Output(panics)
        })
    })
    .expect("the pool starts");
    let mut awaited = pool.submit(false);
    let waker = Waker::from(Arc::new(PanickingWaker));
    let mut context = Context::from_waker(&waker);
    assert!(pin!(&mut awaited).poll(&mut context).is_pending());
    let dropped = pool.submit(true);
    release.send(()).expect("the op waits");
    assert!(awaited.wait().is_ok());
    (0..2).for_each(|_| started.recv().expect("the op starts"));
    drop(dropped);
    let last = pool.submit(false);
    (0..2).for_each(|_| release.send(()).expect("the op waits"));
    assert!(last.wait().is_ok());
}

#[test]
fn tasks_behind_a_slow_one_run_on_another_thread() {
    let _watchdog = watchdog(60);
    let pool = threads(2);
    for order in 0..2 {
        let (release, released) = mpsc::channel::<()>();
        let (mut release, mut released) = (Some(release), Some(released));
        // Many tiny tasks, so that chunks are large; then one that waits for a later one of its chunk.
        let tasks = (20..40_000_u64).map(|n| {
            let callback = match n {
                30_000 => released.take().map(|released| {
                    Box::new(move || released.recv().expect("the other task runs")) as Callback
                }),
                30_003 => release
                    .take()
                    .map(|release| Box::new(move || release.send(()).expect("the task waits")) as Callback),
                _ => None,
            };
            (n, callback)
        });
        let outputs = match order {
            0 => pool.map(tasks).filter(Result::is_ok).count(),
            _ => pool.map_unordered(tasks).filter(Result::is_ok).count(),
        };
        assert_eq!(outputs, 40_000 - 20);
    }
}

#[test]
fn an_output_is_there_while_the_next_task_runs() {
    let _watchdog = watchdog(60);
    let pool = threads(1);
    let ((second, block), has_started, end) = held();
    let tasks = [(20, None), (second, block)];
    let mut outputs = pool.map(tasks);
    let mut next = || outputs.next().and_then(Result::ok);
    assert_eq!(next(), Some(400));
    has_started.recv().expect("the task starts");
    end.send(()).expect("the task waits");
    assert_eq!(next(), Some(second * second));
    assert_eq!(next(), None);
}

#[test]
fn tasks_of_a_dropped_map_do_not_run() {
    let _watchdog = watchdog(60);
    let ran = Arc::new(AtomicUsize::new(0));
    let count = ran.clone();
    let pool = LocalPool::threads(threads_of(1), OnInterrupt::Default, move |_| {
        let count = count.clone();
        Ok(move |callback: Option<Callback>| {
            count.fetch_add(1, Ordering::SeqCst);
            callback.into_iter().for_each(|callback| callback());
        })
    });
    let pool = pool.expect("the pool starts");
    let ((_, block), has_started, end) = held();
    let mut block = Some(block);
    // Tiny tasks, so that many are sent together; then one that blocks the thread, and more.
    let tasks = (0..).map(|n| if n == 20_000 { block.take().flatten() } else { None });
    let mut outputs = pool.map_unordered(tasks);
    assert_eq!(
        outputs.by_ref().take(20_000).filter(Result::is_ok).count(),
        20_000
    );
    has_started.recv().expect("the task starts");
    let before = ran.load(Ordering::SeqCst);
    drop(outputs);
    end.send(()).expect("the task waits");
    pool.submit(None).wait().expect("the thread goes on");
    assert_eq!(ran.load(Ordering::SeqCst), before + 1, "only the submitted one");
}
