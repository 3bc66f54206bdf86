//! [`Limits`]: what becomes of tasks that take long, or kill, and of workers that have done much, or grown.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::error::WorkerId;

/// What becomes of tasks that take long, or kill, and of workers that have done much, or grown.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    /// How long a task may run.
    pub(crate) deadline: Option<Duration>,
    /// Workers that a task may cost before that is its error.
    pub(crate) retries: u32,
    /// Tasks that a worker process gets.
    pub(crate) lifespan: Option<NonZeroU64>,
    /// Bytes of its own beyond which a worker is replaced when it has done what it has.
    pub(crate) recycle_above: Option<u64>,
    /// Bytes of its own beyond which a worker is killed.
    pub(crate) memory: Option<u64>,
}

impl Limits {
    /// Whether workers' memory is of interest.
    pub(crate) fn weighs(&self) -> bool {
        self.recycle_above.is_some() || self.memory.is_some()
    }

    /// How many tasks a process in `worker`'s place gets, of `workers`; the first one there fewer than the next ones,
    /// so that they don't all come to their end at the same time.
    pub(crate) fn tasks(&self, worker: WorkerId, workers: usize, first: bool) -> Option<u64> {
        let lifespan = self.lifespan?.get();
        let place = u128::from(worker.0) + 1;
        let workers = workers as u128;
        if !first || place >= workers {
            return Some(lifespan);
        }
        // At most `lifespan`, as `place` is less than `workers`.
        Some((u128::from(lifespan) * place).div_ceil(workers) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifespans_end_at_different_times_at_first() {
        let tasks = |lifespan, workers, first| -> Vec<u64> {
            let limits = Limits {
                lifespan: NonZeroU64::new(lifespan),
                ..Limits::default()
            };
            let worker = (0..workers as u32).map(WorkerId);
            let tasks = worker.map(|worker| limits.tasks(worker, workers, first));
            tasks.map(|tasks| tasks.expect("a lifespan is set")).collect()
        };
        assert_eq!(tasks(100, 4, true), [25, 50, 75, 100]);
        assert_eq!(tasks(100, 4, false), [100; 4]);
        assert_eq!(tasks(100, 1, true), [100]);
        assert_eq!(tasks(1, 3, true), [1; 3]);
        assert_eq!(tasks(u64::MAX, 2, true), [u64::MAX / 2 + 1, u64::MAX]);
        // One that was not among those wanted when it was started.
        let limits = Limits {
            lifespan: NonZeroU64::new(5),
            ..Limits::default()
        };
        assert_eq!(limits.tasks(WorkerId(9), 2, true), Some(5));
        assert_eq!(Limits::default().tasks(WorkerId(0), 1, true), None);
    }
}
