//! The replay of one worker's records.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing_core::{Dispatch, dispatcher};

use super::bridge_events;
use super::callsites::SourceCallsites;
use super::event;
use super::origin;
use super::sink::Sink;
use super::spans::SourceSpans;
use crate::leader::source::reader::{RecordBatch, SourceError};
use crate::leader::source::set::SourceSet;
use crate::leader::source::state::SourceState;
use crate::wire::callsite::CallsiteInfo;
use crate::wire::error::Malformed;
use crate::wire::level::LEVELS;
use crate::wire::record::{EventRecord, Frame};

/// Replays the records of one worker.
#[derive(Debug)]
pub(crate) struct SourceStream {
    source: Arc<SourceState>,
    batch: RecordBatch,
    callsites: SourceCallsites,
    spans: SourceSpans,
    /// Per level, the drops that the worker has reported.
    dropped: [u64; LEVELS],
    /// Per level, the drops that notices have reported to the subscriber.
    noticed: [u64; LEVELS],
    noticed_at: Option<Instant>,
    notice_interval: Duration,
    failure: FailureNotice,
}

/// Whether a notice of dropped events waits until the interval since the last one is over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoticePace {
    Immediate,
    Interval,
}

/// Whether the stream's error was reported to the subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FailureNotice {
    Pending,
    Emitted,
}

impl SourceStream {
    pub(crate) fn new(source: Arc<SourceState>, notice_interval: Duration) -> Self {
        Self {
            batch: RecordBatch::default(),
            callsites: SourceCallsites::new(source.reader.clone()),
            spans: SourceSpans::new(source.id),
            source,
            dropped: [0; LEVELS],
            noticed: [0; LEVELS],
            noticed_at: None,
            notice_interval,
            failure: FailureNotice::Pending,
        }
    }

    pub(crate) fn source(&self) -> &Arc<SourceState> {
        &self.source
    }

    /// Returns whether the worker has ended and all its records were replayed.
    pub(crate) fn is_finished(&self) -> bool {
        self.batch.is_empty() && self.source.has_ended() && self.source.is_empty()
    }

    /// Replays at most `max` records and returns how many. A panic of the subscriber costs the record that it panicked on.
    pub(crate) fn drain(&mut self, sink: &Sink, max: usize, pace: NoticePace, sources: &SourceSet) -> usize {
        if self.batch.is_empty()
            && self.source.is_empty()
            && !self.is_notice_due(pace)
            && !self.is_failure_pending()
        {
            return 0;
        }
        let Sink::Subscriber(dispatch) = sink else {
            return self.replay_records(sink, max, pace, sources);
        };
        dispatcher::with_default(dispatch, || {
            catch_panic(|| self.spans.enter(dispatch));
            let read = self.replay_records(sink, max, pace, sources);
            if catch_panic(|| self.spans.exit(dispatch)).is_none() {
                self.reset_spans(dispatch);
            }
            read
        })
    }

    fn replay_records(&mut self, sink: &Sink, max: usize, pace: NoticePace, sources: &SourceSet) -> usize {
        let mut read = 0;
        while read < max && !sources.is_abandoned() {
            if self.batch.is_empty() {
                self.source.fill(&mut self.batch);
            }
            let Some(frame) = self.batch.take() else { break };
            let replayed = catch_panic(|| self.replay(sink, &frame, pace));
            self.batch.put_back(frame);
            read += 1;
            match (replayed, sink) {
                (Some(Ok(())), _) => {}
                (Some(Err(malformed)), _) => {
                    self.source.fail(SourceError::Record(malformed.into()));
                    self.batch = RecordBatch::default();
                }
                (None, Sink::Subscriber(dispatch)) => {
                    self.reset_spans(dispatch);
                    catch_panic(|| self.spans.enter(dispatch));
                }
                (None, _) => {}
            }
        }
        if read < max && self.batch.is_empty() {
            catch_panic(|| self.notice_failure(sink));
            // Perhaps no record follows that would report the last drops.
            catch_panic(|| self.notice_counted_drops(sink, pace));
        }
        read
    }

    /// After a panic of the subscriber: exits and closes all spans, so that they are created again.
    fn reset_spans(&mut self, dispatch: &Dispatch) {
        // Each attempt that panics exits at least one span.
        while catch_panic(|| self.spans.exit(dispatch)).is_none() {}
        catch_panic(|| self.spans.close(dispatch));
        catch_panic(|| self.spans = SourceSpans::new(self.source.id));
    }

    fn replay(&mut self, sink: &Sink, frame: &[u8], pace: NoticePace) -> Result<(), Malformed> {
        let record = match Frame::decode(frame)? {
            Frame::Event(record) => record,
            Frame::Drops(dropped) => {
                self.dropped = dropped;
                self.notice_drops(sink, pace);
                return Ok(());
            }
        };
        // Counted before any subscriber or logger is called: the event counts as delivered even if that panics or blocks.
        // A summary is not an event.
        let level = self.callsites.event_level(record.callsite)?;
        let counts = &self.source.counts;
        counts.truncated.add(record.header.truncated.into());
        counts.collapsed.add(record.header.repeats.into());
        match (record.header.repeats, sink) {
            (0, Sink::None) => counts.drop_without_subscriber(level),
            (0, _) => counts.deliver(level),
            _ => {}
        }
        match sink {
            Sink::Subscriber(dispatch) => self.replay_into(dispatch, &record),
            #[cfg(feature = "log")]
            Sink::Logger => super::log_crate::log_event(self.source.id, frame, &self.source.reader),
            Sink::None => record.values.for_each(drop),
        }
    }

    fn replay_into(&mut self, dispatch: &Dispatch, record: &EventRecord<'_>) -> Result<(), Malformed> {
        let unregistered = &self.source.counts.unregistered;
        let resolved = self.callsites.event(record.callsite)?;
        match resolved.registered {
            Some(callsite) => origin::replaying(record, || {
                unregistered.add(self.spans.enter_spans_of(dispatch, record, &mut self.callsites)?);
                event::emit(dispatch, callsite, record)
            }),
            None => {
                unregistered.add(1);
                let metadata = resolved.metadata.to_vec();
                let callsite = CallsiteInfo::decode(&metadata)?;
                origin::replaying(record, || {
                    unregistered.add(self.spans.enter_spans_of(dispatch, record, &mut self.callsites)?);
                    event::emit_unregistered(dispatch, &callsite, record)
                })
            }
        }
    }

    /// Emits a notice of new drops, as far as the counters show them.
    fn notice_counted_drops(&mut self, sink: &Sink, pace: NoticePace) {
        let dropped = self.source.counts.dropped();
        let without_subscriber = self.source.counts.without_subscriber();
        self.dropped = std::array::from_fn(|level| {
            self.dropped[level].max(dropped[level].saturating_sub(without_subscriber[level]))
        });
        self.notice_drops(sink, pace);
    }

    /// Emits a notice of new drops, as far as records have reported them.
    fn notice_drops(&mut self, sink: &Sink, pace: NoticePace) {
        let without_subscriber = self.source.counts.without_subscriber();
        let dropped: [u64; LEVELS] =
            std::array::from_fn(|level| self.dropped[level].saturating_add(without_subscriber[level]));
        let new: [u64; LEVELS] =
            std::array::from_fn(|level| dropped[level].saturating_sub(self.noticed[level]));
        if new == [0; LEVELS] || !self.is_notice_allowed(pace) {
            return;
        }
        match sink {
            Sink::Subscriber(dispatch) => {
                self.noticed = dropped;
                self.noticed_at = Some(Instant::now());
                // Drops belong to the worker, not to the spans of the last replayed event.
                self.spans.exit_inner(dispatch);
                bridge_events::emit_drops(dispatch, self.spans.worker(), new);
            }
            #[cfg(feature = "log")]
            Sink::Logger => {
                self.noticed = dropped;
                self.noticed_at = Some(Instant::now());
                super::log_crate::log_drops(self.source.id, new);
            }
            // A subscriber that is set later receives the notice.
            Sink::None => {}
        }
    }

    fn is_failure_pending(&self) -> bool {
        self.failure == FailureNotice::Pending && self.source.error().is_some()
    }

    /// Emits why the stream was abandoned, once.
    fn notice_failure(&mut self, sink: &Sink) {
        if self.failure == FailureNotice::Emitted {
            return;
        }
        let Some(error) = self.source.error() else { return };
        self.source.counts.mark_corrupt();
        match sink {
            Sink::Subscriber(dispatch) => {
                self.failure = FailureNotice::Emitted;
                self.spans.exit_inner(dispatch);
                bridge_events::emit_failure(dispatch, self.spans.worker(), &error);
            }
            #[cfg(feature = "log")]
            Sink::Logger => {
                self.failure = FailureNotice::Emitted;
                super::log_crate::log_failure(self.source.id, &error);
            }
            // A subscriber that is set later receives the notice.
            Sink::None => {}
        }
    }

    fn is_notice_allowed(&self, pace: NoticePace) -> bool {
        pace == NoticePace::Immediate
            || self
                .noticed_at
                .is_none_or(|at| at.elapsed() >= self.notice_interval)
    }

    fn is_notice_due(&self, pace: NoticePace) -> bool {
        self.source.counts.dropped() != self.noticed && self.is_notice_allowed(pace)
    }

    /// Emits notices of an error and of the last drops, closes all spans and makes the counts final.
    pub(crate) fn finish(mut self, sink: &Sink, sources: &SourceSet) {
        let unread = !self.is_finished();
        if unread {
            // Records that were not read count as dropped.
            sources.retire(&self.source);
            let levels = self.source.counts.tally().levels;
            let without_subscriber = self.source.counts.without_subscriber();
            self.dropped =
                std::array::from_fn(|level| levels[level].dropped.saturating_sub(without_subscriber[level]));
        }
        let last_notices = |stream: &mut Self| {
            // An error that was found while the ring was emptied has not been reported.
            catch_panic(|| stream.notice_failure(sink));
            catch_panic(|| match unread {
                true => stream.notice_drops(sink, NoticePace::Immediate),
                false => stream.notice_counted_drops(sink, NoticePace::Immediate),
            });
        };
        match sink {
            Sink::Subscriber(dispatch) => dispatcher::with_default(dispatch, || {
                catch_panic(|| self.spans.enter(dispatch));
                last_notices(&mut self);
                if catch_panic(|| self.spans.close(dispatch)).is_none() {
                    self.reset_spans(dispatch);
                }
            }),
            _ => last_notices(&mut self),
        }
        sources.retire(&self.source);
    }
}

/// Calls code that may call a subscriber; returns `None` if that panics. The panic hook has reported the panic.
fn catch_panic<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).ok()
}
