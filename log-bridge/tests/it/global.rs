//! Tests that need the process's default subscriber, logger or panic hook: each in a process of its own.

use std::cell::RefCell;
use std::fmt;
use std::time::{Duration, Instant};

use log_bridge::{Collector, Filter, SLOTS, Source, WorkerLayer};
use shm_buffers::{ring, slots::Slots};
use tracing::Level;
use tracing::level_filters::LevelFilter;

use crate::support::{Capture, Seen, in_own_process};

const WATCHDOG: Duration = Duration::from_secs(60);

fn install(level: LevelFilter) -> (Capture, Collector) {
    let (producer, consumer) = ring::in_process(1 << 20);
    let slots = Slots::in_process(SLOTS);
    let builder = || WorkerLayer::builder(ring::in_process(1024).0, Slots::in_process(SLOTS));
    let guard = WorkerLayer::builder(producer, slots.clone())
        .filter(Filter::new(level))
        .install()
        .unwrap();
    std::mem::forget(guard);
    assert!(
        builder().install().is_err(),
        "the process has a default subscriber already"
    );
    let capture = Capture::default();
    let mut collector = Collector::new()
        .dispatch(capture.dispatch())
        .notice_interval(Duration::ZERO);
    collector.add(Source::new(1), consumer, slots).unwrap();
    (capture, collector)
}

fn messages(seen: &[Seen]) -> Vec<&str> {
    seen.iter().map(|s| s.fields.as_str()).collect()
}

/// A value whose `Debug` logs.
struct Chatty;

impl fmt::Debug for Chatty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        tracing::error!(again = ?Chatty, "logs while it is logged");
        tracing::info_span!("inner span").in_scope(|| tracing::warn!("and this"));
        f.write_str("Chatty")
    }
}

#[test]
fn a_debug_that_logs_loses_only_its_own_events() {
    if !in_own_process("global::a_debug_that_logs_loses_only_its_own_events") {
        return;
    }
    let (capture, mut collector) = install(LevelFilter::TRACE);
    let span = tracing::info_span!("span", field = ?Chatty, later = tracing::field::Empty);
    span.record("later", tracing::field::debug(Chatty));
    span.in_scope(|| tracing::info!(value = ?Chatty, "kept"));
    tracing::info!("the next event");
    collector.drain();
    let seen: Vec<_> = capture
        .take()
        .into_iter()
        .filter(|s| s.level == Level::INFO)
        .collect();
    assert_eq!(
        messages(&seen),
        [
            "[message debug kept][value debug Chatty]",
            "[message debug the next event]"
        ]
    );
    assert!(
        seen[0].spans[1].contains("[field debug Chatty] then [later debug Chatty]"),
        "{seen:?}"
    );
    let tally = collector.remove(1).unwrap().tally;
    for level in [Level::ERROR, Level::WARN] {
        assert_eq!((tally.level(level).emitted, tally.level(level).dropped), (3, 3));
    }
}

#[test]
fn panics_and_events_of_ending_threads_arrive() {
    if !in_own_process("global::panics_and_events_of_ending_threads_arrive") {
        return;
    }
    struct AtExit;
    impl Drop for AtExit {
        fn drop(&mut self) {
            tracing::warn!("thread ends");
        }
    }
    thread_local!(static AT_EXIT: RefCell<Option<AtExit>> = const { RefCell::new(None) });
    let (capture, mut collector) = install(LevelFilter::INFO);
    log_bridge::log_panics();
    let thread = std::thread::Builder::new().name("doomed".into()).spawn(|| {
        AT_EXIT.set(Some(AtExit));
        tracing::info!("starts");
        panic!("part of {}", "the test");
    });
    assert!(thread.unwrap().join().is_err());
    collector.drain();
    let seen = capture.take();
    let panicked = seen.iter().find(|s| s.metadata.contains(" panic ")).unwrap();
    assert!(
        panicked.fields.contains("panicked: part of the test"),
        "{panicked:?}"
    );
    assert!(
        panicked.fields.contains("global.rs") && panicked.fields.contains("doomed"),
        "{panicked:?}"
    );
    let tally = collector.remove(1).unwrap().tally;
    let warned = tally.level(Level::WARN);
    assert_eq!((warned.emitted, warned.delivered + warned.dropped), (1, 1));
}

#[test]
fn the_guard_writes_pending_summaries() {
    if !in_own_process("global::the_guard_writes_pending_summaries") {
        return;
    }
    let (producer, consumer) = ring::in_process(4096);
    let slots = Slots::in_process(SLOTS);
    let guard = WorkerLayer::builder(producer, slots.clone())
        .overflow(log_bridge::Overflow::Collapse)
        .refresh_interval(Duration::from_secs(3600))
        .install()
        .unwrap();
    (0..1000).for_each(|n| tracing::info!(n, "flood"));
    drop(guard);
    // The default subscriber is never dropped.
    let capture = Capture::default();
    let mut collector = Collector::new().dispatch(capture.dispatch());
    collector.add(Source::new(1), consumer, slots).unwrap();
    let tally = collector.remove(1).unwrap().tally;
    assert!(tally.total().dropped > 900);
    assert_eq!(tally.collapsed(), tally.total().dropped);
    let summary = format!("[repeats u64 {}]", tally.collapsed());
    assert!(capture.take().iter().any(|seen| seen.fields.contains(&summary)));
}

#[test]
fn an_installed_layer_applies_the_filter_of_its_leader() {
    if !in_own_process("global::an_installed_layer_applies_the_filter_of_its_leader") {
        return;
    }
    let (capture, mut collector) = install(LevelFilter::OFF);
    for (level, expected) in [
        (LevelFilter::DEBUG, 2),
        (LevelFilter::INFO, 1),
        (LevelFilter::TRACE, 2),
    ] {
        collector.set_filter(&Filter::new(level)).unwrap();
        let deadline = Instant::now() + WATCHDOG;
        while tracing::enabled!(Level::DEBUG) != (level >= LevelFilter::DEBUG) {
            assert!(Instant::now() < deadline, "{level} is not applied");
            std::thread::yield_now();
        }
        tracing::info!("info");
        tracing::debug!("debug");
        collector.drain();
        assert_eq!(capture.take().len(), expected, "{level}");
    }
    #[cfg(feature = "log")]
    {
        let deadline = Instant::now() + WATCHDOG;
        while log::max_level() != log::LevelFilter::Trace {
            assert!(
                Instant::now() < deadline,
                "the maximum level of log does not change"
            );
            std::thread::yield_now();
        }
    }
}

#[cfg(feature = "log")]
#[test]
fn log_records_keep_their_own_metadata() {
    if !in_own_process("global::log_records_keep_their_own_metadata") {
        return;
    }
    let (capture, mut collector) = install(LevelFilter::INFO);
    tracing::info_span!("span").in_scope(|| {
        log::warn!(target: "old::school", "a {} record", "log");
        log::debug!("rejected by the filter");
    });
    assert_eq!(log::max_level(), log::LevelFilter::Info);
    collector.drain();
    let seen = capture.take();
    assert_eq!(messages(&seen), ["[message debug a log record]"]);
    assert_eq!(seen[0].level, Level::WARN);
    assert!(
        seen[0]
            .metadata
            .contains("old::school Some(\"log-bridge/tests/it/global.rs\") Some("),
        "{seen:?}"
    );
    assert!(
        seen[0].metadata.ends_with("Some(\"it::global\") [\"message\"]"),
        "{seen:?}"
    );
    assert!(seen[0].spans[1].contains("span"));
}

#[cfg(feature = "log")]
#[test]
fn unregistered_log_records_are_replayed_as_tracing_log_does() {
    if !in_own_process("global::unregistered_log_records_are_replayed_as_tracing_log_does") {
        return;
    }
    let (capture, mut collector) = install(LevelFilter::INFO);
    for line in 0..3000 {
        let record = log::Record::builder()
            .level(log::Level::Info)
            .target("generated")
            .file(Some("some.rs"))
            .line(Some(line))
            .args(format_args!("text"))
            .build();
        log::logger().log(&record);
        collector.drain();
    }
    let seen = capture.take();
    assert_eq!(seen.len(), 3000);
    assert!(seen[0].metadata.contains("generated"));
    let last = &seen[2999];
    assert_eq!(last.level, Level::INFO);
    assert!(last.fields.starts_with("[message debug text]"), "{last:?}");
    for field in [
        "[log.target str \"generated\"]",
        "[log.file str \"some.rs\"]",
        "[log.line u64 2999]",
    ] {
        assert!(last.fields.contains(field), "{last:?}");
    }
    assert_eq!(collector.tally().unregistered(), 3000 - 2048);
}
