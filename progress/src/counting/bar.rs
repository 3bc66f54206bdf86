//! The reader's side: a bar's label, total and message, and the writers whose counts it sums.

use std::sync::{Arc, Weak};
use std::time::Instant;

use shm_buffers::slots::Slots;

use super::counters::Counters;
use super::counts::{Counts, Outcome};
use super::sample::{BarState, Sample};
use super::shared::SharedBar;
use super::slots::assert_slot_count;
use super::source::{Registration, Source};
use super::total::{Total, Unit};
use crate::time::clock::Clock;
use crate::time::finish_time::{FinishTime, Moment};

/// A bar: a label, a total, and the sum of any number of writers' counts. Clones are the same bar.
///
/// **What is counted.** A bar sums what threads add to it ([`inc`](Self::inc)) and what its writers count: threads with
/// [`counters`](Self::counters), and processes with a handle ([`remote_counters`](Self::remote_counters)). It keeps the
/// counts of writers that ended. If a writer
/// dies, it may have counted a task whose result was lost; the task is then done and counted again. A supervisor that
/// knows the correct counts passes them to [`Source::retire_with`]. Or the supervisor itself counts, with
/// [`counters`](Self::counters), when it receives a result. In either case the drawn position never decreases while the
/// bar runs; after [`finish`](Self::finish), the last position is the exact sum.
///
/// **Running tasks.** Steps that writers report with [`Counters::step`] move the bar, its percentage and its ETA, but
/// not the number of tasks: `2/8 (31.3 %)` is two and a half tasks. A writer that was added with
/// [`add_labeled_source`](Self::add_labeled_source) has its own line, whose bar is the running task.
///
/// ```
/// use progress::{Bar, Outcome, Total};
/// let bar = Bar::new("recommend", Total::Known(3));
/// let counters = bar.counters();
/// std::thread::spawn(move || counters.counter(Outcome::Done).add(2)).join().unwrap();
/// assert_eq!(bar.counts().done, 2);
/// ```
#[derive(Debug, Clone)]
pub struct Bar(Arc<SharedBar>);

impl Bar {
    /// Returns a bar of tasks without a writer.
    pub fn new(label: impl Into<String>, total: Total) -> Self {
        Self(Arc::new(SharedBar::new(label.into(), total)))
    }

    /// Sets the counts that move the bar. Default: [`Unit::Tasks`].
    #[must_use]
    pub fn unit(self, unit: Unit) -> Self {
        self.0.inner().unit = unit;
        self
    }

    /// Adds the counts of the writer of `slots`, including those from before this call.
    ///
    /// The bar keeps the slots' memory alive until the source is retired, or detached ([`Source`]) and its counters are
    /// dropped.
    ///
    /// # Panics
    /// If there are fewer than [`SLOTS`](crate::SLOTS).
    pub fn add_source(&self, slots: Slots) -> Source {
        assert_slot_count(&slots);
        self.add_writer(None, slots, None)
    }

    /// Adds the counts of the writer of `slots`, as [`add_source`](Self::add_source) does, and shows the writer in a
    /// line of its own below the bar: its counts and how far it is in its task. The line disappears when the source is
    /// retired or the bar ends.
    ///
    /// The next labeled source takes the line of a retired one, preferably of one with the same label, so that lines
    /// keep their places while workers are replaced.
    ///
    /// ```
    /// use progress::{Bar, Counters, Outcome, Total};
    /// let bar = Bar::new("recommend", Total::Known(200));
    /// for worker in 0..2 {
    ///     let counters = Counters::in_process();
    ///     let source = bar.add_labeled_source(format!("worker {worker}"), counters.slots());
    ///     std::thread::spawn(move || {
    ///         counters.counter(Outcome::Done).add(100);
    ///         source.retire();
    ///     });
    /// }
    /// ```
    ///
    /// # Panics
    /// If there are fewer slots than [`SLOTS`](crate::SLOTS).
    pub fn add_labeled_source(&self, label: impl Into<String>, slots: Slots) -> Source {
        assert_slot_count(&slots);
        self.add_writer(Some(label.into()), slots, None)
    }

    /// Counts one task, or attempt, with this `outcome`. Any thread may call it, also through a shared reference.
    ///
    /// This is one atomic addition. There is a place to add to for each core, so that threads rarely disturb one
    /// another. In the benchmark `count`, it takes about as long as a relaxed addition to a variable that no other
    /// thread uses, a sixth of `ProgressBar::inc` of indicatif, and ten times as long as
    /// [`Counter::inc`](crate::Counter::inc): for tasks of less than a tenth of a microsecond, take
    /// [`counters`](Self::counters).
    ///
    /// ```
    /// use progress::{Bar, Outcome, Total};
    /// use rayon::prelude::*;
    ///
    /// let bar = Bar::new("square", Total::Known(1000));
    /// let squares: Vec<u64> = (0..1000_u64).into_par_iter().map(|n| {
    ///     bar.inc(Outcome::Done);
    ///     n * n
    /// }).collect();
    /// assert_eq!(bar.counts().done, 1000);
    /// # assert_eq!(squares.len(), 1000);
    /// ```
    #[inline]
    pub fn inc(&self, outcome: Outcome) {
        self.0.shards.add(outcome, 1);
    }

    /// Counts `n` tasks, or attempts, with this `outcome`, as [`inc`](Self::inc) does.
    #[inline]
    pub fn add(&self, outcome: Outcome, n: u64) {
        self.0.shards.add(outcome, n);
    }

    /// Counts `n` bytes, as [`inc`](Self::inc) does: the position of a bar with [`Unit::Bytes`], additional information
    /// in the text of others.
    #[inline]
    pub fn add_bytes(&self, n: u64) {
        self.0.shards.add_bytes(n);
    }

    /// Returns counters for one more writer in this process: a thread, or the leader itself.
    ///
    /// When they are dropped, the bar keeps their counts and reuses their memory. In a loop of rayon, each piece of the
    /// loop takes its own counters. Then counting a task is a load and a store:
    ///
    /// ```
    /// use progress::{Bar, Outcome, Total};
    /// use rayon::prelude::*;
    ///
    /// let bar = Bar::new("index", Total::Known(1000));
    /// (0..1000).into_par_iter().for_each_init(
    ///     || bar.counters(),
    ///     |counters, _document| {
    ///         // index the document
    ///         counters.counter(Outcome::Done).inc();
    ///     },
    /// );
    /// assert_eq!(bar.counts().done, 1000);
    /// ```
    ///
    /// Threads cannot share counters. Where they share one value, they count on the bar itself, with
    /// [`inc`](Self::inc).
    pub fn counters(&self) -> Counters {
        let (id, slots) = self.0.inner().writers.add_in_process();
        Counters::of_bar(slots, Registration::new(&self.0, id))
    }

    /// Changes the total.
    pub fn set_total(&self, total: Total) {
        self.0.inner().total = total;
    }

    /// Sets the text after the numbers. An empty message is not shown.
    pub fn set_message(&self, message: impl Into<String>) {
        self.0.inner().message = message.into();
    }

    /// Returns the exact sum of the counts.
    pub fn counts(&self) -> Counts {
        self.0.sum()
    }

    /// Ends the bar now: its last line is drawn once and stays. The time in that line ends with this call, even if the
    /// line is drawn later.
    pub fn finish(&self) {
        self.end(BarState::Finished, Moment::Now);
    }

    /// Ends the bar as [`finish`](Self::finish) does, for work that ended earlier.
    ///
    /// ```
    /// # let bar = progress::Bar::new("recommend", progress::Total::Unknown);
    /// // the last task is done
    /// let ended = std::time::Instant::now();
    /// // outputs are written
    /// bar.finish_at(ended);
    /// ```
    pub fn finish_at(&self, ended: Instant) {
        self.end(BarState::Finished, Moment::At(ended));
    }

    /// Ends the bar without a last line.
    pub fn finish_and_clear(&self) {
        self.end(BarState::Cleared, Moment::Now);
    }

    fn end(&self, state: BarState, moment: Moment) {
        let mut inner = self.0.inner();
        if inner.state == BarState::Running {
            inner.state = state;
            let times = std::mem::take(&mut inner.finish_times);
            times
                .iter()
                .filter_map(Weak::upgrade)
                .for_each(|time| time.record(moment));
        }
    }

    /// Returns the bar's finish time by the clock of a reporter that starts to show the bar.
    pub(crate) fn finish_time(&self, clock: &Arc<Clock>) -> Arc<FinishTime> {
        let time = FinishTime::new(clock);
        let mut inner = self.0.inner();
        match inner.state {
            BarState::Running => {
                inner.finish_times.retain(|time| time.strong_count() > 0);
                inner.finish_times.push(Arc::downgrade(&time));
            }
            BarState::Finished | BarState::Cleared => time.record(Moment::Now),
        }
        time
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.0.inner().state == BarState::Finished
    }

    pub(crate) fn label(&self) -> String {
        self.0.inner().label.clone()
    }

    /// Whether both are clones of the same bar.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn sample(&self) -> Sample {
        self.0.sample()
    }

    /// Adds a writer, with a line of its own if it has a label. `remote` are its slots if it connects by a handle.
    pub(super) fn add_writer(&self, label: Option<String>, slots: Slots, remote: Option<Slots>) -> Source {
        let mut inner = self.0.inner();
        let id = match label {
            Some(label) => inner.writers.add_labeled(label, slots),
            None => inner.writers.add(slots),
        };
        drop(inner);
        Source::new(Registration::new(&self.0, id), remote)
    }

    /// Returns the number of writers, unused slots and lines that the bar keeps in memory.
    #[cfg(test)]
    pub(super) fn kept(&self) -> (usize, usize, usize) {
        self.0.inner().writers.kept()
    }
}

#[cfg(test)]
mod tests;
