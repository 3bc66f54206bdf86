//! Replays the records of all sources in turn.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use shm_buffers::ring::Consumer;
use shm_buffers::slots::Slots;
use tracing_core::Dispatch;

use super::open::{OpenError, SourceOptions, open};
use super::replay::sink::Destination;
use super::replay::stream::{NoticePace, SourceStream};
use super::source::reader::SourceError;
use super::source::set::SourceSet;
use super::source::state::SourceState;
use super::tally::Tally;
use crate::filter::Filter;
use crate::filter::update::{FilterTooLong, FilterUpdate};
use crate::source_handle::SourceHandle;
use crate::wire::counters::SLOTS;

/// Records of one source that are replayed before it is the next source's turn.
const TURN: usize = 256;
/// Records of one source that one [`Collector::drain`] replays.
const MAX_DRAIN: usize = 1 << 16;

/// A worker that sends records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Source {
    /// The worker's id: identifies the source in its collector, and is shown by its span `worker{id=…}`.
    pub id: u64,
}

impl Source {
    /// Returns the source for the worker `id`.
    #[must_use]
    pub fn new(id: u64) -> Self {
        Self { id }
    }
}

/// Why a source was not added.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddError {
    /// The slots cannot hold the counters.
    TooFewSlots {
        /// The worker's id.
        id: u64,
        /// The number of slots.
        given: usize,
    },
    /// The collector's thread has stopped.
    Stopped {
        /// The worker's id.
        id: u64,
    },
}

impl fmt::Display for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooFewSlots { id, given } => write!(
                f,
                "cannot add worker {id} to the log collector: {given} slots given, {SLOTS} are needed"
            ),
            Self::Stopped { id } => write!(
                f,
                "cannot add worker {id} to the log collector: the collector has stopped"
            ),
        }
    }
}

impl Error for AddError {}

/// The counts and last records of a removed source.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RemovedSource {
    /// The source.
    pub source: Source,
    /// The counts of all its events. Some are waiting if a [handle](crate::CollectorHandle::remove) has returned before
    /// they were replayed.
    pub tally: Tally,
    /// The last events, oldest first, one line each. Control characters are [escaped](shm_buffers::Printable).
    pub last_records: Vec<String>,
    /// Why its stream was abandoned, if it was.
    pub error: Option<SourceError>,
}

/// What one [`Collector::drain`] has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Records that were read.
    pub records: usize,
    /// Sources that have more records than one call replays.
    pub unfinished: usize,
}

/// Replays the records of any number of workers into one subscriber.
///
/// Call [`drain`](Self::drain) from time to time, or [`spawn`](Self::spawn) a thread that does. A source whose ring is corrupt
/// or whose records are malformed is abandoned; the others go on. A panic of the subscriber costs the record that it
/// panicked on.
#[derive(Debug)]
#[must_use]
pub struct Collector {
    destination: Destination,
    sources: Arc<SourceSet>,
    streams: Vec<SourceStream>,
    /// How many sources had been added when `streams` was updated last.
    added: u64,
    last_records: usize,
    notice_interval: Duration,
}

impl Default for Collector {
    fn default() -> Self {
        Self::new()
    }
}

impl Collector {
    /// Returns a collector that replays into this thread's default subscriber.
    ///
    /// If the thread has none, the collector uses the first one that the process gets; it checks in each turn. Until then it
    /// uses the logger of the `log` crate, with the feature `log`. Events that are read while there is neither are dropped,
    /// and counted.
    pub fn new() -> Self {
        Self {
            destination: Destination::current(),
            sources: Arc::default(),
            streams: Vec::new(),
            added: 0,
            last_records: 16,
            notice_interval: Duration::from_secs(1),
        }
    }

    /// Replays into another subscriber.
    pub fn dispatch(mut self, dispatch: Dispatch) -> Self {
        self.destination = Destination::Subscriber(dispatch);
        self
    }

    /// Sets how many of a source's last events [`remove`](Self::remove) returns; default: 16.
    pub fn last_records(mut self, records: usize) -> Self {
        self.last_records = records;
        self
    }

    /// Sets the shortest time between two notices of a source's dropped events; default: one second.
    pub fn notice_interval(mut self, interval: Duration) -> Self {
        self.notice_interval = interval;
        self
    }

    /// Sends workers the [current filter](Filter::current) whenever that changes because a subscriber was set or reloaded,
    /// until [`set_filter`](Self::set_filter) is called.
    ///
    /// The workers must have been built with the filter that is current now. The collector checks in each turn.
    pub fn follow_subscribers(self) -> Self {
        self.sources.follow_subscribers();
        self
    }

    /// Opens a source: creates its shared memory, and returns the handle by which a worker connects to it. A source with the
    /// same id is removed first.
    ///
    /// The ring has 1 MiB, and the worker starts with the collector's filter; [`open_with`](Self::open_with) has options.
    ///
    /// ```no_run
    /// use std::process::Command;
    ///
    /// let mut collector = log_bridge::Collector::new();
    /// let source = collector.open(7)?;
    /// let child = Command::new("worker").env("LOGS", source.to_string()).spawn()?;
    /// # drop(child);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// If the memory cannot be created, or the filter has more than 16 KiB of text.
    pub fn open(&mut self, id: u64) -> Result<SourceHandle, OpenError> {
        self.open_with(id, SourceOptions::new())
    }

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(&mut self, id: u64, options: SourceOptions) -> Result<SourceHandle, OpenError> {
        self.remove(id);
        open_source(&self.sources, id, options, self.last_records)
    }

    /// Adds a source whose ring and slots come from elsewhere. Neither its ring nor its slots may have been used before. A source with the same id is removed first.
    ///
    /// # Errors
    /// If there are fewer than [`SLOTS`] slots.
    pub fn add(&mut self, source: Source, consumer: Consumer, slots: Slots) -> Result<(), AddError> {
        let state = source_state(source, consumer, slots, self.last_records)?;
        self.remove(source.id);
        self.sources.add(state);
        Ok(())
    }

    /// Replays every record that is readable now, but at most 65,536 of each source.
    pub fn drain(&mut self) -> Drained {
        let mut drained = Drained::default();
        for _ in 0..MAX_DRAIN / TURN {
            let turn = self.turn();
            drained.records += turn.records;
            drained.unfinished = turn.unfinished;
            if turn.unfinished == 0 {
                break;
            }
        }
        drained
    }

    /// Replays what workers had written when this was called.
    pub(super) fn catch_up(&mut self) {
        self.update();
        let goals: Vec<u64> = (self.streams.iter())
            .map(|stream| stream.source().counts.accepted())
            .collect();
        loop {
            let turn = self.turn();
            let behind = self.streams.iter().zip(&goals);
            let mut behind = behind.filter(|(stream, goal)| stream.source().counts.read() < **goal);
            // A worker counts an event before it publishes it, and may be killed in between: stop when rings are empty.
            if turn.unfinished == 0 || behind.next().is_none() || self.sources.is_abandoned() {
                break;
            }
        }
    }

    /// Replays one turn of each source.
    pub(super) fn turn(&mut self) -> Drained {
        self.update();
        self.sources.update_followed();
        let sources = self.sources.clone();
        let sink = self.destination.sink();
        let mut drained = Drained::default();
        let _replay = sources.begin_replay();
        for stream in &mut self.streams {
            let records = stream.drain(&sink, TURN, NoticePace::Interval, &sources);
            drained.records += records;
            drained.unfinished += usize::from(records == TURN);
        }
        let finished = self.streams.extract_if(.., |stream| stream.is_finished());
        finished.for_each(|stream| stream.finish(&sink, &sources));
        drained
    }

    /// Creates streams for sources that the handle has added.
    fn update(&mut self) {
        let added = self.sources.added();
        if self.added == added {
            return;
        }
        self.added = added;
        for source in self.sources.open() {
            if !self
                .streams
                .iter()
                .any(|stream| Arc::ptr_eq(stream.source(), &source))
            {
                self.streams.push(SourceStream::new(source, self.notice_interval));
            }
        }
    }

    /// Sends all workers, including those that are added later, another filter than they were built with. A worker applies it
    /// when it [refreshes](crate::FilterWatch::refresh), by default within 100 ms.
    ///
    /// # Errors
    /// If the encoded filter exceeds 422 bytes: two bytes, and for each target its length and three bytes.
    pub fn set_filter(&mut self, filter: &Filter) -> Result<(), FilterTooLong> {
        self.sources.set_filter(FilterUpdate::new(filter)?);
        Ok(())
    }

    /// Replays the remaining records of a source and removes it. Returns `None` if there is no such source.
    ///
    /// Call it after the worker has written its last record: later records are lost, and the counts of a worker that is still
    /// writing are not final.
    pub fn remove(&mut self, id: u64) -> Option<RemovedSource> {
        let source = self.sources.find(id)?;
        source.end();
        self.replay_remaining(&source);
        Some(removed_source(&source))
    }

    /// Replays the remaining records of a source that has ended, before those of all others.
    pub(super) fn replay_remaining(&mut self, source: &Arc<SourceState>) {
        self.update();
        let mut streams = self.streams.iter();
        let Some(index) = streams.position(|stream| Arc::ptr_eq(stream.source(), source)) else {
            return;
        };
        let sources = self.sources.clone();
        let sink = self.destination.sink();
        let _replay = sources.begin_replay();
        let mut stream = self.streams.swap_remove(index);
        while !stream.is_finished() && !sources.is_abandoned() {
            stream.drain(&sink, TURN, NoticePace::Interval, &sources);
        }
        stream.finish(&sink, &sources);
    }

    /// Returns the counts of all sources together, including removed ones.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.sources.tally()
    }

    /// Returns what the collector shares with its handle.
    pub(super) fn shared(&self) -> (Destination, Arc<SourceSet>, usize) {
        (self.destination.clone(), self.sources.clone(), self.last_records)
    }

    /// Replays every record that is readable now, and removes all sources.
    pub(super) fn remove_all(&mut self) {
        self.update();
        for source in self.sources.open() {
            source.end();
        }
        self.turn();
        while self.streams.iter().any(|stream| !stream.is_finished()) && !self.sources.is_abandoned() {
            self.turn();
        }
        let sink = self.destination.sink();
        for stream in std::mem::take(&mut self.streams) {
            stream.finish(&sink, &self.sources);
        }
    }
}

/// Creates the memory of a source and adds the source.
pub(super) fn open_source(
    sources: &SourceSet,
    id: u64,
    options: SourceOptions,
    last_records: usize,
) -> Result<SourceHandle, OpenError> {
    let (filter, sent) = sources.filter_of_new_source();
    let opened = open(id, options, filter)?;
    let state = SourceState::new(id, opened.consumer, opened.slots, last_records);
    sources.add_with_filter(state.expect("the memory has all slots"), sent);
    Ok(opened.handle)
}

/// Returns the state of a new source.
pub(super) fn source_state(
    source: Source,
    consumer: Consumer,
    slots: Slots,
    last_records: usize,
) -> Result<SourceState, AddError> {
    let (id, given) = (source.id, slots.len());
    SourceState::new(id, consumer, slots, last_records).ok_or(AddError::TooFewSlots { id, given })
}

/// Describes a source that has ended.
pub(super) fn removed_source(source: &SourceState) -> RemovedSource {
    RemovedSource {
        source: Source { id: source.id },
        tally: source.counts.tally(),
        last_records: source.last_lines(),
        error: source.error(),
    }
}

shm_buffers::debug_with_causes!(AddError);
