//! The two ends of a bridge, subscribers that keep what they receive, and tests in processes of their own.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::io;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use log_bridge::{Collector, Filter, SLOTS, Source, WorkerLayer};
use shm_buffers::{ring, slots::Slots};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Event, Level, Metadata, Subscriber, span};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// An event as a layer receives it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    pub(crate) level: Level,
    pub(crate) metadata: String,
    pub(crate) fields: String,
    /// Their metadata and values, from the root.
    pub(crate) spans: Vec<String>,
    /// What `replay::current_timestamp` returns.
    pub(crate) emitted: Option<SystemTime>,
    /// What `replay::current_thread` returns.
    pub(crate) thread: Option<(u64, Option<String>)>,
}

impl Seen {
    /// Returns whether the bridge itself has emitted the event.
    pub(crate) fn is_of_bridge(&self) -> bool {
        self.metadata.contains("log_bridge")
    }
}

/// A layer that keeps all events.
#[derive(Debug, Clone, Default)]
pub(crate) struct Capture(Arc<Mutex<Vec<Seen>>>);

impl Capture {
    /// Returns the events since the last call.
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    pub(crate) fn dispatch(&self) -> Dispatch {
        Dispatch::new(tracing_subscriber::registry().with(self.clone()))
    }
}

fn describe(metadata: &Metadata<'_>) -> String {
    let fields: Vec<_> = metadata.fields().iter().map(|f| f.name()).collect();
    format!(
        "{:?} {} {} {:?} {:?} {:?} {fields:?}",
        metadata.level(),
        metadata.name(),
        metadata.target(),
        metadata.file(),
        metadata.line(),
        metadata.module_path(),
    )
}

/// Values with their types.
struct TypedValues(String);

impl TypedValues {
    fn put(&mut self, field: &Field, kind: &str, value: &dyn fmt::Debug) {
        write!(self.0, "[{} {kind} {value:?}]", field.name()).unwrap();
    }
}

impl Visit for TypedValues {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, "f64", &value);
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, "i64", &value);
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, "u64", &value);
    }
    fn record_i128(&mut self, field: &Field, value: i128) {
        self.put(field, "i128", &value);
    }
    fn record_u128(&mut self, field: &Field, value: u128) {
        self.put(field, "u128", &value);
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, "bool", &value);
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, "str", &value);
    }
    fn record_bytes(&mut self, field: &Field, value: &[u8]) {
        self.put(field, "bytes", &value);
    }
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let chain: Vec<_> = std::iter::successors(Some(value), |&error| error.source())
            .map(ToString::to_string)
            .collect();
        self.put(field, "error", &chain);
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, "debug", &value);
    }
}

struct SpanText(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Capture {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let mut typed = TypedValues(describe(attributes.metadata()));
        attributes.record(&mut typed);
        let span = context.span(id).unwrap();
        span.extensions_mut().insert(SpanText(typed.0));
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        let mut typed = TypedValues(" then ".to_owned());
        values.record(&mut typed);
        let span = context.span(id).unwrap();
        let mut extensions = span.extensions_mut();
        extensions.get_mut::<SpanText>().unwrap().0 += &typed.0;
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut typed = TypedValues(String::new());
        event.record(&mut typed);
        let spans = context
            .event_scope(event)
            .into_iter()
            .flat_map(|scope| scope.from_root());
        let seen = Seen {
            level: *event.metadata().level(),
            metadata: describe(event.metadata()),
            fields: typed.0,
            spans: spans
                .map(|span| span.extensions().get::<SpanText>().unwrap().0.clone())
                .collect(),
            emitted: log_bridge::replay::current_timestamp(),
            thread: log_bridge::replay::current_thread(),
        };
        self.0.lock().unwrap().push(seen);
    }
}

/// A writer that keeps what it receives.
#[derive(Clone, Default)]
pub(crate) struct SharedBuffer(Arc<Mutex<Vec<u8>>>);

impl SharedBuffer {
    /// Returns the text since the last call.
    pub(crate) fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut self.0.lock().unwrap())).unwrap()
    }
}

impl io::Write for SharedBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for SharedBuffer {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// A worker's subscriber, and a collector that has the worker as source 3.
pub(crate) struct Bridge {
    pub(crate) worker: Dispatch,
    pub(crate) collector: Collector,
}

pub(crate) fn bridge(capacity: usize, leader: Dispatch) -> Bridge {
    bridge_with(capacity, Filter::new(LevelFilter::TRACE), leader)
}

pub(crate) fn bridge_with(capacity: usize, filter: Filter, leader: Dispatch) -> Bridge {
    let (producer, consumer) = ring::in_process(capacity);
    let slots = Slots::in_process(SLOTS);
    let layer = WorkerLayer::builder(producer, slots.clone())
        .filter(filter)
        .build()
        .unwrap();
    let worker = Dispatch::new(tracing_subscriber::registry().with(layer));
    let mut collector = Collector::new().dispatch(leader).notice_interval(Duration::ZERO);
    collector.add(Source::new(3), consumer, slots).unwrap();
    Bridge { worker, collector }
}

/// Runs a test, named by its module and function, in a process of its own; returns `true` in that process.
pub(crate) fn in_own_process(test: &str) -> bool {
    const CHILD: &str = "LOG_BRIDGE_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

pub(crate) const ALL: [Level; 5] = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
