//! [`Batcher`]: how many tasks a batch has. Pure: the time of every call is an argument.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::messages::{MOST_TASKS, Numbers, task_hash};

/// The work of a node that a batch aims at.
const WORK: Duration = Duration::from_millis(200);
/// The most tasks of a batch, unless the leader sets another number.
pub(crate) const MAX_TASKS: usize = 1 << 16;
/// Which part of the usual number of tasks a batch near the end has at least.
const SMALLEST: usize = 16;
/// Which part of the work that it aims at a short batch has at most.
const SHORT: usize = 8;
/// How long a task waits for the next ones of its batch.
const MAX_WAIT: Duration = Duration::from_millis(10);
/// The most tasks between two looks at the clock.
const TASKS_PER_READING: usize = 64;
/// By how much the next batch may be larger than what was learned from.
const GROWTH: usize = 4;
/// The most bytes that the length of a task takes in a message.
const LENGTH: usize = 5;

/// Chooses the size of batches from how long nodes took for earlier ones.
#[derive(Debug)]
pub(crate) struct Batcher {
    /// The number of tasks of the next batch; 0 before the first answer.
    target: usize,
    most: usize,
    is_short: bool,
}

/// Tasks that become a batch.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) encoded: Vec<u8>,
    pub(crate) lengths: Numbers,
    pub(crate) hashes: Vec<u64>,
    started: Option<Instant>,
}

impl Draft {
    pub(crate) fn len(&self) -> usize {
        self.hashes.len()
    }

    /// About the number of bytes of its message.
    fn bytes(&self) -> usize {
        self.encoded.len() + LENGTH * self.len()
    }

    /// Adds a task. Takes the bytes if they are the first ones.
    pub(crate) fn push(&mut self, encoded: &mut Vec<u8>) {
        self.lengths.push(encoded.len() as u32);
        self.hashes.push(task_hash(encoded));
        match self.encoded.is_empty() {
            true => std::mem::swap(&mut self.encoded, encoded),
            false => self.encoded.extend_from_slice(encoded),
        }
    }

    /// Returns whether a task of `len` bytes belongs to the next batch, because a message has at most `most` bytes.
    pub(crate) fn has_no_room(&self, len: usize, most: usize) -> bool {
        self.len() > 0 && self.bytes() + LENGTH + len > most
    }

    /// Returns whether to send it before another task is taken from the input. The time is read for the first tasks, and then not for
    /// each of them.
    pub(crate) fn is_full(&mut self, tasks: usize, now: impl FnOnce() -> Instant) -> bool {
        let len = self.len();
        if len == 0 || len >= tasks {
            return len > 0;
        }
        if !len.is_power_of_two() && !len.is_multiple_of(TASKS_PER_READING) {
            return false;
        }
        let now = now();
        now.saturating_duration_since(*self.started.get_or_insert(now)) >= MAX_WAIT
    }

    /// Returns the tasks at these positions.
    pub(crate) fn part(&self, part: Range<usize>) -> Self {
        let bytes = |tasks: Range<usize>| tasks.map(|at| self.lengths.get(at) as usize).sum::<usize>();
        let start = bytes(0..part.start);
        Self {
            encoded: self.encoded[start..start + bytes(part.clone())].to_vec(),
            lengths: part.clone().map(|at| self.lengths.get(at)).collect(),
            hashes: self.hashes[part].to_vec(),
            started: None,
        }
    }
}

impl Batcher {
    /// `most` is the most tasks of a batch.
    pub(crate) fn new(most: usize) -> Self {
        let most = most.clamp(1, MOST_TASKS);
        let (target, is_short) = (0, false);
        Self {
            target,
            most,
            is_short,
        }
    }

    /// Learns from a node that needed `took` for `tasks` tasks.
    pub(crate) fn observe(&mut self, tasks: usize, took: Duration) {
        if tasks == 0 {
            return;
        }
        let per_task = (took.as_secs_f64() / tasks as f64).max(1e-9);
        // Grows as far as tasks were observed, shrinks halfway: one slow task among many is no trend.
        let wanted = (WORK.as_secs_f64() / per_task) as usize;
        self.is_short = wanted / SHORT > self.most;
        let wanted = wanted.clamp(1, self.most);
        self.target = match wanted > self.target {
            true => wanted.min(self.target.max(tasks.saturating_mul(GROWTH))),
            false => wanted.max(self.target / 2),
        };
    }

    /// Returns the most tasks of the next batch, with `remaining` tasks in the input, if that is known, for this many nodes. Near the
    /// end, batches are smaller, so that all nodes end at about the same time.
    pub(crate) fn tasks(&self, remaining: Option<usize>, nodes: usize) -> usize {
        let share = remaining.map(|remaining| remaining.div_ceil(2 * nodes.max(1)));
        let least = self.target / SMALLEST;
        share
            .map_or(self.target, |share| self.target.min(share.max(least)))
            .max(1)
    }

    /// Returns how many batches this number of tasks is.
    pub(crate) fn batches(&self, tasks: usize) -> usize {
        tasks.div_ceil(self.target.max(1))
    }

    /// Returns whether batches have much less work than they aim at, because of the most tasks of a batch.
    pub(crate) fn is_short(&self) -> bool {
        self.is_short
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(tasks: usize, bytes: usize) -> Draft {
        let mut draft = Draft::default();
        (0..tasks).for_each(|_| draft.push(&mut vec![0; bytes]));
        draft
    }

    #[test]
    fn batches_grow_to_the_work_of_200_ms_and_shrink_for_slow_tasks() {
        let mut batcher = Batcher::new(MAX_TASKS);
        let tasks = |batcher: &Batcher| batcher.tasks(None, 3);
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
        let mut batcher = Batcher::new(100);
        for _ in 0..10 {
            let tasks = batcher.tasks(None, 3);
            batcher.observe(tasks, Duration::ZERO);
        }
        assert_eq!(batcher.tasks(None, 3), 100);
        assert!(batcher.is_short());
        batcher.observe(100, Duration::from_millis(30));
        assert!(!batcher.is_short());
    }

    #[test]
    fn the_last_batches_are_shared_by_the_nodes() {
        let mut batcher = Batcher::new(MAX_TASKS);
        batcher.observe(1000, Duration::from_micros(1));
        let tasks = |remaining, nodes| batcher.tasks(Some(remaining), nodes);
        assert_eq!(tasks(100_000, 3), 4000);
        assert_eq!(tasks(6000, 3), 1000);
        assert_eq!(tasks(6000, 0), 3000);
        assert_eq!(tasks(1, 3), 250, "not smaller and smaller");
        assert_eq!(Batcher::new(MAX_TASKS).tasks(Some(0), 3), 1);
    }

    #[test]
    fn a_draft_is_full_by_tasks_bytes_or_time() {
        let now = Instant::now();
        let is_full = |mut draft: Draft, tasks| draft.is_full(tasks, || now);
        assert!(!is_full(Draft::default(), 1));
        assert!(!is_full(draft(3, 10), 4));
        assert!(is_full(draft(4, 10), 4));
        assert!(draft(2, 600).has_no_room(0, 1000) && draft(1, 900).has_no_room(100, 1000));
        assert!(!draft(1, 900).has_no_room(10, 1000) && !Draft::default().has_no_room(2000, 1000));
        // Tasks that take 4 ms each: the third reading is the first one that is too late.
        let (mut slow, mut time, mut sizes) = (Draft::default(), now, Vec::new());
        for _ in 0..20 {
            slow.push(&mut vec![1]);
            time += Duration::from_millis(4);
            if slow.is_full(1000, || time) {
                sizes.push(slow.len());
                slow = Draft::default();
            }
        }
        assert_eq!(sizes, [4, 4, 4, 4, 4]);
    }

    #[test]
    fn a_part_has_its_own_bytes() {
        let mut draft = Draft::default();
        for len in [2, 0, 3] {
            draft.push(&mut vec![len; len.into()]);
        }
        for (part, bytes) in [(0..1, &[2, 2][..]), (1..2, &[]), (1..3, &[3, 3, 3])] {
            let hashes = draft.hashes[part.clone()].to_vec();
            let lengths: Vec<_> = draft.lengths.iter().skip(part.start).take(part.len()).collect();
            let part = draft.part(part);
            assert_eq!((&part.encoded[..], part.hashes), (bytes, hashes));
            assert_eq!(part.lengths.iter().collect::<Vec<_>>(), lengths);
        }
    }
}
