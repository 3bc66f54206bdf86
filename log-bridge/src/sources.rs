//! All sources of a collector, as its thread and its handle share them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shm_buffers::ring::Consumer;
use shm_buffers::slots::Slots;

use crate::account::Account;
use crate::filter::Filter;
use crate::intake::{Batch, Intake, SourceError};
use crate::pushed::Pushable;
use crate::tally::{Counters, Tally};

/// One source, but for its replay.
#[derive(Debug)]
pub(crate) struct Inlet {
    pub(crate) id: u64,
    pub(crate) account: Account,
    pub(crate) intake: Arc<Mutex<Intake>>,
    slots: Slots,
}

impl Inlet {
    pub(crate) fn new(id: u64, consumer: Consumer, slots: Slots, counters: Counters, keep: usize) -> Self {
        Self {
            id,
            account: Account::new(counters),
            intake: Arc::new(Mutex::new(Intake::new(consumer, keep))),
            slots,
        }
    }

    fn intake(&self) -> MutexGuard<'_, Intake> {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn fill(&self, batch: &mut Batch) {
        self.intake().fill(batch);
    }

    pub(crate) fn is_dry(&self) -> bool {
        self.intake().is_dry()
    }

    pub(crate) fn fail(&self, error: SourceError) {
        self.intake().fail(error);
    }

    pub(crate) fn error(&self) -> Option<SourceError> {
        self.intake().error().cloned()
    }

    /// The worker writes no more.
    pub(crate) fn end(&self) {
        self.intake().end();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.intake().has_ended()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.intake().lines()
    }
}

/// What collector and handle both look at. Its locks are never held while code of others runs.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    inner: Mutex<Inner>,
    /// How often a source was added.
    added: AtomicU64,
    /// Records are on their way from a ring to the subscriber.
    replaying: AtomicBool,
    abandoned: AtomicBool,
}

#[derive(Debug, Default)]
struct Inner {
    open: Vec<Arc<Inlet>>,
    departed: Tally,
    filter: Option<Pushable>,
    /// The filter that workers were given last, if it follows what subscribers want.
    followed: Option<Filter>,
}

impl Sources {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a source; the one before it with the same id ends.
    pub(crate) fn add(&self, inlet: Inlet) {
        let mut inner = self.inner();
        for before in inner.open.iter().filter(|before| before.id == inlet.id) {
            before.end();
        }
        if let Some(filter) = &inner.filter {
            filter.write(&inlet.slots);
        }
        inner.open.push(Arc::new(inlet));
        self.added.fetch_add(1, Ordering::Release);
    }

    /// How many sources were added up to now.
    pub(crate) fn added(&self) -> u64 {
        self.added.load(Ordering::Acquire)
    }

    pub(crate) fn open(&self) -> Vec<Arc<Inlet>> {
        self.inner().open.clone()
    }

    /// The source with that id that has not ended.
    pub(crate) fn find(&self, id: u64) -> Option<Arc<Inlet>> {
        let inner = self.inner();
        let mut open = inner.open.iter();
        open.find(|inlet| inlet.id == id && !inlet.has_ended()).cloned()
    }

    /// Takes the final counts of a source whose replay is over.
    pub(crate) fn retire(&self, inlet: &Arc<Inlet>) {
        let mut inner = self.inner();
        inlet.account.settle();
        if let Some(index) = inner.open.iter().position(|open| Arc::ptr_eq(open, inlet)) {
            inner.open.remove(index);
            inner.departed += &inlet.account.tally();
        }
    }

    /// The counts of all, now.
    pub(crate) fn tally(&self) -> Tally {
        self.inner().tally()
    }

    /// The counts of all, unless the lock is held.
    pub(crate) fn try_tally(&self) -> Option<Tally> {
        self.inner.try_lock().ok().map(|inner| inner.tally())
    }

    pub(crate) fn push_filter(&self, filter: Pushable) {
        let mut inner = self.inner();
        inner.followed = None;
        inner.push(filter);
    }

    /// From now on workers get what subscribers want.
    pub(crate) fn follow(&self) {
        self.inner().followed = Some(Filter::wanted());
    }

    /// Sends workers what subscribers want, if that is something else by now.
    pub(crate) fn follow_up(&self) {
        let mut inner = self.inner();
        let wanted = Filter::wanted();
        if inner
            .followed
            .as_ref()
            .is_some_and(|followed| *followed != wanted)
            && let Ok(pushable) = Pushable::new(&wanted)
        {
            inner.push(pushable);
            inner.followed = Some(wanted);
        }
    }

    /// Marks the time during which records may be in a replay; every ring is looked at after the begin.
    pub(crate) fn replaying(&self) -> Replaying<'_> {
        self.replaying.store(true, Ordering::SeqCst);
        Replaying(self)
    }

    /// Whether everything that was readable when this was called was replayed.
    pub(crate) fn is_idle(&self) -> bool {
        // A record that was taken before we looked into its ring was taken during a replay that we see.
        let dry = self.inner().open.iter().all(|inlet| inlet.is_dry());
        dry && !self.replaying.load(Ordering::SeqCst)
    }

    /// No more records are replayed: what waits is dropped.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::SeqCst);
        let mut inner = self.inner();
        for inlet in std::mem::take(&mut inner.open) {
            inlet.account.settle();
            inner.departed += &inlet.account.tally();
        }
    }

    #[inline]
    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }
}

impl Inner {
    fn tally(&self) -> Tally {
        let mut tally = self.departed.clone();
        for inlet in &self.open {
            tally += &inlet.account.tally();
        }
        tally
    }

    fn push(&mut self, filter: Pushable) {
        for inlet in &self.open {
            filter.write(&inlet.slots);
        }
        self.filter = Some(filter);
    }
}

/// Ends the time of a replay.
pub(crate) struct Replaying<'a>(&'a Sources);

impl Drop for Replaying<'_> {
    fn drop(&mut self) {
        self.0.replaying.store(false, Ordering::SeqCst);
    }
}
