//! [`Jobs`]: each map over a pool is a job, and so is each task that was submitted alone. The outcomes of its tasks wait in the job
//! until its owner takes them.

use std::ops::Range;
use std::task::Waker;

use shm_buffers::out_of_band::Received;

use crate::error::Fault;
use crate::wire::owned_bytes::OwnedBytes;

/// Maximum capacity in bytes that is kept for the next outputs.
const KEEP: usize = 1 << 20;

/// Identifies a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct JobKey {
    index: u32,
    generation: u32,
}

impl JobKey {
    /// The key of no job. Tasks that were taken back from a worker have it in the worker's queue.
    pub(crate) const NONE: Self = Self {
        index: u32::MAX,
        generation: 0,
    };
    #[cfg(test)]
    pub(crate) const TEST: Self = Self {
        index: 0,
        generation: 0,
    };
}

/// A finished task.
#[derive(Debug)]
pub(crate) struct Completion {
    pub(crate) index: u64,
    pub(crate) outcome: Outcome,
}

/// The result of a task.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The output is this range of [`Completions::bytes`].
    Bytes {
        start: usize,
        end: usize,
    },
    /// An output that was too large for a ring.
    Large(OwnedBytes),
    /// An output whose buffers have come apart from it.
    Apart(Box<OutputApart>),
    Fault(Box<Fault>),
}

/// An encoded output, and the buffers that it leaves out.
#[derive(Debug)]
pub(crate) struct OutputApart {
    pub(crate) encoded: OwnedBytes,
    pub(crate) buffers: Vec<Received>,
}

impl OutputApart {
    /// Returns the number of bytes of all of it.
    pub(crate) fn len(&self) -> usize {
        self.encoded.len() + self.buffers.iter().map(Received::len).sum::<usize>()
    }
}

impl Outcome {
    /// Returns the encoded output, if there is one. A small output is a range of `bytes`.
    #[inline]
    pub(crate) fn encoded<'a>(&'a self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        match self {
            Self::Bytes { start, end } => Some(&bytes[*start..*end]),
            Self::Large(bytes) => Some(bytes),
            Self::Apart(_) | Self::Fault(_) => None,
        }
    }
}

/// Finished tasks: one, or a run of small outputs, so that most tasks cost no more than a count.
#[derive(Debug)]
enum Entry {
    One(Completion),
    Run(Run),
}

/// The outputs of `count` tasks with consecutive indices, each of `len` bytes. The first starts at `start` in [`Completions::bytes`],
/// and each other one byte behind the one before: each is a frame with its tag.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) index: u64,
    pub(crate) start: usize,
    pub(crate) len: usize,
    pub(crate) count: usize,
}

impl Run {
    /// Returns the length of each frame.
    #[inline]
    pub(crate) fn frame_len(&self) -> usize {
        self.len + 1
    }

    /// Returns where its frames lie.
    #[inline]
    pub(crate) fn frames(&self) -> Range<usize> {
        let first = self.start - 1;
        first..first + self.count * self.frame_len()
    }

    /// Returns where output `at` starts.
    #[inline]
    fn start_of(&self, at: usize) -> usize {
        self.start + at * self.frame_len()
    }
}

/// Finished tasks in the order of their completion, with their small outputs in one buffer.
#[derive(Debug, Default)]
pub(crate) struct Completions {
    list: Vec<Entry>,
    pub(crate) bytes: Vec<u8>,
    /// Number of tasks that were not taken.
    left: usize,
    /// Position in `list` of the next task to be taken, and its position in its run.
    next: (usize, usize),
}

impl Completions {
    /// Returns the number of tasks that were not taken.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.left
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn clear(&mut self) {
        self.list.clear();
        self.bytes.clear();
        self.bytes.shrink_to(KEEP);
        (self.left, self.next) = Default::default();
    }

    pub(crate) fn push(&mut self, index: u64, outcome: Outcome) {
        self.list.push(Entry::One(Completion { index, outcome }));
        self.left += 1;
    }

    /// Adds small outputs. They join the run before them, if they continue that.
    #[inline]
    pub(crate) fn push_run(&mut self, run: Run) {
        self.left += run.count;
        match self.list.last_mut() {
            Some(Entry::Run(last))
                if last.index + last.count as u64 == run.index
                    && last.start_of(last.count) == run.start
                    && last.len == run.len =>
            {
                last.count += run.count;
            }
            _ => self.list.push(Entry::Run(run)),
        }
    }

    pub(crate) fn fault(&mut self, index: u64, fault: Fault) {
        self.push(index, Outcome::Fault(Box::new(fault)));
    }

    /// Returns the next tasks, up to `most`, if they are a run. They are taken by [`skip`](Self::skip).
    #[inline]
    pub(crate) fn next_run(&self, most: usize) -> Option<Run> {
        let (at, in_run) = self.next;
        let Some(Entry::Run(run)) = self.list.get(at) else {
            return None;
        };
        Some(Run {
            index: run.index + in_run as u64,
            start: run.start_of(in_run),
            len: run.len,
            count: (run.count - in_run).min(most),
        })
    }

    /// Takes the first `count` tasks of the next run. The run has at least this number.
    #[inline]
    pub(crate) fn skip(&mut self, count: usize) {
        let (at, in_run) = self.next;
        let Some(Entry::Run(run)) = self.list.get(at) else {
            return;
        };
        let end = in_run + count;
        self.left -= count;
        self.next = match end < run.count {
            true => (at, end),
            false => (at + 1, 0),
        };
    }

    /// Takes the next task.
    #[inline]
    pub(crate) fn take_next(&mut self) -> Option<Completion> {
        let (at, in_run) = self.next;
        let next = self.list.get_mut(at)?;
        self.left -= 1;
        self.next = (at + 1, 0);
        Some(match next {
            Entry::Run(run) => {
                let start = run.start_of(in_run);
                if in_run + 1 < run.count {
                    self.next = (at, in_run + 1);
                }
                Completion {
                    index: run.index + in_run as u64,
                    outcome: Outcome::Bytes {
                        start,
                        end: start + run.len,
                    },
                }
            }
            Entry::One(Completion { index, outcome }) => Completion {
                index: *index,
                // Moved out, so that nothing of a large output is left behind.
                outcome: std::mem::replace(outcome, Outcome::Bytes { start: 0, end: 0 }),
            },
        })
    }
}

/// One map over the pool, or one task that was submitted alone.
#[derive(Debug, Default)]
pub(crate) struct Job {
    pub(crate) done: Completions,
    /// The alignment of the memory into which large outputs are received.
    pub(crate) alignment: usize,
    /// Number of tasks that were submitted and have no outcome yet.
    pub(crate) pending: usize,
    /// The job is one task, and it was cancelled.
    pub(crate) withdrawn: bool,
    /// Wakes the future that awaits the job.
    waker: Option<Waker>,
}

/// The result of [`Jobs::note_waker`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Noted {
    Yes,
    /// The job needs a clone of the waker. The caller makes it while nothing is locked.
    NeedsClone,
}

/// All jobs, found in constant time. The key of a job that ended never refers to another job.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    /// Generations and jobs, by index.
    slots: Vec<(u32, Option<Job>)>,
    free: Vec<u32>,
    /// Wakers of jobs with new outcomes, to be called when nothing is locked.
    woken: Vec<Waker>,
}

impl Jobs {
    /// Adds a job whose large outputs are received into memory of this alignment.
    pub(crate) fn add(&mut self, alignment: usize) -> JobKey {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            self.slots.len() as u32 - 1
        });
        let (generation, job) = &mut self.slots[index as usize];
        *generation = generation.wrapping_add(1);
        *job = Some(Job {
            alignment,
            ..Job::default()
        });
        JobKey {
            index,
            generation: *generation,
        }
    }

    pub(crate) fn get(&mut self, key: JobKey) -> Option<&mut Job> {
        let (generation, job) = self.slots.get_mut(key.index as usize)?;
        if *generation == key.generation {
            job.as_mut()
        } else {
            None
        }
    }

    /// Ends the job. The caller drops it while nothing is locked, because dropping its waker runs user code.
    #[must_use]
    pub(crate) fn remove(&mut self, key: JobKey) -> Option<Job> {
        self.get(key)?;
        self.free.push(key.index);
        self.slots[key.index as usize].1.take()
    }

    /// Returns whether the tasks of the job are still to be run.
    #[inline]
    pub(crate) fn is_wanted(&self, key: JobKey) -> bool {
        let slot = self.slots.get(key.index as usize);
        slot.is_some_and(|(generation, job)| {
            *generation == key.generation && job.as_ref().is_some_and(|job| !job.withdrawn)
        })
    }

    /// Counts `tasks` submitted tasks of the job.
    #[inline]
    pub(crate) fn submitted(&mut self, key: JobKey, tasks: usize) {
        if let Some(job) = self.get(key) {
            job.pending += tasks;
        }
    }

    /// Counts `tasks` tasks of the job that now have an outcome, and marks its waker to be called.
    #[inline]
    pub(crate) fn completed(&mut self, key: JobKey, tasks: usize) {
        if let Some(job) = self.get(key) {
            job.pending = job.pending.saturating_sub(tasks);
            let waker = job.waker.take();
            self.woken.extend(waker);
        }
    }

    /// Sets the waker of the job. `clone` is a clone of `waker` if the caller has made one, and returns the job's previous waker. No
    /// user code runs here.
    pub(crate) fn note_waker(&mut self, key: JobKey, waker: &Waker, clone: &mut Option<Waker>) -> Noted {
        let Some(job) = self.get(key) else {
            return Noted::Yes;
        };
        if job.waker.as_ref().is_some_and(|noted| noted.will_wake(waker)) {
            return Noted::Yes;
        }
        if clone.is_none() {
            return Noted::NeedsClone;
        }
        std::mem::swap(&mut job.waker, clone);
        Noted::Yes
    }

    /// Returns the wakers to be called.
    #[inline]
    pub(crate) fn take_woken(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.woken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_outputs_of_a_run_are_taken_one_by_one() {
        let mut done = Completions::default();
        let mut expected = Vec::new();
        let mut add = |done: &mut Completions, index: u64, len: usize| {
            let start = done.bytes.len() + 1;
            done.bytes.push(0);
            done.bytes.extend((0..len).map(|at| (index as usize + at) as u8));
            let count = 1;
            done.push_run(Run {
                index,
                start,
                len,
                count,
            });
            expected.push((index, done.bytes[start..].to_vec()));
        };
        for (index, len) in [
            (5, 8),
            (6, 8),
            (7, 8),
            (9, 8),
            (8, 8),
            (9, 0),
            (10, 0),
            (11, 3),
            (12, 8),
        ] {
            add(&mut done, index, len);
        }
        assert_eq!(done.list.len(), 6);
        // Something else lies between these two.
        done.bytes.push(7);
        add(&mut done, 13, 8);
        done.fault(14, Fault::Cancelled);
        assert_eq!(done.len(), expected.len() + 1);
        let run = |done: &Completions, most| {
            let run = done.next_run(most).expect("it is a run");
            let frames = done.bytes[run.frames()].chunks(run.frame_len());
            let outputs: Vec<_> = frames.map(|frame| frame[1..].to_vec()).collect();
            (run.index, outputs)
        };
        let outputs = |range: std::ops::Range<usize>| -> Vec<Vec<u8>> {
            expected[range].iter().map(|(_, bytes)| bytes.clone()).collect()
        };
        assert_eq!(run(&done, 2), (5, outputs(0..2)));
        assert_eq!(run(&done, 9), (5, outputs(0..3)));
        done.skip(1);
        assert_eq!(run(&done, 9), (6, outputs(1..3)));
        done.skip(2);
        assert_eq!(run(&done, 9), (9, outputs(3..4)));
        assert_eq!(done.len(), expected.len() + 1 - 3);
        done.skip(1);
        assert_eq!(run(&done, 9), (8, outputs(4..5)));
        // From the beginning again.
        (done.left, done.next) = (expected.len() + 1, (0, 0));
        for (left, (index, bytes)) in expected
            .iter()
            .enumerate()
            .map(|(at, it)| (expected.len() - at, it))
        {
            let next = done.take_next().expect("one is left");
            assert_eq!(next.index, *index);
            assert_eq!(next.outcome.encoded(&done.bytes), Some(&bytes[..]));
            assert_eq!(done.len(), left);
        }
        let last = done.take_next().expect("one is left");
        assert!(last.index == 14 && matches!(last.outcome, Outcome::Fault(_)));
        assert!(done.next_run(9).is_none());
        assert!(done.take_next().is_none() && done.is_empty());
    }

    #[test]
    fn key_of_an_ended_job_refers_to_no_job() {
        let mut jobs = Jobs::default();
        let first = jobs.add(1);
        let second = jobs.add(1);
        assert!(jobs.remove(first).is_some());
        assert!(jobs.get(first).is_none() && !jobs.is_wanted(first) && jobs.is_wanted(second));
        let third = jobs.add(1);
        assert_eq!(third.index, first.index);
        assert!(jobs.get(first).is_none() && jobs.get(second).is_some() && jobs.get(third).is_some());
        assert!(jobs.remove(first).is_none());
        assert!(jobs.get(third).is_some());
    }
}
