//! Workers that don't begin with their tasks, or take too long over one.

use std::time::{Duration, Instant};

use super::Lane;
use crate::error::KillReason;
use crate::jobs::JobKey;
use crate::os::doorbell;

/// How long a worker that has tasks may take to begin with the first of them before it is rung again. It takes
/// microseconds; but one that damaged its memory may have lost the wish to be woken. Doubles a few times.
const RESCUE: Duration = Duration::from_millis(20);
const DOUBLINGS: u32 = 6;
/// Rescues in vain, about 30 s of them, before the worker is replaced.
const RESCUES: u32 = 28;

impl Lane {
    /// Looks whether the worker has tasks and does not begin with them, and does something about it; gives when to
    /// look again.
    pub(crate) fn rescue(&mut self, now: Instant) -> Option<Duration> {
        let answered = self.ledger.count_answered();
        let begun = self.claims.begun() > answered;
        if self.ledger.outstanding() == 0 || begun || self.broken.is_some() {
            self.idle = None;
            return None;
        }
        if self.is_sending() && self.pieces_out.under_way() == 0 {
            // It waits for us.
            self.idle = None;
            return None;
        }
        let progress = answered + self.pieces_out.count_given_back();
        let (since, before, rescues) = *self.idle.get_or_insert((now, progress, 0));
        if before != progress {
            self.idle = Some((now, progress, 0));
            return Some(RESCUE);
        }
        let patience = RESCUE * 2u32.pow(rescues.min(DOUBLINGS));
        let waited = now.saturating_duration_since(since);
        if waited < patience {
            return Some(patience - waited);
        }
        if rescues >= RESCUES {
            self.broken = Some(KillReason::Unresponsive);
            return None;
        }
        self.ring_if_unheard(doorbell::MOST_UNHEARD);
        self.idle = Some((now, progress, rescues + 1));
        Some(patience)
    }

    /// The task that has been running for `deadline`, if one has.
    pub(crate) fn overdue(&mut self, deadline: Duration, now: Instant) -> Option<(JobKey, u64)> {
        let answered = self.ledger.count_answered();
        if self.claims.begun() <= answered {
            self.running = None;
            return None;
        }
        match self.running {
            Some((task, since)) if task == answered => {
                let late = now.saturating_duration_since(since) >= deadline;
                self.ledger
                    .next()
                    .filter(|(job, _)| late && *job != JobKey::NOBODY)
            }
            _ => {
                self.running = Some((answered, now));
                None
            }
        }
    }
}
