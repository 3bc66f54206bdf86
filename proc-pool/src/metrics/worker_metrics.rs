//! The shared slots in which one worker process counts its time: [`WorkerMetrics`] writes them in the worker, [`Counted`] reads
//! them in the leader.
//!
//! Only the process writes them, and the leader trusts none of the numbers.

use std::time::Duration;

use shm_buffers::slots::Slots;

use super::latency::{BUCKETS, Latency, bucket};
use super::{PhaseTimes, Sample, Timing};

/// `now_ns` when the process called `init`.
const INITIALIZED: usize = 0;
/// `now_ns` when it was ready.
const READY: usize = 1;
/// `now_ns` since when it has had no task; 0 while it has one.
const IDLE_SINCE: usize = 2;
/// Nanoseconds without a task, up to the start of the last task.
const WAIT: usize = 3;
/// Nanoseconds in which it waited for room for outputs.
const BLOCKED: usize = 4;
/// Nanoseconds spent on finished tasks, and their number.
const BUSY: usize = 5;
const TASKS: usize = 6;
/// Number of sampled tasks.
const SAMPLED: usize = 7;
/// Nanoseconds of the sampled tasks, each multiplied by the number of tasks that the sample stands for.
const DECODE: usize = 8;
const RUN: usize = 9;
const ENCODE: usize = 10;
/// The time of the longest task, in nanoseconds.
const MAX: usize = 11;
/// `now_ns` when it had attached what it shares.
const ATTACHED: usize = 12;
/// As [`ENCODE`], for the time between running and answering in which the thread was not on a CPU.
const OFF_CPU: usize = 13;
const HISTOGRAM: usize = 14;
/// Number of samples kept.
const KEPT: usize = HISTOGRAM + BUCKETS;
const SAMPLES: usize = KEPT + 1;
/// Number of slots of a sample: the number of tasks before it, and the four times of a [`Sample`].
const SAMPLE: usize = 5;
/// Maximum number of samples kept; an even number.
const MAX_SAMPLES: usize = 512;

/// Returns the number of slots needed.
pub(crate) fn slots(timing: Timing) -> usize {
    match timing {
        Timing::Off => 0,
        Timing::Totals => KEPT,
        Timing::Samples => SAMPLES + MAX_SAMPLES * SAMPLE,
    }
}

/// The worker's side.
#[derive(Debug)]
pub(crate) struct WorkerMetrics {
    slots: Slots,
    /// Number of samples skipped since the last one kept.
    skipped: u64,
    /// Number of samples to skip between two that are kept.
    skip: u64,
}

impl WorkerMetrics {
    /// Records when the process called `init`, had attached what it shares, and was ready. Returns `None` if `slots` is empty,
    /// because the pool measures nothing.
    pub(crate) fn new(slots: Slots, initialized: u64, attached: u64, ready: u64) -> Option<Self> {
        if slots.is_empty() {
            return None;
        }
        slots.slot(INITIALIZED).set(initialized);
        slots.slot(ATTACHED).set(attached);
        slots.slot(IDLE_SINCE).set(ready);
        slots.slot(READY).store_release(ready);
        Some(Self {
            slots,
            skipped: 0,
            skip: 0,
        })
    }

    /// Records that there is a task again.
    pub(crate) fn start_busy(&self, now: u64) {
        let since = self.slots.slot(IDLE_SINCE).get();
        if since > 0 {
            self.slots.slot(WAIT).add(now.saturating_sub(since));
            self.slots.slot(IDLE_SINCE).set(0);
        }
    }

    /// Records that there is no task any more.
    pub(crate) fn start_idle(&self, now: u64) {
        self.slots.slot(IDLE_SINCE).set(now);
    }

    pub(crate) fn add_blocked(&self, ns: u64) {
        self.slots.slot(BLOCKED).add(ns);
    }

    /// Counts `tasks` tasks that took `ns` together, where one usually takes `usual` ns.
    pub(crate) fn add_batch(&self, tasks: u64, ns: u64, usual: u64) {
        self.slots.slot(BUSY).add(ns);
        self.slots.slot(TASKS).add(tasks);
        let rest = tasks.saturating_sub(1);
        if rest > 0 && ns > 2 * usual * tasks && ns > 2 * crate::metrics::clock::READ_INTERVAL {
            // Most likely one of the tasks was long. If it was several, this one counts as long as all of them.
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

    /// Counts a sampled task from `started` to `answered`, of which `blocked` ns do not count. It stands for `tasks` tasks.
    /// `answered_cpu` is the thread's CPU time at the end, if the system measures it.
    pub(crate) fn sample(
        &mut self,
        started: u64,
        phases: PhaseTimes,
        (answered, answered_cpu): (u64, Option<u64>),
        blocked: u64,
        tasks: u64,
    ) {
        // A service that does not record its phases, or panicked, was running all the time.
        let ran = if phases.ran > 0 { phases.ran } else { answered };
        let decoded = phases.decoded.clamp(started, answered);
        let ran = ran.clamp(decoded, answered);
        let encode = (answered - ran).saturating_sub(blocked);
        let on_cpu = match (phases.ran_cpu, answered_cpu) {
            (Some(start), Some(end)) => end.saturating_sub(start).min(encode),
            _ => encode,
        };
        let parts = [decoded - started, ran - decoded, on_cpu, encode - on_cpu];
        for (slot, ns) in [DECODE, RUN, ENCODE, OFF_CPU].into_iter().zip(parts) {
            self.slots.slot(slot).add(ns.saturating_mul(tasks));
        }
        self.slots.slot(SAMPLED).add(1);
        if self.slots.len() > SAMPLES {
            let before = self.slots.slot(TASKS).get();
            self.keep([before, started, decoded, ran, answered]);
        }
    }

    /// Keeps the sample, or skips it. When there is no room, every second kept sample is dropped, and from then on twice as many
    /// are skipped: the kept samples stay evenly spread over the lifetime of the process.
    fn keep(&mut self, sample: [u64; SAMPLE]) {
        if self.skipped < self.skip {
            self.skipped += 1;
            return;
        }
        self.skipped = 0;
        let mut kept = self.slots.slot(KEPT).get() as usize;
        if kept >= MAX_SAMPLES {
            kept = MAX_SAMPLES / 2;
            self.slots.slot(KEPT).store_release(kept as u64);
            for index in 0..kept * SAMPLE {
                let (sample, field) = (index / SAMPLE, index % SAMPLE);
                let from = self.slots.slot(SAMPLES + 2 * sample * SAMPLE + field).get();
                self.slots.slot(SAMPLES + index).set(from);
            }
            self.skip = 2 * self.skip + 1;
        }
        for (field, value) in sample.into_iter().enumerate() {
            self.slots.slot(SAMPLES + kept * SAMPLE + field).set(value);
        }
        self.slots.slot(KEPT).store_release(kept as u64 + 1);
    }
}

/// The counts of a process, as the leader reads them.
#[derive(Debug, Clone, Default)]
pub(super) struct Counted {
    pub(super) initialized: Option<u64>,
    pub(super) attached: Option<u64>,
    pub(super) ready: Option<u64>,
    pub(super) wait: Duration,
    pub(super) blocked: Duration,
    pub(super) decode: Duration,
    pub(super) run: Duration,
    pub(super) encode: Duration,
    pub(super) off_cpu: Duration,
    pub(super) tasks: u64,
    pub(super) sampled: u64,
}

impl Counted {
    /// Reads the counts up to `now`, and adds the histogram to `latency`. For a process that has ended, `now` is its end.
    pub(super) fn read(slots: &Slots, now: u64, latency: &mut Latency) -> Self {
        if slots.is_empty() {
            return Self::default();
        }
        let get = |slot| slots.slot(slot).get();
        latency.add((0..BUCKETS).map(|i| get(HISTOGRAM + i)), get(MAX));
        let ready = slots.slot(READY).load_acquire();
        let initialized = get(INITIALIZED);
        let mut counted = Self {
            initialized: (initialized > 0).then_some(initialized),
            attached: (ready > 0).then(|| get(ATTACHED).clamp(initialized.min(ready), ready)),
            ready: (ready > 0).then_some(ready),
            tasks: get(TASKS),
            sampled: get(SAMPLED),
            ..Self::default()
        };
        if ready == 0 {
            return counted;
        }
        let lived = now.saturating_sub(ready);
        let idle = match get(IDLE_SINCE) {
            0 => 0,
            since => now.saturating_sub(since),
        };
        let wait = get(WAIT).saturating_add(idle).min(lived);
        let blocked = get(BLOCKED).min(lived - wait);
        let with_tasks = lived - wait - blocked;
        // The rest of the time belongs to the task in progress, which most likely is being run.
        let done = get(BUSY).min(with_tasks);
        let parts = [get(DECODE), get(RUN), get(ENCODE), get(OFF_CPU)].map(|ns| ns as f64);
        let sum: f64 = parts.iter().sum();
        let part = |ns: f64| match sum > 0.0 {
            true => (done as f64 * ns / sum) as u64,
            false => 0,
        };
        let (decode, encode, off_cpu) = (part(parts[0]), part(parts[2]), part(parts[3]));
        counted.wait = Duration::from_nanos(wait);
        counted.blocked = Duration::from_nanos(blocked);
        counted.decode = Duration::from_nanos(decode);
        counted.encode = Duration::from_nanos(encode);
        counted.off_cpu = Duration::from_nanos(off_cpu);
        let others = decode.saturating_add(encode).saturating_add(off_cpu);
        counted.run = Duration::from_nanos(with_tasks.saturating_sub(others));
        counted
    }
}

/// Returns the samples that a process has kept, with times since `epoch`. Inconsistent samples are left out: the process may be
/// making room at this moment.
pub(super) fn samples(slots: &Slots, epoch: u64) -> Vec<Sample> {
    if slots.len() <= SAMPLES {
        return Vec::new();
    }
    let kept = slots.slot(KEPT).load_acquire().min(MAX_SAMPLES as u64) as usize;
    let since = |ns: u64| Duration::from_nanos(ns.saturating_sub(epoch));
    let mut last = 0;
    let read = |sample: usize| {
        let [before, started, decoded, ran, answered] =
            std::array::from_fn(|field| slots.slot(SAMPLES + sample * SAMPLE + field).get());
        let consistent = last <= started && started <= decoded && decoded <= ran && ran <= answered;
        if !consistent {
            return None;
        }
        last = answered;
        Some(Sample {
            before,
            started: since(started),
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

    fn phases(decoded: u64, ran: u64) -> PhaseTimes {
        let ran_cpu = None;
        PhaseTimes {
            decoded,
            ran,
            ran_cpu,
        }
    }

    #[test]
    fn times_add_up_to_the_time_since_ready() {
        let slots = Slots::in_process(slots(Timing::Totals));
        let mut metrics = WorkerMetrics::new(slots.clone(), 500, 800, 1_000).unwrap();
        metrics.start_busy(11_000);
        // A tenth decoding, three fifths running.
        metrics.sample(11_000, phases(12_000, 18_000), (21_000, None), 0, 1);
        metrics.add_batch(1, 10_000, 0);
        metrics.add_batch(10, 90_000, 9_000);
        metrics.add_blocked(5_000);
        metrics.start_idle(116_000);
        let mut latency = Latency::default();
        let counted = Counted::read(&slots, 120_000, &mut latency);
        let started = (counted.initialized, counted.attached, counted.ready);
        assert_eq!(started, (Some(500), Some(800), Some(1_000)));
        let us = Duration::from_micros;
        assert_eq!((counted.wait, counted.blocked), (us(14), us(5)));
        assert_eq!(
            (counted.decode, counted.run, counted.encode),
            (us(10), us(60), us(30))
        );
        assert_eq!((counted.tasks, counted.sampled, latency.count()), (11, 1, 11));
    }

    #[test]
    fn encoding_does_not_count_time_off_the_cpu() {
        let slots = Slots::in_process(slots(Timing::Totals));
        let mut metrics = WorkerMetrics::new(slots.clone(), 0, 1, 1_000).unwrap();
        metrics.start_busy(1_000);
        let phases = PhaseTimes {
            ran_cpu: Some(7_000),
            ..phases(2_000, 3_000)
        };
        // Of 8 µs from running to answering, 2 µs were blocked and 1 µs on the CPU.
        metrics.sample(1_000, phases, (11_000, Some(8_000)), 2_000, 1);
        metrics.add_batch(1, 8_000, 0);
        metrics.add_blocked(2_000);
        metrics.start_idle(11_000);
        let counted = Counted::read(&slots, 11_000, &mut Latency::default());
        let us = Duration::from_micros;
        assert_eq!((counted.decode, counted.run), (us(1), us(1)));
        assert_eq!((counted.encode, counted.off_cpu), (us(1), us(5)));
    }

    #[test]
    fn time_of_the_task_in_progress_counts_as_run() {
        let slots = Slots::in_process(slots(Timing::Totals));
        let metrics = WorkerMetrics::new(slots.clone(), 0, 1, 1_000).unwrap();
        metrics.start_busy(2_000);
        let counted = Counted::read(&slots, 9_002_000, &mut Latency::default());
        assert_eq!(counted.run, Duration::from_millis(9));
    }

    #[test]
    fn one_long_task_among_short_ones_shows_in_the_histogram() {
        let slots = Slots::in_process(slots(Timing::Totals));
        let metrics = WorkerMetrics::new(slots.clone(), 0, 1, 1).unwrap();
        metrics.add_batch(20, 10_019_000, 1_000);
        let mut latency = Latency::default();
        Counted::read(&slots, 20_000_000, &mut latency);
        assert_eq!(latency.max(), Some(Duration::from_millis(10)));
        assert!(latency.quantile(0.95) < Some(Duration::from_micros(2)));
        assert_eq!(latency.count(), 20);
    }

    #[test]
    fn kept_samples_are_evenly_spread_over_any_number_of_tasks() {
        let slots = Slots::in_process(slots(Timing::Samples));
        let mut metrics = WorkerMetrics::new(slots.clone(), 0, 1, 1).unwrap();
        for n in 1..100_000_u64 {
            metrics.sample(10 * n, phases(10 * n + 1, 10 * n + 2), (10 * n + 3, None), 0, 1);
        }
        let samples = samples(&slots, 0);
        assert!(
            (MAX_SAMPLES / 2..=MAX_SAMPLES).contains(&samples.len()),
            "{}",
            samples.len()
        );
        let gaps = samples.windows(2).map(|pair| pair[1].started - pair[0].started);
        let (least, most) = gaps.fold((Duration::MAX, Duration::ZERO), |(least, most), gap| {
            (least.min(gap), most.max(gap))
        });
        assert!(most <= 2 * least, "{least:?} to {most:?}");
    }

    #[test]
    fn forged_counts_are_bounded_by_the_time_that_passed() {
        let slots = Slots::in_process(slots(Timing::Samples));
        for value in [1, u64::MAX / 2, u64::MAX] {
            (0..slots.len()).for_each(|slot| slots.slot(slot).set(value));
            let counted = Counted::read(&slots, 1_000, &mut Latency::default());
            assert!(
                counted.wait
                    + counted.run
                    + counted.decode
                    + counted.encode
                    + counted.off_cpu
                    + counted.blocked
                    <= Duration::from_micros(1)
            );
            samples(&slots, 5);
        }
    }
}
