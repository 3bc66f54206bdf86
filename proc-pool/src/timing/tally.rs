//! The slots in which one process counts its time, from both sides.
//!
//! The process alone writes them; the leader takes no number in them for granted.

use std::time::Duration;

use shm_buffers::slots::Slots;

use super::latency::{BUCKETS, Latency, bucket};
use super::{Laps, Sample, Timing};

/// `now_ns` when the process came to `init`.
const BORN: usize = 0;
/// When it was ready.
const READY: usize = 1;
/// Since when it has no task; 0 while it has.
const IDLE_SINCE: usize = 2;
/// Nanoseconds without a task, up to the last task's begin.
const WAIT: usize = 3;
/// Nanoseconds in which it waited for room for outputs.
const BLOCKED: usize = 4;
/// Nanoseconds with tasks that are done, and their number.
const BUSY: usize = 5;
const TASKS: usize = 6;
/// Tasks sampled.
const SAMPLED: usize = 7;
/// Nanoseconds of sampled tasks, each for all tasks since the one before.
const DECODE: usize = 8;
const RUN: usize = 9;
const ENCODE: usize = 10;
/// The longest task, in nanoseconds.
const MAX: usize = 11;
const HISTOGRAM: usize = 12;
/// Samples kept.
const KEPT: usize = HISTOGRAM + BUCKETS;
const SAMPLES: usize = KEPT + 1;
/// A sample's slots: tasks before it, and the four times of a [`Sample`].
const SAMPLE: usize = 5;
/// Samples that are kept, at most; an even number.
const MOST: usize = 512;

/// How many slots it takes.
pub(crate) fn slots(timing: Timing) -> usize {
    match timing {
        Timing::Off => 0,
        Timing::Totals => KEPT,
        Timing::Samples => SAMPLES + MOST * SAMPLE,
    }
}

/// The process's side.
#[derive(Debug)]
pub(crate) struct Tally {
    slots: Slots,
    /// Samples seen since the last one kept, and how many of them to pass over.
    passed: u64,
    pass: u64,
}

impl Tally {
    /// None if none is wanted.
    pub(crate) fn new(slots: Slots, born: u64, ready: u64) -> Option<Self> {
        if slots.is_empty() {
            return None;
        }
        slots.slot(BORN).set(born);
        slots.slot(IDLE_SINCE).set(ready);
        slots.slot(READY).publish(ready);
        Some(Self {
            slots,
            passed: 0,
            pass: 0,
        })
    }

    /// There is a task again.
    pub(crate) fn resumed(&self, now: u64) {
        let since = self.slots.slot(IDLE_SINCE).get();
        if since > 0 {
            self.slots.slot(WAIT).add(now.saturating_sub(since));
            self.slots.slot(IDLE_SINCE).set(0);
        }
    }

    /// There is no task any more.
    pub(crate) fn rested(&self, now: u64) {
        self.slots.slot(IDLE_SINCE).set(now);
    }

    pub(crate) fn blocked(&self, ns: u64) {
        self.slots.slot(BLOCKED).add(ns);
    }

    /// So many tasks took `ns` together, where each usually takes `usual`.
    pub(crate) fn batch(&self, tasks: u64, ns: u64, usual: u64) {
        self.slots.slot(BUSY).add(ns);
        self.slots.slot(TASKS).add(tasks);
        let rest = tasks.saturating_sub(1);
        if rest > 0 && ns > 2 * usual * tasks && ns > 2 * crate::clock::READ {
            // One of them took long, most likely. Were it several, it is as long as all of them.
            self.count(usual, rest);
            self.count(ns - usual * rest, 1);
        } else {
            self.count(ns / tasks, tasks);
        }
    }

    fn count(&self, ns: u64, tasks: u64) {
        self.slots.slot(HISTOGRAM + bucket(ns)).add(tasks);
        let max = self.slots.slot(MAX);
        if ns > max.get() {
            max.set(ns);
        }
    }

    /// A task from `begun` to `answered`, that stands for `tasks` of them, and of which `blocked` ns count not.
    pub(crate) fn sample(&mut self, begun: u64, laps: Laps, answered: u64, blocked: u64, tasks: u64) {
        // A service that does not tell, or panicked, was running all the time.
        let ran = if laps.ran > 0 { laps.ran } else { answered };
        let decoded = laps.decoded.clamp(begun, answered);
        let ran = ran.clamp(decoded, answered);
        let parts = [
            decoded - begun,
            ran - decoded,
            (answered - ran).saturating_sub(blocked),
        ];
        for (slot, ns) in [DECODE, RUN, ENCODE].into_iter().zip(parts) {
            self.slots.slot(slot).add(ns.saturating_mul(tasks));
        }
        self.slots.slot(SAMPLED).add(1);
        if self.slots.len() > SAMPLES {
            let before = self.slots.slot(TASKS).get();
            self.keep([before, begun, decoded, ran, answered]);
        }
    }

    /// Keeps it, if it is its turn. When there is no room, every second one is forgotten, and every second one passed over
    /// from then on: what is kept is spread over the process's life.
    fn keep(&mut self, sample: [u64; SAMPLE]) {
        if self.passed < self.pass {
            self.passed += 1;
            return;
        }
        self.passed = 0;
        let mut kept = self.slots.slot(KEPT).get() as usize;
        if kept >= MOST {
            kept = MOST / 2;
            self.slots.slot(KEPT).publish(kept as u64);
            for index in 0..kept * SAMPLE {
                let (place, field) = (index / SAMPLE, index % SAMPLE);
                let from = self.slots.slot(SAMPLES + 2 * place * SAMPLE + field).get();
                self.slots.slot(SAMPLES + index).set(from);
            }
            self.pass = 2 * self.pass + 1;
        }
        for (field, value) in sample.into_iter().enumerate() {
            self.slots.slot(SAMPLES + kept * SAMPLE + field).set(value);
        }
        self.slots.slot(KEPT).publish(kept as u64 + 1);
    }
}

/// What a process has counted, as the leader reads it.
#[derive(Debug, Clone, Default)]
pub(super) struct Counted {
    pub(super) born: Option<u64>,
    pub(super) ready: Option<u64>,
    pub(super) wait: Duration,
    pub(super) blocked: Duration,
    pub(super) decode: Duration,
    pub(super) run: Duration,
    pub(super) encode: Duration,
    pub(super) tasks: u64,
    pub(super) sampled: u64,
}

impl Counted {
    /// Up to `now`, which is the process's end if that was before.
    pub(super) fn read(slots: &Slots, now: u64, latency: &mut Latency) -> Self {
        if slots.is_empty() {
            return Self::default();
        }
        let get = |slot| slots.slot(slot).get();
        latency.add((0..BUCKETS).map(|i| get(HISTOGRAM + i)), get(MAX));
        let ready = slots.slot(READY).observe();
        let born = get(BORN);
        let mut it = Self {
            born: (born > 0).then_some(born),
            ready: (ready > 0).then_some(ready),
            tasks: get(TASKS),
            sampled: get(SAMPLED),
            ..Self::default()
        };
        if ready == 0 {
            return it;
        }
        let lived = now.saturating_sub(ready);
        let idle = match get(IDLE_SINCE) {
            0 => 0,
            since => now.saturating_sub(since),
        };
        let wait = get(WAIT).saturating_add(idle).min(lived);
        let blocked = get(BLOCKED).min(lived - wait);
        let with_tasks = lived - wait - blocked;
        // What is not done yet is being run, most likely.
        let done = get(BUSY).min(with_tasks);
        let parts = [get(DECODE), get(RUN), get(ENCODE)].map(|ns| ns as f64);
        let sum: f64 = parts.iter().sum();
        let part = |ns: f64| match sum > 0.0 {
            true => (done as f64 * ns / sum) as u64,
            false => 0,
        };
        let (decode, encode) = (part(parts[0]), part(parts[2]));
        it.wait = Duration::from_nanos(wait);
        it.blocked = Duration::from_nanos(blocked);
        it.decode = Duration::from_nanos(decode);
        it.encode = Duration::from_nanos(encode);
        it.run = Duration::from_nanos(with_tasks.saturating_sub(decode).saturating_sub(encode));
        it
    }
}

/// The samples that a process has kept, with times from `epoch`. Those that make no sense, because the process was just
/// making room, are left out.
pub(super) fn samples(slots: &Slots, epoch: u64) -> Vec<Sample> {
    if slots.len() <= SAMPLES {
        return Vec::new();
    }
    let kept = slots.slot(KEPT).observe().min(MOST as u64) as usize;
    let since = |ns: u64| Duration::from_nanos(ns.saturating_sub(epoch));
    let mut last = 0;
    let read = |place: usize| {
        let [before, begun, decoded, ran, answered] =
            std::array::from_fn(|field| slots.slot(SAMPLES + place * SAMPLE + field).get());
        let sound = last <= begun && begun <= decoded && decoded <= ran && ran <= answered;
        if !sound {
            return None;
        }
        last = answered;
        Some(Sample {
            before,
            begun: since(begun),
            decoded: since(decoded),
            ran: since(ran),
            answered: since(answered),
        })
    };
    (0..kept).filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laps(decoded: u64, ran: u64) -> Laps {
        Laps { decoded, ran }
    }

    #[test]
    fn the_parts_are_the_whole() {
        let slots = Slots::in_process(slots(Timing::Totals));
        let mut tally = Tally::new(slots.clone(), 500, 1_000).unwrap();
        tally.resumed(11_000);
        // A tenth decoding, three fifths running.
        tally.sample(11_000, laps(12_000, 18_000), 21_000, 0, 1);
        tally.batch(1, 10_000, 0);
        tally.batch(10, 90_000, 9_000);
        tally.blocked(5_000);
        tally.rested(116_000);
        let mut latency = Latency::default();
        let it = Counted::read(&slots, 120_000, &mut latency);
        assert_eq!((it.born, it.ready), (Some(500), Some(1_000)));
        let us = Duration::from_micros;
        assert_eq!((it.wait, it.blocked), (us(14), us(5)));
        assert_eq!((it.decode, it.run, it.encode), (us(10), us(60), us(30)));
        assert_eq!((it.tasks, it.sampled, latency.count()), (11, 1, 11));
    }

    #[test]
    fn the_task_in_progress_is_being_run() {
        let slots = Slots::in_process(slots(Timing::Totals));
        let tally = Tally::new(slots.clone(), 0, 1_000).unwrap();
        tally.resumed(2_000);
        let it = Counted::read(&slots, 9_002_000, &mut Latency::default());
        assert_eq!(it.run, Duration::from_millis(9));
    }

    #[test]
    fn one_long_task_among_short_ones_is_seen() {
        let slots = Slots::in_process(slots(Timing::Totals));
        let tally = Tally::new(slots.clone(), 0, 1).unwrap();
        tally.batch(20, 10_019_000, 1_000);
        let mut latency = Latency::default();
        Counted::read(&slots, 20_000_000, &mut latency);
        assert_eq!(latency.max(), Some(Duration::from_millis(10)));
        assert!(latency.quantile(0.95) < Some(Duration::from_micros(2)));
        assert_eq!(latency.count(), 20);
    }

    #[test]
    fn samples_are_spread_over_a_life_of_any_length() {
        let slots = Slots::in_process(slots(Timing::Samples));
        let mut tally = Tally::new(slots.clone(), 0, 1).unwrap();
        for n in 1..100_000_u64 {
            tally.sample(10 * n, laps(10 * n + 1, 10 * n + 2), 10 * n + 3, 0, 1);
        }
        let samples = samples(&slots, 0);
        assert!((MOST / 2..=MOST).contains(&samples.len()), "{}", samples.len());
        let gaps = samples.windows(2).map(|pair| pair[1].begun - pair[0].begun);
        let (least, most) = gaps.fold((Duration::MAX, Duration::ZERO), |(least, most), gap| {
            (least.min(gap), most.max(gap))
        });
        assert!(most <= 2 * least, "{least:?} to {most:?}");
    }

    #[test]
    fn any_numbers_give_some_times() {
        let slots = Slots::in_process(slots(Timing::Samples));
        for value in [1, u64::MAX / 2, u64::MAX] {
            (0..slots.len()).for_each(|slot| slots.slot(slot).set(value));
            let it = Counted::read(&slots, 1_000, &mut Latency::default());
            assert!(it.wait + it.run + it.decode + it.encode + it.blocked <= Duration::from_micros(1));
            samples(&slots, 5);
        }
    }
}
