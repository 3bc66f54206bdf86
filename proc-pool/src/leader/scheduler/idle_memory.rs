//! Returning the memory of large payloads to the system, when none have moved for a while.

use std::time::{Duration, Instant};

use super::Scheduler;
use crate::leader::connection::KeptMemory;

/// Bytes of large payloads that must have moved before freed memory is returned to the system: that walks through all free
/// memory of this process.
const WORTH_RETURNING: u64 = 4 << 20;

/// Callers drop outputs when they like, perhaps only after freed memory was returned. So it is returned again after pauses that double,
/// from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(16);

/// The next step in returning the memory of large payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdleMemory {
    Nothing,
    /// Look again after this time.
    CheckIn(Duration),
    /// Return the memory that this process has freed to the system, without the scheduler's lock.
    ReturnFreed,
}

impl Scheduler {
    /// Releases the memory of large payloads of at most one connection, and returns the next step.
    pub(crate) fn release_idle_memory(&mut self, now: Instant) -> IdleMemory {
        let mut next: Option<Duration> = None;
        for worker in self.workers.iter_mut().flatten() {
            let check_in = match worker.connection.release_idle_memory(now) {
                KeptMemory::Nothing => continue,
                KeptMemory::ReleaseIn(time) => time,
                KeptMemory::Released(bytes) => {
                    self.freed_bytes += bytes;
                    // It takes a while, in which other threads may need the lock.
                    next = Some(Duration::ZERO);
                    break;
                }
            };
            next = Some(next.map_or(check_in, |next| next.min(check_in)));
        }
        if let Some(time) = next {
            return IdleMemory::CheckIn(time);
        }
        if self.freed_bytes >= WORTH_RETURNING {
            self.freed_bytes = 0;
            self.later_return = Some((now + FIRST_PAUSE, FIRST_PAUSE));
            return IdleMemory::ReturnFreed;
        }
        match self.later_return {
            Some((at, _)) if now < at => IdleMemory::CheckIn(at - now),
            Some((_, pause)) => {
                let pause = pause * 2;
                self.later_return = (pause <= LAST_PAUSE).then(|| (now + pause, pause));
                IdleMemory::ReturnFreed
            }
            None => IdleMemory::Nothing,
        }
    }
}
