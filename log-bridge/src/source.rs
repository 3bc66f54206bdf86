//! One worker's stream as the leader reads it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use shm_buffers::ring::{Consumer, Corrupt};
use tracing_core::{Dispatch, dispatcher};

use crate::callsites::Callsites;
use crate::replay;
use crate::spans::SpanPath;
use crate::tally::{Counters, LEVELS, Tally};
use crate::wire::{DecodeError, Frame, Record, Site, level_index};

/// Why a source's stream was given up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The ring itself is corrupt.
    #[error(transparent)]
    Ring(#[from] Corrupt),
    /// A record in it is.
    #[error(transparent)]
    Record(#[from] DecodeError),
}

/// The reading end of one worker.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: u64,
    consumer: Consumer,
    counters: Counters,
    delivered: [u64; LEVELS],
    truncated: u64,
    unregistered: u64,
    path: SpanPath,
    buffer: Vec<u8>,
    last: VecDeque<Vec<u8>>,
    keep: usize,
    /// What the worker told to have dropped, and what of it was replayed as an event.
    dropped: [u64; LEVELS],
    announced: [u64; LEVELS],
    announced_at: Option<Instant>,
    announce_every: Duration,
    error: Option<SourceError>,
}

/// Whether a drop is told now, or may wait until enough time has passed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Announce {
    Now,
    Paced,
}

impl Stream {
    pub(crate) fn new(
        id: u64,
        consumer: Consumer,
        counters: Counters,
        keep: usize,
        announce_every: Duration,
    ) -> Self {
        Self {
            id,
            consumer,
            counters,
            delivered: [0; LEVELS],
            truncated: 0,
            unregistered: 0,
            path: SpanPath::new(id),
            buffer: Vec::new(),
            last: VecDeque::with_capacity(keep),
            keep,
            dropped: [0; LEVELS],
            announced: [0; LEVELS],
            announced_at: None,
            announce_every,
            error: None,
        }
    }

    /// Replays at most `max` records; gives how many there were.
    pub(crate) fn drain(&mut self, dispatch: &Dispatch, max: usize, announce: Announce) -> usize {
        if self.error.is_some() || (matches!(self.consumer.is_empty(), Ok(true)) && !self.is_due(announce)) {
            return 0;
        }
        dispatcher::with_default(dispatch, || {
            self.path.enter(dispatch);
            let mut read = 0;
            while read < max {
                match self.next(dispatch, announce) {
                    Ok(true) => read += 1,
                    Ok(false) => break,
                    Err(error) => {
                        tracing::error!(
                            target: "log_bridge",
                            error = &error as &(dyn std::error::Error + 'static),
                            "log stream given up"
                        );
                        self.error = Some(error);
                        break;
                    }
                }
            }
            if read < max {
                // Nothing may follow that would tell of the last drops.
                self.tell(announce);
            }
            self.path.leave(dispatch);
            read
        })
    }

    /// Reads and replays one record; `false` when there is none.
    fn next(&mut self, dispatch: &Dispatch, announce: Announce) -> Result<bool, SourceError> {
        self.buffer.clear();
        if self.consumer.pop(&mut self.buffer)?.is_none() {
            return Ok(false);
        }
        let record = match Frame::decode(&self.buffer)? {
            Frame::Event(record) => record,
            Frame::Drops(dropped) => {
                self.dropped = dropped;
                self.tell_known(announce);
                return Ok(true);
            }
        };
        let Record {
            head,
            spans,
            site,
            values,
            cut,
        } = record;
        let interned = Callsites::global().event(site)?;
        // Counted before it is replayed: a subscriber that panics does not unread it.
        self.truncated += u64::from(cut);
        let replayed = match interned {
            Some(site) => {
                self.delivered[level_index(*site.metadata().level())] += 1;
                replay::emitted(&head, || {
                    self.unregistered += self.path.follow(dispatch, &spans)?;
                    replay::event(dispatch, site, &values)
                })
            }
            None => {
                let site = Site::decode(site)?;
                self.delivered[usize::from(site.level)] += 1;
                self.unregistered += 1;
                replay::emitted(&head, || {
                    self.unregistered += self.path.follow(dispatch, &spans)?;
                    replay::unregistered(dispatch, &site, &values)
                })
            }
        };
        drop((spans, values));
        replayed?;
        if self.keep > 0 {
            let reused = match self.last.len() < self.keep {
                true => Vec::new(),
                false => self.last.pop_front().unwrap_or_default(),
            };
            self.last.push_back(std::mem::replace(&mut self.buffer, reused));
        }
        Ok(true)
    }

    /// Replays what was dropped as an event, as far as the slots know.
    fn tell(&mut self, announce: Announce) {
        let dropped = self.counters.dropped();
        self.dropped = std::array::from_fn(|level| self.dropped[level].max(dropped[level]));
        self.tell_known(announce);
    }

    fn tell_known(&mut self, announce: Announce) {
        let fresh: [u64; LEVELS] =
            std::array::from_fn(|level| self.dropped[level].saturating_sub(self.announced[level]));
        if fresh == [0; LEVELS] || !self.is_time(announce) {
            return;
        }
        self.announced = self.dropped;
        self.announced_at = Some(Instant::now());
        tracing::warn!(
            target: "log_bridge",
            error = fresh[0],
            warn = fresh[1],
            info = fresh[2],
            debug = fresh[3],
            trace = fresh[4],
            "log events dropped"
        );
    }

    fn is_time(&self, announce: Announce) -> bool {
        announce == Announce::Now
            || self
                .announced_at
                .is_none_or(|at| at.elapsed() >= self.announce_every)
    }

    fn is_due(&self, announce: Announce) -> bool {
        self.counters.dropped() != self.announced && self.is_time(announce)
    }

    /// The counts of a source that may go on.
    pub(crate) fn tally(&self) -> Tally {
        self.with_levels(self.counters.running(&self.delivered))
    }

    /// Ends the stream: what was not read by now is dropped.
    pub(crate) fn end(mut self, dispatch: &Dispatch) -> (Tally, Vec<String>, Option<SourceError>) {
        dispatcher::with_default(dispatch, || self.path.close(dispatch));
        let tally = self.with_levels(self.counters.last(&self.delivered));
        let lines = self.last.iter().filter_map(|frame| replay::line(frame)).collect();
        (tally, lines, self.error)
    }

    fn with_levels(&self, levels: [crate::tally::LevelTally; LEVELS]) -> Tally {
        Tally {
            levels,
            truncated: self.truncated,
            broken: u64::from(self.error.is_some()),
            unregistered: self.unregistered,
        }
    }
}
