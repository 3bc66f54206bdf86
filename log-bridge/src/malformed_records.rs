//! Records that a worker has written, then truncated or changed: the leader must report them, and never panic.
#![cfg(test)]

use std::io;
use std::sync::{Arc, Mutex};

use shm_buffers::{ring, slots::Slots};
use tracing_core::{Dispatch, LevelFilter};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer, SubscriberExt};

use crate::wire::callsite::{CallsiteInfo, CallsiteRef};
use crate::wire::error::Malformed;
use crate::wire::level::LEVELS;
use crate::wire::record::Frame;
use crate::{Collector, SLOTS, Source, WorkerLayer};

/// Decodes every part of a frame.
fn check(frame: &[u8]) -> Result<(), Malformed> {
    let check_callsite = |callsite: CallsiteRef<'_>| match callsite {
        CallsiteRef::Inline(metadata) | CallsiteRef::Defines(_, metadata) => {
            CallsiteInfo::decode(metadata).map(drop)
        }
        CallsiteRef::Number(_) => Ok(()),
    };
    if let Frame::Event(record) = Frame::decode(frame)? {
        check_callsite(record.callsite)?;
        record.values.for_each(drop)?;
        record.for_each_span(|_, span| {
            check_callsite(span.callsite)?;
            span.for_each_update(|_, values| values.for_each(drop))
        })?;
    }
    Ok(())
}

/// Returns the frames that a worker writes for an event with values of all types in two spans, for the same event again,
/// and for a third one after a drop.
fn frames_of_a_worker() -> Vec<Vec<u8>> {
    let (producer, mut consumer) = ring::in_process(8192);
    let slots = Slots::in_process(SLOTS);
    let layer = WorkerLayer::builder(producer, slots.clone())
        .max_record(1024)
        .build()
        .unwrap();
    let emit = |error: &std::io::Error| {
        tracing::info!(
            yes = true,
            no = false,
            int = i64::MIN,
            uint = u64::MAX,
            wide = i128::MIN,
            uwide = u128::MAX,
            float = -0.5,
            text = "text é",
            bytes = &b"\x00\xff"[..],
            debug = ?Some(1),
            error = error as &(dyn std::error::Error + 'static),
            "message"
        );
    };
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        let outer = tracing::info_span!("outer", a = 1, b = tracing::field::Empty).entered();
        outer.record("b", "later");
        let _inner = tracing::info_span!("inner").entered();
        let error = std::io::Error::other(std::fmt::Error);
        (0..2).for_each(|_| emit(&error));
        // As if events had been dropped.
        slots.slot(LEVELS + 1).set(7);
        emit(&error);
    });
    let mut frames = Vec::new();
    let mut frame = Vec::new();
    while consumer.pop(&mut frame).unwrap().is_some() {
        frames.push(std::mem::take(&mut frame));
    }
    frames
}

#[test]
fn every_truncation_and_every_extension_is_an_error() {
    let frames = frames_of_a_worker();
    assert_eq!(frames.len(), 4, "three events and a drop report");
    assert!(
        frames[1].len() + 300 < frames[0].len(),
        "callsites are not sent again"
    );
    for mut frame in frames {
        assert_eq!(check(&frame), Ok(()));
        for len in 0..frame.len() {
            assert!(check(&frame[..len]).is_err(), "{len} bytes decoded");
        }
        frame.push(0);
        assert!(check(&frame).is_err());
    }
}

#[test]
fn changed_bytes_panic_neither_the_decoder_nor_a_replay() {
    let frames = frames_of_a_worker();
    let leader = Dispatch::new(tracing_subscriber::registry());
    for frame in &frames[..2] {
        for at in 0..frame.len() {
            for flip in [1, 0x80, 0xff] {
                let mut changed = frame.clone();
                changed[at] ^= flip;
                let _ = check(&changed);
                let (mut producer, consumer) = ring::in_process(4096);
                let mut collector = Collector::new().dispatch(leader.clone());
                let slots = Slots::in_process(SLOTS);
                collector.add(Source::new(1), consumer, slots).unwrap();
                producer.push(&frames[0]).unwrap();
                producer.push(&changed).unwrap();
                collector.drain();
                let tally = collector.remove(1).unwrap().tally;
                let total = tally.total();
                assert_eq!(total.emitted, total.delivered + total.dropped);
            }
        }
    }
}

/// Text that layers write.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_malformed_record_is_reported_also_to_layers_that_have_rejected_it() {
    let frames = frames_of_a_worker();
    let output = Output::default();
    let writer = output.clone();
    let rejects = fmt::layer().with_writer(move || writer.clone()).with_ansi(false);
    let leader = tracing_subscriber::registry()
        .with(
            fmt::layer()
                .with_writer(io::sink)
                .with_ansi(false)
                .with_filter(LevelFilter::TRACE),
        )
        .with(rejects.with_filter(LevelFilter::WARN));
    let leader = Dispatch::new(leader);
    let mut malformed = 0;
    for at in 0..frames[1].len() {
        let mut changed = frames[1].clone();
        changed[at] ^= 0x40;
        let (mut producer, consumer) = ring::in_process(4096);
        let mut collector = Collector::new().dispatch(leader.clone());
        collector
            .add(Source::new(1), consumer, Slots::in_process(SLOTS))
            .unwrap();
        producer.push(&frames[0]).unwrap();
        producer.push(&changed).unwrap();
        collector.drain();
        let error = collector.remove(1).unwrap().error;
        let text = String::from_utf8(std::mem::take(&mut *output.0.lock().unwrap())).unwrap();
        let notices = text
            .matches("worker{id=1}: log_bridge: log stream abandoned")
            .count();
        assert_eq!(
            notices,
            usize::from(error.is_some()),
            "byte {at}: {error:?} {text}"
        );
        malformed += notices;
    }
    assert!(malformed > 0);
}
