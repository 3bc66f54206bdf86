//! One worker's stream as the leader replays it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing_core::{Dispatch, dispatcher};

use crate::intake::{Batch, SourceError};
use crate::known::LiveSites;
use crate::own;
use crate::replay;
use crate::sink::Sink;
use crate::site::Site;
use crate::sources::{Inlet, Sources};
use crate::spans::SpanPaths;
use crate::tally::LEVELS;
use crate::wire::{Flaw, Frame, Record};

/// The replay of one worker's records.
#[derive(Debug)]
pub(crate) struct Stream {
    inlet: Arc<Inlet>,
    batch: Batch,
    sites: LiveSites,
    paths: SpanPaths,
    /// Drops that the worker has reported, and those that a replayed notice has counted.
    dropped: [u64; LEVELS],
    announced: [u64; LEVELS],
    announced_at: Option<Instant>,
    announce_every: Duration,
    failure: Failure,
}

/// Whether a drop is told now, or may wait until enough time has passed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Announce {
    Now,
    Paced,
}

/// What became of the stream's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    NotSeen,
    Told,
}

impl Stream {
    pub(crate) fn new(inlet: Arc<Inlet>, announce_every: Duration) -> Self {
        Self {
            batch: Batch::default(),
            sites: LiveSites::new(inlet.intake.clone()),
            paths: SpanPaths::new(inlet.id),
            inlet,
            dropped: [0; LEVELS],
            announced: [0; LEVELS],
            announced_at: None,
            announce_every,
            failure: Failure::NotSeen,
        }
    }

    pub(crate) fn inlet(&self) -> &Arc<Inlet> {
        &self.inlet
    }

    /// Whether its worker has ended and everything was replayed.
    pub(crate) fn is_finished(&self) -> bool {
        self.batch.is_empty() && self.inlet.has_ended() && self.inlet.is_dry()
    }

    /// Replays at most `max` records, each under a guard of its own: a panicking subscriber costs that one. Gives how
    /// many there were.
    pub(crate) fn drain(&mut self, sink: &Sink, max: usize, announce: Announce, sources: &Sources) -> usize {
        if self.batch.is_empty() && self.inlet.is_dry() && !self.is_due(announce) && !self.has_failed() {
            return 0;
        }
        let Sink::Subscriber(dispatch) = sink else {
            return self.run(sink, max, announce, sources);
        };
        dispatcher::with_default(dispatch, || {
            guarded(|| self.paths.enter(dispatch));
            let read = self.run(sink, max, announce, sources);
            if guarded(|| self.paths.leave(dispatch)).is_none() {
                self.recover(dispatch);
            }
            read
        })
    }

    fn run(&mut self, sink: &Sink, max: usize, announce: Announce, sources: &Sources) -> usize {
        let mut read = 0;
        while read < max && !sources.is_abandoned() {
            if self.batch.is_empty() {
                self.inlet.fill(&mut self.batch);
            }
            let Some(frame) = self.batch.take() else { break };
            let replayed = guarded(|| self.replay(sink, &frame, announce));
            self.batch.done(frame);
            read += 1;
            match (replayed, sink) {
                (Some(Ok(())), _) => {}
                (Some(Err(flaw)), _) => {
                    self.inlet.fail(SourceError::Record(flaw.into()));
                    self.batch = Batch::default();
                }
                (None, Sink::Subscriber(dispatch)) => {
                    self.recover(dispatch);
                    guarded(|| self.paths.enter(dispatch));
                }
                (None, _) => {}
            }
        }
        if read < max && self.batch.is_empty() {
            guarded(|| self.tell_failure(sink));
            // No record may follow that would report the last drops.
            guarded(|| self.tell(sink, announce));
        }
        read
    }

    /// After a panic of the subscriber: no span is entered, and all start afresh.
    fn recover(&mut self, dispatch: &Dispatch) {
        // Each attempt that panics gets at least one span further.
        while guarded(|| self.paths.leave(dispatch)).is_none() {}
        guarded(|| self.paths.close(dispatch));
        guarded(|| self.paths = SpanPaths::new(self.inlet.id));
    }

    fn replay(&mut self, sink: &Sink, frame: &[u8], announce: Announce) -> Result<(), Flaw> {
        let record = match Frame::decode(frame)? {
            Frame::Event(record) => record,
            Frame::Drops(dropped) => {
                self.dropped = dropped;
                self.tell_known(sink, announce);
                return Ok(());
            }
        };
        // Counted before anything is asked: a subscriber that panics or blocks was asked all the same. A summary is no
        // event.
        let level = self.sites.level_of_event(record.site)?;
        let account = &self.inlet.account;
        account.truncated.add(record.header.cut.into());
        account.collapsed.add(record.header.repeats.into());
        match (record.header.repeats, sink) {
            (0, Sink::Nothing) => account.miss(level),
            (0, _) => account.deliver(level),
            _ => {}
        }
        match sink {
            Sink::Subscriber(dispatch) => self.replay_into(dispatch, &record),
            #[cfg(feature = "log")]
            Sink::Logger => crate::logger::log(self.inlet.id, frame, &self.inlet.intake),
            Sink::Nothing => record.values.each(drop),
        }
    }

    fn replay_into(&mut self, dispatch: &Dispatch, record: &Record<'_>) -> Result<(), Flaw> {
        let account = &self.inlet.account;
        let resolved = self.sites.event(record.site)?;
        match resolved.interned {
            Some(site) => replay::emitted(record, || {
                account
                    .unregistered
                    .add(self.paths.follow(dispatch, record, &mut self.sites)?);
                replay::event(dispatch, site, record)
            }),
            None => {
                account.unregistered.add(1);
                let blob = resolved.blob.to_vec();
                let site = Site::decode(&blob)?;
                replay::emitted(record, || {
                    account
                        .unregistered
                        .add(self.paths.follow(dispatch, record, &mut self.sites)?);
                    replay::unregistered(dispatch, &site, record)
                })
            }
        }
    }

    /// Replays what was dropped as an event, as far as the slots know.
    fn tell(&mut self, sink: &Sink, announce: Announce) {
        let missed = self.inlet.account.missed();
        let unheard = self.inlet.account.unheard();
        self.dropped = std::array::from_fn(|level| {
            self.dropped[level].max(missed[level].saturating_sub(unheard[level]))
        });
        self.tell_known(sink, announce);
    }

    fn tell_known(&mut self, sink: &Sink, announce: Announce) {
        let unheard = self.inlet.account.unheard();
        let known: [u64; LEVELS] =
            std::array::from_fn(|level| self.dropped[level].saturating_add(unheard[level]));
        let fresh: [u64; LEVELS] =
            std::array::from_fn(|level| known[level].saturating_sub(self.announced[level]));
        if fresh == [0; LEVELS] || !self.is_time(announce) {
            return;
        }
        match sink {
            Sink::Subscriber(dispatch) => {
                self.announced = known;
                self.announced_at = Some(Instant::now());
                // They belong to the worker, not to the spans of whatever was replayed last.
                self.paths.leave_inner(dispatch);
                own::tell_drops(dispatch, self.paths.worker(), fresh);
            }
            #[cfg(feature = "log")]
            Sink::Logger => {
                self.announced = known;
                self.announced_at = Some(Instant::now());
                crate::logger::log_drops(self.inlet.id, fresh);
            }
            // A subscriber may come, and hear of them then.
            Sink::Nothing => {}
        }
    }

    fn has_failed(&self) -> bool {
        self.failure == Failure::NotSeen && self.inlet.error().is_some()
    }

    fn tell_failure(&mut self, sink: &Sink) {
        if self.failure == Failure::Told {
            return;
        }
        let Some(error) = self.inlet.error() else { return };
        self.failure = Failure::Told;
        self.inlet.account.give_up();
        match sink {
            Sink::Subscriber(dispatch) => {
                self.paths.leave_inner(dispatch);
                own::tell_failure(dispatch, self.paths.worker(), &error);
            }
            #[cfg(feature = "log")]
            Sink::Logger => crate::logger::log_failure(self.inlet.id, &error),
            Sink::Nothing => {}
        }
    }

    fn is_time(&self, announce: Announce) -> bool {
        announce == Announce::Now
            || self
                .announced_at
                .is_none_or(|at| at.elapsed() >= self.announce_every)
    }

    fn is_due(&self, announce: Announce) -> bool {
        self.inlet.account.missed() != self.announced && self.is_time(announce)
    }

    /// Tells of the last drops and closes all spans; its counts are final then.
    pub(crate) fn finish(mut self, sink: &Sink, sources: &Sources) {
        let unread = !self.is_finished();
        if unread {
            // Records that were not read are dropped, too.
            sources.retire(&self.inlet);
            let levels = self.inlet.account.tally().levels;
            let unheard = self.inlet.account.unheard();
            self.dropped = std::array::from_fn(|level| levels[level].dropped.saturating_sub(unheard[level]));
        }
        if let Sink::Subscriber(dispatch) = sink {
            dispatcher::with_default(dispatch, || {
                guarded(|| self.paths.enter(dispatch));
                guarded(|| match unread {
                    true => self.tell_known(sink, Announce::Now),
                    false => self.tell(sink, Announce::Now),
                });
                if guarded(|| self.paths.close(dispatch)).is_none() {
                    self.recover(dispatch);
                }
            });
        }
        sources.retire(&self.inlet);
    }
}

/// Calls code of others; `None` if that panics. The panic hook has reported it.
fn guarded<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).ok()
}
