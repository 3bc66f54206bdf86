//! The leader's end: all sources, drained in turn.

use std::sync::Arc;
use std::time::Duration;

use shm_buffers::ring::Consumer;
use shm_buffers::slots::Slots;
use tracing_core::Dispatch;

use crate::filter::Filter;
use crate::intake::SourceError;
use crate::pushed::{FilterTooLong, Pushable};
use crate::sink::Target;
use crate::source::{Announce, Stream};
use crate::sources::{Inlet, Sources};
use crate::tally::{Counters, SLOTS, Tally};

/// Records that one source may have replayed before it is the next one's turn.
pub(crate) const TURN: usize = 256;
/// Records of one source that one call replays at most.
const MOST: usize = 1 << 16;

/// Who emitted: the worker id, by which a source is found again and which its span `worker{id=…}` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Source {
    /// The worker id.
    pub id: u64,
}

impl Source {
    /// The worker `id`.
    pub fn new(id: u64) -> Self {
        Self { id }
    }
}

/// Why a source was not added.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// The counters have no place.
    #[error("{given} slots given for the log counters of worker {id}, {SLOTS} are needed")]
    TooFewSlots {
        /// The worker.
        id: u64,
        /// How many there are.
        given: usize,
    },
    /// The pump has stopped.
    #[error("log collector has stopped, worker {id} was not added")]
    Stopped {
        /// The worker.
        id: u64,
    },
}

/// What is left of a source that was removed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Departed {
    /// The worker.
    pub source: Source,
    /// All its events. Some wait if a [handle](crate::CollectorHandle::remove) did not wait for them to be replayed.
    pub tally: Tally,
    /// The last records, oldest first, one line each, safe to print: controls are [escaped](shm_buffers::Printable).
    pub records: Vec<String>,
    /// Why its stream was given up, if it was.
    pub error: Option<SourceError>,
}

/// What one [`Collector::drain`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Records read.
    pub records: usize,
    /// Sources that had more than one call replays.
    pub unfinished: usize,
}

/// Replays the records of any number of workers into one subscriber.
///
/// Either call [`drain`](Self::drain) now and then, or [`spawn`](Self::spawn) a thread that does.
/// A source that lies (corrupt ring, record that does not decode) is given up; the others go on. A subscriber that panics
/// on a record costs that record.
#[derive(Debug)]
pub struct Collector {
    target: Target,
    sources: Arc<Sources>,
    streams: Vec<Stream>,
    /// How many sources had been added when `streams` were brought up to date.
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
    /// Replays into this thread's default subscriber. In a thread without one, the collector looks again in each turn and
    /// takes the first that the process gets; until then, with the feature `log`, it asks the logger of the `log` crate. An
    /// event that arrives while there is neither is dropped, and counted.
    pub fn new() -> Self {
        Self {
            target: Target::current(),
            sources: Arc::default(),
            streams: Vec::new(),
            added: 0,
            last_records: 16,
            notice_interval: Duration::from_secs(1),
        }
    }

    /// Replays into another subscriber.
    #[must_use]
    pub fn dispatch(mut self, dispatch: Dispatch) -> Self {
        self.target = Target::Given(dispatch);
        self
    }

    /// How many of a source's last records [`remove`](Self::remove) gives; default: 16.
    #[must_use]
    pub fn last_records(mut self, records: usize) -> Self {
        self.last_records = records;
        self
    }

    /// The shortest time between two events that tell of a source's drops; default: a second.
    #[must_use]
    pub fn notice_interval(mut self, interval: Duration) -> Self {
        self.notice_interval = interval;
        self
    }

    /// Sends workers what subscribers [want](Filter::wanted) whenever that changes, because one was set late or reloaded,
    /// until [`set_filter`](Self::set_filter) sends something else. For workers that are built with what is wanted
    /// before; looked at in each turn.
    #[must_use]
    pub fn follow_wanted(self) -> Self {
        self.sources.follow();
        self
    }

    /// Adds a source; both ends fresh. One that has the same id is removed first.
    ///
    /// # Errors
    /// If there are fewer than [`SLOTS`] slots.
    pub fn add(&mut self, source: Source, consumer: Consumer, slots: Slots) -> Result<(), AddError> {
        let inlet = inlet(source, consumer, slots, self.last_records)?;
        self.remove(source.id);
        self.sources.add(inlet);
        Ok(())
    }

    /// Replays everything that is readable now, at most 65,536 records of each source.
    pub fn drain(&mut self) -> Drained {
        let mut drained = Drained::default();
        for _ in 0..MOST / TURN {
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
    pub(crate) fn catch_up(&mut self) {
        self.update();
        let goals: Vec<u64> = (self.streams.iter())
            .map(|stream| stream.inlet().account.accepted())
            .collect();
        loop {
            let turn = self.turn();
            let behind = self.streams.iter().zip(&goals);
            let mut behind = behind.filter(|(stream, goal)| stream.inlet().account.read() < **goal);
            // A worker counts an event before it publishes it, and may be killed in between.
            if turn.unfinished == 0 || behind.next().is_none() || self.sources.is_abandoned() {
                break;
            }
        }
    }

    /// One turn for each source.
    pub(crate) fn turn(&mut self) -> Drained {
        self.update();
        self.sources.follow_up();
        let sources = self.sources.clone();
        let sink = self.target.sink();
        let mut drained = Drained::default();
        let _replaying = sources.replaying();
        for source in &mut self.streams {
            let records = source.drain(&sink, TURN, Announce::Paced, &sources);
            drained.records += records;
            drained.unfinished += usize::from(records == TURN);
        }
        let finished = self.streams.extract_if(.., |stream| stream.is_finished());
        finished.for_each(|stream| stream.finish(&sink, &sources));
        drained
    }

    /// Takes up sources that the handle has added.
    fn update(&mut self) {
        let added = self.sources.added();
        if self.added == added {
            return;
        }
        self.added = added;
        for inlet in self.sources.open() {
            if !self
                .streams
                .iter()
                .any(|stream| Arc::ptr_eq(stream.inlet(), &inlet))
            {
                self.streams.push(Stream::new(inlet, self.notice_interval));
            }
        }
    }

    /// Sends all workers, present and future, another filter than they were built with. It is in force once they
    /// [refresh](crate::Watch::refresh), by default within 100 ms.
    ///
    /// # Errors
    /// If it does not fit: it takes two bytes, and for each target its length and three bytes, of 422.
    pub fn set_filter(&mut self, filter: &Filter) -> Result<(), FilterTooLong> {
        self.sources.push_filter(Pushable::new(filter)?);
        Ok(())
    }

    /// Replays what the source left, and forgets it; `None` if there is no such source.
    ///
    /// To be called once the worker writes no more: what it writes later is lost, and of a worker that is still
    /// writing the counts are not final.
    pub fn remove(&mut self, id: u64) -> Option<Departed> {
        let inlet = self.sources.find(id)?;
        inlet.end();
        self.replay_rest(&inlet);
        Some(departed(&inlet))
    }

    /// Replays what is left of a source that has ended, before all others.
    pub(crate) fn replay_rest(&mut self, inlet: &Arc<Inlet>) {
        self.update();
        let mut streams = self.streams.iter();
        let Some(index) = streams.position(|stream| Arc::ptr_eq(stream.inlet(), inlet)) else {
            return;
        };
        let sources = self.sources.clone();
        let sink = self.target.sink();
        let _replaying = sources.replaying();
        let mut stream = self.streams.swap_remove(index);
        while !stream.is_finished() && !sources.is_abandoned() {
            stream.drain(&sink, TURN, Announce::Paced, &sources);
        }
        stream.finish(&sink, &sources);
    }

    /// The counts of all sources together, removed ones included.
    pub fn tally(&self) -> Tally {
        self.sources.tally()
    }

    pub(crate) fn shared(&self) -> (Target, Arc<Sources>, usize) {
        (self.target.clone(), self.sources.clone(), self.last_records)
    }

    /// Replays what is readable and forgets all sources.
    pub(crate) fn remove_all(&mut self) {
        self.update();
        for inlet in self.sources.open() {
            inlet.end();
        }
        self.turn();
        while self.streams.iter().any(|stream| !stream.is_finished()) && !self.sources.is_abandoned() {
            self.turn();
        }
        let sink = self.target.sink();
        for stream in std::mem::take(&mut self.streams) {
            stream.finish(&sink, &self.sources);
        }
    }
}

/// A source to add, if its slots suffice.
pub(crate) fn inlet(
    source: Source,
    consumer: Consumer,
    slots: Slots,
    last_records: usize,
) -> Result<Inlet, AddError> {
    let (id, given) = (source.id, slots.len());
    let counters = Counters::new(&slots).ok_or(AddError::TooFewSlots { id, given })?;
    Ok(Inlet::new(id, consumer, slots, counters, last_records))
}

/// Describes a source that has ended.
pub(crate) fn departed(inlet: &Inlet) -> Departed {
    Departed {
        source: Source { id: inlet.id },
        tally: inlet.account.tally(),
        records: inlet.lines(),
        error: inlet.error(),
    }
}

shm_buffers::debug_with_causes!(AddError);
