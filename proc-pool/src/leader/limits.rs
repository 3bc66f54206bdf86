//! [`Limits`]: the limits that a pool sets for its tasks and workers.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::error::WorkerId;

/// The limits that a pool sets for its tasks and workers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    /// The maximum time that a task may run.
    pub(crate) deadline: Option<Duration>,
    /// Maximum number of retries after a task kills its worker.
    pub(crate) retries: u32,
    /// Maximum number of tasks that a worker process runs before it is replaced.
    pub(crate) task_limit: Option<NonZeroU64>,
    /// Private memory in bytes beyond which a worker is replaced after the tasks that it has.
    pub(crate) recycle_above: Option<u64>,
    /// Private memory in bytes beyond which a worker is killed.
    pub(crate) memory: Option<u64>,
}

impl Limits {
    /// Returns whether the memory of workers must be sampled.
    pub(crate) fn watches_memory(&self) -> bool {
        self.recycle_above.is_some() || self.memory.is_some()
    }

    /// Returns how many tasks a process of `worker` may run, in a pool of `workers`. The `first` process of each worker gets a
    /// different share of the limit, so that not all workers are replaced at the same time.
    pub(crate) fn tasks(&self, worker: WorkerId, workers: usize, first: bool) -> Option<u64> {
        let limit = self.task_limit?.get();
        let position = u128::from(worker.0) + 1;
        let workers = workers as u128;
        if !first || position >= workers {
            return Some(limit);
        }
        // At most `limit`, because `position` is less than `workers`.
        Some((u128::from(limit) * position).div_ceil(workers) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_processes_reach_their_task_limits_at_different_times() {
        let tasks = |limit, workers, first| -> Vec<u64> {
            let limits = Limits {
                task_limit: NonZeroU64::new(limit),
                ..Limits::default()
            };
            let worker = (0..workers as u32).map(WorkerId);
            let tasks = worker.map(|worker| limits.tasks(worker, workers, first));
            tasks.map(|tasks| tasks.expect("a limit is set")).collect()
        };
        assert_eq!(tasks(100, 4, true), [25, 50, 75, 100]);
        assert_eq!(tasks(100, 4, false), [100; 4]);
        assert_eq!(tasks(100, 1, true), [100]);
        assert_eq!(tasks(1, 3, true), [1; 3]);
        assert_eq!(tasks(u64::MAX, 2, true), [u64::MAX / 2 + 1, u64::MAX]);
        // A worker that the pool was shrunk by while its process started.
        let limits = Limits {
            task_limit: NonZeroU64::new(5),
            ..Limits::default()
        };
        assert_eq!(limits.tasks(WorkerId(9), 2, true), Some(5));
        assert_eq!(Limits::default().tasks(WorkerId(0), 1, true), None);
    }
}
