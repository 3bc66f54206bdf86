//! Tasks that wait in a worker's ring behind one that takes long.

use std::time::{Duration, Instant};

use super::Lane;

/// How long tasks wait behind one that takes longer than was foreseen, while another worker has nothing to do. Far more
/// than taking them back costs.
const STALL: Duration = Duration::from_millis(2);

/// Whether tasks wait behind one that takes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stalled {
    Yes,
    /// Not yet.
    LookIn(Duration),
    No,
}

impl Lane {
    /// Whether tasks have been waiting behind one for [`STALL`]; otherwise when to look again, if ever.
    pub(crate) fn stalled(&mut self, now: Instant) -> Stalled {
        let answered = self.ledger.count_answered();
        if self.ledger.live() < 2 || self.broken.is_some() || self.has_outcomes() {
            self.stall = None;
            return Stalled::No;
        }
        let (before, since) = *self.stall.get_or_insert((answered, now));
        let waited = now.saturating_duration_since(since);
        if before != answered {
            self.stall = Some((answered, now));
            Stalled::LookIn(STALL)
        } else if waited < STALL {
            Stalled::LookIn(STALL - waited)
        } else {
            self.stall = None;
            Stalled::Yes
        }
    }
}
