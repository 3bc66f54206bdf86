//! The reader's side: a bar's label, total and message, and the writers whose counts it sums.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use shm_buffers::slots::Slots;

use super::counters::Counters;
use super::counts::Counts;
use super::sample::{BarState, PARTS, Sample, SampleKind, SourceId};
use super::slots::{SLOTS, assert_slot_count};
use super::step::StepState;
use super::total::{Total, Unit};
use crate::time::clock::Clock;
use crate::time::finish_time::{FinishTime, Moment};

/// The number of unused slots of dropped counters that a bar keeps for new counters.
const MAX_FREE: usize = 64;

/// A bar: a label, a total, and the sum of any number of writers' counts. Clones are the same bar.
///
/// **What is counted.** A bar sums what its writers count, and keeps the counts of writers that ended. If a writer
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
/// assert_eq!(bar.counts().get(Outcome::Done), 2);
/// ```
#[derive(Debug, Clone)]
pub struct Bar(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    label: String,
    message: String,
    total: Total,
    unit: Unit,
    state: BarState,
    /// The finish times to set, one for each reporter that shows the bar.
    finish_times: Vec<Weak<FinishTime>>,
    sources: BTreeMap<SourceId, Slots>,
    next_source: u64,
    /// Slots of dropped counters, all zero, of which no other code has a copy.
    free: Vec<Slots>,
    lines: Vec<SourceLine>,
    /// The sum of the counts of retired writers.
    retired: Counts,
    /// The largest position so far.
    max_position: u64,
    /// The largest position so far in [`PARTS`], including steps of running tasks.
    max_parts: u128,
}

/// The line of one writer.
#[derive(Debug)]
struct SourceLine {
    /// `None` when the writer is gone and no other has taken the line.
    source: Option<SourceId>,
    label: String,
    message: String,
}

impl Bar {
    /// Returns a bar of tasks without a writer.
    pub fn new(label: impl Into<String>, total: Total) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            label: label.into(),
            message: String::new(),
            total,
            unit: Unit::default(),
            state: BarState::Running,
            finish_times: Vec::new(),
            sources: BTreeMap::new(),
            next_source: 0,
            free: Vec::new(),
            lines: Vec::new(),
            retired: Counts::new(),
            max_position: 0,
            max_parts: 0,
        })))
    }

    /// Sets the counts that move the bar. Default: [`Unit::Tasks`].
    #[must_use]
    pub fn unit(self, unit: Unit) -> Self {
        self.inner().unit = unit;
        self
    }

    /// Adds the counts of the writer of `slots`, including those from before this call.
    ///
    /// The bar keeps the slots' memory alive until the source is retired.
    ///
    /// # Panics
    /// If there are fewer than [`SLOTS`](crate::SLOTS).
    pub fn add_source(&self, slots: Slots) -> Source {
        assert_slot_count(&slots);
        let id = self.inner().add_source(slots);
        self.source(id)
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
        let mut inner = self.inner();
        let id = inner.add_source(slots);
        inner.assign_line(id, label.into());
        drop(inner);
        self.source(id)
    }

    /// Returns counters for one more writer in this process: a thread, or the leader itself.
    ///
    /// When they are dropped, the bar keeps their counts and reuses their memory.
    pub fn counters(&self) -> Counters {
        let mut inner = self.inner();
        let slots = inner.free.pop();
        let slots = slots.unwrap_or_else(|| Slots::in_process(SLOTS));
        let id = inner.add_source(slots.clone());
        drop(inner);
        Counters::for_bar(slots, self.source(id))
    }

    /// Changes the total.
    pub fn set_total(&self, total: Total) {
        self.inner().total = total;
    }

    /// Sets the text after the numbers. An empty message is not shown.
    pub fn set_message(&self, message: impl Into<String>) {
        self.inner().message = message.into();
    }

    /// Returns the exact sum of the counts.
    pub fn counts(&self) -> Counts {
        self.inner().sum()
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
        let mut inner = self.inner();
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
        let mut inner = self.inner();
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
        self.inner().state == BarState::Finished
    }

    pub(crate) fn label(&self) -> String {
        self.inner().label.clone()
    }

    /// Whether both are clones of the same bar.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn sample(&self) -> Sample {
        self.inner().sample()
    }

    fn source(&self, id: SourceId) -> Source {
        Source {
            bar: self.clone(),
            id,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic leaves the state consistent: no change to it can panic halfway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn sum(&self) -> Counts {
        self.sources
            .values()
            .fold(self.retired, |sum, slots| sum.saturating_add(Counts::read(slots)))
    }

    fn add_source(&mut self, slots: Slots) -> SourceId {
        let id = SourceId(self.next_source);
        self.next_source += 1;
        self.sources.insert(id, slots);
        id
    }

    fn assign_line(&mut self, source: SourceId, label: String) {
        let is_free = |line: &&mut SourceLine| line.source.is_none();
        let has_label = |line: &SourceLine| line.source.is_none() && line.label == label;
        let free = match self.lines.iter().position(has_label) {
            Some(index) => self.lines.get_mut(index),
            None => self.lines.iter_mut().find(is_free),
        };
        let line = SourceLine {
            source: Some(source),
            label,
            message: String::new(),
        };
        match free {
            Some(free) => *free = line,
            None => self.lines.push(line),
        }
    }

    fn line_of(&mut self, source: SourceId) -> Option<&mut SourceLine> {
        self.lines.iter_mut().find(|line| line.source == Some(source))
    }

    fn position(&self, counts: Counts) -> u64 {
        match self.unit {
            Unit::Tasks => counts.ended(),
            Unit::Bytes => counts.bytes(),
        }
    }

    /// Returns the finished steps of running tasks, in [`PARTS`]. A bar of bytes has none.
    fn parts_of_running_tasks(&self) -> u128 {
        match self.unit {
            Unit::Bytes => 0,
            Unit::Tasks => {
                let steps = self.sources.values().map(StepState::read);
                let fractions = steps.filter_map(StepState::fraction);
                fractions.map(|fraction| (fraction * PARTS as f64) as u128).sum()
            }
        }
    }

    fn sample(&mut self) -> Sample {
        // Counts are read before steps: a task that ends between the two is missing, instead of counted twice.
        let counts = self.sum();
        let exact = self.position(counts);
        let exact_parts = u128::from(exact) * u128::from(PARTS);
        self.max_position = self.max_position.max(exact);
        self.max_parts = self.max_parts.max(exact_parts + self.parts_of_running_tasks());
        let (position, parts, sources) = match self.state {
            BarState::Running => (self.max_position, self.max_parts, self.sample_sources()),
            BarState::Finished | BarState::Cleared => (exact, exact_parts, Vec::new()),
        };
        Sample {
            label: self.label.clone(),
            message: self.message.clone(),
            total: self.total,
            unit: self.unit,
            state: self.state,
            counts,
            position,
            parts,
            kind: SampleKind::Bar,
            sources,
        }
    }

    /// Returns samples of the writers that have lines.
    fn sample_sources(&self) -> Vec<(SourceId, Sample)> {
        let used = self.lines.iter().filter_map(|line| Some((line, line.source?)));
        let samples = used.filter_map(|(line, id)| {
            let slots = self.sources.get(&id)?;
            let counts = Counts::read(slots);
            let position = self.position(counts);
            let sample = Sample {
                label: line.label.clone(),
                message: line.message.clone(),
                total: Total::Unknown,
                unit: self.unit,
                state: self.state,
                counts,
                position,
                parts: u128::from(position) * u128::from(PARTS),
                kind: SampleKind::Source(StepState::read(slots)),
                sources: Vec::new(),
            };
            Some((id, sample))
        });
        samples.collect()
    }
}

/// One writer of a [`Bar`]. Dropping the source changes nothing: the bar still counts the writer.
#[derive(Debug)]
pub struct Source {
    bar: Bar,
    id: SourceId,
}

impl Source {
    /// Returns the current counts of this writer.
    pub fn counts(&self) -> Counts {
        let inner = self.bar.inner();
        inner.sources.get(&self.id).map_or_else(Counts::new, Counts::read)
    }

    /// Sets the text after the numbers in the line of a [labeled](Bar::add_labeled_source) source. Has no effect on
    /// other sources.
    pub fn set_message(&self, message: impl Into<String>) {
        if let Some(line) = self.bar.inner().line_of(self.id) {
            line.message = message.into();
        }
    }

    /// Removes the writer: the bar keeps its current counts and drops its slots.
    pub fn retire(self) {
        let counts = self.counts();
        self.retire_with(counts);
    }

    /// Removes the writer: the bar keeps `counts` in place of what the writer counted, and drops its slots. For a
    /// supervisor that knows which tasks of a dead worker will be done again.
    pub fn retire_with(self, counts: Counts) {
        let mut inner = self.bar.inner();
        inner.sources.remove(&self.id);
        if let Some(line) = inner.line_of(self.id) {
            line.source = None;
        }
        inner.retired = inner.retired.saturating_add(counts);
    }

    /// Removes the writer of `slots`, of which no other code has a copy: the bar keeps its counts, and its slots for
    /// the next writer.
    ///
    /// The lock is held from the removal to the addition, as it is while a sum is read, so a sum has each count once.
    pub(super) fn recycle(&self, slots: &Slots) {
        let mut inner = self.bar.inner();
        if inner.sources.remove(&self.id).is_none() {
            return;
        }
        inner.retired = inner.retired.saturating_add(Counts::read(slots));
        if inner.free.len() < MAX_FREE {
            (0..slots.len()).for_each(|index| slots.slot(index).set(0));
            inner.free.push(slots.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outcome::{Done, Failed};

    #[test]
    fn counts_of_several_threads_sum_exactly() {
        let bar = Bar::new("threads", Total::Unknown);
        std::thread::scope(|scope| {
            for n in 1..=4_u64 {
                let counters = bar.counters();
                scope.spawn(move || {
                    for _ in 0..n * 10_000 {
                        counters.counter(Done).inc();
                    }
                    counters.counter(Failed).add(n);
                });
            }
        });
        assert_eq!(bar.counts(), Counts::new().with(Done, 100_000).with(Failed, 10));
    }

    #[test]
    fn dropped_counters_keep_their_counts_and_use_no_memory() {
        let bar = Bar::new("many", Total::Unknown);
        for _ in 0..300_000 {
            bar.counters().counter(Done).inc();
        }
        assert_eq!(bar.counts().ended(), 300_000);
        let inner = bar.inner();
        assert_eq!((inner.sources.len(), inner.free.len()), (0, 1));
    }

    #[test]
    fn slots_are_zeroed_before_reuse_and_not_reused_if_shared() {
        let bar = Bar::new("reuse", Total::Unknown);
        let other = Bar::new("other", Total::Unknown);
        let counters = bar.counters();
        let _source = other.add_source(counters.slots());
        counters.counter(Done).add(3);
        drop(counters);
        assert!(bar.inner().free.is_empty());
        let counters = bar.counters();
        counters.counter(Failed).inc();
        counters.bytes().add(7);
        counters.step(1, Total::Known(2));
        drop(counters);
        let again = bar.counters();
        assert!(bar.inner().free.is_empty(), "reused");
        assert_eq!(Counts::read(&again.slots()), Counts::new());
        assert_eq!(StepState::read(&again.slots()), StepState::NeverReported);
        again.counter(Done).inc();
        assert_eq!(
            bar.counts(),
            Counts::new().with(Done, 4).with(Failed, 1).with_bytes(7)
        );
        assert_eq!(other.counts().ended(), 3);
        let live: Vec<Counters> = (0..2 * MAX_FREE).map(|_| bar.counters()).collect();
        drop(live);
        assert_eq!(bar.inner().free.len(), MAX_FREE);
    }

    #[test]
    fn sum_never_decreases_while_counters_are_made_and_dropped() {
        const THREADS: u64 = 4;
        const ROUNDS: u64 = if cfg!(debug_assertions) { 3_000 } else { 30_000 };
        let bar = Bar::new("stress", Total::Unknown);
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..THREADS)
                .map(|_| {
                    scope.spawn(|| {
                        for round in 0..ROUNDS {
                            let counters = bar.counters();
                            (0..round % 5).for_each(|_| counters.counter(Done).inc());
                            if round % 7 == 0 {
                                // They are dropped in another thread, and a new writer may get their slots.
                                std::thread::scope(|scope| {
                                    scope.spawn(move || drop(counters));
                                });
                            }
                        }
                    })
                })
                .collect();
            let mut last = 0;
            while !writers.iter().all(|writer| writer.is_finished()) {
                let now = bar.counts().ended();
                assert!(now >= last, "{now} after {last}");
                last = now;
            }
        });
        assert_eq!(
            bar.counts().ended(),
            THREADS * (0..ROUNDS).map(|round| round % 5).sum::<u64>()
        );
        assert!(bar.inner().sources.is_empty());
    }

    #[test]
    fn bar_reads_slots_in_a_shared_region() {
        let mut layout = shm_buffers::Layout::new();
        let spans = [layout.slots(crate::SLOTS), layout.slots(crate::SLOTS)];
        let region = shm_buffers::Region::on_heap(layout.byte_len());
        let bar = Bar::new("workers", Total::Known(10));
        for (n, span) in (1..).zip(spans) {
            bar.add_source(Slots::new(&region, span));
            Counters::new(Slots::new(&region, span)).counter(Done).add(n);
        }
        assert_eq!(bar.counts().ended(), 3);
    }

    #[test]
    fn retired_writer_keeps_its_counts_and_frees_its_slots() {
        let bar = Bar::new("retire", Total::Known(10));
        let counters = Counters::in_process();
        let source = bar.add_source(counters.slots());
        counters.counter(Done).add(4);
        source.retire();
        counters.counter(Done).add(100);
        assert_eq!(bar.counts().ended(), 4);
        assert!(bar.inner().sources.is_empty());
    }

    #[test]
    fn lower_counts_of_a_retired_writer_do_not_move_the_bar_back() {
        let bar = Bar::new("retire with", Total::Known(10));
        let dead = Counters::in_process();
        let source = bar.add_source(dead.slots());
        dead.counter(Done).add(6);
        assert_eq!(bar.sample().position, 6);

        // The results of two of its tasks were lost with it.
        source.retire_with(Counts::new().with(Done, 4));
        assert_eq!(bar.sample().position, 6);
        assert_eq!(bar.counts().ended(), 4);

        let replacement = bar.counters();
        replacement.counter(Done).add(1);
        assert_eq!(bar.sample().position, 6);
        replacement.counter(Done).add(5);
        assert_eq!(bar.sample().position, 10);
    }

    #[test]
    fn last_position_is_the_exact_sum() {
        let bar = Bar::new("exact", Total::Known(10));
        let dead = Counters::in_process();
        let source = bar.add_source(dead.slots());
        dead.counter(Done).add(6);
        let _ = bar.sample();
        source.retire_with(Counts::new().with(Done, 4));
        bar.finish();
        assert_eq!(bar.sample().position, 4);
    }

    #[test]
    fn bytes_move_a_bar_with_the_unit_bytes() {
        let bar = Bar::new("load", Total::Known(100)).unit(Unit::Bytes);
        let counters = bar.counters();
        counters.counter(Done).inc();
        counters.bytes().add(70);
        assert_eq!(bar.sample().position, 70);
    }

    #[test]
    fn clearing_a_finished_bar_has_no_effect() {
        let bar = Bar::new("end", Total::Unknown);
        bar.finish();
        bar.finish_and_clear();
        assert_eq!(bar.sample().state, BarState::Finished);
    }
}
