//! Returning the memory of large payloads to the system, when none have moved for a while.

use std::time::{Duration, Instant};

use super::Scheduler;
use crate::leader::connection::KeptMemory;

/// Bytes of large payloads that must have moved before freed memory is returned to the system: that walks through all free
/// memory of this process.
const WORTH_RETURNING: u64 = 4 << 20;

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
        match next {
            Some(time) => IdleMemory::CheckIn(time),
            None if self.freed_bytes >= WORTH_RETURNING => {
                self.freed_bytes = 0;
                IdleMemory::ReturnFreed
            }
            None => IdleMemory::Nothing,
        }
    }
}
