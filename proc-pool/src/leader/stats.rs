//! [`Stats`]: the counters of a pool.

/// Counters since the pool was built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Tasks submitted to the pool.
    pub submitted: u64,
    /// Tasks that a worker answered, with an output or an error.
    pub answered: u64,
    /// Tasks that ended without an answer: their worker died, the pool failed, or they were withdrawn before a worker started
    /// them, because their handle, map or stream was dropped or they were cancelled. In an idle pool, `submitted` is the sum of
    /// `answered` and `failed`.
    pub failed: u64,
    /// Tasks sent again because the worker that had them died before it started them.
    pub resent: u64,
    /// Tasks taken back from a worker that had not started them: because they waited behind a long task while another worker was
    /// idle, because they or a task before them were withdrawn, or because their worker was about to be killed.
    pub recalled: u64,
    /// Tasks sent again after they had killed their worker or exceeded their deadline.
    pub retried: u64,
    /// Worker processes that ended before their pool and had not been asked to.
    pub deaths: u64,
    /// Worker processes that were stopped and replaced: they reached their task limit or exceeded their memory threshold.
    pub recycled: u64,
    /// Worker processes that were stopped because fewer workers were requested.
    pub scaled_down: u64,
    /// Worker processes started.
    pub spawned: u64,
}

impl Stats {
    /// Counts the end of a worker process.
    pub(crate) fn count_end(&mut self, stop_requested: bool, surplus: bool) {
        let count = match (stop_requested, surplus) {
            (false, _) => &mut self.deaths,
            (true, false) => &mut self.recycled,
            (true, true) => &mut self.scaled_down,
        };
        *count += 1;
    }
}
