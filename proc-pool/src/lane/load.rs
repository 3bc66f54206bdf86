//! What a worker has to do now, from the leader's side.

use std::time::Duration;

use super::Lane;
use crate::jobs::JobKey;
use crate::os;
use crate::protocol::slot;

/// What a worker has to do, and has done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// The task that it runs, and since when.
    pub(crate) task: Option<(u64, Duration)>,
    /// Tasks after that one.
    pub(crate) waiting: usize,
    /// Tasks that this process has answered.
    pub(crate) done: u64,
}

impl Lane {
    /// What the worker has to do now.
    pub(crate) fn load(&self) -> Load {
        let done = self.ledger.count_answered();
        let begun = self.claims.begun() > done;
        let since = self.control.slot(slot::SINCE_NS).get();
        let task = self
            .ledger
            .next()
            .filter(|(job, _)| begun && *job != JobKey::NOBODY);
        Load {
            done,
            waiting: self.ledger.live() - usize::from(task.is_some()),
            task: task.map(|(_, index)| (index, Duration::from_nanos(os::now_ns().saturating_sub(since)))),
        }
    }
}
