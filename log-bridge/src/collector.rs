//! The leader's end: all sources, drained in turn.

use std::time::Duration;

use shm_buffers::ring::Consumer;
use shm_buffers::slots::Slots;
use tracing_core::{Dispatch, dispatcher};

use crate::filter::Filter;
use crate::pushed::{FilterTooLong, Pushable};
use crate::source::{Announce, SourceError, Stream};
use crate::tally::{Counters, SLOTS, Tally};

/// Records that one source may have replayed before it is the next one's turn.
pub(crate) const TURN: usize = 256;
/// Records of one source that one call replays at most.
const MOST: usize = 1 << 16;
/// Records that a source may leave behind: more than any ring holds, so that a live one can't hold us for ever.
const MOST_AT_END: usize = 1 << 22;

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
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
    /// All its events: per level emitted = delivered + dropped.
    pub tally: Tally,
    /// The last records, oldest first, one line each.
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
/// A source that lies (corrupt ring, record that does not decode) is given up; the others go on.
#[derive(Debug)]
pub struct Collector {
    dispatch: Dispatch,
    sources: Vec<Stream>,
    departed: Tally,
    last_records: usize,
    notice_interval: Duration,
    filter: Option<Pushable>,
}

impl Default for Collector {
    fn default() -> Self {
        Self::new()
    }
}

impl Collector {
    /// Replays into the subscriber that is this thread's default now.
    pub fn new() -> Self {
        Self {
            dispatch: dispatcher::get_default(Clone::clone),
            sources: Vec::new(),
            departed: Tally::default(),
            last_records: 16,
            notice_interval: Duration::from_secs(1),
            filter: None,
        }
    }

    /// Replays into another subscriber.
    #[must_use]
    pub fn dispatch(mut self, dispatch: Dispatch) -> Self {
        self.dispatch = dispatch;
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

    /// Adds a source; both ends fresh. One that has the same id is removed first.
    ///
    /// # Errors
    /// If there are fewer than [`SLOTS`] slots.
    pub fn add(&mut self, source: Source, consumer: Consumer, slots: Slots) -> Result<(), AddError> {
        let given = slots.len();
        let counters = Counters::new(&slots).ok_or(AddError::TooFewSlots { id: source.id, given })?;
        self.remove(source.id);
        if let Some(filter) = &self.filter {
            filter.write(&slots);
        }
        let stream = Stream::new(
            source.id,
            consumer,
            slots,
            counters,
            self.last_records,
            self.notice_interval,
        );
        self.sources.push(stream);
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

    /// One turn for each source.
    pub(crate) fn turn(&mut self) -> Drained {
        let mut drained = Drained::default();
        for source in &mut self.sources {
            let records = source.drain(&self.dispatch, TURN, Announce::Paced);
            drained.records += records;
            drained.unfinished += usize::from(records == TURN);
        }
        drained
    }

    /// Sends all workers, present and future, another filter than they were built with. It is in force once they
    /// [refresh](crate::Watch::refresh), by default within 100 ms.
    ///
    /// # Errors
    /// If it does not fit: it takes two bytes, and for each target its length and three bytes, of 422.
    pub fn set_filter(&mut self, filter: &Filter) -> Result<(), FilterTooLong> {
        self.push_filter(Pushable::new(filter)?);
        Ok(())
    }

    pub(crate) fn push_filter(&mut self, filter: Pushable) {
        for source in &self.sources {
            source.push_filter(&filter);
        }
        self.filter = Some(filter);
    }

    /// Replays what the source left, and forgets it; `None` if there is no such source.
    ///
    /// To be called once the worker writes no more: what it writes later is lost, and of a worker that is still
    /// writing the counts are not final.
    pub fn remove(&mut self, id: u64) -> Option<Departed> {
        let index = self.sources.iter().position(|source| source.id == id)?;
        self.sources[index].drain(&self.dispatch, MOST_AT_END, Announce::Now);
        let (tally, records, error) = self.sources.remove(index).end(&self.dispatch);
        self.departed += &tally;
        Some(Departed {
            source: Source { id },
            tally,
            records,
            error,
        })
    }

    /// The counts of all sources together, removed ones included.
    pub fn tally(&self) -> Tally {
        let mut tally = self.departed.clone();
        for source in &self.sources {
            tally += &source.tally();
        }
        tally
    }

    pub(crate) fn replays_into(&self) -> &Dispatch {
        &self.dispatch
    }

    pub(crate) fn remove_all(&mut self) {
        while let Some(source) = self.sources.first() {
            self.remove(source.id);
        }
    }
}
