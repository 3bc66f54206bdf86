//! How many tasks a lane's worker may have, and its end after them.

use super::Lane;

impl Lane {
    /// Lets it have no more than `tasks` from now on.
    pub(crate) fn limit(&mut self, tasks: u64) {
        self.left = tasks;
    }

    /// Whether it has had all tasks that it may have, has answered them, and was not told to end yet.
    pub(crate) fn is_spent(&self) -> bool {
        self.left == 0 && self.ledger.outstanding() == 0 && !self.is_closed()
    }

    /// Whether it has answered a task.
    pub(crate) fn has_answered(&self) -> bool {
        self.ledger.count_answered() > 0
    }

    /// Whether it was told to end.
    pub(crate) fn is_closed(&self) -> bool {
        self.doorbell.is_none()
    }

    /// Tells the worker to end once it has nothing to do.
    pub(crate) fn close(&mut self) {
        self.doorbell = None;
    }
}
