//! [`Stats`]: what a pool counts.

/// Counts since the pool was built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Tasks given to the pool.
    pub submitted: u64,
    /// Tasks that were answered by a worker, whatever the answer.
    pub answered: u64,
    /// Tasks that ended without an answer: their worker died, the pool failed, or they were withdrawn before a worker
    /// started them, because their handle, map or stream was dropped or they were cancelled. When nothing is left to do,
    /// `submitted` is the sum of `answered` and `faulted`.
    pub faulted: u64,
    /// Tasks sent again because the worker that had them died before it started them.
    pub resent: u64,
    /// Tasks taken back from a worker that had not started them: they waited behind one that took long while another worker
    /// had nothing to do, they or one before them were withdrawn, or their worker was about to be killed.
    pub recalled: u64,
    /// Tasks sent again after their worker had died of them, or they had run too long.
    pub retried: u64,
    /// Worker processes that ended before the pool did, and were not told to.
    pub deaths: u64,
    /// Worker processes that were told to end and replaced: they had run as many tasks as one may, or grown.
    pub recycled: u64,
    /// Worker processes that were told to end because fewer were wanted.
    pub dismissed: u64,
    /// Worker processes that were started.
    pub spawned: u64,
}

impl Stats {
    /// A worker process ended: it was `told` to, or not; in a place that is `surplus`, or not.
    pub(crate) fn count_end(&mut self, told: bool, surplus: bool) {
        let count = match (told, surplus) {
            (false, _) => &mut self.deaths,
            (true, false) => &mut self.recycled,
            (true, true) => &mut self.dismissed,
        };
        *count += 1;
    }
}
