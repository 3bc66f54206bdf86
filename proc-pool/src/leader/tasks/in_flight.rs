//! [`InFlightQueue`]: the tasks that were sent to a worker and are unanswered, and what happens to them when it dies.
//!
//! A worker runs and answers its tasks in the order in which they were sent, so they are a queue. Payloads are kept until the
//! answer: a task that the worker provably has not started can be sent to another worker. This module does only bookkeeping, it
//! knows no processes.

use std::collections::VecDeque;

use crate::leader::tasks::batch::TaskRun;
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

/// Tasks of a job at a worker: small ones that are alike, or a single one. The job is [`JobKey::NONE`] if they were taken back.
#[derive(Debug)]
pub(crate) struct Sent<K> {
    job: JobKey,
    run: TaskRun,
    /// Number of workers that died while running it, if it is a single one.
    deaths: u32,
    /// Boxed, because most tasks have none.
    large: Option<Box<K>>,
}

/// The tasks at one worker, oldest first. `K` keeps a large payload alive.
#[derive(Debug)]
pub(crate) struct InFlightQueue<K> {
    sent: VecDeque<Sent<K>>,
    /// Number of tasks in `sent`.
    outstanding: usize,
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
    fn new(job: JobKey, run: TaskRun) -> Self {
        let (deaths, large) = (0, None);
        Self {
            job,
            run,
            deaths,
            large,
        }
    }

    /// Takes the tasks. `frames` are those of the small ones.
    fn take(&mut self, frames: &[u8]) -> impl Iterator<Item = Task<K>> {
        let (job, run, deaths) = (self.job, self.run, self.deaths);
        let mut large = self.large.take();
        (0..run.count).map(move |at| Task {
            job,
            index: run.index + at as u64,
            deaths,
            payload: match large.take() {
                Some(large) => RetainedPayload::Large(*large),
                None => RetainedPayload::Frame(frames[at * run.frame_len..][..run.frame_len].to_vec()),
            },
        })
    }
}

impl<K> Default for InFlightQueue<K> {
    fn default() -> Self {
        Self {
            sent: VecDeque::new(),
            outstanding: 0,
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
        self.outstanding
    }

    /// Adds a task that was sent.
    pub(crate) fn push(&mut self, job: JobKey, index: u64, frame: &[u8]) {
        self.push_run(job, TaskRun::one(index, frame.len()), frame);
    }

    /// Adds small tasks that were sent, with their frames.
    #[inline]
    pub(crate) fn push_run(&mut self, job: JobKey, run: TaskRun, frames: &[u8]) {
        if run.count == 0 {
            return;
        }
        self.frames.extend_from_slice(frames);
        self.outstanding += run.count;
        match self.sent.back_mut() {
            Some(last)
                if last.job == job
                    && last.deaths == 0
                    && last.large.is_none()
                    && last.run.is_continued_by(run.index, run.frame_len) =>
            {
                last.run.count += run.count;
            }
            _ => self.sent.push_back(Sent::new(job, run)),
        }
    }

    /// Adds a large task.
    pub(crate) fn push_large(&mut self, job: JobKey, index: u64, large: K) {
        self.outstanding += 1;
        self.sent.push_back(Sent {
            large: Some(Box::new(large)),
            ..Sent::new(job, TaskRun::one(index, 0))
        });
    }

    /// Sets how many workers the last task has killed.
    pub(crate) fn set_deaths_of_last(&mut self, deaths: u32) {
        let Some(last) = self.sent.back_mut().filter(|_| deaths > 0) else {
            return;
        };
        let (job, others) = (last.job, last.run.count - 1);
        if others > 0 {
            let run = last.run.behind(others);
            last.run.count = others;
            self.sent.push_back(Sent::new(job, run));
        }
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
        self.outstanding - self.recalled
    }

    /// Returns whether there is a task of the job.
    pub(crate) fn has_task_of(&self, job: JobKey) -> bool {
        self.sent.iter().any(|sent| sent.job == job)
    }

    /// Returns the number of the job's first task among all tasks that the worker was sent; the first one is 1.
    pub(crate) fn number_of(&self, job: JobKey) -> Option<u64> {
        let position = self.sent.iter().position(|sent| sent.job == job)?;
        let before: usize = self.sent.range(..position).map(|sent| sent.run.count).sum();
        Some(self.answered + before as u64 + 1)
    }

    /// Returns whether there are tasks that were taken back.
    pub(crate) fn has_recalled(&self) -> bool {
        self.recalled > 0
    }

    /// Returns whether there is a task of the job beyond the first `started` tasks that the worker was sent.
    pub(crate) fn has_unstarted(&self, started: u64, job: JobKey) -> bool {
        // The tasks behind that number, from the last one on.
        let mut unstarted = self.outstanding - self.started_of(started);
        self.sent.iter().rev().any(|sent| {
            let reached = unstarted > 0;
            unstarted = unstarted.saturating_sub(sent.run.count);
            reached && sent.job == job
        })
    }

    /// Returns how many of the unanswered tasks are among the first `started` that the worker was sent.
    fn started_of(&self, started: u64) -> usize {
        started.saturating_sub(self.answered).min(self.outstanding as u64) as usize
    }

    /// Takes back all tasks but the first `kept` that the worker was sent. Returns those whose job is `wanted`, and the number of
    /// the others.
    pub(crate) fn recall(&mut self, kept: u64, wanted: impl Fn(JobKey) -> bool) -> Recalled<K> {
        let first = self.split_at(self.started_of(kept));
        let mut start = self.released
            + self
                .sent
                .range(..first)
                .map(|sent| sent.run.bytes())
                .sum::<usize>();
        let mut recalled = Recalled::default();
        for sent in self.sent.range_mut(first..) {
            let end = start + sent.run.bytes();
            if sent.job == JobKey::NONE {
                // They were taken back before.
            } else if wanted(sent.job) {
                recalled.wanted.extend(sent.take(&self.frames[start..end]));
            } else {
                recalled.dropped += sent.run.count;
                recalled.dropped_large.extend(sent.large.take());
            }
            sent.job = JobKey::NONE;
            start = end;
        }
        self.recalled += recalled.wanted.len() + recalled.dropped;
        recalled
    }

    /// Divides the run that contains the first `tasks` tasks and others. Returns the index of the first run of others.
    fn split_at(&mut self, tasks: usize) -> usize {
        let mut left = tasks;
        for at in 0..self.sent.len() {
            let sent = &mut self.sent[at];
            if left == 0 {
                return at;
            }
            if left < sent.run.count {
                let others = Sent::new(sent.job, sent.run.behind(left));
                sent.run.count = left;
                self.sent.insert(at + 1, others);
                return at + 1;
            }
            left -= sent.run.count;
        }
        self.sent.len()
    }

    /// Removes the oldest task because the worker reports it as not started. Returns it unless it was taken back before.
    pub(crate) fn pop_returned(&mut self) -> Option<Task<K>> {
        self.split_at(1);
        let frames = self.frames.get(self.released..)?;
        let sent = self.sent.front_mut()?;
        let wanted = sent.job != JobKey::NONE;
        let task = wanted.then(|| sent.take(frames).next()).flatten();
        self.pop_answered();
        task
    }

    /// Returns the oldest task, whose answer comes next.
    #[inline]
    pub(crate) fn next(&self) -> Option<(JobKey, u64)> {
        self.sent.front().map(|sent| (sent.job, sent.run.index))
    }

    /// Returns the number of answers since the worker's start.
    pub(crate) fn count_answered(&self) -> u64 {
        self.answered
    }

    /// Removes the oldest task because it was answered. Returns its large payload.
    #[inline]
    pub(crate) fn pop_answered(&mut self) -> Option<Box<K>> {
        let large = self.sent.front_mut()?.large.take();
        self.pop_answered_run(1);
        large
    }

    /// Returns the oldest tasks of the job that are small ones and alike, if those are the oldest of all.
    #[inline]
    pub(crate) fn front_run(&self, job: JobKey) -> Option<TaskRun> {
        let front = self.sent.front()?;
        (front.job == job && front.large.is_none()).then_some(front.run)
    }

    /// Removes the oldest `tasks` tasks because they were answered. They are not more than the oldest ones that are alike.
    #[inline]
    pub(crate) fn pop_answered_run(&mut self, tasks: usize) {
        let Some(front) = self.sent.front_mut() else {
            return;
        };
        let bytes = tasks * front.run.frame_len;
        self.answered += tasks as u64;
        self.outstanding -= tasks;
        if front.job == JobKey::NONE {
            self.recalled -= tasks;
        }
        match front.run.count > tasks {
            true => front.run = front.run.behind(tasks),
            false => drop(self.sent.pop_front()),
        }
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
        if started > self.answered {
            self.split_at(1);
        }
        let mut has_started = started > self.answered;
        let mut start = self.released;
        for mut sent in std::mem::take(&mut self.sent) {
            let end = start + sent.run.bytes();
            let is_in_progress = std::mem::take(&mut has_started);
            if sent.job != JobKey::NONE {
                let mut tasks = sent.take(&self.frames[start..end]);
                match is_in_progress {
                    true => recovered.in_progress = tasks.next(),
                    false => recovered.not_started.extend(tasks),
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

    /// What tasks are like: each with a frame of another length, or all but one alike, so that they are runs.
    const KINDS: [bool; 2] = [false, true];

    fn frame(index: u64, alike: bool) -> Vec<u8> {
        vec![index as u8; if alike { 3 } else { index as usize }]
    }

    fn in_flight(tasks: u64, alike: bool) -> InFlightQueue<()> {
        let mut in_flight = InFlightQueue::default();
        for index in 0..tasks {
            match index {
                3 => in_flight.push_large(JOB, index, ()),
                _ => in_flight.push(JOB, index, &frame(index, alike)),
            }
        }
        in_flight
    }

    fn task(index: u64, alike: bool) -> Task<()> {
        Task {
            job: JOB,
            index,
            deaths: 0,
            payload: match index {
                3 => RetainedPayload::Large(()),
                _ => RetainedPayload::Frame(frame(index, alike)),
            },
        }
    }

    fn tasks(indices: std::ops::Range<u64>, alike: bool) -> Vec<Task<()>> {
        indices.map(|index| task(index, alike)).collect()
    }

    #[test]
    fn each_task_is_either_answered_in_progress_or_not_started() {
        for (alike, sent) in KINDS
            .into_iter()
            .flat_map(|alike| (0..7).map(move |sent| (alike, sent)))
        {
            for answered in 0..=sent {
                for started in answered..=sent.min(answered + 1) {
                    let mut in_flight = in_flight(sent, alike);
                    for index in 0..answered {
                        assert_eq!(in_flight.next(), Some((JOB, index)));
                        in_flight.pop_answered();
                    }
                    assert_eq!(in_flight.outstanding() as u64, sent - answered);
                    assert_eq!(in_flight.has_unstarted(started, JOB), started < sent);
                    let recovered = in_flight.take_unanswered(started);
                    let in_progress = (started > answered).then(|| task(answered, alike));
                    assert_eq!(recovered.in_progress, in_progress);
                    assert_eq!(recovered.not_started, tasks(started..sent, alike));
                    assert_eq!((in_flight.outstanding(), in_flight.next()), (0, None));
                }
            }
        }
    }

    #[test]
    fn task_that_killed_workers_is_suspect_until_its_answer() {
        for alike in KINDS {
            let mut in_flight = in_flight(3, alike);
            assert!(!in_flight.last_is_suspect());
            in_flight.push(JOB, 3, &frame(3, alike));
            in_flight.set_deaths_of_last(2);
            for _ in 0..4 {
                assert!(in_flight.last_is_suspect());
                in_flight.pop_answered();
            }
            assert!(!in_flight.last_is_suspect());
        }
    }

    #[test]
    fn only_the_task_that_killed_workers_has_their_number() {
        for alike in KINDS {
            let mut in_flight = in_flight(3, alike);
            in_flight.set_deaths_of_last(2);
            // Another one is no part of its run.
            in_flight.push(JOB, 3, &frame(3, alike));
            let deaths = in_flight.take_unanswered(0).not_started;
            assert_eq!(
                deaths.iter().map(|task| task.deaths).collect::<Vec<_>>(),
                [0, 0, 2, 0]
            );
        }
    }

    #[test]
    fn recalled_tasks_are_neither_in_progress_nor_not_started() {
        for (alike, answered) in KINDS
            .into_iter()
            .flat_map(|alike| (0..6).map(move |at| (alike, at)))
        {
            for kept in answered..=7 {
                for started in answered..=7 {
                    let mut in_flight = in_flight(7, alike);
                    for _ in 0..answered {
                        in_flight.pop_answered();
                    }
                    let back = in_flight.recall(kept, |_| true).wanted;
                    assert_eq!(back, tasks(kept..7, alike));
                    assert_eq!(
                        (in_flight.count_wanted() as u64, in_flight.has_recalled()),
                        (kept - answered, kept < 7)
                    );
                    assert_eq!(in_flight.last_is_recalled(), kept < 7);
                    assert_eq!(in_flight.has_unstarted(answered, JOB), kept > answered);
                    assert_eq!(
                        in_flight.recall(answered, |_| true).wanted,
                        tasks(answered..kept, alike)
                    );
                    let recovered = in_flight.take_unanswered(started);
                    assert_eq!((recovered.in_progress, recovered.not_started), (None, vec![]));
                }
            }
        }
    }

    #[test]
    fn tasks_of_jobs_that_are_not_wanted_are_dropped() {
        for alike in KINDS {
            let mut in_flight = in_flight(5, alike);
            let recalled = in_flight.recall(1, |_| false);
            assert_eq!((recalled.wanted, recalled.dropped), (vec![], 4));
            assert_eq!(recalled.dropped_large.len(), 1);
            assert_eq!(in_flight.count_wanted(), 1);
        }
    }

    #[test]
    fn tasks_that_the_worker_returns_are_unchanged() {
        for alike in KINDS {
            let mut in_flight = in_flight(6, alike);
            assert_eq!(in_flight.recall(4, |_| true).wanted, tasks(4..6, alike));
            for index in 0..4 {
                assert_eq!(in_flight.pop_returned(), Some(task(index, alike)));
            }
            assert_eq!(in_flight.pop_returned(), None, "recalled before");
            assert_eq!((in_flight.pop_answered(), in_flight.pop_answered()), (None, None));
            assert_eq!((in_flight.outstanding(), in_flight.has_recalled()), (0, false));
        }
    }

    #[test]
    fn forged_number_of_started_tasks_costs_one_task_at_most() {
        for alike in KINDS {
            for forged in [4, 1000, u64::MAX] {
                let recovered = in_flight(3, alike).take_unanswered(forged);
                assert_eq!(recovered.in_progress, Some(task(0, alike)));
                assert_eq!(recovered.not_started, tasks(1..3, alike));
            }
            assert_eq!(in_flight(0, alike).take_unanswered(u64::MAX).in_progress, None);
        }
    }

    #[test]
    fn runs_of_tasks_behave_like_single_tasks() {
        let frames: Vec<Vec<u8>> = (0..2000u64).map(|index| vec![index as u8; 5]).collect();
        let (mut one, mut many) = (InFlightQueue::<()>::default(), InFlightQueue::<()>::default());
        for (index, frame) in (0..).zip(&frames) {
            one.push(JOB, index, frame);
        }
        let run = TaskRun {
            index: 0,
            count: 2000,
            frame_len: 5,
        };
        many.push_run(JOB, run, &frames.concat());
        for chunk in [0, 1, 999, 500] {
            for _ in 0..chunk {
                one.pop_answered();
            }
            many.pop_answered_run(chunk);
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
        assert_eq!(many.front_run(JOB).map(|run| run.count), Some(10));
        assert_eq!(many.front_run(JobKey::NONE), None);
        assert_eq!((many.sent.len(), one.sent.len()), (2, 2));
    }
}
