//! Jobs: each map over a pool is one, and each task that was submitted alone; what is finished waits here until
//! it is taken.

use std::task::Waker;

use crate::error::Fault;

/// Memory that is kept for the next outputs, at most.
const KEEP: usize = 1 << 20;

/// Which job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct JobKey {
    place: u32,
    generation: u32,
}

impl JobKey {
    /// Whose tasks are nobody's any more.
    pub(crate) const NOBODY: Self = Self {
        place: u32::MAX,
        generation: 0,
    };
    #[cfg(test)]
    pub(crate) const TEST: Self = Self {
        place: 0,
        generation: 0,
    };
}

/// A finished task.
#[derive(Debug)]
pub(crate) struct Completion {
    pub(crate) index: u64,
    pub(crate) outcome: Outcome,
}

/// What became of a task.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Its output is this range of [`Completions::bytes`].
    Bytes {
        start: usize,
        end: usize,
    },
    /// Its output, too large for a ring.
    Large(Vec<u8>),
    Fault(Box<Fault>),
}

/// Finished tasks in the order they came, with their outputs in one buffer.
#[derive(Debug, Default)]
pub(crate) struct Completions {
    pub(crate) list: Vec<Completion>,
    pub(crate) bytes: Vec<u8>,
}

impl Completions {
    pub(crate) fn clear(&mut self) {
        self.list.clear();
        self.bytes.clear();
        self.bytes.shrink_to(KEEP);
    }

    pub(crate) fn fault(&mut self, index: u64, fault: Fault) {
        self.list.push(Completion {
            index,
            outcome: Outcome::Fault(Box::new(fault)),
        });
    }
}

/// One map over the pool, or one task.
#[derive(Debug, Default)]
pub(crate) struct Job {
    pub(crate) done: Completions,
    /// Tasks that were submitted and have neither an outcome nor an error.
    pub(crate) pending: usize,
    /// Its one task was cancelled.
    pub(crate) withdrawn: bool,
    /// Who awaits it.
    waker: Option<Waker>,
}

/// Whether a waker was noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Noted {
    Yes,
    /// A clone is missing; the caller makes it while nothing is locked.
    NeedsClone,
}

/// All jobs, found in constant time; the key of a job that ended never leads to another.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    places: Vec<(u32, Option<Job>)>,
    free: Vec<u32>,
    /// Who awaits something that has come, to be woken when nothing is locked.
    woken: Vec<Waker>,
}

impl Jobs {
    pub(crate) fn add(&mut self) -> JobKey {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            self.places.len() as u32 - 1
        });
        let (generation, job) = &mut self.places[place as usize];
        *generation = generation.wrapping_add(1);
        *job = Some(Job::default());
        JobKey {
            place,
            generation: *generation,
        }
    }

    pub(crate) fn get(&mut self, key: JobKey) -> Option<&mut Job> {
        let (generation, job) = self.places.get_mut(key.place as usize)?;
        if *generation == key.generation {
            job.as_mut()
        } else {
            None
        }
    }

    /// Ends the job. The caller drops it while nothing is locked: a waker's drop is the user's code.
    #[must_use]
    pub(crate) fn remove(&mut self, key: JobKey) -> Option<Job> {
        self.get(key)?;
        self.free.push(key.place);
        self.places[key.place as usize].1.take()
    }

    /// Whether the job's tasks are still to be run.
    #[inline]
    pub(crate) fn is_wanted(&self, key: JobKey) -> bool {
        let place = self.places.get(key.place as usize);
        place.is_some_and(|(generation, job)| {
            *generation == key.generation && job.as_ref().is_some_and(|job| !job.withdrawn)
        })
    }

    /// `tasks` of that job were submitted.
    #[inline]
    pub(crate) fn submitted(&mut self, key: JobKey, tasks: usize) {
        if let Some(job) = self.get(key) {
            job.pending += tasks;
        }
    }

    /// `tasks` of that job have an outcome or an error.
    #[inline]
    pub(crate) fn came(&mut self, key: JobKey, tasks: usize) {
        if let Some(job) = self.get(key) {
            job.pending = job.pending.saturating_sub(tasks);
            let waker = job.waker.take();
            self.woken.extend(waker);
        }
    }

    /// Notes the waker of that job. `clone` is one of `waker` if the caller has made one; it becomes the waker that the
    /// job had before. No user code runs in here.
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

    /// Who is to be woken.
    #[inline]
    pub(crate) fn take_woken(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.woken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_an_ended_job_leads_nowhere() {
        let mut jobs = Jobs::default();
        let first = jobs.add();
        let second = jobs.add();
        assert!(jobs.remove(first).is_some());
        assert!(jobs.get(first).is_none() && !jobs.is_wanted(first) && jobs.is_wanted(second));
        let third = jobs.add();
        assert_eq!(third.place, first.place);
        assert!(jobs.get(first).is_none() && jobs.get(second).is_some() && jobs.get(third).is_some());
        assert!(jobs.remove(first).is_none());
        assert!(jobs.get(third).is_some());
    }
}
