//! One worker's stream as the leader reads it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use shm_buffers::ring::{Consumer, Corrupt};
use shm_buffers::slots::Slots;
use tracing_core::{Dispatch, dispatcher};

use crate::known::KnownSites;
use crate::pushed::Pushable;
use crate::replay;
use crate::site::Site;
use crate::spans::SpanPaths;
use crate::tally::{Counters, LEVELS, Tally};
use crate::wire::{DecodeError, Flaw, Frame};

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
    slots: Slots,
    counters: Counters,
    delivered: [u64; LEVELS],
    collapsed: u64,
    truncated: u64,
    unregistered: u64,
    sites: KnownSites,
    paths: SpanPaths,
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

/// Whether a frame is one of the last records.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    Yes,
    No,
}

impl Stream {
    pub(crate) fn new(
        id: u64,
        consumer: Consumer,
        slots: Slots,
        counters: Counters,
        keep: usize,
        announce_every: Duration,
    ) -> Self {
        Self {
            id,
            consumer,
            slots,
            counters,
            delivered: [0; LEVELS],
            collapsed: 0,
            truncated: 0,
            unregistered: 0,
            sites: KnownSites::default(),
            paths: SpanPaths::new(id),
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
            self.paths.enter(dispatch);
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
            self.paths.leave(dispatch);
            read
        })
    }

    /// Reads and replays one record; `false` when there is none.
    fn next(&mut self, dispatch: &Dispatch, announce: Announce) -> Result<bool, SourceError> {
        let mut frame = std::mem::take(&mut self.buffer);
        frame.clear();
        let read = self.consumer.pop(&mut frame)?.is_some();
        if read
            && self
                .replay(dispatch, &frame, announce)
                .map_err(DecodeError::from)?
                == Kept::Yes
        {
            self.last.push_back(frame);
            frame = match self.last.len() > self.keep {
                true => self.last.pop_front().unwrap_or_default(),
                false => Vec::new(),
            };
        }
        self.buffer = frame;
        Ok(read)
    }

    fn replay(&mut self, dispatch: &Dispatch, frame: &[u8], announce: Announce) -> Result<Kept, Flaw> {
        let record = match Frame::decode(frame)? {
            Frame::Event(record) => record,
            Frame::Drops(dropped) => {
                self.dropped = dropped;
                self.tell_known(announce);
                return Ok(Kept::No);
            }
        };
        let site = self.sites.event(record.site)?;
        // Counted before it is replayed: a subscriber that panics does not unread it. A summary is no event.
        self.truncated += u64::from(record.header.cut);
        self.collapsed += u64::from(record.header.repeats);
        let level = site.blob.first().map_or(0, |level| usize::from(*level));
        if let (0, Some(delivered)) = (record.header.repeats, self.delivered.get_mut(level)) {
            *delivered += 1;
        }
        match site.interned {
            Some(site) => replay::emitted(&record, || {
                self.unregistered += self.paths.follow(dispatch, &record, &mut self.sites)?;
                replay::event(dispatch, site, &record)
            })?,
            None => {
                self.unregistered += 1;
                let blob = site.blob.to_vec();
                let site = Site::decode(&blob)?;
                replay::emitted(&record, || {
                    self.unregistered += self.paths.follow(dispatch, &record, &mut self.sites)?;
                    replay::unregistered(dispatch, &site, &record)
                })?;
            }
        }
        Ok(Kept::Yes)
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

    pub(crate) fn push_filter(&self, filter: &Pushable) {
        filter.write(&self.slots);
    }

    /// The counts of a source that may go on.
    pub(crate) fn tally(&self) -> Tally {
        self.with_levels(self.counters.running(&self.delivered))
    }

    /// Ends the stream: what was not read by now is dropped.
    pub(crate) fn end(mut self, dispatch: &Dispatch) -> (Tally, Vec<String>, Option<SourceError>) {
        dispatcher::with_default(dispatch, || self.paths.close(dispatch));
        let tally = self.with_levels(self.counters.last(&self.delivered));
        let lines = self
            .last
            .iter()
            .filter_map(|frame| replay::line(frame, &self.sites))
            .collect();
        (tally, lines, self.error)
    }

    fn with_levels(&self, levels: [crate::tally::LevelTally; LEVELS]) -> Tally {
        Tally {
            levels,
            collapsed: self.collapsed,
            truncated: self.truncated,
            broken: u64::from(self.error.is_some()),
            unregistered: self.unregistered,
        }
    }
}
