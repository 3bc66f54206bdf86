//! User code that panics, or uses the pool, where a pool calls it: wakers, observers, drops.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use proc_pool::{Builder, Cause, Handle, LocalPool, Observer, OnInterrupt, WorkerId, Workers};
use shm_buffers::ring::Consumer;
use shm_buffers::slots::Slots;

use crate::handles::block_on;
use crate::support::{Ear, hear_from, pool, watchdog};

fn ask(ask: String) -> u64 {
    if !ask.is_empty() {
        hear_from(&ask);
    }
    7
}

fn poll<R>(handle: &mut Handle<R>, waker: &Waker) -> bool {
    Pin::new(handle).poll(&mut Context::from_waker(waker)).is_ready()
}

/// A waker that panics, with a payload whose drop panics, too.
struct Panics;

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the payload's drop panics, too");
    }
}

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        std::panic::panic_any(Bomb);
    }
}

/// A waker that owns a handle.
struct Owns(#[expect(dead_code, reason = "it is dropped")] Handle<u64>);

impl Wake for Owns {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_waker_that_panics_does_not_keep_others_from_being_woken() {
    let _watchdog = watchdog(60);
    let ear = Ear::new();
    let pool = pool(1, ask);
    let mut handle = pool.submit(ear.path.clone());
    assert!(!poll(&mut handle, &Waker::from(Arc::new(Panics))));
    // Nothing but the pool's own thread takes its outcome.
    ear.answer();
    for _ in 0..20 {
        assert_eq!(block_on(pool.submit(String::new())).expect("it runs"), 7);
    }
    assert_eq!(handle.wait().expect("it ran"), 7);
    // In a caller's thread, it does not spoil what the caller waits for.
    let mut handle = pool.submit(ear.path.clone());
    assert!(!poll(&mut handle, &Waker::from(Arc::new(Panics))));
    ear.answer();
    assert_eq!(handle.wait().expect("it ran"), 7);
}

#[test]
fn a_waker_whose_drop_drops_a_handle_does_not_deadlock() {
    let _watchdog = watchdog(60);
    let ear = Ear::new();
    let pool = pool(1, ask);
    let mut handle = pool.submit(ear.path.clone());
    let mut asking = ear.accept();
    let owner = || Waker::from(Arc::new(Owns(pool.submit(String::new()))));
    // Each takes the place of the one before, whose last owner is the pool.
    for _ in 0..3 {
        assert!(!poll(&mut handle, &owner()));
    }
    drop(handle);
    std::io::Write::write_all(&mut asking, &[1]).expect("it waits");
    let stats = pool.shutdown(Duration::from_secs(30)).expect("it works");
    assert_eq!(stats.submitted, stats.answered + stats.faulted, "{stats:?}");
}

#[cfg(feature = "stream")]
#[test]
fn a_waker_whose_drop_uses_its_stream_does_not_deadlock() {
    use futures_core::Stream;
    use proc_pool::OutputStream;

    /// Wakes another waker when it is dropped.
    struct WakesAnother(Mutex<Option<Waker>>);

    impl Wake for WakesAnother {
        fn wake(self: Arc<Self>) {}
    }

    impl Drop for WakesAnother {
        fn drop(&mut self) {
            if let Ok(Some(other)) = self.0.get_mut().map(Option::take) {
                other.wake();
            }
        }
    }

    /// A future that is never ready, and shows its waker.
    struct Never(Arc<Mutex<Option<Waker>>>);

    impl Future for Never {
        type Output = ();

        fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> std::task::Poll<()> {
            *self.0.lock().unwrap() = Some(context.waker().clone());
            std::task::Poll::Pending
        }
    }

    let _watchdog = watchdog(60);
    let shown = Arc::new(Mutex::new(None));
    let mut stream = OutputStream::as_completed(std::iter::once(Never(shown.clone())), 1);
    let mut poll = |waker: &Waker| {
        let pending = Pin::new(&mut stream).poll_next(&mut Context::from_waker(waker));
        assert!(pending.is_pending());
    };
    poll(Waker::noop());
    let inner = shown.lock().unwrap().clone();
    poll(&Waker::from(Arc::new(WakesAnother(Mutex::new(inner)))));
    poll(Waker::noop());
}

struct Throws;

impl Observer for Throws {
    fn started(&self, _: WorkerId, _: Consumer, _: Slots) {
        std::panic::panic_any(Bomb);
    }

    fn ended(&self, _: WorkerId, _: &Cause) -> Vec<String> {
        std::panic::panic_any(Bomb);
    }
}

#[test]
fn an_observer_whose_panic_cannot_be_dropped_costs_nothing() {
    let _watchdog = watchdog(60);
    let pool = Builder::new()
        .workers(Workers::Count(2))
        .observer(Arc::new(Throws))
        .build_op(ask)
        .expect("it starts");
    assert_eq!(pool.submit(String::new()).wait().expect("it runs"), 7);
    pool.shutdown(Duration::MAX).expect("it works");
}

#[test]
fn the_threads_of_a_local_pool_survive_wakers_and_drops_that_panic() {
    /// An output whose drop panics, in a thread of the pool's.
    struct Output(bool);

    impl Drop for Output {
        fn drop(&mut self) {
            assert!(!self.0 || thread::panicking(), "an output's drop panics");
        }
    }

    let _watchdog = watchdog(60);
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (begin, begun) = std::sync::mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let pool = LocalPool::threads(Workers::Count(1), OnInterrupt::Ignore, move |_| {
        let (begin, wait) = (begin.clone(), wait.clone());
        Ok(move |panics: bool| {
            let _ = begin.send(());
            let _ = wait.lock().unwrap().recv();
            Output(panics)
        })
    })
    .expect("it starts");
    let mut awaited = pool.submit(false);
    assert!(!poll(&mut awaited, &Waker::from(Arc::new(Panics))));
    let dropped = pool.submit(true);
    go.send(()).expect("it waits");
    assert!(awaited.wait().is_ok());
    (0..2).for_each(|_| begun.recv().expect("it runs"));
    drop(dropped);
    let last = pool.submit(false);
    (0..2).for_each(|_| go.send(()).expect("it waits"));
    assert!(last.wait().is_ok());
}
