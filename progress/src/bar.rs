//! The reading side: what a bar is called, how far it goes, and whose counts it sums.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shm_buffers::slots::Slots;

use crate::counter::{Counters, Counts, assert_enough};

/// How far a bar goes, in its [`Unit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Total {
    /// So many.
    Known(u64),
    /// Nobody knows (yet).
    #[default]
    Unknown,
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
    sources: Vec<(u64, Slots)>,
    next_source: u64,
    /// What writers that are gone had counted.
    settled: Counts,
    /// The furthest position seen.
    furthest: u64,
}

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
            sources: Vec::new(),
            next_source: 0,
            settled: Counts::new(),
            furthest: 0,
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
        let mut state = self.state();
        let id = state.next_source;
        state.next_source += 1;
        state.sources.push((id, slots));
        Source {
            bar: self.clone(),
            id,
        }
    }

    /// Counters of this process for one more writer: a thread, or the leader itself.
    pub fn counters(&self) -> Counters {
        let counters = Counters::in_process();
        self.add_source(counters.slots());
        counters
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

    /// Ends the bar: its last line is drawn once and stays, and it is drawn no more.
    pub fn finish(&self) {
        self.end(Life::Finished);
    }

    /// Ends the bar without a trace: it is drawn no more, and no last line either.
    pub fn dismiss(&self) {
        self.end(Life::Dismissed);
    }

    fn end(&self, life: Life) {
        let mut state = self.state();
        if state.life == Life::Running {
            state.life = life;
        }
    }

    pub(crate) fn label(&self) -> String {
        self.state().label.clone()
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn sample(&self) -> Sample {
        let mut state = self.state();
        let counts = state.sum();
        let exact = match state.unit {
            Unit::Tasks => counts.ended(),
            Unit::Bytes => counts.bytes(),
        };
        state.furthest = state.furthest.max(exact);
        Sample {
            label: state.label.clone(),
            message: state.message.clone(),
            total: state.total,
            unit: state.unit,
            life: state.life,
            counts,
            position: match state.life {
                Life::Running => state.furthest,
                Life::Finished | Life::Dismissed => exact,
            },
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is a single assignment: what a panicking holder left is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn sum(&self) -> Counts {
        self.sources
            .iter()
            .fold(self.settled, |sum, (_, slots)| sum.plus(Counts::read(slots)))
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
        let slots = state.sources.iter().find(|(id, _)| *id == self.id);
        slots.map_or_else(Counts::new, |(_, slots)| Counts::read(slots))
    }

    /// The writer is gone: keeps what it had written and lets go of its slots.
    pub fn retire(self) {
        let counts = self.counts();
        self.settle(counts);
    }

    /// The writer is gone, and `counts` is what it really did: replaces what it had written, and lets go of its
    /// slots. For a supervisor that knows which of a dead worker's tasks will be done again.
    pub fn settle(self, counts: Counts) {
        let mut state = self.bar.state();
        state.sources.retain(|(id, _)| *id != self.id);
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
