//! The filter of a worker never hides an event that the leader's `EnvFilter` wants.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use log_bridge::{Collector, Filter, SLOTS, Source, WorkerLayer};
use shm_buffers::{ring, slots::Slots};
use tracing::dispatcher::with_default;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id};
use tracing::{Dispatch, Event, Metadata, Subscriber, debug, error, info, trace, warn};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::{EnvFilter, Layer, reload};

use crate::support::in_own_process;

/// The number of generated texts. For each, all events of [`emit`] are emitted in the leader, and in a worker that has the
/// covering filter.
const TEXTS: usize = 100_000;
/// The number of events that [`emit`] emits.
const EVENTS: usize = 16;

/// A layer that keeps the numbers of the events which it receives.
#[derive(Clone, Default)]
struct Numbers {
    seen: Arc<Mutex<Vec<u64>>>,
    /// The events and spans that it has received although `filter` rejects them.
    hidden: Arc<Mutex<Vec<String>>>,
    filter: Arc<Mutex<Filter>>,
}

impl Visit for Numbers {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "nth" {
            self.seen.lock().unwrap().push(value);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

impl<S: Subscriber> Layer<S> for Numbers {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        self.check(attributes.metadata());
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.check(event.metadata());
        event.record(&mut self.clone());
    }
}

impl Numbers {
    fn check(&self, metadata: &Metadata<'_>) {
        if metadata.target() != "log_bridge" && !self.filter.lock().unwrap().enabled(metadata) {
            self.hidden.lock().unwrap().push(format!("{metadata:?}"));
        }
    }

    fn take(&self) -> Vec<u64> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

/// Emits events of all levels, of several targets, with and without fields, inside and outside of spans.
fn emit() {
    error!(target: "app", nth = 0_u64);
    info!(target: "app", nth = 1_u64, id = 7);
    trace!(target: "app", nth = 2_u64);
    debug!(target: "app::db", nth = 3_u64, id = 8);
    warn!(target: "app::db::pool", nth = 4_u64);
    info!(target: "hyper", nth = 5_u64);
    trace!(target: "hyper", nth = 6_u64);
    error!(target: "information", nth = 7_u64);
    tracing::trace_span!(target: "app", "user", id = 7).in_scope(|| {
        info!(target: "app", nth = 8_u64);
        trace!(target: "hyper", nth = 9_u64);
        tracing::info_span!(target: "hyper", "send", name = "a b").in_scope(|| {
            debug!(target: "app::db", nth = 10_u64, name = "a b");
            warn!(target: "hyper", nth = 11_u64);
        });
    });
    tracing::error_span!(target: "app::db", "user", id = 8, name = "x").in_scope(|| {
        debug!(target: "app", nth = 12_u64);
        trace!(target: "app::db", nth = 13_u64, id = 7);
    });
    let span = tracing::debug_span!(target: "app", "send", id = tracing::field::Empty);
    span.in_scope(|| {
        info!(target: "hyper", nth = 14_u64);
        span.record("id", 7);
        debug!(target: "hyper", nth = 15_u64);
    });
}

/// Generates directives from pseudo-random numbers (xorshift).
struct Generator(u64);

impl Generator {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % n
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn level(&mut self) -> &'static str {
        self.one(&[
            "error", "warn", "info", "debug", "trace", "off", "INFO", "Debug", "0", "3", "5", "", "loud",
            " info", "warn ",
        ])
    }

    fn target(&mut self) -> &'static str {
        self.one(&[
            "app",
            "app::db",
            "app::d",
            "hyper",
            "information",
            "a",
            "",
            "*",
            "é",
            "my-crate",
            "-",
            "_x",
            "app ",
        ])
    }

    fn fields(&mut self) -> String {
        let fields: Vec<String> = (0..self.below(3))
            .map(|_| {
                let name = self.one(&["id", "name", "nth", "", "message"]);
                match self.below(3) {
                    0 => name.to_owned(),
                    _ => format!(
                        "{name}={}",
                        self.one(&["7", "8", "\"a b\"", "a b", ".*", "(", "true", "NaN", "7.0", ""])
                    ),
                }
            })
            .collect();
        fields.join(",")
    }

    fn directive(&mut self) -> String {
        let level = self.level();
        let target = self.target();
        let span = self.one(&["user", "send", "", "u]"]);
        match self.below(12) {
            0..3 => level.to_owned(),
            3..6 => format!("{target}={level}"),
            6 => target.to_owned(),
            7 => format!("{target}[{span}]={level}"),
            8 => format!("{target}[{span}{{{}}}]={level}", self.fields()),
            9 => format!("[{span}{{{}}}]", self.fields()),
            10 => format!("{target}{{{}}}={level}", self.fields()),
            _ => self
                .one(&[
                    "==",
                    "[",
                    "]",
                    "app==info",
                    "[user",
                    "{id}",
                    "\"info\"",
                    "'warn'",
                    "app=info=debug",
                    "\u{3000}x=é",
                ])
                .to_owned(),
        }
    }

    fn directives(&mut self) -> String {
        let mut text = String::new();
        for nth in 0..self.below(5) {
            if nth > 0 {
                text.push_str(self.one(&[",", ",", ",", ", ", " ,", ",,", ";", " "]));
            }
            text.push_str(&self.directive());
        }
        match self.below(16) {
            0 => format!("\"{text}\""),
            1 => format!("{text}\n"),
            2 => format!(" {text}"),
            3 => format!("{text},"),
            _ => text,
        }
    }
}

/// Returns an `EnvFilter`, built in one of four ways in which programs do that; `None` if `EnvFilter` panics.
fn env_filter(text: &str, way: usize) -> Option<EnvFilter> {
    // A lenient filter prints every directive that it ignores, so these are removed before.
    let accepted = |text: &str| {
        let parts = text
            .split(',')
            .filter(|part| part.parse::<tracing_subscriber::filter::Directive>().is_ok());
        parts.collect::<Vec<_>>().join(",")
    };
    let build = || match way {
        0 => EnvFilter::builder().parse_lossy(accepted(text)),
        1 => EnvFilter::builder()
            .with_default_directive(LevelFilter::INFO.into())
            .parse_lossy(accepted(text)),
        2 => EnvFilter::try_new(text).unwrap_or_else(|_| EnvFilter::new("debug")),
        _ => EnvFilter::builder()
            .with_regex(false)
            .parse(text)
            .unwrap_or_else(|_| EnvFilter::new("info,hyper=trace")),
    };
    catch_unwind(AssertUnwindSafe(build)).ok()
}

/// A worker on a thread of its own. Before and after each round its filter is off: it is in the same process as the
/// leader, and must not raise the level that this process enables.
struct Worker {
    /// Asks for a round.
    start: SyncSender<Round>,
    done: Receiver<()>,
}

/// The worker's work after it has applied a filter.
enum Round {
    Emit(Filter),
    Nothing,
}

impl Worker {
    fn start(collector: &mut Collector) -> Self {
        let (producer, consumer) = ring::in_process(1 << 14);
        let slots = Slots::in_process(SLOTS);
        let layer = WorkerLayer::builder(producer, slots.clone()).filter(Filter::off());
        let layer = layer.build().unwrap();
        collector.add(Source::new(0), consumer, slots).unwrap();
        let (start, rounds) = sync_channel(0);
        let (reply, done) = sync_channel(0);
        std::thread::spawn(move || {
            let mut watch = layer.filter_watch();
            let worker = Dispatch::new(tracing_subscriber::registry().with(layer));
            for round in rounds {
                let applied = watch.refresh();
                if let Round::Emit(filter) = round {
                    assert_eq!(applied, Some(filter));
                    with_default(&worker, emit);
                }
                reply.send(()).unwrap();
            }
        });
        Self { start, done }
    }

    /// Sends the worker a filter, and waits until it has emitted all events.
    fn emit(&self, collector: &mut Collector, filter: &Filter) {
        for (filter, round) in [
            (filter, Round::Emit(filter.clone())),
            (&Filter::off(), Round::Nothing),
        ] {
            collector.set_filter(filter).unwrap();
            self.start.send(round).unwrap();
            self.done.recv().unwrap();
        }
    }
}

#[test]
fn a_covering_filter_hides_no_event_that_env_filter_wants() {
    if !in_own_process("filters::a_covering_filter_hides_no_event_that_env_filter_wants") {
        return;
    }
    std::panic::set_hook(Box::new(|info| {
        if !info
            .location()
            .is_some_and(|at| at.file().contains("tracing-subscriber"))
        {
            eprintln!("{info}");
        }
    }));
    let numbers = Numbers::default();
    let (layer, leader_filter) = reload::Layer::new(EnvFilter::new("off"));
    let leader = Dispatch::new(tracing_subscriber::registry().with(layer).with(numbers.clone()));
    let mut collector = Collector::new().dispatch(leader.clone());
    let worker = Worker::start(&mut collector);
    let mut generator = Generator(0x2545_f491_4f6c_dd1d);
    let (mut events, mut wanted) = (0, 0);
    for nth in 0..TEXTS {
        let text = generator.directives();
        let way = nth % 4;
        let Some(env_filter) = env_filter(&text, way) else {
            continue;
        };
        leader_filter.reload(env_filter).unwrap();
        let filter = Filter::covering(&text);
        *numbers.filter.lock().unwrap() = filter.clone();
        with_default(&leader, emit);
        let direct = numbers.take();
        let hidden = numbers.hidden.lock().unwrap();
        assert!(
            hidden.is_empty(),
            "{text:?} as {way} covered by {filter:?}: {hidden:?}"
        );
        drop(hidden);
        worker.emit(&mut collector, &filter);
        collector.drain();
        let bridged = numbers.take();
        let case = format!("{text:?} as {way} covered by {filter:?}: {direct:?}, {bridged:?}");
        assert!(
            direct.iter().all(|event| bridged.contains(event)),
            "hidden: {case}"
        );
        // A directive for a field `id` may match the worker's span because of its field `id`, and so every event in it.
        assert!(bridged == direct || text.contains("id"), "not wanted: {case}");
        events += EVENTS;
        wanted += direct.len();
    }
    let total = collector.tally().total();
    assert_eq!(total.dropped, 0);
    // A filter that sends everything would hide nothing, too.
    let sent = total.emitted as usize;
    assert!(
        wanted > events / 8 && sent < events * 3 / 4,
        "{wanted} wanted, {sent} sent of {events}"
    );
}

#[test]
fn without_directives_a_filter_has_the_current_level() {
    if !in_own_process("filters::without_directives_a_filter_has_the_current_level") {
        return;
    }
    // There is no subscriber yet.
    assert_eq!(Filter::covering("").to_string(), "info");
    assert_eq!(Filter::current(), Filter::new(LevelFilter::INFO));
    for level in [LevelFilter::DEBUG, LevelFilter::WARN] {
        let leader = Dispatch::new(tracing_subscriber::fmt().with_max_level(level).finish());
        with_default(&leader, || {
            assert_eq!(Filter::covering(""), Filter::new(level));
            assert_eq!(Filter::current(), Filter::new(level));
            // Docker's `--env-file` keeps quotes.
            assert_eq!(Filter::covering("\"info\""), Filter::new(level));
        });
        drop(leader);
        tracing::callsite::rebuild_interest_cache();
    }
    let off = Dispatch::new(
        tracing_subscriber::fmt()
            .with_max_level(LevelFilter::OFF)
            .finish(),
    );
    with_default(&off, || assert_eq!(Filter::current(), Filter::off()));
}
