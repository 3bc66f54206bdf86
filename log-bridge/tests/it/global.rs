//! What needs the process's default subscriber, logger or panic hook: each in a process of its own.

use std::cell::RefCell;
use std::fmt;
use std::process::Command;
use std::time::{Duration, Instant};

use log_bridge::{Collector, Filter, SLOTS, Source, WorkerLayer};
use shm_buffers::{ring, slots::Slots};
use tracing::Level;
use tracing::level_filters::LevelFilter;

use crate::support::{Capture, Seen};

const CHILD: &str = "LOG_BRIDGE_TEST_CHILD";
const WATCHDOG: Duration = Duration::from_secs(60);

/// Runs the named test of this file in a process of its own; `true` in there.
fn alone(name: &str) -> bool {
    alone_in("global", name)
}

/// Runs the named test of the file `module` in a process of its own; `true` in there.
pub(crate) fn alone_in(module: &str, name: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            &format!("{module}::{name}"),
            "--nocapture",
            "--test-threads=1",
        ])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

fn install(level: LevelFilter) -> (Capture, Collector) {
    let (producer, consumer) = ring::in_process(1 << 20);
    let slots = Slots::in_process(SLOTS);
    let builder = || WorkerLayer::builder(ring::in_process(1024).0, Slots::in_process(SLOTS));
    let guard = WorkerLayer::builder(producer, slots.clone())
        .filter(Filter::new(level))
        .install()
        .unwrap();
    std::mem::forget(guard);
    assert!(builder().install().is_err(), "there is a default already");
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

struct Chatty;

impl fmt::Debug for Chatty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        tracing::error!(again = ?Chatty, "logs while it is logged");
        tracing::info_span!("span within").in_scope(|| tracing::warn!("and this"));
        f.write_str("Chatty")
    }
}

#[test]
fn who_logs_while_he_is_logged_loses_only_that() {
    if !alone("who_logs_while_he_is_logged_loses_only_that") {
        return;
    }
    let (capture, mut collector) = install(LevelFilter::TRACE);
    let span = tracing::info_span!("span", field = ?Chatty, later = tracing::field::Empty);
    span.record("later", tracing::field::debug(Chatty));
    span.in_scope(|| tracing::info!(value = ?Chatty, "kept"));
    tracing::info!("and on");
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
            "[message debug and on]"
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
fn panics_and_ending_threads_are_heard() {
    if !alone("panics_and_ending_threads_are_heard") {
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
fn a_worker_that_ends_right_after_a_flood_tells_its_summaries_by_its_guard() {
    if !alone("a_worker_that_ends_right_after_a_flood_tells_its_summaries_by_its_guard") {
        return;
    }
    let (producer, consumer) = ring::in_process(4096);
    let slots = Slots::in_process(SLOTS);
    let guard = WorkerLayer::builder(producer, slots.clone())
        .overflow(log_bridge::Overflow::Batch)
        .watch_every(Duration::from_secs(3600))
        .install()
        .unwrap();
    (0..1000).for_each(|n| tracing::info!(n, "flood"));
    drop(guard);
    // The process ends here; its default subscriber is never dropped.
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
fn an_installed_layer_follows_its_leaders_filter() {
    if !alone("an_installed_layer_follows_its_leaders_filter") {
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
            assert!(Instant::now() < deadline, "{level} is not in force");
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
                "the maximum level of log does not follow"
            );
            std::thread::yield_now();
        }
    }
}

#[cfg(feature = "log")]
#[test]
fn records_of_log_come_with_their_own_metadata() {
    if !alone("records_of_log_come_with_their_own_metadata") {
        return;
    }
    let (capture, mut collector) = install(LevelFilter::INFO);
    tracing::info_span!("span").in_scope(|| {
        log::warn!(target: "old::school", "a {} record", "log");
        log::debug!("nobody wants this");
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
fn too_many_callsites_of_log_are_replayed_as_tracing_log_does() {
    if !alone("too_many_callsites_of_log_are_replayed_as_tracing_log_does") {
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
