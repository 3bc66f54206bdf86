//! The cases: each is everything that its process does.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use log_bridge::{Collector, EmissionTime, Filter, Overflow, SLOTS, Source, WorkerLayer};
use shm_buffers::{ring, slots::Slots};
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Event, Subscriber};
use tracing_appender::non_blocking::NonBlockingBuilder;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::{Layer, fmt};

use crate::process::{Case, GO, LOST, NANOS, READY};

/// Events in a row. They fit into any of the buffers; after each burst the buffers are emptied, outside the measured time.
const BURST: u64 = 10_000;

/// 10,000 events of WARN and ERROR a second, about 80 bytes each: a tenth of the documented bound (a quarter of the ring
/// every 25 ms), because the leader may wait for a processor for longer than that.
const IMPORTANT_EVERY: Duration = Duration::from_micros(100);

pub(crate) fn run(case: &Case) {
    match case.name.as_str() {
        "disabled-fmt" => {
            install(
                tracing_subscriber::registry()
                    .with(fmt::layer().with_writer(io::sink).with_filter(LevelFilter::INFO)),
            );
            print(disabled(case.events));
        }
        "disabled-bridge" => {
            bridge(case, LevelFilter::INFO, Overflow::DropNewest);
            print(disabled(case.events));
        }
        "target-fmt" => {
            let targets = tracing_subscriber::filter::Targets::new()
                .with_default(LevelFilter::INFO)
                .with_target("elsewhere", LevelFilter::DEBUG);
            install(
                tracing_subscriber::registry().with(fmt::layer().with_writer(io::sink).with_filter(targets)),
            );
            print(disabled(case.events / 10));
        }
        "target-bridge" => {
            let filter = Filter::new(LevelFilter::INFO).target("elsewhere", LevelFilter::DEBUG);
            bridge_with(case, filter, Overflow::DropNewest);
            print(disabled(case.events / 10));
        }
        "fmt" | "fmt-span" => {
            let (writer, _guard) = NonBlockingBuilder::default().finish(io::sink());
            let lost = writer.error_counter();
            install(tracing_subscriber::registry().with(fmt::layer().with_ansi(false).with_writer(writer)));
            print(bursts(case, || std::thread::sleep(Duration::from_millis(15))));
            assert_eq!(
                lost.dropped_lines(),
                0,
                "not all of the peer's events were delivered"
            );
        }
        "bridge" | "bridge-span" => {
            let own = case.bridge.as_ref().expect("a bridge").own();
            bridge(case, LevelFilter::INFO, Overflow::DropNewest);
            print(bursts(case, || {
                // The leader empties the ring, then replies with the number of the request.
                let request = own.slot(READY).get() + 1;
                own.slot(READY).store_release(request);
                while own.slot(GO).load_acquire() < request {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }));
        }
        "overload" | "overload-batch" => {
            let overflow = match case.name.as_str() {
                "overload" => Overflow::DropNewest,
                _ => Overflow::Collapse,
            };
            bridge(case, LevelFilter::INFO, overflow);
            (0..1000).for_each(event);
            print(cpu_timed(case.events, event));
        }
        "direct" | "direct-span" => {
            install(leader());
            let in_span = case.name.ends_with("span");
            let _span = in_span.then(|| tracing::error_span!("worker", id = 3_u64).entered());
            (0..1000).for_each(event);
            print(cpu_timed(case.events, event));
        }
        "replay" => print(replay(case)),
        "flood-bridge" | "flood-batch" => {
            let overflow = match case.name.as_str() {
                "flood-bridge" => Overflow::DropNewest,
                _ => Overflow::Collapse,
            };
            bridge(case, LevelFilter::TRACE, overflow);
            flood_worker(case);
        }
        "flood-appender" => {
            let (writer, _guard) = NonBlockingBuilder::default().lossy(true).finish(io::sink());
            install(tracing_subscriber::registry().with(fmt::layer().with_ansi(false).with_writer(writer)));
            print(flood_threads(case));
        }
        "flood-channel" => {
            let (sender, receiver) = sync_channel::<String>(1024);
            std::thread::spawn(move || {
                let mut out = io::sink();
                for line in receiver {
                    let _ = io::Write::write_all(&mut out, line.as_bytes());
                }
            });
            install(tracing_subscriber::registry().with(Channel(sender)));
            print(flood_threads(case));
        }
        "kill" => emit_until_killed(case),
        "important" => important(case),
        other => panic!("unknown case {other}"),
    }
}

fn install(subscriber: impl Subscriber + Send + Sync) {
    tracing::subscriber::set_global_default(subscriber).expect("the first subscriber");
}

fn bridge(case: &Case, level: LevelFilter, overflow: Overflow) {
    bridge_with(case, Filter::new(level), overflow);
}

fn bridge_with(case: &Case, filter: Filter, overflow: Overflow) {
    let bridge = case.bridge.as_ref().expect("a bridge");
    let guard = WorkerLayer::builder(bridge.producer(), bridge.slots())
        .filter(filter)
        .overflow(overflow)
        .install()
        .expect("the first subscriber");
    std::mem::forget(guard);
}

/// The leader's subscriber, for events of its own and for replayed ones.
fn leader() -> impl Subscriber + Send + Sync {
    let layer = fmt::layer()
        .with_ansi(false)
        .with_timer(EmissionTime)
        .with_writer(io::sink);
    tracing_subscriber::registry().with(layer)
}

fn print(nanos: f64) {
    println!("{nanos}");
}

#[inline(always)]
fn event(n: u64) {
    tracing::info!(
        user = n,
        score = 0.25,
        item = "i-1234567",
        "recommended {} items",
        n % 10
    );
}

/// Returns the nanoseconds per event, by the wall clock.
fn timed(events: u64, mut emit: impl FnMut(u64)) -> f64 {
    let start = Instant::now();
    (0..events).for_each(&mut emit);
    start.elapsed().as_nanos() as f64 / events as f64
}

/// Returns the nanoseconds per event, by the processor time of this thread, which depends less on other processes.
fn cpu_timed(events: u64, mut emit: impl FnMut(u64)) -> f64 {
    let start = processor_time();
    (0..events).for_each(&mut emit);
    (processor_time() - start).as_nanos() as f64 / events as f64
}

#[cfg(unix)]
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(not(unix))]
fn processor_time() -> Duration {
    use std::sync::LazyLock;
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

fn disabled(events: u64) -> f64 {
    cpu_timed(events * 1000, |n| {
        tracing::debug!(
            user = n,
            score = 0.25,
            item = "i-1234567",
            "recommended {} items",
            n % 10
        );
        std::hint::black_box(n);
    })
}

fn bursts(case: &Case, mut empty: impl FnMut()) -> f64 {
    let _span = case
        .name
        .ends_with("span")
        .then(|| tracing::info_span!("task", task = 17, kind = "eval").entered());
    (0..1000).for_each(event);
    empty();
    let mut nanos = 0.0;
    for _ in 0..case.events / BURST {
        nanos += cpu_timed(BURST, event);
        empty();
    }
    nanos / (case.events / BURST) as f64
}

/// Fills a ring, and measures how long the leader takes to replay it, repeatedly.
fn replay(case: &Case) -> f64 {
    /// Events that fit into the part of a ring of 1 MiB that INFO may use.
    const FILL: u64 = 5_000;
    let (producer, consumer) = ring::in_process(1 << 20);
    let slots = Slots::in_process(SLOTS);
    let layer = WorkerLayer::builder(producer, slots.clone())
        .build()
        .expect("a large ring");
    let worker = Dispatch::new(tracing_subscriber::registry().with(layer));
    install(leader());
    let mut collector = Collector::new();
    collector
        .add(Source::new(3), consumer, slots)
        .expect("enough slots");
    let mut elapsed = Duration::ZERO;
    let turns = case.events / FILL;
    for _ in 0..turns {
        tracing::dispatcher::with_default(&worker, || (0..FILL).for_each(event));
        let start = processor_time();
        let drained = collector.drain();
        elapsed += processor_time() - start;
        assert_eq!(
            drained.records as u64, FILL,
            "some events did not fit into the ring"
        );
    }
    elapsed.as_nanos() as f64 / (turns * FILL) as f64
}

/// Formats events, and sends those that fit into the channel.
struct Channel(SyncSender<String>);

impl<S: Subscriber> Layer<S> for Channel {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        use std::fmt::Write;
        struct Line(String);
        impl tracing::field::Visit for Line {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                let _ = write!(self.0, "{}={value:?} ", field.name());
            }
        }
        let mut line = Line(String::with_capacity(128));
        let _ = write!(
            line.0,
            "{} {}: ",
            event.metadata().level(),
            event.metadata().target()
        );
        event.record(&mut line);
        let _ = self.0.try_send(line.0);
    }
}

/// Emits an event: a tenth each has ERROR, WARN, INFO and TRACE, the rest DEBUG. Returns the index of its level, which
/// `before` receives first.
#[inline(always)]
fn any_level(n: u64, before: impl FnOnce(usize)) -> usize {
    let level = [0, 1, 2, 4, 3, 3, 3, 3, 3, 3][(n % 10) as usize];
    before(level);
    match level {
        0 => tracing::error!(user = n, score = 0.25, "recommended {} items", n % 10),
        1 => tracing::warn!(user = n, score = 0.25, "recommended {} items", n % 10),
        2 => tracing::info!(user = n, score = 0.25, "recommended {} items", n % 10),
        3 => tracing::debug!(user = n, score = 0.25, "recommended {} items", n % 10),
        _ => tracing::trace!(user = n, score = 0.25, "recommended {} items", n % 10),
    }
    level
}

/// Emits all events on each of two threads; returns the nanoseconds per event of the slower one.
fn flood_threads(case: &Case) -> f64 {
    std::thread::scope(|scope| {
        let flood = || {
            timed(case.events, |n| {
                any_level(n, |_| {});
            })
        };
        let (one, other) = (scope.spawn(flood), scope.spawn(flood));
        one.join().expect("no panic").max(other.join().expect("no panic"))
    })
}

fn flood_worker(case: &Case) {
    let own = case.bridge.as_ref().expect("a bridge").own();
    own.slot(READY).store_release(1);
    while own.slot(GO).load_acquire() == 0 {
        std::thread::yield_now();
    }
    let nanos = timed(case.events, |n| {
        let level = any_level(n, |_| {});
        own.slot(5 + level).add(1);
    });
    own.slot(NANOS).store_release(nanos as u64);
}

/// Emits until the leader kills this process.
fn emit_until_killed(case: &Case) {
    bridge(case, LevelFilter::TRACE, Overflow::DropNewest);
    let own = case.bridge.as_ref().expect("a bridge").own();
    for n in 0.. {
        let level = any_level(n, |level| {
            own.slot(level).store_release(own.slot(level).get() + 1)
        });
        own.slot(5 + level).store_release(own.slot(5 + level).get() + 1);
    }
}

/// Emits a flood of DEBUG events and, in turn, a WARN or an ERROR every [`IMPORTANT_EVERY`].
fn important(case: &Case) {
    bridge(case, LevelFilter::TRACE, Overflow::DropNewest);
    let own = case.bridge.as_ref().expect("a bridge").own();
    let start = Instant::now();
    let mut emitted = 0;
    for n in 0_u64.. {
        tracing::debug!(user = n, score = 0.25, "recommended {} items", n % 10);
        if start.elapsed() < IMPORTANT_EVERY * emitted {
            continue;
        }
        match emitted % 2 {
            0 => tracing::warn!(user = n, "important"),
            _ => tracing::error!(user = n, "important"),
        }
        emitted += 1;
        if u64::from(emitted) == case.events {
            break;
        }
    }
    own.slot(LOST).store_release(emitted.into());
    own.slot(NANOS).store_release(start.elapsed().as_nanos() as u64);
}
