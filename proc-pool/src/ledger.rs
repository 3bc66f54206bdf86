//! The ledger: which tasks a worker has, and what became of them when it died.
//!
//! A worker takes its tasks in the order they were sent and answers in the same order, so the ledger is a queue.
//! Its payloads are kept until the answer: a task that was provably not started can be sent to another worker.
//! Pure bookkeeping, without processes.

use std::collections::VecDeque;

use crate::jobs::JobKey;

/// Bytes that are removed from a ledger's buffer at once, at least.
const MANY: usize = 4 << 10;

/// One task with its payload, not (or no longer) at any worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Task<K> {
    pub(crate) job: JobKey,
    pub(crate) index: u64,
    /// Workers that died of it.
    pub(crate) deaths: u32,
    pub(crate) payload: Kept<K>,
}

/// A task's payload, for as long as it may have to be sent again: its frame, or for a large one what keeps its
/// own memory alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kept<K> {
    Frame(Vec<u8>),
    Large(K),
}

/// A task at a worker.
#[derive(Debug)]
pub(crate) struct Sent<K> {
    pub(crate) job: JobKey,
    pub(crate) index: u64,
    /// Workers that died of it before.
    deaths: u32,
    /// Of its payload in the ledger's buffer.
    len: u32,
    /// Boxed, because most have none.
    large: Option<Box<K>>,
}

/// The tasks at one worker, oldest first. `K` is what a large payload needs to stay alive.
#[derive(Debug)]
pub(crate) struct Ledger<K> {
    sent: VecDeque<Sent<K>>,
    payloads: Vec<u8>,
    /// Bytes at the front of `payloads` that are of no more use: they are removed many at a time.
    used: usize,
    answered: u64,
}

/// What becomes of a dead worker's tasks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settled<K> {
    /// It was running this one.
    pub(crate) in_progress: Option<Task<K>>,
    /// It had not started these, in order.
    pub(crate) not_started: Vec<Task<K>>,
}

impl<K> Default for Ledger<K> {
    fn default() -> Self {
        Self {
            sent: VecDeque::new(),
            payloads: Vec::new(),
            used: 0,
            answered: 0,
        }
    }
}

impl<K> Ledger<K> {
    pub(crate) fn outstanding(&self) -> usize {
        self.sent.len()
    }

    #[inline]
    pub(crate) fn sent(&mut self, job: JobKey, index: u64, payload: &[u8]) {
        self.payloads.extend_from_slice(payload);
        let len = payload.len() as u32;
        let large = None;
        self.sent.push_back(Sent {
            job,
            index,
            deaths: 0,
            len,
            large,
        });
    }

    pub(crate) fn sent_large(&mut self, job: JobKey, index: u64, large: K) {
        let large = Some(Box::new(large));
        self.sent.push_back(Sent {
            job,
            index,
            deaths: 0,
            len: 0,
            large,
        });
    }

    /// The task that was sent last has cost workers before.
    pub(crate) fn had_deaths(&mut self, deaths: u32) {
        if let Some(last) = self.sent.back_mut() {
            last.deaths = deaths;
        }
    }

    /// Whether the task that was sent last has cost workers before.
    #[inline]
    pub(crate) fn ends_with_suspect(&self) -> bool {
        self.sent.back().is_some_and(|last| last.deaths > 0)
    }

    /// Whose answer comes next.
    #[inline]
    pub(crate) fn next(&self) -> Option<(JobKey, u64)> {
        self.sent.front().map(|sent| (sent.job, sent.index))
    }

    /// Answers that came.
    pub(crate) fn count_answered(&self) -> u64 {
        self.answered
    }

    /// That answer came; gives the memory that its large payload had.
    #[inline]
    pub(crate) fn answered(&mut self) -> Option<K> {
        let sent = self.sent.pop_front()?;
        self.used += sent.len as usize;
        self.answered += 1;
        if self.sent.is_empty() {
            self.payloads.clear();
            self.used = 0;
        } else if self.used > MANY && self.used > self.payloads.len() / 2 {
            self.payloads.drain(..self.used);
            self.used = 0;
        }
        sent.large.map(|large| *large)
    }

    /// The worker is gone; it said that it had started `started` tasks.
    pub(crate) fn settle(&mut self, started: u64) -> Settled<K> {
        let mut settled = Settled {
            in_progress: None,
            not_started: Vec::new(),
        };
        let mut payloads = std::mem::take(&mut self.payloads).into_iter().skip(self.used);
        let mut begun = started > self.answered;
        for sent in std::mem::take(&mut self.sent) {
            let bytes = payloads.by_ref().take(sent.len as usize).collect();
            let task = Task {
                job: sent.job,
                index: sent.index,
                deaths: sent.deaths,
                payload: sent.large.map_or(Kept::Frame(bytes), |large| Kept::Large(*large)),
            };
            match std::mem::take(&mut begun) {
                true => settled.in_progress = Some(task),
                false => settled.not_started.push(task),
            }
        }
        *self = Self::default();
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: JobKey = JobKey::TEST;

    fn ledger(tasks: u64) -> Ledger<()> {
        let mut ledger = Ledger::default();
        for index in 0..tasks {
            match index {
                2 => ledger.sent_large(JOB, index, ()),
                _ => ledger.sent(JOB, index, &vec![index as u8; index as usize]),
            }
        }
        ledger
    }

    fn task(index: u64) -> Task<()> {
        Task {
            job: JOB,
            index,
            deaths: 0,
            payload: match index {
                2 => Kept::Large(()),
                _ => Kept::Frame(vec![index as u8; index as usize]),
            },
        }
    }

    #[test]
    fn answered_in_progress_not_started_each_task_is_one_of_them() {
        for sent in 0..5 {
            for answered in 0..=sent {
                for started in answered..=sent.min(answered + 1) {
                    let mut ledger = ledger(sent);
                    for index in 0..answered {
                        assert_eq!(ledger.next(), Some((JOB, index)));
                        ledger.answered();
                    }
                    let settled = ledger.settle(started);
                    let in_progress = (started > answered).then(|| task(answered));
                    assert_eq!(settled.in_progress, in_progress);
                    assert_eq!(settled.not_started, (started..sent).map(task).collect::<Vec<_>>());
                    assert_eq!((ledger.outstanding(), ledger.next()), (0, None));
                }
            }
        }
    }

    #[test]
    fn a_task_that_cost_workers_is_suspect_until_its_answer() {
        let mut ledger = ledger(1);
        assert!(!ledger.ends_with_suspect());
        ledger.sent(JOB, 7, &[]);
        ledger.had_deaths(2);
        for _ in 0..2 {
            assert!(ledger.ends_with_suspect());
            ledger.answered();
        }
        assert!(!ledger.ends_with_suspect());
    }

    #[test]
    fn a_lie_about_what_was_started_costs_one_task_at_most() {
        for lie in [4, 1000, u64::MAX] {
            let settled = ledger(3).settle(lie);
            assert_eq!(settled.in_progress, Some(task(0)));
            assert_eq!(settled.not_started, [task(1), task(2)]);
        }
        assert_eq!(ledger(0).settle(u64::MAX).in_progress, None);
    }
}
