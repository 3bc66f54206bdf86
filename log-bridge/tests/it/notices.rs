//! The bridge's own events: each is emitted once, and below its worker's span only.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use log_bridge::{Collector, RemovedSource, SLOTS, Slots, Source, WorkerLayer, ring};
use tracing::dispatcher::with_default;
use tracing::{Dispatch, Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::support::{Bridge, Capture, Seen, bridge, in_own_process};

/// Keeps the name of the current span at each notice; the notice's scope may start with another span.
#[derive(Clone, Default)]
struct CurrentSpans(Arc<Mutex<Vec<Option<&'static str>>>>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for CurrentSpans {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if event.metadata().target() == "log_bridge" {
            let current = context.lookup_current().map(|span| span.name());
            self.0.lock().unwrap().push(current);
        }
    }
}

/// Panics on an event of target `panic`.
struct PanicOnRequest;

impl<S: Subscriber> Layer<S> for PanicOnRequest {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        assert_ne!(
            event.metadata().target(),
            "panic",
            "this panic is part of the test"
        );
    }
}

/// Emits more events than the ring has room for, in two spans.
fn flood() {
    let _outer = tracing::info_span!("outer").entered();
    for n in 0..200 {
        tracing::info_span!("inner", n).in_scope(|| tracing::info!("text"));
    }
}

fn notices<'a>(seen: &'a [Seen], message: &str) -> Vec<&'a Seen> {
    let seen = seen.iter().filter(|seen| seen.is_of_bridge());
    seen.filter(|seen| seen.fields.contains(message)).collect()
}

/// Asserts that a notice is in the span of worker 3 and in no other one.
fn assert_below_worker(notice: &Seen) {
    assert_eq!(notice.spans.len(), 1, "{notice:?}");
    assert!(notice.spans[0].contains(" worker log_bridge ") && notice.spans[0].ends_with("[id u64 3]"));
    assert_eq!((notice.emitted, &notice.thread), (None, &None), "{notice:?}");
}

#[test]
fn drop_notices_are_below_the_worker_span_at_any_time() {
    let (capture, current) = (Capture::default(), CurrentSpans::default());
    let registry = tracing_subscriber::registry()
        .with(capture.clone())
        .with(current.clone());
    let Bridge {
        worker,
        mut collector,
    } = bridge(1 << 12, Dispatch::new(registry.with(PanicOnRequest)));
    // The leader's own span has nothing to do with it.
    let leader = Dispatch::new(tracing_subscriber::registry());
    with_default(&leader, || {
        tracing::info_span!("of the leader").in_scope(|| {
            with_default(&worker, flood);
            collector.drain(); // at the end of a drain
            with_default(&worker, || {
                tracing::info_span!("doomed").in_scope(|| tracing::info!(target: "panic", "one"));
                flood();
            });
            collector.drain(); // after a panic of the subscriber
            std::thread::scope(|scope| {
                scope.spawn(|| with_default(&worker, flood));
            });
            with_default(&worker, || {
                tracing::error_span!("later").in_scope(|| tracing::error!("text"))
            });
            collector.drain(); // before the event that follows the drops, and after that of another thread
            with_default(&worker, flood);
            collector.remove(3).unwrap(); // at the end of the source
        });
    });
    let seen = capture.take();
    let notices = notices(&seen, "log events dropped");
    assert!(notices.len() >= 4, "{notices:?}");
    notices.iter().for_each(|notice| assert_below_worker(notice));
    let current = current.0.lock().unwrap();
    assert!(current.iter().all(|name| *name == Some("worker")), "{current:?}");
}

/// The ends of a ring whose worker is a test, and a collector that has it as source 3.
fn raw(collector: Collector) -> (ring::Producer, Collector) {
    let mut collector = collector.notice_interval(Duration::ZERO);
    let (producer, consumer) = ring::in_process(4096);
    collector
        .add(Source::new(3), consumer, Slots::in_process(SLOTS))
        .unwrap();
    (producer, collector)
}

fn assert_abandoned(removed: &RemovedSource, capture: &Capture) {
    assert!(removed.error.is_some());
    assert_eq!(removed.tally.corrupt_sources(), 1);
    let seen = capture.take();
    let notices = notices(&seen, "log stream abandoned");
    assert_eq!(notices.len(), 1, "{seen:?}");
    assert_below_worker(notices[0]);
}

#[test]
fn an_error_that_is_found_while_a_source_is_removed_is_reported() {
    let capture = Capture::default();
    let (mut producer, mut collector) = raw(Collector::new().dispatch(capture.dispatch()));
    producer.push(b"not a record").unwrap();
    let removed = collector.remove(3).unwrap();
    assert_abandoned(&removed, &capture);
    assert_eq!(collector.tally().corrupt_sources(), 1);
}

#[test]
fn an_error_is_reported_once_and_after_the_events_before_it() {
    let capture = Capture::default();
    let (producer, consumer) = ring::in_process(1 << 16);
    let slots = Slots::in_process(SLOTS);
    // A worker that is as good as corrupt: of another version. Its record is moved into the ring of source 3.
    let layer = WorkerLayer::builder(producer, slots).build().unwrap();
    with_default(&Dispatch::new(tracing_subscriber::registry().with(layer)), || {
        tracing::info_span!("step").in_scope(|| tracing::info!("text"));
    });
    let mut consumer = consumer;
    let mut frame = Vec::new();
    consumer.pop(&mut frame).unwrap();
    let (mut producer, mut collector) = raw(Collector::new().dispatch(capture.dispatch()));
    producer.push(&frame).unwrap();
    frame[0] ^= 0xff;
    producer.push(&frame).unwrap();
    collector.drain();
    collector.drain();
    let removed = collector.remove(3).unwrap();
    assert_eq!(removed.tally.total().delivered, 1);
    assert_abandoned(&removed, &capture);
}

#[test]
fn a_late_subscriber_is_told_of_an_error() {
    if !in_own_process("notices::a_late_subscriber_is_told_of_an_error") {
        return;
    }
    let (mut producer, mut collector) = raw(Collector::new());
    producer.push(b"not a record").unwrap();
    collector.drain();
    let capture = Capture::default();
    tracing::dispatcher::set_global_default(capture.dispatch()).unwrap();
    collector.drain();
    assert_abandoned(&collector.remove(3).unwrap(), &capture);
}

#[cfg(feature = "log")]
#[test]
fn a_logger_is_told_of_the_last_drops_and_of_an_error() {
    static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
    struct Lines;
    impl log::Log for Lines {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &log::Record<'_>) {
            LINES.lock().unwrap().push(record.args().to_string());
        }

        fn flush(&self) {}
    }
    if !in_own_process("notices::a_logger_is_told_of_the_last_drops_and_of_an_error") {
        return;
    }
    log::set_logger(&Lines).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let (producer, consumer) = ring::in_process(4096);
    let slots = Slots::in_process(SLOTS);
    let mut collector = Collector::new().notice_interval(Duration::from_secs(3600));
    collector.add(Source::new(4), consumer, slots.clone()).unwrap();
    let layer = WorkerLayer::builder(producer, slots).build().unwrap();
    let worker = Dispatch::new(tracing_subscriber::registry().with(layer));
    // Two notices: the second one is not due until the source is removed.
    for _ in 0..2 {
        with_default(&worker, flood);
        collector.drain();
    }
    let dropped = collector.remove(4).unwrap().tally.total().dropped;
    let (mut producer, mut collector) = raw(collector);
    producer.push(b"not a record").unwrap();
    collector.remove(3).unwrap();
    let lines = LINES.lock().unwrap();
    let drops = lines
        .iter()
        .filter_map(|line| line.strip_prefix("worker{id=4}: log events dropped info="));
    let drops: Vec<u64> = drops.map(|count| count.parse().unwrap()).collect();
    assert_eq!(
        (drops.len(), drops.iter().sum::<u64>()),
        (2, dropped),
        "{lines:?}"
    );
    let failures = lines
        .iter()
        .filter(|line| line.starts_with("worker{id=3}: log stream abandoned: "));
    assert_eq!(failures.count(), 1, "{lines:?}");
}
