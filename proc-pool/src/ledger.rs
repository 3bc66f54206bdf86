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
    /// Tasks that were taken back and are still to be told of.
    recalled: usize,
}

/// Tasks that were taken back from a worker.
#[derive(Debug)]
pub(crate) struct Recalled<K> {
    /// Those that are still wanted, in order.
    pub(crate) back: Vec<Task<K>>,
    /// The number of the others.
    pub(crate) dropped: usize,
    /// The large payloads of the others.
    pub(crate) large: Vec<Box<K>>,
}

impl<K> Default for Recalled<K> {
    fn default() -> Self {
        Self {
            back: Vec::new(),
            dropped: 0,
            large: Vec::new(),
        }
    }
}

/// What becomes of a dead worker's tasks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settled<K> {
    /// It was running this one.
    pub(crate) in_progress: Option<Task<K>>,
    /// It had not started these, in order.
    pub(crate) not_started: Vec<Task<K>>,
}

impl<K> Sent<K> {
    /// The length of its payload, unless that is a large one.
    #[inline]
    pub(crate) fn small(&self) -> Option<usize> {
        self.large.is_none().then_some(self.len as usize)
    }

    /// The task; `frame` is its payload if it is not a large one.
    fn take(&mut self, frame: &[u8]) -> Task<K> {
        let large = self.large.take().map(|large| Kept::Large(*large));
        Task {
            job: self.job,
            index: self.index,
            deaths: self.deaths,
            payload: large.unwrap_or_else(|| Kept::Frame(frame.to_vec())),
        }
    }
}

impl<K> Default for Ledger<K> {
    fn default() -> Self {
        Self {
            sent: VecDeque::new(),
            payloads: Vec::new(),
            used: 0,
            answered: 0,
            recalled: 0,
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

    /// The same for several tasks: their indices, and how many of the bytes of `payloads` are each one's.
    #[inline]
    pub(crate) fn sent_run(&mut self, job: JobKey, tasks: impl Iterator<Item = (u64, u32)>, payloads: &[u8]) {
        self.payloads.extend_from_slice(payloads);
        self.sent.extend(tasks.map(|(index, len)| Sent {
            job,
            index,
            deaths: 0,
            len,
            large: None,
        }));
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

    /// Whether the next answer is that of a large task.
    pub(crate) fn starts_with_large(&self) -> bool {
        self.sent.front().is_some_and(|next| next.large.is_some())
    }

    /// Whether the task that was sent last was taken back.
    pub(crate) fn ends_with_recalled(&self) -> bool {
        self.sent.back().is_some_and(|last| last.job == JobKey::NOBODY)
    }

    /// Tasks that the worker is to run.
    pub(crate) fn live(&self) -> usize {
        self.sent.len() - self.recalled
    }

    /// Whether a task of that job is there.
    pub(crate) fn has(&self, job: JobKey) -> bool {
        self.sent.iter().any(|sent| sent.job == job)
    }

    /// Which of the worker's tasks that job's first one is, counted from one since the worker's start.
    pub(crate) fn place(&self, job: JobKey) -> Option<u64> {
        let before = self.sent.iter().position(|sent| sent.job == job)?;
        Some(self.answered + before as u64 + 1)
    }

    /// Whether it still has to tell of tasks that were taken back.
    pub(crate) fn has_recalled(&self) -> bool {
        self.recalled > 0
    }

    /// Whether the worker still has a task of that job beyond its first `started` tasks.
    pub(crate) fn has_beyond(&self, started: u64, job: JobKey) -> bool {
        let first = started.saturating_sub(self.answered).min(self.sent.len() as u64) as usize;
        // The tasks that were taken back are the end of the queue.
        let last = self.live().max(first);
        self.sent.range(first..last).rev().any(|sent| sent.job == job)
    }

    /// Takes back the tasks that the worker has not started: all but its first `kept`, counted since its start. Returns
    /// those that are `wanted`, and the number of the others.
    pub(crate) fn recall(&mut self, kept: u64, wanted: impl Fn(JobKey) -> bool) -> Recalled<K> {
        let first = kept.saturating_sub(self.answered).min(self.sent.len() as u64) as usize;
        let mut start = self.used
            + self
                .sent
                .range(..first)
                .map(|sent| sent.len as usize)
                .sum::<usize>();
        let mut recalled = Recalled::default();
        for sent in self.sent.range_mut(first..) {
            let end = start + sent.len as usize;
            let job = std::mem::replace(&mut sent.job, JobKey::NOBODY);
            if job == JobKey::NOBODY {
                // It was taken back before.
            } else if wanted(job) {
                recalled.back.push(Task {
                    job,
                    ..sent.take(&self.payloads[start..end])
                });
            } else {
                recalled.dropped += 1;
                recalled.large.extend(sent.large.take());
            }
            start = end;
        }
        self.recalled += recalled.back.len() + recalled.dropped;
        recalled
    }

    /// The worker says that it did not begin the next one; gives it back unless it is known.
    pub(crate) fn returned(&mut self) -> Option<Task<K>> {
        let payload = self.payloads.get(self.used..)?;
        let sent = self.sent.front_mut()?;
        let task = (sent.job != JobKey::NOBODY).then(|| sent.take(&payload[..sent.len as usize]));
        self.answered();
        task
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
    pub(crate) fn answered(&mut self) -> Option<Box<K>> {
        let sent = self.sent.pop_front()?;
        self.answered += 1;
        self.recalled -= usize::from(sent.job == JobKey::NOBODY);
        self.let_go(sent.len as usize);
        sent.large
    }

    /// The oldest tasks, as far as they are that job's.
    #[inline]
    pub(crate) fn front(&self, job: JobKey) -> impl Iterator<Item = &Sent<K>> {
        self.sent.iter().take_while(move |sent| sent.job == job)
    }

    /// The answers to the oldest `tasks` came, which are small ones of a job, of `bytes` bytes in all.
    #[inline]
    pub(crate) fn answered_run(&mut self, tasks: usize, bytes: usize) {
        self.sent.drain(..tasks);
        self.answered += tasks as u64;
        self.let_go(bytes);
    }

    /// So many more bytes at the front of the payloads are of no more use.
    #[inline]
    fn let_go(&mut self, bytes: usize) {
        self.used += bytes;
        if self.sent.is_empty() {
            self.payloads.clear();
            self.used = 0;
        } else if self.used > MANY && self.used > self.payloads.len() / 2 {
            self.payloads.drain(..self.used);
            self.used = 0;
        }
    }

    /// The worker is gone; it said that it had started `started` tasks.
    pub(crate) fn settle(&mut self, started: u64) -> Settled<K> {
        let mut settled = Settled {
            in_progress: None,
            not_started: Vec::new(),
        };
        let mut begun = started > self.answered;
        let mut start = self.used;
        for mut sent in std::mem::take(&mut self.sent) {
            let end = start + sent.len as usize;
            let first = std::mem::take(&mut begun);
            if sent.job != JobKey::NOBODY {
                let task = sent.take(&self.payloads[start..end]);
                match first {
                    true => settled.in_progress = Some(task),
                    false => settled.not_started.push(task),
                }
            }
            start = end;
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
    fn what_was_taken_back_is_neither_in_progress_nor_resent() {
        for answered in 0..4 {
            for kept in answered..=5 {
                for started in answered..=5 {
                    let mut ledger = ledger(5);
                    for _ in 0..answered {
                        ledger.answered();
                    }
                    let back = ledger.recall(kept, |_| true).back;
                    assert_eq!(back, (kept..5).map(task).collect::<Vec<_>>());
                    assert_eq!(
                        (ledger.live() as u64, ledger.has_recalled()),
                        (kept - answered, kept < 5)
                    );
                    assert_eq!(
                        ledger.recall(answered, |_| true).back,
                        (answered..kept).map(task).collect::<Vec<_>>()
                    );
                    let settled = ledger.settle(started);
                    assert_eq!((settled.in_progress, settled.not_started), (None, vec![]));
                }
            }
        }
    }

    #[test]
    fn what_the_worker_gives_back_is_as_it_was_sent() {
        let mut ledger = ledger(5);
        assert_eq!(ledger.recall(3, |_| true).back, [task(3), task(4)]);
        for index in 0..3 {
            assert_eq!(ledger.returned(), Some(task(index)));
        }
        assert_eq!(ledger.returned(), None, "known");
        assert_eq!((ledger.answered(), ledger.answered()), (None, None));
        assert_eq!((ledger.outstanding(), ledger.has_recalled()), (0, false));
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

    #[test]
    fn several_at_once_are_the_same_as_one_after_the_other() {
        let frames: Vec<Vec<u8>> = (0..2000u64).map(|index| vec![index as u8; 5]).collect();
        let (mut one, mut many) = (Ledger::<()>::default(), Ledger::<()>::default());
        for (index, frame) in (0..).zip(&frames) {
            one.sent(JOB, index, frame);
        }
        many.sent_run(JOB, (0..2000).map(|index| (index, 5)), &frames.concat());
        for chunk in [0, 1, 999, 500] {
            for _ in 0..chunk {
                one.answered();
            }
            let bytes = many.front(JOB).take(chunk).filter_map(Sent::small).sum();
            many.answered_run(chunk, bytes);
            assert_eq!(many.next(), one.next());
            assert_eq!(many.count_answered(), one.count_answered());
            // What is of no more use may be removed at different times.
            assert_eq!(many.payloads[many.used..], one.payloads[one.used..]);
        }
        assert_eq!(many.place(JOB), Some(1501));
        let kept = one.count_answered() + 10;
        assert_eq!(many.recall(kept, |_| true).back, one.recall(kept, |_| true).back);
        assert_eq!(many.front(JOB).count(), 10);
        assert_eq!(many.front(JobKey::NOBODY).count(), 0);
    }
}
