//! The reading side: what a bar is called, how far it goes, and whose counts it sums.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use shm_buffers::slots::Slots;

use crate::clock::Clock;
use crate::counter::{Counters, Counts, Steps, assert_enough};
use crate::end::{End, When};

/// How far a bar goes, in its [`Unit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Total {
    /// So many.
    Known(u64),
    /// Nobody knows (yet).
    #[default]
    Unknown,
}

impl Total {
    pub(crate) fn known(self) -> Option<u64> {
        match self {
            Self::Known(n) => Some(n),
            Self::Unknown => None,
        }
    }
}

impl From<u64> for Total {
    fn from(n: u64) -> Self {
        Self::Known(n)
    }
}

impl From<Option<u64>> for Total {
    fn from(n: Option<u64>) -> Self {
        n.map_or(Self::Unknown, Self::Known)
    }
}

/// What moves a bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Unit {
    /// Tasks that ended, done or failed.
    #[default]
    Tasks,
    /// Bytes, shown in powers of 1024.
    Bytes,
}

/// A bar: a label, a total, and the sum of any number of writers' counts. Clones are the same bar.
///
/// **What it counts.** Counts are what writers wrote; a writer that ended keeps them. A writer that died may have
/// counted a task whose result was lost, and the task is then done and counted again. Whoever supervises writers
/// knows better, and says so with [`Source::settle`]. Or the supervisor counts itself, with
/// [`counters`](Self::counters), when it accounts for a task. Either way the position that is drawn never goes back
/// while the bar runs; the last one, after [`finish`](Self::finish), is the exact sum.
///
/// **Running tasks.** What writers tell of them with [`Counters::step`] moves the bar, its percentage and its ETA, and
/// not the number of tasks: `2/8 (31.3 %)` is two tasks done and a half. A writer of [`add_row`](Self::add_row) has a
/// line of its own in which the running task is the bar.
///
/// ```
/// use progress::{Bar, Outcome, Total};
/// let bar = Bar::new("recommend", Total::Known(3));
/// let counters = bar.counters();
/// std::thread::spawn(move || counters.counter(Outcome::Done).add(2)).join().unwrap();
/// assert_eq!(bar.counts().get(Outcome::Done), 2);
/// ```
#[derive(Debug, Clone)]
pub struct Bar(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    label: String,
    message: String,
    total: Total,
    unit: Unit,
    life: Life,
    /// Where it is shown, and when it ended there.
    ends: Vec<Weak<End>>,
    sources: BTreeMap<u64, Slots>,
    next_source: u64,
    /// Slots of dropped counters, all zero, which no other code has.
    free: Vec<Slots>,
    rows: Vec<Row>,
    /// What writers that are gone had counted.
    settled: Counts,
    /// The furthest position seen.
    furthest: u64,
    /// The same with running tasks.
    furthest_parts: u128,
}

/// How many slots of dropped counters are kept for others.
const KEPT: usize = 64;

/// A line of one writer's own.
#[derive(Debug)]
struct Row {
    /// Whose; `None` when it is gone and no other came yet.
    source: Option<u64>,
    label: String,
    message: String,
}

/// A task has so many parts in [`Sample::parts`].
pub(crate) const PARTS: u64 = 1 << 20;

/// Whether a bar is to be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Running,
    Finished,
    Dismissed,
}

/// A bar at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) label: String,
    pub(crate) message: String,
    pub(crate) total: Total,
    pub(crate) unit: Unit,
    pub(crate) life: Life,
    pub(crate) counts: Counts,
    pub(crate) position: u64,
    /// The position with what is done of running tasks, in [`PARTS`].
    pub(crate) parts: u128,
    pub(crate) role: Role,
    /// Writers with a line of their own, by the numbers of their sources.
    pub(crate) rows: Vec<(u64, Sample)>,
}

/// Whose numbers a [`Sample`] has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A bar's.
    Bar,
    /// One writer's, and how far it is in its task.
    Writer(Steps),
}

impl Bar {
    /// A bar of tasks, with no writer yet.
    pub fn new(label: impl Into<String>, total: Total) -> Self {
        Self(Arc::new(Mutex::new(State {
            label: label.into(),
            message: String::new(),
            total,
            unit: Unit::default(),
            life: Life::Running,
            ends: Vec::new(),
            sources: BTreeMap::new(),
            next_source: 0,
            free: Vec::new(),
            rows: Vec::new(),
            settled: Counts::new(),
            furthest: 0,
            furthest_parts: 0,
        })))
    }

    /// Moved by `unit` instead of tasks.
    pub fn unit(self, unit: Unit) -> Self {
        self.state().unit = unit;
        self
    }

    /// Adds what the writer of `slots` counts, and has counted so far.
    ///
    /// The bar keeps the slots' memory alive until the source is retired or settled.
    ///
    /// # Panics
    /// If there are fewer than [`SLOTS`](crate::SLOTS).
    pub fn add_source(&self, slots: Slots) -> Source {
        assert_enough(&slots);
        let id = self.state().add_source(slots);
        Source {
            bar: self.clone(),
            id,
        }
    }

    /// As [`add_source`](Self::add_source), and shows this writer's numbers in a line of its own below the bar's, as
    /// long as both are there: what it did, how fast, and how far it is in its task.
    ///
    /// When a writer is gone, the next one takes its line over, the one of the same label if there is, so that lines
    /// keep their places while workers are replaced.
    ///
    /// ```
    /// use progress::{Bar, Counters, Outcome, Total};
    /// let bar = Bar::new("recommend", Total::Known(200));
    /// for worker in 0..2 {
    ///     let counters = Counters::in_process();
    ///     let source = bar.add_row(format!("worker {worker}"), counters.slots());
    ///     std::thread::spawn(move || {
    ///         counters.counter(Outcome::Done).add(100);
    ///         source.retire();
    ///     });
    /// }
    /// ```
    ///
    /// # Panics
    /// If there are fewer slots than [`SLOTS`](crate::SLOTS).
    pub fn add_row(&self, label: impl Into<String>, slots: Slots) -> Source {
        assert_enough(&slots);
        let mut state = self.state();
        let id = state.add_source(slots);
        state.give_row(id, label.into());
        drop(state);
        Source {
            bar: self.clone(),
            id,
        }
    }

    /// Returns counters of this process for one more writer: a thread, or the leader itself.
    ///
    /// When they are dropped, the bar keeps what they counted, and their memory is used again.
    pub fn counters(&self) -> Counters {
        let mut state = self.state();
        let slots = state.free.pop();
        let slots = slots.unwrap_or_else(|| Slots::in_process(crate::SLOTS));
        let id = state.add_source(slots.clone());
        drop(state);
        let source = Source {
            bar: self.clone(),
            id,
        };
        Counters::of_bar(slots, source)
    }

    /// Changes the total.
    pub fn set_total(&self, total: Total) {
        self.state().total = total;
    }

    /// What is said after the numbers; empty for nothing.
    pub fn set_message(&self, message: impl Into<String>) {
        self.state().message = message.into();
    }

    /// The exact sum of what was counted, now.
    pub fn counts(&self) -> Counts {
        self.state().sum()
    }

    /// Ends the bar: its last line is drawn once and stays, and it is drawn no more. Its time ends here, whenever the line
    /// is drawn.
    pub fn finish(&self) {
        self.end(Life::Finished, When::Now);
    }

    /// As [`finish`](Self::finish), where the work ended earlier than now.
    ///
    /// ```
    /// # let bar = progress::Bar::new("recommend", progress::Total::Unknown);
    /// // the last task is done
    /// let ended = std::time::Instant::now();
    /// // outputs are written
    /// bar.finish_at(ended);
    /// ```
    pub fn finish_at(&self, ended: Instant) {
        self.end(Life::Finished, When::At(ended));
    }

    /// Ends the bar without a trace: it is drawn no more, and no last line either.
    pub fn dismiss(&self) {
        self.end(Life::Dismissed, When::Now);
    }

    fn end(&self, life: Life, when: When) {
        let mut state = self.state();
        if state.life == Life::Running {
            state.life = life;
            let ends = std::mem::take(&mut state.ends);
            ends.iter()
                .filter_map(Weak::upgrade)
                .for_each(|end| end.stamp(when));
        }
    }

    /// The bar is shown by a reporter with this clock, from now on.
    pub(crate) fn show(&self, clock: &Arc<Clock>) -> Arc<End> {
        let end = End::new(clock);
        let mut state = self.state();
        match state.life {
            Life::Running => {
                state.ends.retain(|end| end.strong_count() > 0);
                state.ends.push(Arc::downgrade(&end));
            }
            Life::Finished | Life::Dismissed => end.stamp(When::Now),
        }
        end
    }

    pub(crate) fn has_finished(&self) -> bool {
        self.state().life == Life::Finished
    }

    pub(crate) fn label(&self) -> String {
        self.state().label.clone()
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn sample(&self) -> Sample {
        self.state().sample()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No change can panic halfway: what a panicking holder left is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn sum(&self) -> Counts {
        self.sources
            .values()
            .fold(self.settled, |sum, slots| sum.plus(Counts::read(slots)))
    }

    fn add_source(&mut self, slots: Slots) -> u64 {
        let id = self.next_source;
        self.next_source += 1;
        self.sources.insert(id, slots);
        id
    }

    fn give_row(&mut self, source: u64, label: String) {
        let free = |row: &&mut Row| row.source.is_none();
        let same = |row: &Row| row.source.is_none() && row.label == label;
        let row = match self.rows.iter().position(same) {
            Some(index) => self.rows.get_mut(index),
            None => self.rows.iter_mut().find(free),
        };
        let given = Row {
            source: Some(source),
            label,
            message: String::new(),
        };
        match row {
            Some(row) => *row = given,
            None => self.rows.push(given),
        }
    }

    fn row(&mut self, source: u64) -> Option<&mut Row> {
        self.rows.iter_mut().find(|row| row.source == Some(source))
    }

    fn slots(&self, source: u64) -> Option<&Slots> {
        self.sources.get(&source)
    }

    fn position(&self, counts: Counts) -> u64 {
        match self.unit {
            Unit::Tasks => counts.ended(),
            Unit::Bytes => counts.bytes(),
        }
    }

    /// What is done of the running tasks, of which bytes know nothing.
    fn running_parts(&self) -> u128 {
        match self.unit {
            Unit::Bytes => 0,
            Unit::Tasks => {
                let steps = self.sources.values().map(Steps::read);
                let shares = steps.filter_map(Steps::share);
                shares.map(|share| (share * PARTS as f64) as u128).sum()
            }
        }
    }

    fn sample(&mut self) -> Sample {
        // Counts before steps: a task that ends between the two is missing, and not there twice.
        let counts = self.sum();
        let exact = self.position(counts);
        let exact_parts = u128::from(exact) * u128::from(PARTS);
        self.furthest = self.furthest.max(exact);
        self.furthest_parts = self.furthest_parts.max(exact_parts + self.running_parts());
        let (position, parts, rows) = match self.life {
            Life::Running => (self.furthest, self.furthest_parts, self.sample_rows()),
            Life::Finished | Life::Dismissed => (exact, exact_parts, Vec::new()),
        };
        Sample {
            label: self.label.clone(),
            message: self.message.clone(),
            total: self.total,
            unit: self.unit,
            life: self.life,
            counts,
            position,
            parts,
            role: Role::Bar,
            rows,
        }
    }

    fn sample_rows(&self) -> Vec<(u64, Sample)> {
        let held = self.rows.iter().filter_map(|row| Some((row, row.source?)));
        let sampled = held.filter_map(|(row, id)| {
            let slots = self.slots(id)?;
            let counts = Counts::read(slots);
            let position = self.position(counts);
            let sample = Sample {
                label: row.label.clone(),
                message: row.message.clone(),
                total: Total::Unknown,
                unit: self.unit,
                life: self.life,
                counts,
                position,
                parts: u128::from(position) * u128::from(PARTS),
                role: Role::Writer(Steps::read(slots)),
                rows: Vec::new(),
            };
            Some((id, sample))
        });
        sampled.collect()
    }
}

/// One writer of a [`Bar`]. Dropping it changes nothing: the writer goes on being counted.
#[derive(Debug)]
pub struct Source {
    bar: Bar,
    id: u64,
}

impl Source {
    /// What this writer has counted so far.
    pub fn counts(&self) -> Counts {
        let state = self.bar.state();
        state.slots(self.id).map_or_else(Counts::new, Counts::read)
    }

    /// What is said in this writer's line after the numbers; for a writer of [`Bar::add_row`], without effect on
    /// others.
    pub fn set_message(&self, message: impl Into<String>) {
        if let Some(row) = self.bar.state().row(self.id) {
            row.message = message.into();
        }
    }

    /// The writer is gone: keeps what it had written and lets go of its slots.
    pub fn retire(self) {
        let counts = self.counts();
        self.settle(counts);
    }

    /// The writer, whose `slots` these are and no other code's, is gone for good: keeps what it had counted, and its slots
    /// for the next one.
    ///
    /// A sum is read with the same lock held, so it has each count once.
    pub(crate) fn recycle(&self, slots: &Slots) {
        let mut state = self.bar.state();
        if state.sources.remove(&self.id).is_none() {
            return;
        }
        state.settled = state.settled.plus(Counts::read(slots));
        if state.free.len() < KEPT {
            (0..slots.len()).for_each(|index| slots.slot(index).set(0));
            state.free.push(slots.clone());
        }
    }

    /// The writer is gone, and `counts` is what it really did: replaces what it had written, and lets go of its
    /// slots. For a supervisor that knows which of a dead worker's tasks will be done again.
    pub fn settle(self, counts: Counts) {
        let mut state = self.bar.state();
        state.sources.remove(&self.id);
        if let Some(row) = state.row(self.id) {
            row.source = None;
        }
        state.settled = state.settled.plus(counts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outcome::{Done, Failed};

    #[test]
    fn writers_in_several_threads_sum_exactly() {
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
    fn dropped_counters_leave_their_counts_and_take_no_room() {
        let bar = Bar::new("many", Total::Unknown);
        for _ in 0..300_000 {
            bar.counters().counter(Done).inc();
        }
        assert_eq!(bar.counts().ended(), 300_000);
        let state = bar.state();
        assert_eq!((state.sources.len(), state.free.len()), (0, 1));
    }

    #[test]
    fn slots_are_reused_clean_and_only_when_no_other_code_has_them() {
        let bar = Bar::new("reuse", Total::Unknown);
        let other = Bar::new("other", Total::Unknown);
        let counters = bar.counters();
        let _source = other.add_source(counters.slots());
        counters.counter(Done).add(3);
        drop(counters);
        assert!(bar.state().free.is_empty());
        let counters = bar.counters();
        counters.counter(Failed).inc();
        counters.bytes().add(7);
        counters.step(1, Total::Known(2));
        drop(counters);
        let again = bar.counters();
        assert!(bar.state().free.is_empty(), "used again");
        assert_eq!(Counts::read(&again.slots()), Counts::new());
        assert_eq!(Steps::read(&again.slots()), Steps::Untold);
        again.counter(Done).inc();
        assert_eq!(
            bar.counts(),
            Counts::new().with(Done, 4).with(Failed, 1).with_bytes(7)
        );
        assert_eq!(other.counts().ended(), 3);
        let live: Vec<Counters> = (0..2 * KEPT).map(|_| bar.counters()).collect();
        drop(live);
        assert_eq!(bar.state().free.len(), KEPT);
    }

    #[test]
    fn sums_are_exact_at_every_moment_while_writers_come_and_go() {
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
                                // It ends elsewhere, and another goes on with what may be its slots.
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
        assert!(bar.state().sources.is_empty());
    }

    #[test]
    fn slots_in_a_shared_region_are_read_by_the_bar() {
        let mut layout = shm_buffers::Layout::new();
        let spans = [layout.slots(crate::SLOTS), layout.slots(crate::SLOTS)];
        let region = shm_buffers::Region::on_heap(layout.bytes());
        let bar = Bar::new("workers", Total::Known(10));
        for (n, span) in (1..).zip(spans) {
            bar.add_source(Slots::new(&region, span));
            Counters::new(Slots::new(&region, span)).counter(Done).add(n);
        }
        assert_eq!(bar.counts().ended(), 3);
    }

    #[test]
    fn a_retired_writer_keeps_its_counts_and_frees_its_slots() {
        let bar = Bar::new("retire", Total::Known(10));
        let counters = Counters::in_process();
        let source = bar.add_source(counters.slots());
        counters.counter(Done).add(4);
        source.retire();
        counters.counter(Done).add(100);
        assert_eq!(bar.counts().ended(), 4);
        assert!(bar.state().sources.is_empty());
    }

    #[test]
    fn a_settled_writer_neither_turns_the_bar_back_nor_is_counted_twice() {
        let bar = Bar::new("settle", Total::Known(10));
        let dead = Counters::in_process();
        let source = bar.add_source(dead.slots());
        dead.counter(Done).add(6);
        assert_eq!(bar.sample().position, 6);

        // The results of two of its tasks were lost with it.
        source.settle(Counts::new().with(Done, 4));
        assert_eq!(bar.sample().position, 6);
        assert_eq!(bar.counts().ended(), 4);

        let replacement = bar.counters();
        replacement.counter(Done).add(1);
        assert_eq!(bar.sample().position, 6);
        replacement.counter(Done).add(5);
        assert_eq!(bar.sample().position, 10);
    }

    #[test]
    fn the_last_position_is_the_exact_one() {
        let bar = Bar::new("exact", Total::Known(10));
        let dead = Counters::in_process();
        let source = bar.add_source(dead.slots());
        dead.counter(Done).add(6);
        let _ = bar.sample();
        source.settle(Counts::new().with(Done, 4));
        bar.finish();
        assert_eq!(bar.sample().position, 4);
    }

    #[test]
    fn bytes_move_a_bar_of_bytes() {
        let bar = Bar::new("load", Total::Known(100)).unit(Unit::Bytes);
        let counters = bar.counters();
        counters.counter(Done).inc();
        counters.bytes().add(70);
        assert_eq!(bar.sample().position, 70);
    }

    #[test]
    fn a_finished_bar_is_not_dismissed() {
        let bar = Bar::new("end", Total::Unknown);
        bar.finish();
        bar.dismiss();
        assert_eq!(bar.sample().life, Life::Finished);
    }
}
