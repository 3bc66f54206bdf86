//! Replayed events and spans keep what the guide's table says: tried on the layers that look at spans.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use tracing::dispatcher::with_default;
use tracing::{Dispatch, Event, Subscriber, span};
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::support::{Bridge, bridge};

#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl io::Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Screen {
    fn text(&self) -> String {
        String::from_utf8(std::mem::take(&mut self.0.lock().unwrap())).unwrap()
    }
}

/// Emits in a worker, and replays it.
fn bridged(leader: Dispatch, emit: impl FnOnce()) {
    let Bridge {
        worker,
        mut collector,
    } = bridge(1 << 16, leader);
    with_default(&worker, emit);
    collector.drain();
    collector.remove(3).unwrap();
}

fn work() {
    let _load = tracing::info_span!("load", file = "a").entered();
    tracing::info_span!("without events").in_scope(|| {});
    tracing::info_span!("parse").in_scope(|| {
        tracing::info!("parsed");
    });
}

#[test]
fn fmt_span_shows_the_spans_of_the_replay_and_none_without_events() {
    let screen = Screen::default();
    let writer = screen.clone();
    let layer = fmt::layer()
        .with_ansi(false)
        .without_time()
        .with_span_events(FmtSpan::NEW | FmtSpan::CLOSE)
        .with_writer(move || writer.clone());
    bridged(Dispatch::new(tracing_subscriber::registry().with(layer)), work);
    let text = screen.text();
    let path = "worker{id=3}:load{file=\"a\"}:parse: it::kept: ";
    for line in [
        format!("{path}new"),
        format!("{path}parsed"),
        format!("{path}close\n"),
    ] {
        assert!(text.contains(&line), "{line} {text}");
    }
    assert!(
        text.contains("INFO worker{id=3}:load{file=\"a\"}: it::kept: close\n"),
        "{text}"
    );
    assert!(text.contains("ERROR worker{id=3}: log_bridge: close\n"), "{text}");
    assert!(!text.contains("without events"), "{text}");
}

/// Keeps spans as an exporter of traces does, from `on_new_span` to `on_close`.
#[derive(Clone, Default)]
struct Traces(Arc<Mutex<HashMap<String, Option<String>>>>);

struct Begin(SystemTime);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Traces {
    fn on_new_span(&self, _: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        span.extensions_mut().insert(Begin(SystemTime::now()));
    }

    fn on_close(&self, id: span::Id, context: Context<'_, S>) {
        let span = context.span(&id).unwrap();
        assert!(span.extensions().get::<Begin>().unwrap().0 <= SystemTime::now());
        let parent = span.parent().map(|parent| parent.name().to_owned());
        let before = self.0.lock().unwrap().insert(span.name().to_owned(), parent);
        assert_eq!(before, None, "each span is closed once");
    }
}

#[test]
fn an_exporter_of_traces_gets_each_span_with_events_once_with_its_parent() {
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

/// The texts of the events that reach it.
#[derive(Clone, Default)]
struct Texts(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber> Layer<S> for Texts {
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
fn filters_of_layers_decide_as_for_the_leaders_own_events() {
    let emit = || {
        tracing::info!(target: "app", "info of app");
        tracing::debug!(target: "app", "debug of app");
        tracing::info!(target: "other", "info of other");
        tracing::info_span!(target: "app", "user", id = 7).in_scope(|| {
            tracing::trace!(target: "other", "trace of other in the span");
        });
        tracing::error!(target: "other", "error of other");
    };
    let heard = |texts: &Texts| std::mem::take(&mut *texts.0.lock().unwrap());
    let [levels, targets, spans] = [(); 3].map(|()| Texts::default());
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
    let direct = [&levels, &targets, &spans].map(heard);
    assert_eq!(direct.each_ref().map(Vec::len), [3, 2, 2]);
    bridged(leader, emit);
    assert_eq!([&levels, &targets, &spans].map(heard), direct);
}
