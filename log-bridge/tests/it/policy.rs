//! What may be lost on purpose: repeats under overload, and what is beyond a rate.

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

fn own(seen: Vec<Seen>) -> Vec<Seen> {
    seen.into_iter()
        .filter(|seen| !seen.metadata.contains("log_bridge"))
        .collect()
}

#[test]
fn repeats_under_overload_are_one_record_with_a_count() {
    let capture = Capture::default();
    let (worker, mut collector) = bridge(&capture, Overflow::Batch, None);
    with_default(&worker, || {
        for n in 0..1000 {
            tracing::debug!(n, "one");
            if n % 10 == 0 {
                tracing::info!(target: "other", n, "another");
            }
        }
    });
    let direct = own({
        collector.drain();
        capture.take()
    });
    assert!(direct.iter().all(|seen| !seen.metadata.contains("repeats")));
    // The pressure is off: the next event brings the summaries along.
    with_default(&worker, || tracing::warn!("calm"));
    collector.drain();
    let seen = own(capture.take());
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
    let departed = collector.remove(3).unwrap();
    let tally = departed.tally;
    assert_eq!(tally.level(Level::DEBUG).emitted, 1000);
    assert_eq!(tally.collapsed(), tally.total().dropped);
    for level in ALL {
        let level = tally.level(level);
        assert_eq!(level.emitted, level.delivered + level.dropped);
    }
    assert!(
        departed.records.iter().any(|line| line.contains(" repeats=")),
        "{:?}",
        departed.records
    );
}

#[test]
fn summaries_that_wait_are_told_when_the_layer_ends() {
    let capture = Capture::default();
    let (worker, mut collector) = bridge(&capture, Overflow::Batch, None);
    with_default(&worker, || (0..100).for_each(|n| tracing::debug!(n, "one")));
    collector.drain();
    drop(worker);
    collector.drain();
    let seen = own(capture.take());
    assert!(seen.last().unwrap().fields.contains("repeats"), "{seen:?}");
    assert_eq!(collector.tally().collapsed(), collector.tally().total().dropped);
}

#[test]
fn a_callsite_is_limited_and_the_others_are_not() {
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
    assert!(own(capture.take()).last().unwrap().fields.contains("quiet"));
}
