//! The filter that is pushed down to workers never hides what the leader's `EnvFilter` wants.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use log_bridge::{Collector, Filter, SLOTS, Source, WorkerLayer};
use shm_buffers::{ring, slots::Slots};
use tracing::dispatcher::with_default;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id};
use tracing::{Dispatch, Event, Metadata, Subscriber, debug, error, info, trace, warn};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::{EnvFilter, Layer};

use crate::global::alone_in;

/// Generated directives, each with all events of [`emit`].
const DIRECTIVES: usize = 100_000;
/// One in this many is tried with a worker, too.
const BRIDGED: usize = 16;

/// The numbers of the events that a subscriber lets through, and what of them and their spans a filter hides.
#[derive(Clone, Default)]
struct Numbers {
    seen: Arc<Mutex<Vec<u64>>>,
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

/// Events of all levels, of some targets, with and without fields, outside and inside of spans.
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

/// A sequence of numbers that look like chance.
struct Chance(u64);

impl Chance {
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

/// The ways in which programs make an `EnvFilter` of a variable; `None` if `EnvFilter` itself panics.
fn env_filter(text: &str, way: usize) -> Option<EnvFilter> {
    // A lenient filter prints each directive that it ignores, 100,000 times.
    let accepted = |text: &str| {
        let parts = text
            .split(',')
            .filter(|part| part.parse::<tracing_subscriber::filter::Directive>().is_ok());
        parts.collect::<Vec<_>>().join(",")
    };
    let make = || match way {
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
    catch_unwind(AssertUnwindSafe(make)).ok()
}

#[test]
fn no_generated_directive_hides_what_env_filter_wants() {
    if !alone_in("filters", "no_generated_directive_hides_what_env_filter_wants") {
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
    let mut chance = Chance(0x2545_f491_4f6c_dd1d);
    let (mut wanted, mut sent) = (0, 0);
    for nth in 0..DIRECTIVES {
        let text = chance.directives();
        let way = nth % 4;
        let Some(filter) = env_filter(&text, way) else {
            continue;
        };
        let numbers = Numbers::default();
        let leader = Dispatch::new(tracing_subscriber::registry().with(filter).with(numbers.clone()));
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
        if nth / 4 % BRIDGED > 0 {
            continue;
        }
        let (producer, consumer) = ring::in_process(1 << 14);
        let slots = Slots::in_process(SLOTS);
        let layer = WorkerLayer::builder(producer, slots.clone()).filter(filter.clone());
        let worker = Dispatch::new(tracing_subscriber::registry().with(layer.build().unwrap()));
        with_default(&worker, emit);
        drop(worker);
        // Workers are processes; here, theirs would be one more level that this process wants.
        tracing::callsite::rebuild_interest_cache();
        let mut collector = Collector::new().dispatch(leader);
        collector.add(Source::new(0), consumer, slots).unwrap();
        collector.drain();
        let bridged = numbers.take();
        let case = format!("{text:?} as {way} covered by {filter:?}: {direct:?}, {bridged:?}");
        assert!(
            direct.iter().all(|event| bridged.contains(event)),
            "hidden: {case}"
        );
        // A directive for a field may match the worker's own span with its `id`, and everything in it.
        assert!(bridged == direct || text.contains("id"), "not wanted: {case}");
        wanted += direct.len();
        sent += collector.tally().total().emitted as usize;
    }
    // It would be easy to hide nothing by sending everything.
    let all = 16 * DIRECTIVES / BRIDGED;
    assert!(
        wanted > all / 8 && sent < all * 3 / 4,
        "{wanted} wanted, {sent} sent of {all}"
    );
}

#[test]
fn without_directives_workers_send_what_the_subscriber_wants() {
    if !alone_in(
        "filters",
        "without_directives_workers_send_what_the_subscriber_wants",
    ) {
        return;
    }
    // No subscriber yet: it may come.
    assert_eq!(Filter::covering("").to_string(), "info");
    assert_eq!(Filter::wanted(), Filter::new(LevelFilter::INFO));
    for level in [LevelFilter::DEBUG, LevelFilter::WARN] {
        let leader = Dispatch::new(tracing_subscriber::fmt().with_max_level(level).finish());
        with_default(&leader, || {
            assert_eq!(Filter::covering(""), Filter::new(level));
            assert_eq!(Filter::wanted(), Filter::new(level));
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
    with_default(&off, || assert_eq!(Filter::wanted(), Filter::off()));
}
