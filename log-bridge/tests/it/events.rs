//! Replayed events are the events that the worker has emitted.

use std::io;
use std::time::SystemTime;

use log_bridge::{EmissionTime, Filter, SourceError};
use shm_buffers::{ring, slots::Slots};
use tracing::dispatcher::with_default;
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Level};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;

use crate::support::{Bridge, Capture, Seen, SharedBuffer, bridge, bridge_with};

#[derive(Debug, thiserror::Error)]
#[error("outer {0}")]
struct Outer(u8, #[source] io::Error);

fn emit_everything() {
    let error = Outer(7, io::Error::other("inner"));
    tracing::info!("no fields");
    tracing::trace!(name: "named", target: "other::target", "a {} message", "formatted");
    tracing::error!(
        int = -5_i64,
        small = -5_i8,
        uint = u64::MAX,
        wide = i128::MIN,
        uwide = u128::MAX,
        float = 0.1_f64,
        nan = f64::NAN,
        yes = true,
        text = "quoted \"text\" é",
        owned = String::from("owned"),
        bytes = &b"\x00\xff"[..],
        debug = ?Some("x"),
        display = %"y",
        none = Option::<u32>::None,
        some = Some(4_u8),
        error = &error as &(dyn std::error::Error + 'static),
        empty = tracing::field::Empty,
        dotted.name = 1,
        "message"
    );
    let outer = tracing::warn_span!(
        "outer",
        a = 1,
        later = tracing::field::Empty,
        late = tracing::field::Empty
    );
    let entered = outer.enter();
    tracing::warn!("in one span");
    outer.record("later", "recorded");
    let inner = tracing::debug_span!(target: "elsewhere", "inner", text = "t", d = ?[1, 2]);
    inner.in_scope(|| {
        tracing::debug!(n = 2, "in two spans");
        outer.record("late", 5).record("later", "again");
        tracing::debug!(n = 3, "in two spans, with more values");
    });
    tracing::info!(parent: None, "without a parent");
    tracing::info!(parent: &inner, "with an explicit parent");
    drop(entered);
    tracing::info!("outside again");
}

#[test]
fn replayed_events_are_the_same_as_direct_ones() {
    let capture = Capture::default();
    with_default(&capture.dispatch(), emit_everything);
    let direct = capture.take();
    assert_eq!(direct.len(), 9);

    let Bridge {
        worker,
        mut collector,
    } = bridge(1 << 16, capture.dispatch());
    let before = SystemTime::now();
    let named = std::thread::Builder::new().name("emitter".into());
    named
        .spawn(move || with_default(&worker, emit_everything))
        .unwrap()
        .join()
        .unwrap();
    let after = SystemTime::now();
    assert_eq!(collector.drain().records, 9);
    let mut bridged = capture.take();
    for seen in &mut bridged {
        let worker = seen.spans.remove(0);
        assert!(
            worker.contains("worker log_bridge") && worker.ends_with("[id u64 3]"),
            "{worker}"
        );
        let emitted = seen.emitted.take().unwrap();
        assert!(before <= emitted && emitted <= after);
        let (number, name) = seen.thread.take().unwrap();
        assert!(number > 0);
        assert_eq!(name.as_deref(), Some("emitter"));
    }
    assert_eq!(bridged, direct);
    assert_eq!(log_bridge::replay::current_timestamp(), None);
}

#[test]
fn fmt_prints_the_same_lines_in_the_worker_span() {
    let output = SharedBuffer::default();
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .without_time()
        .with_file(true)
        .with_line_number(true)
        .with_writer(output.clone());
    let leader = Dispatch::new(tracing_subscriber::registry().with(layer));
    with_default(&leader, emit_everything);
    let direct = output.take();
    let Bridge {
        worker,
        mut collector,
    } = bridge(1 << 16, leader);
    with_default(&worker, emit_everything);
    collector.drain();
    let bridged = output.take();
    assert_eq!(bridged.matches("worker{id=3}:").count(), 9, "{bridged}");
    assert!(
        bridged.contains("TRACE worker{id=3}: other::target: "),
        "{bridged}"
    );
    // `fmt` prints a blank after the spans; without the worker's span, an event outside of spans has none.
    assert_eq!(
        bridged.replace("worker{id=3}: ", "").replace("worker{id=3}:", ""),
        direct
    );
}

#[test]
fn emission_time_prints_when_the_worker_emitted() {
    let output = SharedBuffer::default();
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_timer(EmissionTime)
        .with_writer(output.clone());
    let leader = Dispatch::new(tracing_subscriber::registry().with(layer));
    let Bridge {
        worker,
        mut collector,
    } = bridge(1 << 16, leader.clone());
    with_default(&worker, || tracing::info!("bridged"));
    with_default(&leader, || tracing::info!("direct"));
    collector.drain();
    let text = output.take();
    let times: Vec<&str> = text.lines().map(|line| line.split(' ').next().unwrap()).collect();
    // The event of the worker is printed last, with the earlier time. RFC 3339 times have the order of their text.
    assert!(times[1] <= times[0], "{text}");
    let microseconds = times[1].split_once('.').unwrap().1;
    assert!(microseconds.len() == 7 && microseconds.ends_with('Z'), "{text}");
}

#[test]
fn the_leaders_env_filter_decides_about_replayed_events() {
    let capture = Capture::default();
    let filter = EnvFilter::new("info,quiet=error,[outer{a=1}]=trace");
    let leader = Dispatch::new(tracing_subscriber::registry().with(filter).with(capture.clone()));
    let emit = || {
        tracing::info!("yes");
        tracing::debug!("no");
        tracing::warn!(target: "quiet", "no");
        tracing::error!(target: "quiet", "yes");
        tracing::error_span!("outer", a = 1).in_scope(|| tracing::trace!("yes, in that span"));
        tracing::error_span!("outer", a = 2).in_scope(|| tracing::trace!("no, in this one"));
    };
    with_default(&leader, emit);
    let fields = |seen: Vec<Seen>| seen.into_iter().map(|s| s.fields).collect::<Vec<_>>();
    let direct = fields(capture.take());
    assert_eq!(direct.len(), 3);
    let Bridge {
        worker,
        mut collector,
    } = bridge(1 << 16, leader);
    with_default(&worker, emit);
    assert_eq!(collector.drain().records, 6);
    assert_eq!(fields(capture.take()), direct);
    assert_eq!(collector.tally().total().delivered, 6);
}

#[test]
fn the_workers_filter_keeps_events_out_of_the_ring() {
    let capture = Capture::default();
    let filter = Filter::new(LevelFilter::WARN).target("loud", LevelFilter::DEBUG);
    let Bridge {
        worker,
        mut collector,
    } = bridge_with(1 << 16, filter, capture.dispatch());
    with_default(&worker, || {
        tracing::info!("no");
        tracing::warn!("yes");
        tracing::debug!(target: "loud::module", "yes");
        tracing::trace!(target: "loud", "no");
        assert!(!tracing::enabled!(Level::INFO));
    });
    collector.drain();
    assert_eq!(capture.take().len(), 2);
    assert_eq!(collector.tally().total().emitted, 2);
}

#[test]
fn long_values_and_deep_spans_are_truncated_and_counted() {
    let capture = Capture::default();
    let Bridge {
        worker,
        mut collector,
    } = bridge(4096, capture.dispatch());
    let long = "é".repeat(100_000);
    with_default(&worker, || {
        let _spans: Vec<_> = (0..20)
            .map(|_| tracing::info_span!("deep", text = %long).entered())
            .collect();
        tracing::info!(first = long, second = ?long, last = 1_u8, "short");
        tracing::info!(
            error = &Outer(1, io::Error::other(long.clone())) as &(dyn std::error::Error + 'static)
        );
    });
    collector.drain();
    let seen = capture.take();
    assert_eq!(seen.len(), 2);
    assert!(seen[0].fields.contains("[last u64 1]") && seen[0].fields.contains("[message debug short]"));
    assert_eq!(seen[0].fields.matches("…[truncated]").count(), 2);
    assert!(
        seen[1].fields.contains("\"outer 1\", \"éé") && seen[1].fields.contains("[truncated]"),
        "{seen:?}"
    );
    assert!(seen[0].spans.len() < 20);
    let tally = collector.tally();
    assert!(tally.truncated() >= 4, "{tally:?}");
    assert_eq!((tally.total().delivered, tally.total().dropped), (2, 0));
}

#[test]
fn a_malformed_record_ends_only_the_stream_of_its_source() {
    let capture = Capture::default();
    let Bridge {
        worker,
        mut collector,
    } = bridge(4096, capture.dispatch());
    let (mut hostile, consumer) = ring::in_process(4096);
    let slots = Slots::in_process(log_bridge::SLOTS);
    collector
        .add(log_bridge::Source::new(9), consumer, slots)
        .unwrap();
    hostile.push(b"\x09malformed").unwrap();
    hostile.push(b"never read").unwrap();
    with_default(&worker, || tracing::info!("honest"));
    collector.drain();
    collector.drain();
    let seen = capture.take();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert_eq!(seen[1].level, Level::ERROR);
    assert!(seen[1].fields.contains("version 9"), "{seen:?}");
    assert_eq!(collector.tally().corrupt_sources(), 1);
    let removed = collector.remove(9).unwrap();
    assert!(matches!(removed.error, Some(SourceError::Record(_))));
    assert!(collector.remove(9).is_none());
}

#[test]
fn a_removed_source_has_its_last_records() {
    let capture = Capture::default();
    let Bridge {
        worker,
        mut collector,
    } = bridge(1 << 16, capture.dispatch());
    with_default(&worker, || {
        (0..40).for_each(|n| tracing::info!(n, "step"));
        tracing::error_span!("a").in_scope(|| {
            tracing::error_span!("b").in_scope(|| tracing::warn!(target: "t", text = "x", "the last event"));
        });
    });
    collector.drain();
    let removed = collector.remove(3).unwrap();
    assert_eq!(removed.source.id, 3);
    assert_eq!(removed.last_records.len(), 16);
    assert_eq!(removed.last_records[0], "INFO it::events: step n=25");
    assert_eq!(removed.last_records[15], "WARN a:b: t: the last event text=\"x\"");
    assert_eq!(removed.tally.total().delivered, 41);
}

#[test]
fn the_newest_value_of_a_field_that_is_recorded_often_arrives() {
    let capture = Capture::default();
    let Bridge {
        worker,
        mut collector,
    } = bridge(1 << 16, capture.dispatch());
    with_default(&worker, || {
        let span = tracing::info_span!(
            "load",
            file = "a",
            step = tracing::field::Empty,
            done = tracing::field::Empty
        );
        span.in_scope(|| {
            span.record("done", "no");
            tracing::info!("begins");
            for step in 0..20_000 {
                span.record("step", step);
                if step == 10_000 {
                    tracing::info!("halfway");
                }
            }
            span.record("done", "yes");
            tracing::info!("ends");
        });
    });
    collector.drain();
    let seen = capture.take();
    let spans = seen.iter().map(|seen| seen.spans[1].as_str());
    let [begins, halfway, ends] = spans.collect::<Vec<_>>()[..] else {
        panic!("{seen:?}");
    };
    assert!(
        begins.ends_with("[file str \"a\"] then [done str \"no\"]"),
        "{begins}"
    );
    assert!(halfway.ends_with("then [step i64 10000]"), "{halfway}");
    assert!(
        ends.ends_with("then [step i64 19999] then [done str \"yes\"]"),
        "{ends}"
    );
    assert_eq!(
        ends.matches("[done str \"no\"]").count(),
        1,
        "nothing is recorded twice"
    );
    assert_eq!(collector.tally().truncated(), 0);
}

#[test]
fn last_records_are_escaped_and_events_are_not() {
    let capture = Capture::default();
    let Bridge {
        worker,
        mut collector,
    } = bridge(1 << 16, capture.dispatch());
    let hostile = "done\r\n\u{1b}]0;title\u{7}INFO forged: \u{202e}txt\u{2028}";
    with_default(&worker, || {
        tracing::warn!(target: "t\n", text = ?format_args!("{hostile}"), plain = hostile, "{hostile}");
    });
    collector.drain();
    let removed = collector.remove(3).unwrap();
    let escaped = r"done\r\n\u{1b}]0;title\u{7}INFO forged: \u{202e}txt\u{2028}";
    let [line] = &removed.last_records[..] else {
        panic!("{:?}", removed.last_records);
    };
    assert!(
        line.starts_with(&format!("WARN t\\n: {escaped} text={escaped} plain=\"")),
        "{line}"
    );
    assert!(
        line.chars()
            .all(|c| !c.is_control() && !"\u{202e}\u{2028}".contains(c)),
        "{line:?}"
    );
    let seen = capture.take();
    assert!(
        seen[0].fields.contains(&format!("[message debug {hostile}]")),
        "{seen:?}"
    );
}
