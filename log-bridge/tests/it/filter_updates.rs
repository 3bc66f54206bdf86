//! The leader changes the filter of a running worker.

use std::time::Duration;

use log_bridge::{Collector, Filter, FilterWatch, SLOTS, SetFilterError, Source, WorkerLayer};
use shm_buffers::{ring, slots::Slots};
use tracing::dispatcher::with_default;
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Level};
use tracing_subscriber::layer::SubscriberExt;

use crate::support::Capture;

fn worker(level: LevelFilter) -> (Dispatch, FilterWatch, ring::Consumer, Slots) {
    let (producer, consumer) = ring::in_process(1 << 16);
    let slots = Slots::in_process(SLOTS);
    let layer = WorkerLayer::builder(producer, slots.clone())
        .filter(Filter::new(level))
        .build()
        .unwrap();
    let watch = layer.filter_watch();
    (
        Dispatch::new(tracing_subscriber::registry().with(layer)),
        watch,
        consumer,
        slots,
    )
}

fn emit() {
    tracing::info!("info");
    tracing::debug!("debug");
    tracing::debug!(target: "special::part", "special");
}

#[test]
fn a_running_worker_applies_the_filter_of_its_leader() {
    let capture = Capture::default();
    let (worker, mut watch, consumer, slots) = worker(LevelFilter::OFF);
    let mut collector = Collector::new().dispatch(capture.dispatch());
    collector.add(Source::new(1), consumer, slots).unwrap();
    let mut seen_with = |filter: &str| {
        collector.set_filter(&filter.parse().unwrap()).unwrap();
        assert_eq!(watch.refresh().unwrap(), filter.parse().unwrap());
        assert_eq!(watch.refresh(), None);
        with_default(&worker, || {
            emit();
            assert_eq!(
                tracing::enabled!(target: "special", Level::DEBUG),
                filter.contains("special")
            );
        });
        collector.drain();
        let seen = capture.take().into_iter();
        seen.map(|seen| seen.fields).collect::<Vec<_>>()
    };
    assert_eq!(seen_with("info"), ["[message debug info]"]);
    assert_eq!(
        seen_with("info,special=debug"),
        ["[message debug info]", "[message debug special]"]
    );
    assert_eq!(seen_with("off"), [""; 0]);
    assert_eq!(seen_with("off,special=trace"), ["[message debug special]"]);
}

#[test]
fn workers_that_are_added_later_get_the_filter() {
    let capture = Capture::default();
    let (worker, mut watch, consumer, slots) = worker(LevelFilter::OFF);
    let handle = Collector::new()
        .dispatch(capture.dispatch())
        .spawn(Duration::from_secs(3600))
        .unwrap();
    handle.set_filter(&Filter::new(LevelFilter::DEBUG)).unwrap();
    handle.add(Source::new(1), consumer, slots).unwrap();
    handle.flush(Duration::from_secs(60)).unwrap();
    assert_eq!(watch.refresh(), Some(Filter::new(LevelFilter::DEBUG)));
    with_default(&worker, emit);
    handle.flush(Duration::from_secs(60)).unwrap();
    assert_eq!(capture.take().len(), 3);
    drop(worker);
    assert_eq!(watch.refresh(), None, "the layer was dropped");
}

#[test]
fn a_filter_that_is_too_long_is_an_error() {
    let handle = Collector::new().spawn(Duration::from_secs(3600)).unwrap();
    let long = Filter::off().target("x".repeat(500), LevelFilter::INFO);
    assert!(matches!(
        handle.set_filter(&long),
        Err(SetFilterError::TooLong(_))
    ));
}
