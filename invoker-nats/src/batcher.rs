//! [`Batcher`]: how many tasks a batch has. Pure: the time of every call is an argument.

use std::time::{Duration, Instant};

/// The work of a node that a batch aims at.
const WORK: Duration = Duration::from_millis(200);
/// The most tasks of a batch.
const MAX_TASKS: usize = 1 << 16;
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

/// Tasks that become a batch.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) encoded: Vec<u8>,
    pub(crate) ends: Vec<usize>,
    started: Option<Instant>,
}

impl Draft {
    /// Ends a task whose encoding was appended.
    pub(crate) fn end_task(&mut self, now: Instant) {
        self.ends.push(self.encoded.len());
        self.started.get_or_insert(now);
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

    /// Returns the number of tasks of the next batch, with `remaining` tasks in the input, if that is known, for this many nodes. Near
    /// the end, batches are smaller, so that all nodes end at about the same time.
    pub(crate) fn target(&self, remaining: Option<usize>, nodes: usize) -> usize {
        let share = remaining.map(|remaining| remaining.div_ceil(2 * nodes.max(1)));
        self.target.min(share.unwrap_or(usize::MAX)).max(1)
    }

    /// Returns whether to send a draft before another task is taken from the input.
    pub(crate) fn is_full(&self, draft: &Draft, target: usize, now: Instant) -> bool {
        let waited = draft
            .started
            .map_or(Duration::ZERO, |started| now.saturating_duration_since(started));
        !draft.ends.is_empty()
            && (draft.ends.len() >= target || draft.encoded.len() >= self.max_bytes || waited >= MAX_WAIT)
    }

    /// Returns whether the last task made a draft larger than a batch may be: it then belongs to the next one.
    pub(crate) fn overflows(&self, draft: &Draft) -> bool {
        draft.ends.len() > 1 && draft.encoded.len() > self.max_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(tasks: usize, bytes: usize, started: Instant) -> Draft {
        let mut draft = Draft::default();
        for _ in 0..tasks {
            draft.encoded.resize(draft.encoded.len() + bytes, 0);
            draft.end_task(started);
        }
        draft
    }

    #[test]
    fn batches_grow_to_the_work_of_200_ms_and_shrink_for_slow_tasks() {
        let mut batcher = Batcher::new(1 << 20);
        assert_eq!(batcher.target(None, 3), 1);
        for _ in 0..20 {
            let tasks = batcher.target(None, 3);
            batcher.observe(tasks, Duration::from_micros(10) * tasks as u32);
        }
        assert_eq!(batcher.target(None, 3), 20_000);
        for _ in 0..20 {
            batcher.observe(10, Duration::from_secs(10));
        }
        assert_eq!(batcher.target(None, 3), 1);
        batcher.observe(0, Duration::from_secs(1));
        batcher.observe(1, Duration::ZERO);
        assert_eq!(batcher.target(None, 3), 4);
    }

    #[test]
    fn the_last_batches_are_shared_by_the_nodes() {
        let mut batcher = Batcher::new(1 << 20);
        batcher.observe(10_000, Duration::from_millis(1));
        assert!(batcher.target(None, 3) > 600);
        assert_eq!(batcher.target(Some(600), 3), 100);
        assert_eq!(batcher.target(Some(1), 3), 1);
        assert_eq!(batcher.target(Some(600), 0), 300);
    }

    #[test]
    fn a_draft_is_full_by_tasks_bytes_or_time() {
        let batcher = Batcher::new(1000);
        let now = Instant::now();
        assert!(!batcher.is_full(&Draft::default(), 1, now + MAX_WAIT));
        assert!(!batcher.is_full(&draft(3, 10, now), 4, now));
        assert!(batcher.is_full(&draft(4, 10, now), 4, now));
        assert!(batcher.is_full(&draft(1, 1000, now), 4, now));
        assert!(batcher.is_full(&draft(1, 10, now), 4, now + MAX_WAIT));
        assert!(batcher.overflows(&draft(2, 600, now)) && !batcher.overflows(&draft(1, 2000, now)));
    }
}
