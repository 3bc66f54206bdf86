//! [`InFlightQueue`]: the tasks that were sent to a worker and are unanswered, and what happens to them when it dies.
//!
//! A worker runs and answers its tasks in the order in which they were sent, so they are a queue. Payloads are kept until the
//! answer: a task that the worker provably has not started can be sent to another worker. This module does only bookkeeping, it
//! knows no processes.

use std::collections::VecDeque;

use crate::leader::tasks::jobs::JobKey;

/// Bytes are removed from the front of the payload buffer in batches of at least this size.
const MIN_REMOVAL: usize = 4 << 10;

/// A task with its payload that is at no worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Task<K> {
    pub(crate) job: JobKey,
    pub(crate) index: u64,
    /// Number of workers that died while running it.
    pub(crate) deaths: u32,
    pub(crate) payload: RetainedPayload<K>,
}

/// The payload of a task, kept as long as the task may have to be sent again: its frame, or for a large task what keeps its
/// memory alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RetainedPayload<K> {
    Frame(Vec<u8>),
    Large(K),
}

/// A task at a worker. Its job is [`JobKey::NONE`] if it was taken back.
#[derive(Debug)]
pub(crate) struct Sent<K> {
    pub(crate) job: JobKey,
    pub(crate) index: u64,
    /// Number of workers that died while running it.
    deaths: u32,
    /// The length of its frame in the queue's buffer.
    len: u32,
    /// Boxed, because most tasks have none.
    large: Option<Box<K>>,
}

/// The tasks at one worker, oldest first. `K` keeps a large payload alive.
#[derive(Debug)]
pub(crate) struct InFlightQueue<K> {
    sent: VecDeque<Sent<K>>,
    /// The frames of the tasks in `sent`.
    frames: Vec<u8>,
    /// Number of bytes at the front of `frames` that are not needed any more.
    released: usize,
    answered: u64,
    /// Number of tasks in `sent` that were taken back. The worker still has to acknowledge them.
    recalled: usize,
}

/// Tasks that were taken back from a worker.
#[derive(Debug)]
pub(crate) struct Recalled<K> {
    /// The tasks that are still wanted, in order.
    pub(crate) wanted: Vec<Task<K>>,
    /// The number of tasks that are not wanted.
    pub(crate) dropped: usize,
    /// The large payloads of the tasks that are not wanted.
    pub(crate) dropped_large: Vec<Box<K>>,
}

impl<K> Default for Recalled<K> {
    fn default() -> Self {
        Self {
            wanted: Vec::new(),
            dropped: 0,
            dropped_large: Vec::new(),
        }
    }
}

/// The unanswered tasks of a dead worker.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Recovered<K> {
    /// The task that it was running.
    pub(crate) in_progress: Option<Task<K>>,
    /// The tasks that it had not started, in order.
    pub(crate) not_started: Vec<Task<K>>,
}

impl<K> Sent<K> {
    /// Returns the length of its frame, or `None` for a large task.
    #[inline]
    pub(crate) fn small_len(&self) -> Option<usize> {
        self.large.is_none().then_some(self.len as usize)
    }

    /// Returns the task. `frame` is its payload unless it is large.
    fn take(&mut self, frame: &[u8]) -> Task<K> {
        let large = self.large.take().map(|large| RetainedPayload::Large(*large));
        Task {
            job: self.job,
            index: self.index,
            deaths: self.deaths,
            payload: large.unwrap_or_else(|| RetainedPayload::Frame(frame.to_vec())),
        }
    }
}

impl<K> Default for InFlightQueue<K> {
    fn default() -> Self {
        Self {
            sent: VecDeque::new(),
            frames: Vec::new(),
            released: 0,
            answered: 0,
            recalled: 0,
        }
    }
}

impl<K> InFlightQueue<K> {
    /// Returns the number of unanswered tasks, those that were taken back included.
    pub(crate) fn outstanding(&self) -> usize {
        self.sent.len()
    }

    /// Adds a task that was sent.
    #[inline]
    pub(crate) fn push(&mut self, job: JobKey, index: u64, frame: &[u8]) {
        self.frames.extend_from_slice(frame);
        let len = frame.len() as u32;
        let large = None;
        self.sent.push_back(Sent {
            job,
            index,
            deaths: 0,
            len,
            large,
        });
    }

    /// Adds several tasks, each as its index and the length of its frame. The frames are contiguous in `frames`.
    #[inline]
    pub(crate) fn push_run(&mut self, job: JobKey, tasks: impl Iterator<Item = (u64, u32)>, frames: &[u8]) {
        self.frames.extend_from_slice(frames);
        self.sent.extend(tasks.map(|(index, len)| Sent {
            job,
            index,
            deaths: 0,
            len,
            large: None,
        }));
    }

    /// Adds a large task.
    pub(crate) fn push_large(&mut self, job: JobKey, index: u64, large: K) {
        let large = Some(Box::new(large));
        self.sent.push_back(Sent {
            job,
            index,
            deaths: 0,
            len: 0,
            large,
        });
    }

    /// Sets how many workers the last task has killed.
    pub(crate) fn set_deaths_of_last(&mut self, deaths: u32) {
        if let Some(last) = self.sent.back_mut() {
            last.deaths = deaths;
        }
    }

    /// Returns whether the last task has killed workers before.
    #[inline]
    pub(crate) fn last_is_suspect(&self) -> bool {
        self.sent.back().is_some_and(|last| last.deaths > 0)
    }

    /// Returns whether the oldest task is a large one.
    pub(crate) fn next_is_large(&self) -> bool {
        self.sent.front().is_some_and(|next| next.large.is_some())
    }

    /// Returns whether the last task was taken back.
    pub(crate) fn last_is_recalled(&self) -> bool {
        self.sent.back().is_some_and(|last| last.job == JobKey::NONE)
    }

    /// Returns the number of tasks that were not taken back.
    pub(crate) fn count_wanted(&self) -> usize {
        self.sent.len() - self.recalled
    }

    /// Returns whether there is a task of the job.
    pub(crate) fn has_task_of(&self, job: JobKey) -> bool {
        self.sent.iter().any(|sent| sent.job == job)
    }

    /// Returns the number of the job's first task among all tasks that the worker was sent; the first one is 1.
    pub(crate) fn number_of(&self, job: JobKey) -> Option<u64> {
        let before = self.sent.iter().position(|sent| sent.job == job)?;
        Some(self.answered + before as u64 + 1)
    }

    /// Returns whether there are tasks that were taken back.
    pub(crate) fn has_recalled(&self) -> bool {
        self.recalled > 0
    }

    /// Returns whether there is a task of the job beyond the first `started` tasks that the worker was sent.
    pub(crate) fn has_unstarted(&self, started: u64, job: JobKey) -> bool {
        let first = started.saturating_sub(self.answered).min(self.sent.len() as u64) as usize;
        // The tasks that were taken back are at the end of the queue.
        let last = self.count_wanted().max(first);
        self.sent.range(first..last).rev().any(|sent| sent.job == job)
    }

    /// Takes back all tasks but the first `kept` that the worker was sent. Returns those whose job is `wanted`, and the number of
    /// the others.
    pub(crate) fn recall(&mut self, kept: u64, wanted: impl Fn(JobKey) -> bool) -> Recalled<K> {
        let first = kept.saturating_sub(self.answered).min(self.sent.len() as u64) as usize;
        let mut start = self.released
            + self
                .sent
                .range(..first)
                .map(|sent| sent.len as usize)
                .sum::<usize>();
        let mut recalled = Recalled::default();
        for sent in self.sent.range_mut(first..) {
            let end = start + sent.len as usize;
            let job = std::mem::replace(&mut sent.job, JobKey::NONE);
            if job == JobKey::NONE {
                // It was taken back before.
            } else if wanted(job) {
                recalled.wanted.push(Task {
                    job,
                    ..sent.take(&self.frames[start..end])
                });
            } else {
                recalled.dropped += 1;
                recalled.dropped_large.extend(sent.large.take());
            }
            start = end;
        }
        self.recalled += recalled.wanted.len() + recalled.dropped;
        recalled
    }

    /// Removes the oldest task because the worker reports it as not started. Returns it unless it was taken back before.
    pub(crate) fn pop_returned(&mut self) -> Option<Task<K>> {
        let frames = self.frames.get(self.released..)?;
        let sent = self.sent.front_mut()?;
        let task = (sent.job != JobKey::NONE).then(|| sent.take(&frames[..sent.len as usize]));
        self.pop_answered();
        task
    }

    /// Returns the oldest task, whose answer comes next.
    #[inline]
    pub(crate) fn next(&self) -> Option<(JobKey, u64)> {
        self.sent.front().map(|sent| (sent.job, sent.index))
    }

    /// Returns the number of answers since the worker's start.
    pub(crate) fn count_answered(&self) -> u64 {
        self.answered
    }

    /// Removes the oldest task because it was answered. Returns its large payload.
    #[inline]
    pub(crate) fn pop_answered(&mut self) -> Option<Box<K>> {
        let sent = self.sent.pop_front()?;
        self.answered += 1;
        self.recalled -= usize::from(sent.job == JobKey::NONE);
        self.release(sent.len as usize);
        sent.large
    }

    /// Returns the oldest tasks, up to the first one of another job.
    #[inline]
    pub(crate) fn front_of(&self, job: JobKey) -> impl Iterator<Item = &Sent<K>> {
        self.sent.iter().take_while(move |sent| sent.job == job)
    }

    /// Removes the oldest `tasks` tasks because they were answered. They are small ones of a job, with `bytes` bytes in all.
    #[inline]
    pub(crate) fn pop_answered_run(&mut self, tasks: usize, bytes: usize) {
        self.sent.drain(..tasks);
        self.answered += tasks as u64;
        self.release(bytes);
    }

    /// Marks `bytes` more bytes at the front of the buffer as not needed any more.
    #[inline]
    fn release(&mut self, bytes: usize) {
        self.released += bytes;
        if self.sent.is_empty() {
            self.frames.clear();
            self.released = 0;
        } else if self.released > MIN_REMOVAL && self.released > self.frames.len() / 2 {
            self.frames.drain(..self.released);
            self.released = 0;
        }
    }

    /// Removes all tasks of a worker that is dead. It reported that it had started `started` tasks.
    pub(crate) fn take_unanswered(&mut self, started: u64) -> Recovered<K> {
        let mut recovered = Recovered {
            in_progress: None,
            not_started: Vec::new(),
        };
        let mut has_started = started > self.answered;
        let mut start = self.released;
        for mut sent in std::mem::take(&mut self.sent) {
            let end = start + sent.len as usize;
            let is_in_progress = std::mem::take(&mut has_started);
            if sent.job != JobKey::NONE {
                let task = sent.take(&self.frames[start..end]);
                match is_in_progress {
                    true => recovered.in_progress = Some(task),
                    false => recovered.not_started.push(task),
                }
            }
            start = end;
        }
        *self = Self::default();
        recovered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: JobKey = JobKey::TEST;

    fn in_flight(tasks: u64) -> InFlightQueue<()> {
        let mut in_flight = InFlightQueue::default();
        for index in 0..tasks {
            match index {
                2 => in_flight.push_large(JOB, index, ()),
                _ => in_flight.push(JOB, index, &vec![index as u8; index as usize]),
            }
        }
        in_flight
    }

    fn task(index: u64) -> Task<()> {
        Task {
            job: JOB,
            index,
            deaths: 0,
            payload: match index {
                2 => RetainedPayload::Large(()),
                _ => RetainedPayload::Frame(vec![index as u8; index as usize]),
            },
        }
    }

    #[test]
    fn each_task_is_either_answered_in_progress_or_not_started() {
        for sent in 0..5 {
            for answered in 0..=sent {
                for started in answered..=sent.min(answered + 1) {
                    let mut in_flight = in_flight(sent);
                    for index in 0..answered {
                        assert_eq!(in_flight.next(), Some((JOB, index)));
                        in_flight.pop_answered();
                    }
                    let recovered = in_flight.take_unanswered(started);
                    let in_progress = (started > answered).then(|| task(answered));
                    assert_eq!(recovered.in_progress, in_progress);
                    assert_eq!(
                        recovered.not_started,
                        (started..sent).map(task).collect::<Vec<_>>()
                    );
                    assert_eq!((in_flight.outstanding(), in_flight.next()), (0, None));
                }
            }
        }
    }

    #[test]
    fn task_that_killed_workers_is_suspect_until_its_answer() {
        let mut in_flight = in_flight(1);
        assert!(!in_flight.last_is_suspect());
        in_flight.push(JOB, 7, &[]);
        in_flight.set_deaths_of_last(2);
        for _ in 0..2 {
            assert!(in_flight.last_is_suspect());
            in_flight.pop_answered();
        }
        assert!(!in_flight.last_is_suspect());
    }

    #[test]
    fn recalled_tasks_are_neither_in_progress_nor_not_started() {
        for answered in 0..4 {
            for kept in answered..=5 {
                for started in answered..=5 {
                    let mut in_flight = in_flight(5);
                    for _ in 0..answered {
                        in_flight.pop_answered();
                    }
                    let back = in_flight.recall(kept, |_| true).wanted;
                    assert_eq!(back, (kept..5).map(task).collect::<Vec<_>>());
                    assert_eq!(
                        (in_flight.count_wanted() as u64, in_flight.has_recalled()),
                        (kept - answered, kept < 5)
                    );
                    assert_eq!(
                        in_flight.recall(answered, |_| true).wanted,
                        (answered..kept).map(task).collect::<Vec<_>>()
                    );
                    let recovered = in_flight.take_unanswered(started);
                    assert_eq!((recovered.in_progress, recovered.not_started), (None, vec![]));
                }
            }
        }
    }

    #[test]
    fn tasks_that_the_worker_returns_are_unchanged() {
        let mut in_flight = in_flight(5);
        assert_eq!(in_flight.recall(3, |_| true).wanted, [task(3), task(4)]);
        for index in 0..3 {
            assert_eq!(in_flight.pop_returned(), Some(task(index)));
        }
        assert_eq!(in_flight.pop_returned(), None, "recalled before");
        assert_eq!((in_flight.pop_answered(), in_flight.pop_answered()), (None, None));
        assert_eq!((in_flight.outstanding(), in_flight.has_recalled()), (0, false));
    }

    #[test]
    fn forged_number_of_started_tasks_costs_one_task_at_most() {
        for forged in [4, 1000, u64::MAX] {
            let recovered = in_flight(3).take_unanswered(forged);
            assert_eq!(recovered.in_progress, Some(task(0)));
            assert_eq!(recovered.not_started, [task(1), task(2)]);
        }
        assert_eq!(in_flight(0).take_unanswered(u64::MAX).in_progress, None);
    }

    #[test]
    fn runs_of_tasks_behave_like_single_tasks() {
        let frames: Vec<Vec<u8>> = (0..2000u64).map(|index| vec![index as u8; 5]).collect();
        let (mut one, mut many) = (InFlightQueue::<()>::default(), InFlightQueue::<()>::default());
        for (index, frame) in (0..).zip(&frames) {
            one.push(JOB, index, frame);
        }
        many.push_run(JOB, (0..2000).map(|index| (index, 5)), &frames.concat());
        for chunk in [0, 1, 999, 500] {
            for _ in 0..chunk {
                one.pop_answered();
            }
            let bytes = many.front_of(JOB).take(chunk).filter_map(Sent::small_len).sum();
            many.pop_answered_run(chunk, bytes);
            assert_eq!(many.next(), one.next());
            assert_eq!(many.count_answered(), one.count_answered());
            // Bytes that are not needed any more may be removed at different times.
            assert_eq!(many.frames[many.released..], one.frames[one.released..]);
        }
        assert_eq!(many.number_of(JOB), Some(1501));
        let kept = one.count_answered() + 10;
        assert_eq!(
            many.recall(kept, |_| true).wanted,
            one.recall(kept, |_| true).wanted
        );
        assert_eq!(many.front_of(JOB).count(), 10);
        assert_eq!(many.front_of(JobKey::NONE).count(), 0);
    }
}
