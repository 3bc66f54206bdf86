//! Events of a process on another machine, on their way to the leader over any network: bounded, and what is lost is counted.
//!
//! There is no ring between machines. A [`Relay`] is a layer for the subscriber of the process over there; a program takes [`Records`] from
//! it now and then, and sends them as it likes, in any serde format. The leader [counts](Received::count) and
//! [replays](Records::replay) them.
//!
//! ```
//! use log_bridge::relay::{Received, Records, Relay};
//! use tracing_subscriber::prelude::*;
//!
//! // Over there.
//! let relay = Relay::new();
//! tracing::subscriber::with_default(tracing_subscriber::registry().with(relay.clone()), || {
//!     tracing::warn!(user = 7, "recommending");
//! });
//! let records = relay.take(64 << 10).expect("there is one");
//! let message = serde_json::to_vec(&records)?;
//!
//! // In the leader.
//! let mut received = Received::default();
//! let records: Records = serde_json::from_slice(&message)?;
//! let missing = received.count(&records);
//! records.replay("node-3", missing); // an event with the fields `node` and `source`
//! assert_eq!((received.received(), received.missing()), (1, 0));
//! assert_eq!(received.last_records().collect::<Vec<_>>(), ["WARN recommending user=7"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_core::{Deserialize, Deserializer, Serialize, Serializer};
use shm_buffers::Printable;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// The rate of records in bytes per second, and the size of the largest burst.
const RATE: f64 = 64.0 * 1024.0;
/// The part of it that only WARN and ERROR may use.
const RESERVED: f64 = RATE / 4.0;
/// The most bytes of a record's text.
const MAX_TEXT: usize = 4 << 10;
/// About the bytes of a record besides its text.
const OVERHEAD: usize = 16;
/// The most bytes that wait to be taken.
const MAX_WAITING: usize = 256 << 10;
/// How many texts of each source the leader keeps.
const LAST: usize = 5;

/// The levels, by their numbers in records.
const LEVELS: [Level; 5] = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    level: u8,
    target: String,
    text: String,
}

impl Record {
    fn level(&self) -> Level {
        LEVELS[usize::from(self.level.min(4))]
    }

    fn bytes(&self) -> usize {
        self.target.len() + self.text.len() + OVERHEAD
    }
}

/// Some events of one process, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Records {
    /// The number of the first record: those before it were sent, and have arrived or are lost.
    first: u64,
    /// How many the process has dropped so far, because there were too many.
    dropped: u64,
    records: Vec<Record>,
}

impl Serialize for Records {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let parts = |it: &Record| (it.level, it.target.clone(), it.text.clone());
        let records: Vec<_> = self.records.iter().map(parts).collect();
        (self.first, self.dropped, records).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Records {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (first, dropped, records) = <(u64, u64, Vec<(u8, String, String)>)>::deserialize(deserializer)?;
        let record = |(level, target, text)| Record { level, target, text };
        let records = records.into_iter().map(record).collect();
        Ok(Self {
            first,
            dropped,
            records,
        })
    }
}

impl Records {
    /// Emits each event again, in this process's subscriber: with its level, the target `log_bridge::relay`, and the fields `node` and
    /// `source` (the event's own target). Before them, a WARN has the number of `missing` records, if there are any.
    pub fn replay(&self, node: &str, missing: u64) {
        if missing > 0 {
            tracing::warn!(node, missing, "records of a node were dropped or lost");
        }
        self.records.iter().for_each(|record| replay(node, record));
    }
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

/// A layer that keeps the events of its subscriber until they are [taken](Self::take) to be sent: as text, at most 4 KiB each.
///
/// At most 64 KiB pass each second; a quarter of that is for WARN and ERROR. At most 256 KiB wait. Other events are dropped, and counted in
/// the next records. Clones share what waits.
#[derive(Debug, Clone)]
pub struct Relay {
    outbox: Arc<Mutex<Outbox>>,
    level: LevelFilter,
    except: Option<&'static str>,
}

impl Default for Relay {
    fn default() -> Self {
        Self::new()
    }
}

impl Relay {
    /// Returns a layer for events of INFO, WARN and ERROR.
    pub fn new() -> Self {
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
            except: None,
        }
    }

    /// Drops the events whose target starts with `target`, uncounted: those of the client that sends the records, because each record
    /// would cause others.
    #[must_use]
    pub fn except(mut self, target: &'static str) -> Self {
        self.except = Some(target);
        self
    }

    /// Sets which events are kept (default: those of INFO, WARN and ERROR).
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

    /// Takes what waits, at most `most` bytes of it, or a single record. Returns `None` if there is nothing new.
    pub fn take(&self, most: usize) -> Option<Records> {
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
            first,
            dropped,
            records,
        })
    }
}

impl<S: Subscriber> Layer<S> for Relay {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let is_excepted = |except| metadata.target().starts_with(except);
        if *metadata.level() > self.level || self.except.is_some_and(is_excepted) {
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

/// Counts of the records of one process in the leader, and the last ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Received {
    received: u64,
    dropped: u64,
    /// Sent, and not received.
    lost: u64,
    next: u64,
    last: VecDeque<String>,
}

impl Received {
    /// Counts records. Returns how many more were dropped or lost than before.
    pub fn count(&mut self, records: &Records) -> u64 {
        let before = self.missing();
        let (first, count) = (records.first, records.records.len() as u64);
        self.lost = self.lost.saturating_add(first.saturating_sub(self.next));
        self.next = first.saturating_add(count).max(self.next);
        self.dropped = records.dropped.max(self.dropped);
        self.received += count;
        for record in &records.records {
            self.last.push_back(format!("{} {}", record.level(), record.text));
        }
        let older = self.last.len().saturating_sub(LAST);
        self.last.drain(..older);
        self.missing() - before
    }

    /// Returns the number of records that have arrived.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Returns the number of records that were dropped because there were too many, or lost on the way.
    pub fn missing(&self) -> u64 {
        self.lost.saturating_add(self.dropped)
    }

    /// Returns the last records, five at most, oldest first: level, message and fields. Control characters are as they came.
    pub fn last_records(&self) -> impl Iterator<Item = &str> {
        self.last.iter().map(String::as_str)
    }
}

/// Emits an event again.
fn replay(node: &str, record: &Record) {
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
    use std::time::Duration;

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
        let records = relay.take(usize::MAX).expect("there are some");
        let sent = records.records.len();
        assert!((40..50).contains(&sent), "three quarters of 64 KiB: {sent}");
        assert_eq!((records.first, records.dropped), (0, 100 - sent as u64));
        assert_eq!(relay.take(usize::MAX), None);
        push(&relay, Level::ERROR, &text, now);
        push(&relay, Level::INFO, &text, now);
        let records = relay.take(usize::MAX).expect("the error");
        assert_eq!((records.first, records.records.len()), (sent as u64, 1));
        assert_eq!(records.dropped, 101 - sent as u64);
        assert_eq!(records.records[0].level(), Level::ERROR);
        // A second later there is room again.
        push(&relay, Level::INFO, &text, now + Duration::from_secs(1));
        assert_eq!(relay.take(usize::MAX).expect("it").records.len(), 1);
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
        while let Some(records) = relay.take(10_000) {
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
            first,
            dropped,
            records: vec![record.clone(); count],
        };
        let mut received = Received::default();
        assert_eq!(received.count(&records(0, 3, 0)), 0);
        assert_eq!(received.count(&records(5, 2, 4)), 2 + 4);
        assert_eq!(received.count(&records(7, 1, 4)), 0);
        assert_eq!((received.received, received.lost, received.dropped), (6, 2, 4));
        assert_eq!(received.last, vec!["WARN w"; 5]);
        // Numbers that no node sends.
        received.count(&records(u64::MAX, 2, u64::MAX));
        assert_eq!(received.dropped, u64::MAX);
    }

    #[test]
    fn events_become_bounded_text() {
        use tracing_subscriber::prelude::*;

        let relay = Relay::new().except("client");
        let subscriber = tracing_subscriber::registry().with(relay.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(user = 7, "recommending");
            tracing::debug!("not sent");
            tracing::error!(target: "client::io", "not sent");
            tracing::warn!("{}", "ä".repeat(5000));
        });
        let records = relay.take(usize::MAX).expect("two").records;
        let [info, warn] = &records[..] else {
            panic!("{records:?}");
        };
        assert_eq!((info.level(), &*info.text), (Level::INFO, "recommending user=7"));
        assert!(info.target.contains("relay"), "{info:?}");
        assert_eq!((warn.level(), warn.text.len()), (Level::WARN, MAX_TEXT));
    }
}
