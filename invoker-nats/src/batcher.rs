//! [`Batcher`]: how many tasks a batch has. Pure: the time of every call is an argument.

use std::time::{Duration, Instant};

use crate::wire::task_hash;

/// The work of a node that a batch aims at.
const WORK: Duration = Duration::from_millis(200);
/// The most tasks of a batch.
pub(crate) const MAX_TASKS: usize = 1 << 16;
/// Which part of the usual number of tasks a batch near the end has at least.
const SMALLEST: usize = 16;
/// How long a task waits for the next ones of its batch.
const MAX_WAIT: Duration = Duration::from_millis(10);
/// By how much the next batch may be larger than what was learned from.
const GROWTH: usize = 4;

/// Chooses the size of batches from how long nodes took for earlier ones.
#[derive(Debug)]
pub(crate) struct Batcher {
    /// The number of tasks of the next batch.
    target: usize,
    max_bytes: usize,
}

/// The most tasks between two looks at the clock.
const TASKS_PER_READING: usize = 64;

/// Tasks that become a batch.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) encoded: Vec<u8>,
    pub(crate) tasks: Vec<DraftTask>,
    started: Option<Instant>,
    /// The number of tasks at which the clock is read next.
    next_reading: usize,
}

/// A task of a draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DraftTask {
    /// The end of its encoding.
    pub(crate) end: usize,
    pub(crate) hash: u64,
    /// How many nodes were lost with it.
    pub(crate) losses: u32,
    /// Whether it has no output yet.
    pub(crate) open: bool,
}

/// How large a batch may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) tasks: usize,
    pub(crate) bytes: usize,
}

impl Draft {
    /// Ends a task whose encoding was appended.
    pub(crate) fn end_task(&mut self) {
        let start = self.tasks.last().map_or(0, |last| last.end);
        let hash = task_hash(&self.encoded[start..]);
        let end = self.encoded.len();
        let (losses, open) = (0, true);
        self.tasks.push(DraftTask {
            end,
            hash,
            losses,
            open,
        });
    }

    /// Removes the last task, and returns its encoding.
    pub(crate) fn remove_last(&mut self) -> Vec<u8> {
        self.tasks.pop();
        let start = self.tasks.last().map_or(0, |last| last.end);
        self.encoded.split_off(start)
    }

    /// Returns whether to send it before another task is taken from the input. The time is read for the first tasks, and then not for
    /// each of them.
    pub(crate) fn is_full(&mut self, limits: Limits, now: impl FnOnce() -> Instant) -> bool {
        let tasks = self.tasks.len();
        if tasks >= limits.tasks || self.encoded.len() >= limits.bytes {
            return tasks > 0;
        }
        if tasks < self.next_reading {
            return false;
        }
        self.next_reading = tasks + tasks.clamp(1, TASKS_PER_READING);
        let now = now();
        let started = *self.started.get_or_insert(now);
        tasks > 0 && now.saturating_duration_since(started) >= MAX_WAIT
    }

    /// Returns whether the last task made it larger than a batch may be: it then belongs to the next one.
    pub(crate) fn overflows(&self, limits: Limits) -> bool {
        self.tasks.len() > 1 && self.encoded.len() > limits.bytes
    }
}

impl Batcher {
    /// A batch has at most `max_bytes` bytes, unless it has one task.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { target: 1, max_bytes }
    }

    /// Learns from a node that needed `took` for `tasks` tasks.
    pub(crate) fn observe(&mut self, tasks: usize, took: Duration) {
        if tasks == 0 {
            return;
        }
        let per_task = took.as_secs_f64() / tasks as f64;
        let wanted = match per_task > 0.0 {
            true => WORK.as_secs_f64() / per_task,
            false => MAX_TASKS as f64,
        };
        // Grows as far as tasks were observed, shrinks halfway: one slow task among many is no trend.
        let wanted = (wanted as usize).clamp(1, MAX_TASKS);
        self.target = match wanted > self.target {
            true => wanted.min(self.target.max(tasks * GROWTH)),
            false => wanted.max(self.target / 2),
        }
        .clamp(1, MAX_TASKS);
    }

    /// Returns the limits of the next batch, with `remaining` tasks in the input, if that is known, for this many nodes. Near the end,
    /// batches are smaller, so that all nodes end at about the same time.
    pub(crate) fn limits(&self, remaining: Option<usize>, nodes: usize) -> Limits {
        let share = remaining.map(|remaining| remaining.div_ceil(2 * nodes.max(1)));
        let least = self.target / SMALLEST;
        let tasks = share.map_or(self.target, |share| self.target.min(share.max(least)));
        Limits {
            tasks: tasks.max(1),
            bytes: self.max_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(tasks: usize, bytes: usize) -> Draft {
        let mut draft = Draft::default();
        for _ in 0..tasks {
            draft.encoded.resize(draft.encoded.len() + bytes, 0);
            draft.end_task();
        }
        draft
    }

    #[test]
    fn batches_grow_to_the_work_of_200_ms_and_shrink_for_slow_tasks() {
        let mut batcher = Batcher::new(1 << 20);
        let tasks = |batcher: &Batcher| batcher.limits(None, 3).tasks;
        assert_eq!(tasks(&batcher), 1);
        for _ in 0..20 {
            let tasks = tasks(&batcher);
            batcher.observe(tasks, Duration::from_micros(10) * tasks as u32);
        }
        assert_eq!(tasks(&batcher), 20_000);
        for _ in 0..20 {
            batcher.observe(10, Duration::from_secs(10));
        }
        assert_eq!(tasks(&batcher), 1);
        batcher.observe(0, Duration::from_secs(1));
        batcher.observe(1, Duration::ZERO);
        assert_eq!(tasks(&batcher), 4);
    }

    #[test]
    fn the_last_batches_are_shared_by_the_nodes() {
        let mut batcher = Batcher::new(1 << 20);
        batcher.observe(1000, Duration::from_micros(1));
        let tasks = |remaining, nodes| batcher.limits(Some(remaining), nodes).tasks;
        assert_eq!(tasks(100_000, 3), 4000);
        assert_eq!(tasks(6000, 3), 1000);
        assert_eq!(tasks(6000, 0), 3000);
        assert_eq!(tasks(1, 3), 250, "not smaller and smaller");
        assert_eq!(Batcher::new(1).limits(Some(0), 3).tasks, 1);
    }

    #[test]
    fn a_draft_is_full_by_tasks_bytes_or_time() {
        let now = Instant::now();
        let limits = |tasks| Limits { tasks, bytes: 1000 };
        let is_full = |mut draft: Draft, tasks| draft.is_full(limits(tasks), || now);
        assert!(!is_full(Draft::default(), 1));
        assert!(!is_full(draft(3, 10), 4));
        assert!(is_full(draft(4, 10), 4));
        assert!(is_full(draft(1, 1000), 4));
        assert!(draft(2, 600).overflows(limits(4)) && !draft(1, 2000).overflows(limits(4)));
        // Tasks that take 4 ms each: the third reading is the first one that is too late.
        let (mut slow, mut time, mut sizes) = (Draft::default(), now, Vec::new());
        for _ in 0..20 {
            slow.encoded.push(1);
            slow.end_task();
            time += Duration::from_millis(4);
            if slow.is_full(limits(1000), || time) {
                sizes.push(slow.tasks.len());
                slow = Draft::default();
            }
        }
        assert_eq!(sizes, [4, 4, 4, 4, 4]);
    }
}
