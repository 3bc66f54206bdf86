//! The table of `log_bridge::replay`, for layers that look at spans and for filters of layers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use tracing::dispatcher::with_default;
use tracing::{Dispatch, Event, Subscriber, span};
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::support::{Bridge, SharedBuffer, bridge};

/// Emits in a worker, replays the records, and removes the worker.
fn bridged(leader: Dispatch, emit: impl FnOnce()) {
    let Bridge {
        worker,
        mut collector,
    } = bridge(1 << 16, leader);
    with_default(&worker, emit);
    collector.drain();
    collector.remove(3).unwrap();
}

/// Emits one event in two spans, besides a span without events.
fn work() {
    let _load = tracing::info_span!("load", file = "a").entered();
    tracing::info_span!("without events").in_scope(|| {});
    tracing::info_span!("parse").in_scope(|| {
        tracing::info!("parsed");
    });
}

#[test]
fn fmt_span_prints_spans_that_have_events_when_the_replay_creates_and_closes_them() {
    let output = SharedBuffer::default();
    let layer = fmt::layer()
        .with_ansi(false)
        .without_time()
        .with_span_events(FmtSpan::NEW | FmtSpan::CLOSE)
        .with_writer(output.clone());
    bridged(Dispatch::new(tracing_subscriber::registry().with(layer)), work);
    let text = output.take();
    let path = "worker{id=3}:load{file=\"a\"}:parse: it::layers: ";
    for line in [
        format!("{path}new"),
        format!("{path}parsed"),
        format!("{path}close\n"),
    ] {
        assert!(text.contains(&line), "{line} {text}");
    }
    assert!(
        text.contains("INFO worker{id=3}:load{file=\"a\"}: it::layers: close\n"),
        "{text}"
    );
    assert!(text.contains("ERROR worker{id=3}: log_bridge: close\n"), "{text}");
    assert!(!text.contains("without events"), "{text}");
}

#[test]
fn a_span_is_created_once_entered_in_each_drain_and_closed_before_an_event_outside_of_it() {
    let output = SharedBuffer::default();
    let layer = fmt::layer()
        .with_ansi(false)
        .without_time()
        .with_span_events(FmtSpan::FULL)
        .with_writer(output.clone());
    let leader = Dispatch::new(tracing_subscriber::registry().with(layer));
    let Bridge {
        worker,
        mut collector,
    } = bridge(1 << 16, leader);
    with_default(&worker, || {
        let span = tracing::info_span!("load").entered();
        for part in 0..2 {
            tracing::info!("part {part}");
            collector.drain();
        }
        drop(span);
        tracing::info!("outside");
        collector.drain();
    });
    let text = output.take();
    let lines = text.lines().filter(|line| !line.contains("log_bridge: "));
    let messages: Vec<&str> = lines
        .map(|line| line.split_once("it::layers: ").unwrap().1)
        .collect();
    let expected = [
        "new", "enter", "part 0", "exit", "enter", "part 1", "exit", "close", "outside",
    ];
    assert_eq!(messages, expected, "{text}");
}

/// The name of each closed span, and that of its parent: like an exporter of traces, it uses `on_new_span` and `on_close`.
#[derive(Clone, Default)]
struct Traces(Arc<Mutex<HashMap<String, Option<String>>>>);

struct Start(SystemTime);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Traces {
    fn on_new_span(&self, _: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        span.extensions_mut().insert(Start(SystemTime::now()));
    }

    fn on_close(&self, id: span::Id, context: Context<'_, S>) {
        let span = context.span(&id).unwrap();
        assert!(span.extensions().get::<Start>().unwrap().0 <= SystemTime::now());
        let parent = span.parent().map(|parent| parent.name().to_owned());
        let previous = self.0.lock().unwrap().insert(span.name().to_owned(), parent);
        assert_eq!(previous, None, "each span is closed once");
    }
}

#[test]
fn a_trace_exporter_receives_each_span_with_events_once_with_its_parent() {
    let traces = Traces::default();
    bridged(
        Dispatch::new(tracing_subscriber::registry().with(traces.clone())),
        work,
    );
    let parent = |name: &str| Some(name.to_owned());
    let expected = [
        ("worker", None),
        ("load", parent("worker")),
        ("parse", parent("load")),
    ];
    let expected = expected.map(|(name, parent)| (name.to_owned(), parent));
    assert_eq!(*traces.0.lock().unwrap(), HashMap::from(expected));
}

/// The messages of the events that a filter lets pass.
#[derive(Clone, Default)]
struct Messages(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber> Layer<S> for Messages {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        struct Message(String);
        impl tracing::field::Visit for Message {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        self.0.lock().unwrap().push(message.0);
    }
}

#[test]
fn per_layer_filters_decide_as_for_the_leaders_own_events() {
    let emit = || {
        tracing::info!(target: "app", "info of app");
        tracing::debug!(target: "app", "debug of app");
        tracing::info!(target: "other", "info of other");
        tracing::info_span!(target: "app", "user", id = 7).in_scope(|| {
            tracing::trace!(target: "other", "trace of other in the span");
        });
        tracing::error!(target: "other", "error of other");
    };
    let take = |messages: &Messages| std::mem::take(&mut *messages.0.lock().unwrap());
    let [levels, targets, spans] = [(); 3].map(|()| Messages::default());
    let leader = Dispatch::new(
        tracing_subscriber::registry()
            .with(levels.clone().with_filter(LevelFilter::INFO))
            .with(
                targets
                    .clone()
                    .with_filter(filter_fn(|metadata| metadata.target() == "app")),
            )
            .with(
                spans
                    .clone()
                    .with_filter(EnvFilter::new("error,[user{id=7}]=trace")),
            ),
    );
    with_default(&leader, emit);
    let direct = [&levels, &targets, &spans].map(take);
    assert_eq!(direct.each_ref().map(Vec::len), [3, 2, 2]);
    bridged(leader, emit);
    assert_eq!([&levels, &targets, &spans].map(take), direct);
}
