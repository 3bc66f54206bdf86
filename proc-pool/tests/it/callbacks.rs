//! User code that a pool calls, and that panics or uses the pool: wakers, observers, drops.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use proc_pool::{ExitCause, Handle, Observer, WorkerId};
use shm_buffers::ring::Consumer;
use shm_buffers::slots::Slots;

use crate::handles::block_on;
use crate::support::{Bomb, Rendezvous, builder, pool, release, wait_for_release, watchdog};

/// Waits to be released if the task names a rendezvous.
fn seven(rendezvous: String) -> u64 {
    if !rendezvous.is_empty() {
        wait_for_release(&rendezvous);
    }
    7
}

fn poll<R>(handle: &mut Handle<R>, waker: &Waker) -> bool {
    Pin::new(handle).poll(&mut Context::from_waker(waker)).is_ready()
}

/// A waker that panics, with a payload whose drop panics, too.
struct PanickingWaker;

impl Wake for PanickingWaker {
    fn wake(self: Arc<Self>) {
        std::panic::panic_any(Bomb);
    }
}

/// A waker that owns a handle.
struct HandleOwner(#[expect(dead_code, reason = "only its drop matters")] Handle<u64>);

impl Wake for HandleOwner {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn panicking_waker_does_not_prevent_other_wakeups() {
    let _watchdog = watchdog(60);
    let rendezvous = Rendezvous::new();
    let pool = pool(1, seven);
    let mut handle = pool.submit(rendezvous.address.clone());
    assert!(!poll(&mut handle, &Waker::from(Arc::new(PanickingWaker))));
    // Only the pool's own thread can receive its outcome.
    rendezvous.release_next();
    for _ in 0..20 {
        assert_eq!(
            block_on(pool.submit(String::new())).expect("the task succeeds"),
            7
        );
    }
    assert_eq!(handle.wait().expect("the task succeeds"), 7);
    // On a caller's thread, the panic does not affect the output for which the caller waits.
    let mut handle = pool.submit(rendezvous.address.clone());
    assert!(!poll(&mut handle, &Waker::from(Arc::new(PanickingWaker))));
    rendezvous.release_next();
    assert_eq!(handle.wait().expect("the task succeeds"), 7);
}

#[test]
fn waker_whose_drop_drops_a_handle_does_not_deadlock() {
    let _watchdog = watchdog(60);
    let rendezvous = Rendezvous::new();
    let pool = pool(1, seven);
    let mut handle = pool.submit(rendezvous.address.clone());
    let waiting = rendezvous.accept();
    let owner = || Waker::from(Arc::new(HandleOwner(pool.submit(String::new()))));
    // Each waker replaces the one before, whose last owner is the pool.
    for _ in 0..3 {
        assert!(!poll(&mut handle, &owner()));
    }
    drop(handle);
    release(waiting);
    let stats = pool.shutdown(Duration::from_secs(30)).expect("the pool works");
    assert_eq!(stats.submitted, stats.answered + stats.failed, "{stats:?}");
}

#[cfg(feature = "stream")]
#[test]
fn waker_whose_drop_uses_its_stream_does_not_deadlock() {
    use std::sync::Mutex;

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

    /// A future that is never ready, and stores its waker.
    struct Never(Arc<Mutex<Option<Waker>>>);

    impl Future for Never {
        type Output = ();

        fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> std::task::Poll<()> {
            *self.0.lock().unwrap() = Some(context.waker().clone());
            std::task::Poll::Pending
        }
    }

    let _watchdog = watchdog(60);
    let stored = Arc::new(Mutex::new(None));
    let mut stream = OutputStream::as_completed(std::iter::once(Never(stored.clone())), 1);
    let mut poll = |waker: &Waker| {
        let pending = Pin::new(&mut stream).poll_next(&mut Context::from_waker(waker));
        assert!(pending.is_pending());
    };
    poll(Waker::noop());
    let inner = stored.lock().unwrap().clone();
    poll(&Waker::from(Arc::new(WakesAnother(Mutex::new(inner)))));
    poll(Waker::noop());
}

#[test]
fn observers_panic_is_ignored() {
    struct Panicking;
    impl Observer for Panicking {
        fn started(&self, _: WorkerId, _: Consumer, _: Slots) {
            panic!("an observer's bug, expected here");
        }
        fn ended(&self, _: WorkerId, _: &ExitCause) -> Vec<String> {
            panic!("an observer's bug, expected here");
        }
    }
    let _watchdog = watchdog(60);
    let builder = builder(1).observer(Arc::new(Panicking));
    let pool = builder
        .build_op(|n: u64| if n == 3 { std::process::exit(1) } else { n })
        .expect("the pool starts");
    assert_eq!(pool.map(0..10).filter(Result::is_ok).count(), 9);
}

/// Panics in every method, with a payload whose drop panics, too.
struct Throwing;

impl Observer for Throwing {
    fn started(&self, _: WorkerId, _: Consumer, _: Slots) {
        std::panic::panic_any(Bomb);
    }

    fn ended(&self, _: WorkerId, _: &ExitCause) -> Vec<String> {
        std::panic::panic_any(Bomb);
    }
}

#[test]
fn observers_panic_with_a_panicking_payload_is_ignored() {
    let _watchdog = watchdog(60);
    let pool = builder(2)
        .observer(Arc::new(Throwing))
        .build_op(seven)
        .expect("the pool starts");
    assert_eq!(pool.submit(String::new()).wait().expect("the task succeeds"), 7);
    pool.shutdown(Duration::MAX).expect("the pool works");
}
