//! Events that are collapsed when the ring is full, and rate limits.

use std::time::Duration;

use log_bridge::{Collector, Filter, Overflow, RateLimit, SLOTS, Source, WorkerLayer};
use shm_buffers::{ring, slots::Slots};
use tracing::dispatcher::with_default;
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Level};
use tracing_subscriber::layer::SubscriberExt;

use crate::support::{ALL, Capture, Seen};

fn bridge(capture: &Capture, overflow: Overflow, limit: Option<RateLimit>) -> (Dispatch, Collector) {
    let (producer, consumer) = ring::in_process(4096);
    let slots = Slots::in_process(SLOTS);
    let mut builder = WorkerLayer::builder(producer, slots.clone())
        .filter(Filter::new(LevelFilter::TRACE))
        .overflow(overflow);
    if let Some(limit) = limit {
        builder = builder.rate_limit(limit);
    }
    let worker = Dispatch::new(tracing_subscriber::registry().with(builder.build().unwrap()));
    let mut collector = Collector::new()
        .dispatch(capture.dispatch())
        .notice_interval(Duration::ZERO);
    collector.add(Source::new(3), consumer, slots).unwrap();
    (worker, collector)
}

/// Returns the worker's events, without those of the bridge.
fn take_events(capture: &Capture) -> Vec<Seen> {
    let seen = capture.take().into_iter();
    seen.filter(|seen| !seen.is_of_bridge()).collect()
}

#[test]
fn dropped_events_of_a_callsite_become_one_summary() {
    let capture = Capture::default();
    let (worker, mut collector) = bridge(&capture, Overflow::Collapse, None);
    with_default(&worker, || {
        for n in 0..1000 {
            tracing::debug!(n, "one");
            if n % 10 == 0 {
                tracing::info!(target: "other", n, "another");
            }
        }
    });
    collector.drain();
    let direct = take_events(&capture);
    assert!(direct.iter().all(|seen| !seen.metadata.contains("repeats")));
    // The ring is empty now: the next event is written after the summaries.
    with_default(&worker, || tracing::warn!("calm"));
    collector.drain();
    let seen = take_events(&capture);
    assert_eq!(seen.len(), 3, "{seen:?}");
    let delivered = |level| direct.iter().filter(|seen| seen.level == level).count();
    let summary = |level: Level, total: usize| {
        let seen = seen.iter().find(|seen| seen.level == level).unwrap();
        let fields = format!("[repeats u64 {}]", total - delivered(level));
        assert!(seen.fields.ends_with(&fields), "{fields} {seen:?}");
    };
    summary(Level::DEBUG, 1000);
    summary(Level::INFO, 100);
    assert!(
        seen.iter()
            .any(|seen| seen.metadata.contains(" other ") && seen.metadata.ends_with("\"repeats\"]"))
    );
    let removed = collector.remove(3).unwrap();
    let tally = removed.tally;
    assert_eq!(tally.level(Level::DEBUG).emitted, 1000);
    assert_eq!(tally.collapsed(), tally.total().dropped);
    for level in ALL {
        let level = tally.level(level);
        assert_eq!(level.emitted, level.delivered + level.dropped);
    }
    assert!(
        removed.last_records.iter().any(|line| line.contains(" repeats=")),
        "{:?}",
        removed.last_records
    );
}

#[test]
fn pending_summaries_are_written_when_the_layer_is_dropped() {
    let capture = Capture::default();
    let (worker, mut collector) = bridge(&capture, Overflow::Collapse, None);
    with_default(&worker, || (0..100).for_each(|n| tracing::debug!(n, "one")));
    collector.drain();
    drop(worker);
    collector.drain();
    let seen = take_events(&capture);
    assert!(seen.last().unwrap().fields.contains("repeats"), "{seen:?}");
    assert_eq!(collector.tally().collapsed(), collector.tally().total().dropped);
}

#[test]
fn a_rate_limit_applies_to_each_callsite_alone() {
    let capture = Capture::default();
    let limit = RateLimit::new(5, Duration::from_secs(3600));
    let (worker, mut collector) = bridge(&capture, Overflow::DropNewest, Some(limit));
    with_default(&worker, || {
        (0..50).for_each(|n| tracing::warn!(n, "loud"));
        tracing::warn!("quiet");
    });
    collector.drain();
    let tally = collector.remove(3).unwrap().tally;
    let warned = tally.level(Level::WARN);
    assert_eq!((warned.emitted, warned.delivered, warned.dropped), (51, 6, 45));
    assert!(take_events(&capture).last().unwrap().fields.contains("quiet"));
}
