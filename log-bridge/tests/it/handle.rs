//! A collector on a thread of its own.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use log_bridge::{AddError, Collector, CollectorHandle, FlushError, RemoveError, Source, StdStream};
use shm_buffers::{ring, slots::Slots};
use tracing::dispatcher::with_default;
use tracing::{Dispatch, Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

use crate::support::{Bridge, Capture, bridge};

/// Longer than any test: what happens before was requested through the handle.
const NEVER: Duration = Duration::from_secs(3600);
const WATCHDOG: Duration = Duration::from_secs(60);

#[test]
fn flush_add_remove_and_stop_do_not_wait_for_the_interval() {
    let capture = Capture::default();
    let Bridge { worker, collector } = bridge(1 << 16, capture.dispatch());
    let handle = collector.spawn(NEVER).unwrap();
    with_default(&worker, || tracing::info!("one"));
    handle.flush(WATCHDOG).unwrap();
    assert_eq!(capture.take().len(), 1);
    assert_eq!(handle.tally().total().delivered, 1);

    let (_, consumer) = ring::in_process(4096);
    handle
        .add(Source::new(4), consumer, Slots::in_process(log_bridge::SLOTS))
        .unwrap();
    assert_eq!(handle.remove(4, WATCHDOG).unwrap().tally.total().emitted, 0);
    assert_eq!(
        handle.remove(4, WATCHDOG).unwrap_err(),
        RemoveError::Unknown { id: 4 }
    );
    let (_, consumer) = ring::in_process(4096);
    let error = handle
        .add(Source::new(5), consumer, Slots::in_process(1))
        .unwrap_err();
    assert_eq!(error, AddError::TooFewSlots { id: 5, given: 1 });

    with_default(&worker, || tracing::info!("two"));
    let removed = handle.remove(3, WATCHDOG).unwrap();
    assert_eq!(removed.tally.total().delivered, 2);
    assert_eq!(handle.stop().total().delivered, 2);
}

#[test]
fn printed_lines_go_to_the_subscriber_of_the_collector() {
    let capture = Capture::default();
    let handle = Collector::new()
        .dispatch(capture.dispatch())
        .spawn(NEVER)
        .unwrap();
    handle
        .line_logger(Source::new(7), StdStream::Stderr)
        .log("no such device");
    let seen = capture.take();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].fields, "[message debug no such device]");
    assert!(seen[0].metadata.contains(" stderr ") && seen[0].spans[0].ends_with("[id u64 7]"));
}

#[test]
fn dropping_the_handle_replays_readable_records() {
    let capture = Capture::default();
    let Bridge { worker, collector } = bridge(1 << 20, capture.dispatch());
    let handle = collector.spawn(NEVER).unwrap();
    with_default(&worker, || (0..300).for_each(|n| tracing::info!(n)));
    drop(handle);
    assert_eq!(capture.take().len(), 300);
}

#[test]
fn the_thread_drains_at_its_interval() {
    let capture = Capture::default();
    let Bridge { worker, collector } = bridge(1 << 16, capture.dispatch());
    let handle = collector.spawn(Duration::from_millis(1)).unwrap();
    with_default(&worker, || tracing::info!("replayed without a request"));
    while capture.take().is_empty() {
        std::thread::yield_now();
    }
    drop(handle);
}

/// Panics on the first event, and blocks on an event of target `block`.
struct PanicOrBlock(Mutex<u32>, Arc<Barrier>);

impl<S: Subscriber> Layer<S> for PanicOrBlock {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "block" {
            self.1.wait();
        }
        let nth = {
            let mut nth = self.0.lock().unwrap();
            *nth += 1;
            *nth
        };
        assert!(nth > 1, "first event: this panic is part of the test");
    }
}

#[test]
fn the_thread_survives_a_subscriber_that_panics_or_blocks() {
    let barrier = Arc::new(Barrier::new(2));
    let capture = Capture::default();
    let layer = PanicOrBlock(Mutex::new(0), barrier.clone());
    let leader = Dispatch::new(tracing_subscriber::registry().with(capture.clone()).with(layer));
    let Bridge { worker, collector } = bridge(1 << 16, leader);
    let handle = collector.spawn(NEVER).unwrap();
    with_default(&worker, || {
        tracing::error_span!("span").in_scope(|| tracing::info!("panics"));
        tracing::info!("goes on");
    });
    handle.flush(WATCHDOG).unwrap();
    handle.flush(WATCHDOG).unwrap();
    let seen = capture.take();
    assert_eq!(seen.last().unwrap().fields, "[message debug goes on]");
    assert_eq!(seen.last().unwrap().spans.len(), 1, "{seen:?}");
    assert_eq!(handle.tally().total().delivered, 2);

    with_default(
        &worker,
        || tracing::info!(target: "block", "waits for the barrier"),
    );
    let short = Duration::from_millis(1);
    assert_eq!(handle.flush(short).unwrap_err(), FlushError::TimedOut(short));
    barrier.wait();
    assert_eq!(handle.stop().total().delivered, 3);
}

/// Calls the handle in the thread of its collector, and counts the events.
struct CallsHandle(Arc<Mutex<Option<CollectorHandle>>>, Arc<AtomicU32>);

impl<S: Subscriber> Layer<S> for CallsHandle {
    fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
        let handle = self.0.lock().unwrap();
        assert_eq!(handle.as_ref().unwrap().flush(WATCHDOG), Err(FlushError::Stopped));
        self.1.fetch_add(1, Ordering::Release);
    }
}

#[test]
fn a_layer_that_calls_the_handle_gets_an_error_instead_of_a_deadlock() {
    let shared = Arc::new(Mutex::new(None));
    let events = Arc::new(AtomicU32::new(0));
    let layer = CallsHandle(shared.clone(), events.clone());
    let leader = Dispatch::new(tracing_subscriber::registry().with(layer));
    let Bridge { worker, collector } = bridge(1 << 16, leader);
    let handle = collector.spawn(Duration::from_millis(1)).unwrap();
    *shared.lock().unwrap() = Some(handle);
    with_default(&worker, || tracing::info!("calls the handle"));
    // A flush would wait for the layer, which waits for this lock.
    while events.load(Ordering::Acquire) == 0 {
        std::thread::yield_now();
    }
    let handle = shared.lock().unwrap().take();
    drop(handle);
}

#[test]
fn without_a_subscriber_events_are_dropped_and_counted() {
    let Bridge {
        worker,
        mut collector,
    } = bridge(1 << 16, Dispatch::none());
    with_default(&worker, || tracing::info!("without a subscriber"));
    collector.drain();
    let total = collector.tally().total();
    assert_eq!((total.emitted, total.delivered, total.dropped), (1, 0, 1));
    assert_eq!(Collector::default().tally().to_string(), "0 delivered, 0 dropped");
}
