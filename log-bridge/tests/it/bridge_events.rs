//! The bridge's own span and events pass filters for the program's targets.

use tracing::dispatcher::with_default;
use tracing::{Dispatch, Level};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::support::{Bridge, Capture, SharedBuffer, bridge, in_own_process};

/// Two subscribers that print: one has the filter for the whole subscriber, the other for its layer.
fn filtered(directives: &str) -> [(Dispatch, SharedBuffer); 2] {
    let [whole_output, layer_output] = [(); 2].map(|()| SharedBuffer::default());
    let whole = fmt()
        .with_env_filter(EnvFilter::new(directives))
        .with_ansi(false)
        .without_time()
        .with_writer(whole_output.clone())
        .finish();
    let layer = fmt::layer()
        .with_ansi(false)
        .without_time()
        .with_writer(layer_output.clone());
    let by_layer = tracing_subscriber::registry().with(layer.with_filter(EnvFilter::new(directives)));
    [
        (Dispatch::new(whole), whole_output),
        (Dispatch::new(by_layer), layer_output),
    ]
}

fn flood() {
    tracing::info!(target: "hyper", "rejected");
    for n in 0..500 {
        tracing::info_span!(target: "my_crate", "step", n)
            .in_scope(|| tracing::info!(target: "my_crate", "text"));
    }
}

#[test]
fn the_worker_span_and_drop_notices_pass_a_filter_for_targets() {
    for (leader, output) in filtered("my_crate=info") {
        let Bridge {
            worker,
            mut collector,
        } = bridge(1 << 14, leader);
        with_default(&worker, flood);
        collector.drain();
        let dropped = collector.remove(3).unwrap().tally.level(Level::INFO).dropped;
        let text = output.take();
        assert!(dropped > 0 && !text.contains("hyper"), "{text}");
        let mut lines = text.lines();
        assert!(lines.all(|line| line.contains("worker{id=3}")), "{text}");
        assert!(
            text.contains("INFO worker{id=3}:step{n=7}: my_crate: text\n"),
            "{text}"
        );
        // In the worker's span, not in those of the event that was replayed last.
        let notice = format!(
            " WARN worker{{id=3}}: log_bridge: log events dropped error=0 warn=0 info={dropped} debug=0 trace=0\n"
        );
        assert!(text.contains(&notice), "{notice} {text}");
    }
}

#[test]
fn a_drop_notice_is_hidden_if_no_subscriber_enables_its_level() {
    if !in_own_process("bridge_events::a_drop_notice_is_hidden_if_no_subscriber_enables_its_level") {
        return;
    }
    let (producer, consumer) = shm_buffers::ring::in_process(1 << 12);
    let slots = shm_buffers::slots::Slots::in_process(log_bridge::SLOTS);
    let layer = log_bridge::WorkerLayer::builder(producer, slots.clone());
    let worker = Dispatch::new(tracing_subscriber::registry().with(layer.build().unwrap()));
    with_default(&worker, || {
        tracing::error!(target: "my_crate", "text");
        flood();
    });
    drop(worker);
    tracing::callsite::rebuild_interest_cache();
    let [(leader, output), _] = filtered("my_crate=error");
    let mut collector = log_bridge::Collector::new().dispatch(leader);
    collector
        .add(log_bridge::Source::new(3), consumer, slots)
        .unwrap();
    assert!(collector.remove(3).unwrap().tally.total().dropped > 0);
    assert_eq!(output.take(), "ERROR worker{id=3}: my_crate: text\n");
}

#[test]
fn a_drop_notice_is_outside_the_spans_of_replayed_events() {
    let capture = Capture::default();
    let Bridge {
        worker,
        mut collector,
    } = bridge(1 << 12, capture.dispatch());
    with_default(&worker, flood);
    collector.drain();
    with_default(&worker, flood);
    collector.drain();
    let seen = capture.take();
    let notices = seen
        .iter()
        .filter(|seen| seen.fields.contains("log events dropped"));
    for notice in notices.clone() {
        assert_eq!(notice.spans.len(), 1, "{notice:?}");
        assert_eq!(notice.emitted, None, "the leader has emitted it");
    }
    assert!(notices.count() > 1);
    let last = seen.iter().rfind(|seen| seen.fields.contains("text")).unwrap();
    assert_eq!(last.spans.len(), 2, "spans are entered again: {last:?}");
}

/// Events of callsites that are made at run time.
mod generated {
    use tracing::callsite::{Callsite, Identifier};
    use tracing::field::FieldSet;
    use tracing::metadata::Kind;
    use tracing::subscriber::Interest;
    use tracing::{Event, Level, Metadata};

    struct Site(std::sync::OnceLock<Metadata<'static>>);

    impl Callsite for Site {
        fn set_interest(&self, _: Interest) {}

        fn metadata(&self) -> &Metadata<'_> {
            self.0.get().unwrap()
        }
    }

    pub(crate) fn emit(level: Level, target: &'static str, line: u32) {
        let site: &'static Site = Box::leak(Box::new(Site(std::sync::OnceLock::new())));
        let fields = FieldSet::new(&["message", "n"], Identifier(site));
        let metadata = Metadata::new(
            "generated",
            target,
            level,
            Some("gen.rs"),
            Some(line),
            None,
            fields,
            Kind::EVENT,
        );
        let metadata = site.0.get_or_init(|| metadata);
        let values: [Option<&dyn tracing::Value>; 2] = [Some(&"text"), Some(&line)];
        Event::dispatch(metadata, &metadata.fields().value_set_all(&values));
    }
}

#[test]
fn filters_see_the_original_target_and_level_of_unregistered_callsites() {
    if !in_own_process("bridge_events::filters_see_the_original_target_and_level_of_unregistered_callsites") {
        return;
    }
    for (leader, output) in filtered("my_crate=warn") {
        let Bridge {
            worker,
            mut collector,
        } = bridge(1 << 14, leader);
        for line in 0..3000 {
            with_default(&worker, || {
                generated::emit(Level::INFO, "my_crate", line);
                generated::emit(Level::ERROR, "hyper", line);
            });
            collector.drain();
        }
        with_default(&worker, || generated::emit(Level::ERROR, "my_crate", 5000));
        collector.drain();
        let text = output.take();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            text.contains("ERROR worker{id=3}: log_bridge: text original.target=\"my_crate\" original.location=\"gen.rs:5000\" original.fields=n=5000"),
            "{text}"
        );
    }
}

#[cfg(feature = "log")]
#[test]
fn targets_of_log_records_do_not_use_up_the_callsites_of_events() {
    if !in_own_process("bridge_events::targets_of_log_records_do_not_use_up_the_callsites_of_events") {
        return;
    }
    let [(leader, output), _] = filtered("my_crate=info");
    let (producer, consumer) = shm_buffers::ring::in_process(1 << 20);
    let slots = shm_buffers::slots::Slots::in_process(log_bridge::SLOTS);
    let _guard = log_bridge::WorkerLayer::builder(producer, slots.clone())
        .install()
        .unwrap();
    let mut collector = log_bridge::Collector::new().dispatch(leader);
    collector
        .add(log_bridge::Source::new(3), consumer, slots)
        .unwrap();
    for n in 0..3000 {
        log::info!(target: &format!("generated::{n}"), "text");
        collector.drain();
    }
    tracing::error!(target: "my_crate", "mine");
    log::error!(target: "my_crate::late", "mine, too");
    collector.drain();
    let text = output.take();
    assert_eq!(
        text,
        "ERROR worker{id=3}: my_crate: mine\nERROR worker{id=3}: my_crate::late: mine, too\n"
    );
}
