//! [`Relay`]: events of a node and its workers, on their way to the leader. Over core NATS: bounded, and what is lost is counted.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use invoker::shm_buffers::Printable;
use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// The rate of a node's records in bytes per second, and the size of its largest burst.
const RATE: f64 = 64.0 * 1024.0;
/// The part of it that only WARN and ERROR may use.
const RESERVED: f64 = RATE / 4.0;
/// The most bytes of a record's text.
const MAX_TEXT: usize = 4 << 10;
/// About the bytes of a record besides its text.
const OVERHEAD: usize = 16;
/// The most bytes that wait while the server is away.
const MAX_WAITING: usize = 256 << 10;

/// The levels, by their numbers in records.
const LEVELS: [Level; 5] = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    level: u8,
    pub(crate) target: String,
    pub(crate) text: String,
}

impl Record {
    pub(crate) fn level(&self) -> Level {
        LEVELS[usize::from(self.level.min(4))]
    }

    fn bytes(&self) -> usize {
        self.target.len() + self.text.len() + OVERHEAD
    }
}

/// Records of a node, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Records {
    pub(crate) node: u64,
    /// The number of the first record: those before it were sent, and have arrived or are lost.
    pub(crate) first: u64,
    /// How many the node has dropped so far, because there were too many.
    pub(crate) dropped: u64,
    pub(crate) records: Vec<Record>,
}

#[derive(Debug)]
struct Outbox {
    /// How many bytes may be sent, at `filled`: a token bucket.
    tokens: f64,
    filled: Instant,
    waiting: VecDeque<Record>,
    waiting_bytes: usize,
    next: u64,
    dropped: u64,
    /// How many were dropped when records were taken last.
    reported: u64,
}

/// Sends the events of a node, and of its workers, to the leader: a layer for the node's subscriber, made by
/// [`Cluster::relay`](crate::Cluster::relay).
///
/// The leader repeats each event in its own subscriber with the level, the target `invoker_nats::relay`, and the fields `node` and
/// `source` (the event's own target). A node sends at most 64 KiB each second; a quarter of that is for WARN and ERROR. The
/// [report](crate::NodeRow::logs_missing) counts the records that it drops and those that are lost on the way, and has the last records of
/// a lost node.
#[derive(Debug, Clone)]
pub struct Relay {
    outbox: Arc<Mutex<Outbox>>,
    level: LevelFilter,
}

impl Relay {
    pub(crate) fn new() -> Self {
        let outbox = Outbox {
            tokens: RATE,
            filled: Instant::now(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            next: 0,
            dropped: 0,
            reported: 0,
        };
        Self {
            outbox: Arc::new(Mutex::new(outbox)),
            level: LevelFilter::INFO,
        }
    }

    /// Sets which events are sent (default: those of INFO, WARN and ERROR).
    #[must_use]
    pub fn level(mut self, level: LevelFilter) -> Self {
        self.level = level;
        self
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, level: Level, target: &str, text: String, now: Instant) {
        let record = Record {
            level: LEVELS.iter().position(|it| *it == level).unwrap_or(4) as u8,
            target: target.to_owned(),
            text,
        };
        let bytes = record.bytes();
        let mut outbox = self.outbox();
        let passed = now.saturating_duration_since(outbox.filled).as_secs_f64();
        (outbox.tokens, outbox.filled) = ((outbox.tokens + passed * RATE).min(RATE), now);
        let left = outbox.tokens - bytes as f64;
        let reserved = if level <= Level::WARN { 0.0 } else { RESERVED };
        if outbox.waiting_bytes + bytes <= MAX_WAITING && left >= reserved {
            outbox.tokens = left;
            outbox.waiting_bytes += bytes;
            outbox.waiting.push_back(record);
        } else {
            outbox.dropped += 1;
        }
    }

    /// Takes what waits, at most `most` bytes of it, or a single record.
    pub(crate) fn take(&self, node: u64, most: usize) -> Option<Records> {
        let mut outbox = self.outbox();
        if outbox.waiting.is_empty() && outbox.reported == outbox.dropped {
            return None;
        }
        let (mut records, mut bytes) = (Vec::new(), 0);
        while let Some(record) = outbox.waiting.front()
            && (records.is_empty() || bytes + record.bytes() <= most)
        {
            bytes += record.bytes();
            records.extend(outbox.waiting.pop_front());
        }
        outbox.waiting_bytes -= bytes;
        let (first, dropped) = (outbox.next, outbox.dropped);
        outbox.next += records.len() as u64;
        outbox.reported = dropped;
        Some(Records {
            node,
            first,
            dropped,
            records,
        })
    }
}

impl<S: Subscriber> Layer<S> for Relay {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        // To send a record makes events of the client.
        if *metadata.level() > self.level || metadata.target().starts_with("async_nats") {
            return;
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        let mut end = text.0.len().min(MAX_TEXT);
        while !text.0.is_char_boundary(end) {
            end -= 1;
        }
        text.0.truncate(end);
        self.push(*metadata.level(), metadata.target(), text.0, Instant::now());
    }
}

/// An event's message and fields.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A string takes whatever is written.
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

/// Counts of a node's records at the leader, and the last ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) received: u64,
    pub(crate) dropped: u64,
    /// Sent, and not received.
    pub(crate) lost: u64,
    next: u64,
    pub(crate) last: VecDeque<String>,
}

impl Received {
    /// Takes in records. Returns how many more were dropped or lost than before.
    pub(crate) fn take(&mut self, records: &Records) -> u64 {
        let before = self.lost.saturating_add(self.dropped);
        self.lost = self.lost.saturating_add(records.first.saturating_sub(self.next));
        self.next = records
            .first
            .saturating_add(records.records.len() as u64)
            .max(self.next);
        self.dropped = records.dropped.max(self.dropped);
        self.received += records.records.len() as u64;
        for record in &records.records {
            self.last.push_back(format!("{} {}", record.level(), record.text));
        }
        let older = self.last.len().saturating_sub(LAST);
        self.last.drain(..older);
        self.lost.saturating_add(self.dropped) - before
    }
}

/// How many records of each node the leader keeps.
const LAST: usize = 5;
/// Time between two messages of a node.
pub(crate) const PAUSE: Duration = Duration::from_millis(200);

/// Reports that records of a node were dropped or lost.
pub(crate) fn repeat_missing(node: &str, missing: u64) {
    tracing::warn!(node, missing, "records of a node were dropped or lost");
}

/// Repeats a record in this process's subscriber.
pub(crate) fn repeat(node: &str, record: &Record) {
    let (source, text) = (
        Printable(&record.target).to_string(),
        Printable(&record.text).to_string(),
    );
    macro_rules! at {
        ($level:ident) => {
            tracing::event!(Level::$level, node, source, "{text}")
        };
    }
    match record.level() {
        Level::ERROR => at!(ERROR),
        Level::WARN => at!(WARN),
        Level::INFO => at!(INFO),
        Level::DEBUG => at!(DEBUG),
        Level::TRACE => at!(TRACE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(relay: &Relay, level: Level, text: &str, now: Instant) {
        relay.push(level, "t", text.to_owned(), now);
    }

    #[test]
    fn a_flood_is_dropped_and_counted_and_errors_have_their_part() {
        let (relay, now) = (Relay::new(), Instant::now());
        let text = "x".repeat(1000);
        for _ in 0..100 {
            push(&relay, Level::INFO, &text, now);
        }
        let records = relay.take(1, usize::MAX).expect("there are some");
        let sent = records.records.len();
        assert!((40..50).contains(&sent), "three quarters of 64 KiB: {sent}");
        assert_eq!((records.first, records.dropped), (0, 100 - sent as u64));
        assert_eq!(relay.take(1, usize::MAX), None);
        push(&relay, Level::ERROR, &text, now);
        push(&relay, Level::INFO, &text, now);
        let records = relay.take(1, usize::MAX).expect("the error");
        assert_eq!((records.first, records.records.len()), (sent as u64, 1));
        assert_eq!(records.dropped, 101 - sent as u64);
        assert_eq!(records.records[0].level(), Level::ERROR);
        // A second later there is room again.
        push(&relay, Level::INFO, &text, now + Duration::from_secs(1));
        assert_eq!(relay.take(1, usize::MAX).expect("it").records.len(), 1);
    }

    #[test]
    fn what_waits_while_the_server_is_away_is_bounded() {
        let (relay, start) = (Relay::new(), Instant::now());
        for second in 0..100 {
            push(
                &relay,
                Level::WARN,
                &"y".repeat(4000),
                start + Duration::from_secs(second),
            );
        }
        let mut all = 0;
        while let Some(records) = relay.take(1, 10_000) {
            assert!(records.records.len() <= 2);
            all += records.records.len();
        }
        assert_eq!(all, MAX_WAITING / (4001 + OVERHEAD));
    }

    #[test]
    fn gaps_and_drops_are_counted_once() {
        let record = Record {
            level: 1,
            target: String::new(),
            text: "w".to_owned(),
        };
        let records = |first, count, dropped| Records {
            node: 1,
            first,
            dropped,
            records: vec![record.clone(); count],
        };
        let mut received = Received::default();
        assert_eq!(received.take(&records(0, 3, 0)), 0);
        assert_eq!(received.take(&records(5, 2, 4)), 2 + 4);
        assert_eq!(received.take(&records(7, 1, 4)), 0);
        assert_eq!((received.received, received.lost, received.dropped), (6, 2, 4));
        assert_eq!(received.last, vec!["WARN w"; 5]);
        // Numbers that no node sends.
        received.take(&records(u64::MAX, 2, u64::MAX));
        assert_eq!(received.dropped, u64::MAX);
    }

    #[test]
    fn events_become_bounded_text() {
        use tracing_subscriber::prelude::*;

        let relay = Relay::new();
        let subscriber = tracing_subscriber::registry().with(relay.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(user = 7, "recommending");
            tracing::debug!("not sent");
            tracing::error!(target: "async_nats::client", "not sent");
            tracing::warn!("{}", "ä".repeat(5000));
        });
        let records = relay.take(1, usize::MAX).expect("two").records;
        let [info, warn] = &records[..] else {
            panic!("{records:?}");
        };
        assert_eq!((info.level(), &*info.text), (Level::INFO, "recommending user=7"));
        assert!(info.target.contains("relay"), "{info:?}");
        assert_eq!((warn.level(), warn.text.len()), (Level::WARN, MAX_TEXT));
    }
}
