//! Counts are exact and current, and last records are available, whatever the leader's subscriber does.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use log_bridge::{Collector, CollectorHandle, Filter, LevelTally, SLOTS, Source, Tally, WorkerLayer};
use shm_buffers::{ring, slots::Slots};
use tracing::dispatcher::with_default;
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Event, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::{Layer, reload};

use crate::support::{Bridge, Capture, Seen, bridge, in_own_process};

const NEVER: Duration = Duration::from_secs(3600);
const WATCHDOG: Duration = Duration::from_secs(60);

/// Calls a function for each event of the worker, and counts the calls.
struct Each<F>(F, Arc<AtomicU64>);

impl<S: Subscriber, F: Fn(&Event<'_>) + 'static> Layer<S> for Each<F> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() != "log_bridge" {
            self.1.fetch_add(1, Ordering::SeqCst);
            (self.0)(event);
        }
    }
}

/// Returns a subscriber that calls `act` for each event of the worker, and the number of calls.
fn each(act: impl Fn(&Event<'_>) + Send + Sync + 'static) -> (Dispatch, Arc<AtomicU64>) {
    let calls = Arc::new(AtomicU64::new(0));
    let layer = Each(act, calls.clone());
    (Dispatch::new(tracing_subscriber::registry().with(layer)), calls)
}

/// Returns the total, whose counts must add up.
fn checked_total(tally: &Tally) -> LevelTally {
    let total = tally.total();
    assert_eq!(
        total.emitted,
        total.delivered + total.dropped + total.waiting(),
        "{total:?}"
    );
    total
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + WATCHDOG;
    while !is() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::yield_now();
    }
}

/// Opens when it is dropped, also if the test fails.
struct Gate(Arc<AtomicBool>);

impl Gate {
    fn new() -> (Self, Arc<AtomicBool>) {
        let open = Arc::new(AtomicBool::new(false));
        (Self(open.clone()), open)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn wait_for(open: &AtomicBool) {
    while !open.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
}

#[test]
fn counts_are_exact_at_every_moment_while_the_subscriber_is_slow() {
    const EVENTS: u64 = 100_000;
    let (leader, calls) = each(|_| std::thread::sleep(Duration::from_millis(2)));
    let Bridge { worker, collector } = bridge(1 << 16, leader);
    let handle = collector.spawn(Duration::from_millis(1)).unwrap();
    let mut emitted = 0;
    while emitted < EVENTS {
        with_default(&worker, || {
            for n in 0..1000 {
                tracing::info!(n, "flood");
                emitted += 1;
            }
        });
        let before = calls.load(Ordering::SeqCst);
        let total = checked_total(&handle.tally());
        let after = calls.load(Ordering::SeqCst);
        assert_eq!(total.emitted, emitted);
        // An event is counted just before the subscriber is called.
        assert!(
            before <= total.delivered && total.delivered <= after + 1,
            "{before} {total:?} {after}"
        );
    }
    assert!(handle.tally().total().waiting() > 0);
    let timeout = Duration::from_millis(50);
    let start = Instant::now();
    let last = handle.stop_within(timeout);
    // A watchdog: without the timeout it takes seconds.
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let total = checked_total(&last);
    assert_eq!((total.emitted, total.waiting()), (EVENTS, 0));
    assert!(total.delivered >= 10 && total.dropped > 0, "{total:?}");
    assert!(total.delivered <= calls.load(Ordering::SeqCst) + 1);
}

#[test]
fn a_slow_subscriber_receives_the_notice_of_events_dropped_at_the_end() {
    let capture = Capture::default();
    let slow = Each(
        |_: &Event<'_>| std::thread::sleep(Duration::from_millis(1)),
        Arc::default(),
    );
    let leader = Dispatch::new(tracing_subscriber::registry().with(capture.clone()).with(slow));
    let Bridge { worker, collector } = bridge(1 << 20, leader);
    let handle = collector.spawn(NEVER).unwrap();
    with_default(&worker, || (0..5000).for_each(|n| tracing::info!(n)));
    let total = handle.stop_within(Duration::from_millis(300)).total();
    assert_eq!(total.emitted, 5000);
    let seen = capture.take();
    let notice = seen.last().unwrap();
    assert!(
        notice.fields.contains(&format!("[info u64 {}]", total.dropped)),
        "{notice:?} {total:?}"
    );
}

#[test]
fn a_subscriber_that_panics_on_every_event_still_receives_each_one() {
    let (leader, calls) = each(|_| panic!("this panic is part of the test"));
    let Bridge { worker, collector } = bridge(1 << 16, leader);
    let handle = collector.spawn(NEVER).unwrap();
    with_default(&worker, || {
        (0..5).for_each(|n| tracing::info_span!("span", n).in_scope(|| tracing::info!("event")));
    });
    handle.flush(WATCHDOG).unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 5);
    let total = checked_total(&handle.tally());
    assert_eq!((total.emitted, total.delivered), (5, 5));
    let removed = handle.remove(3, WATCHDOG).unwrap();
    assert_eq!(removed.last_records.len(), 5);
}

#[test]
fn last_records_are_available_while_the_subscriber_is_busy_with_the_first() {
    let (_gate, open) = Gate::new();
    let blocked = Arc::new(Barrier::new(2));
    let (leader, calls) = each({
        let blocked = blocked.clone();
        move |event| {
            if event.metadata().target() == "first" {
                blocked.wait();
                wait_for(&open);
            }
        }
    });
    let Bridge { worker, collector } = bridge(1 << 16, leader);
    let handle = collector.spawn(Duration::from_millis(1)).unwrap();
    with_default(&worker, || {
        tracing::info!(target: "first", "blocks");
        (0..300).for_each(|n| tracing::info!(n, "then"));
        tracing::error_span!("doomed").in_scope(|| tracing::error!("the last event"));
    });
    blocked.wait();
    drop(worker);
    let removed = handle.remove(3, Duration::ZERO).unwrap();
    assert_eq!(removed.last_records.len(), 16);
    assert_eq!(
        removed.last_records[15],
        "ERROR doomed: it::subscribers: the last event"
    );
    let total = checked_total(&removed.tally);
    assert_eq!((total.emitted, total.delivered, total.waiting()), (302, 1, 301));
    drop(_gate);
    assert_eq!(handle.stop().total().delivered, 302);
    assert_eq!(calls.load(Ordering::SeqCst), 302);
}

#[test]
fn a_flush_returns_after_the_last_record_was_replayed() {
    for _ in 0..200 {
        let done = Arc::new(AtomicU64::new(0));
        let (leader, _) = each({
            let done = done.clone();
            move |_| {
                std::thread::yield_now();
                done.fetch_add(1, Ordering::SeqCst);
            }
        });
        let Bridge { worker, collector } = bridge(1 << 12, leader);
        let handle = collector.spawn(Duration::from_micros(10)).unwrap();
        for n in 1..20 {
            with_default(&worker, || tracing::info!(n));
            handle.flush(WATCHDOG).unwrap();
            assert_eq!(done.load(Ordering::SeqCst), n);
        }
    }
}

/// Returns a worker's subscriber, and the handle of its leader, both in this process.
fn worker(collector: Collector, level: LevelFilter) -> (Dispatch, CollectorHandle, log_bridge::FilterWatch) {
    let (producer, consumer) = ring::in_process(1 << 16);
    let slots = Slots::in_process(SLOTS);
    let layer = WorkerLayer::builder(producer, slots.clone()).filter(Filter::new(level));
    let layer = layer.build().unwrap();
    let watch = layer.filter_watch();
    let worker = Dispatch::new(tracing_subscriber::registry().with(layer));
    let handle = collector.spawn(Duration::from_millis(1)).unwrap();
    handle.add(Source::new(3), consumer, slots).unwrap();
    (worker, handle, watch)
}

#[test]
fn a_subscriber_that_is_set_late_receives_later_events_and_the_notice_of_earlier_drops() {
    if !in_own_process(
        "subscribers::a_subscriber_that_is_set_late_receives_later_events_and_the_notice_of_earlier_drops",
    ) {
        return;
    }
    let (worker, handle, _watch) = worker(Collector::new(), LevelFilter::INFO);
    with_default(&worker, || (0..4).for_each(|n| tracing::info!(n, "early")));
    handle.flush(WATCHDOG).unwrap();
    let total = checked_total(&handle.tally());
    assert_eq!((total.delivered, total.dropped), (0, 4));
    handle
        .line_logger(Source::new(3), log_bridge::StdStream::Stdout)
        .log("without a subscriber");
    let capture = Capture::default();
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(capture.clone())).unwrap();
    with_default(&worker, || (0..10).for_each(|n| tracing::info!(n, "late")));
    handle.flush(WATCHDOG).unwrap();
    handle
        .line_logger(Source::new(3), log_bridge::StdStream::Stdout)
        .log("printed");
    let seen = capture.take();
    let late = seen.iter().filter(|seen| seen.fields.contains("late"));
    assert_eq!(late.count(), 10, "{seen:?}");
    assert!(seen.iter().any(|seen| seen.fields.contains("printed")));
    let total = checked_total(&handle.tally());
    assert_eq!((total.delivered, total.dropped), (10, 4));
    drop(handle);
    let has_notice = |seen: &Seen| seen.fields.contains("[info u64 4]");
    assert!(seen.iter().chain(&capture.take()).any(has_notice));
}

#[test]
fn a_collector_uses_the_scoped_subscriber_and_follows_its_reloads() {
    if !in_own_process("subscribers::a_collector_uses_the_scoped_subscriber_and_follows_its_reloads") {
        return;
    }
    let capture = Capture::default();
    let (level, reloaded) = reload::Layer::new(LevelFilter::INFO);
    let leader = Dispatch::new(tracing_subscriber::registry().with(level).with(capture.clone()));
    let collector = with_default(&leader, || {
        assert_eq!(Filter::current(), Filter::new(LevelFilter::INFO));
        Collector::new().follow_subscribers()
    });
    // The worker is in the same process: its filter must not raise the level that this process enables.
    let (producer, consumer) = ring::in_process(1 << 16);
    let slots = Slots::in_process(SLOTS);
    let handle = collector.spawn(Duration::from_millis(1)).unwrap();
    handle.add(Source::new(3), consumer, slots.clone()).unwrap();
    let layer = WorkerLayer::builder(producer, slots)
        .filter(Filter::off())
        .build()
        .unwrap();
    let mut watch = layer.filter_watch();
    let worker = Dispatch::new(tracing_subscriber::registry().with(layer));
    reloaded.reload(LevelFilter::DEBUG).unwrap();
    let mut received = None;
    until("the new level", || {
        received = watch.refresh().or(received.take());
        received == Some(Filter::new(LevelFilter::DEBUG))
    });
    with_default(&worker, || tracing::debug!("enabled now"));
    handle.flush(WATCHDOG).unwrap();
    assert_eq!(capture.take().len(), 1);
    reloaded.reload(LevelFilter::WARN).unwrap();
    // After a filter was set explicitly, reloads change nothing.
    handle.set_filter(&Filter::new(LevelFilter::INFO)).unwrap();
    reloaded.reload(LevelFilter::TRACE).unwrap();
    handle.flush(WATCHDOG).unwrap();
    assert_eq!(watch.refresh(), Some(Filter::new(LevelFilter::INFO)));
}

#[cfg(feature = "log")]
#[test]
fn without_a_subscriber_records_go_to_the_logger_of_the_log_crate() {
    if !in_own_process("subscribers::without_a_subscriber_records_go_to_the_logger_of_the_log_crate") {
        return;
    }
    static LOGGED: std::sync::Mutex<Vec<String>> = std::sync::Mutex::new(Vec::new());
    struct Logger;
    impl log::Log for Logger {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            let text = format!("{} {}: {}", record.level(), record.target(), record.args());
            LOGGED.lock().unwrap().push(text);
        }
        fn flush(&self) {}
    }
    log::set_logger(&Logger).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    assert_eq!(Filter::current(), Filter::new(LevelFilter::INFO));
    let (worker, handle, _watch) = worker(Collector::new(), LevelFilter::DEBUG);
    with_default(&worker, || {
        tracing::info_span!("span").in_scope(|| tracing::warn!(target: "t", n = 1, "text"));
        tracing::debug!("beyond the maximum level");
    });
    handle.flush(WATCHDOG).unwrap();
    handle
        .line_logger(Source::new(3), log_bridge::StdStream::Stderr)
        .log("printed");
    assert_eq!(
        *LOGGED.lock().unwrap(),
        [
            "WARN t: worker{id=3}:span: text n=1",
            "WARN stderr: worker{id=3}: printed"
        ]
    );
    assert_eq!(handle.tally().total().delivered, 2);
}

#[cfg(target_os = "linux")]
const BROKEN: &str = "LOG_BRIDGE_TEST_BROKEN";

/// Replays 150 events into a subscriber that prints to standard error, and prints the counts.
#[cfg(target_os = "linux")]
fn leader_with_broken_stderr() {
    let subscriber = tracing_subscriber::fmt().with_writer(std::io::stderr).finish();
    let Bridge { worker, collector } = bridge(1 << 16, Dispatch::new(subscriber));
    let handle = collector.spawn(Duration::from_millis(1)).unwrap();
    with_default(&worker, || (0..150).for_each(|n| tracing::info!(n, "text")));
    drop(worker);
    let removed = handle.remove(3, WATCHDOG).unwrap();
    println!(
        "{} delivered, last {:?}, {}",
        removed.tally.total().delivered,
        removed.last_records.last(),
        handle.stop()
    );
}

#[cfg(target_os = "linux")]
#[test]
fn counts_and_last_records_survive_a_full_disk_a_broken_pipe_and_a_closed_standard_error() {
    use std::process::{Command, Stdio};
    if std::env::var_os(BROKEN).is_some() {
        return leader_with_broken_stderr();
    }
    let name =
        "subscribers::counts_and_last_records_survive_a_full_disk_a_broken_pipe_and_a_closed_standard_error";
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (reader, pipe) = std::io::pipe().unwrap();
    drop(reader);
    let exe = std::env::current_exe().unwrap();
    let run = |command: &mut Command, stderr: Stdio| {
        let arguments = ["--exact", name, "--nocapture", "--test-threads=1"];
        let output = command
            .args(arguments)
            .env(BROKEN, "1")
            .stderr(stderr)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let expected =
            "150 delivered, last Some(\"INFO it::subscribers: text n=149\"), 150 delivered, 0 dropped";
        assert!(
            output.status.success() && text.contains(expected),
            "{} {text}",
            output.status
        );
    };
    run(&mut Command::new(&exe), full.into());
    run(&mut Command::new(&exe), pipe.into());
    let mut closed = Command::new("sh");
    closed.args(["-c", "exec \"$0\" \"$@\" 2>&-"]).arg(&exe);
    run(&mut closed, Stdio::inherit());
}
