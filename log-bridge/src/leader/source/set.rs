//! All sources of a collector, shared by the collector and its handle.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::state::SourceState;
use crate::filter::Filter;
use crate::filter::update::FilterUpdate;
use crate::leader::tally::Tally;

/// The sources of a collector. Its locks are never held while a subscriber or logger runs.
#[derive(Debug, Default)]
pub(crate) struct SourceSet {
    inner: Mutex<Inner>,
    /// How often a source was added.
    added: AtomicU64,
    /// Records are on their way from a ring to the subscriber.
    replaying: AtomicBool,
    abandoned: AtomicBool,
}

#[derive(Debug, Default)]
struct Inner {
    open: Vec<Arc<SourceState>>,
    /// The counts of the sources that are not open any more.
    retired: Tally,
    /// The filter that new sources get.
    filter: Option<FilterUpdate>,
    /// How often a filter was sent.
    sent: u64,
    /// The current filter that was sent last, if workers follow the subscribers.
    followed: Option<Filter>,
}

impl SourceSet {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a source, and ends an older source that has the same id.
    pub(crate) fn add(&self, source: SourceState) {
        let mut inner = self.inner();
        if let Some(filter) = &inner.filter {
            source.send_filter(filter);
        }
        self.push(&mut inner, source);
    }

    /// As [`add`](Self::add), for a source whose worker starts with a filter that was chosen when
    /// [`filter_of_new_source`](Self::filter_of_new_source) returned `sent`.
    pub(crate) fn add_with_filter(&self, source: SourceState, sent: u64) {
        let mut inner = self.inner();
        if let Some(filter) = inner.filter.as_ref().filter(|_| inner.sent != sent) {
            source.send_filter(filter);
        }
        self.push(&mut inner, source);
    }

    /// Returns the filter that the worker of a new source starts with, and how often a filter was sent up to now.
    pub(crate) fn filter_of_new_source(&self) -> (Filter, u64) {
        let inner = self.inner();
        let sent = inner.filter.as_ref().map(FilterUpdate::filter);
        let filter = inner.followed.as_ref().or(sent).cloned();
        (filter.unwrap_or_else(Filter::current), inner.sent)
    }

    fn push(&self, inner: &mut Inner, source: SourceState) {
        for older in inner.open.iter().filter(|older| older.id == source.id) {
            older.end();
        }
        inner.open.push(Arc::new(source));
        self.added.fetch_add(1, Ordering::Release);
    }

    /// Returns how many sources were added up to now.
    pub(crate) fn added(&self) -> u64 {
        self.added.load(Ordering::Acquire)
    }

    pub(crate) fn open(&self) -> Vec<Arc<SourceState>> {
        self.inner().open.clone()
    }

    /// Returns the source with that id which has not ended.
    pub(crate) fn find(&self, id: u64) -> Option<Arc<SourceState>> {
        let inner = self.inner();
        let mut open = inner.open.iter();
        open.find(|source| source.id == id && !source.has_ended())
            .cloned()
    }

    /// Removes a source whose replay is complete, and keeps its final counts.
    pub(crate) fn retire(&self, source: &Arc<SourceState>) {
        let mut inner = self.inner();
        source.counts.finalize();
        if let Some(index) = inner.open.iter().position(|open| Arc::ptr_eq(open, source)) {
            inner.open.remove(index);
            inner.retired += &source.counts.tally();
        }
    }

    /// Returns the counts of all sources, including the removed ones.
    pub(crate) fn tally(&self) -> Tally {
        self.inner().tally()
    }

    /// As [`tally`](Self::tally); returns `None` instead of waiting for the lock.
    pub(crate) fn try_tally(&self) -> Option<Tally> {
        self.inner.try_lock().ok().map(|inner| inner.tally())
    }

    /// Sends all workers a filter, instead of following the subscribers.
    pub(crate) fn set_filter(&self, filter: FilterUpdate) {
        let mut inner = self.inner();
        inner.followed = None;
        inner.send_filter(filter);
    }

    /// Makes workers follow the subscribers from now on.
    pub(crate) fn follow_subscribers(&self) {
        self.inner().followed = Some(Filter::current());
    }

    /// Sends workers that follow the subscribers the current filter, if it has changed.
    pub(crate) fn update_followed(&self) {
        let mut inner = self.inner();
        let current = Filter::current();
        if inner
            .followed
            .as_ref()
            .is_some_and(|followed| *followed != current)
            && let Ok(update) = FilterUpdate::new(&current)
        {
            inner.send_filter(update);
            inner.followed = Some(current);
        }
    }

    /// Marks a replay as in progress until the guard is dropped. Records may be taken out of rings only during a replay.
    pub(crate) fn begin_replay(&self) -> ReplayGuard<'_> {
        self.replaying.store(true, Ordering::SeqCst);
        ReplayGuard(self)
    }

    /// Returns whether every record that was readable at the time of the call was replayed.
    pub(crate) fn is_idle(&self) -> bool {
        // A record that was taken before this looks into its ring was taken during a replay, which this sees.
        let empty = self.inner().open.iter().all(|source| source.is_empty());
        empty && !self.replaying.load(Ordering::SeqCst)
    }

    /// Stops all replay: waiting events are dropped.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::SeqCst);
        let mut inner = self.inner();
        for source in std::mem::take(&mut inner.open) {
            source.close();
            source.counts.finalize();
            inner.retired += &source.counts.tally();
        }
    }

    #[inline]
    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }
}

impl Inner {
    fn tally(&self) -> Tally {
        let mut tally = self.retired.clone();
        for source in &self.open {
            tally += &source.counts.tally();
        }
        tally
    }

    fn send_filter(&mut self, filter: FilterUpdate) {
        for source in &self.open {
            source.send_filter(&filter);
        }
        self.filter = Some(filter);
        self.sent += 1;
    }
}

/// Ends a replay when it is dropped.
pub(crate) struct ReplayGuard<'a>(&'a SourceSet);

impl Drop for ReplayGuard<'_> {
    fn drop(&mut self) {
        self.0.replaying.store(false, Ordering::SeqCst);
    }
}
