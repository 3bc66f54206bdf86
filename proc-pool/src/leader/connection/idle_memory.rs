//! The memory that large payloads have left in a connection, and its return to the system.

use std::time::{Duration, Instant};

use super::WorkerConnection;
use crate::error::KillReason;

/// How long no large payload must have come or gone before memory is released.
const IDLE: Duration = Duration::from_secs(1);
/// The time between two counts of payloads: a connection that is idle for [`IDLE`] releases its memory at most this much later.
const LOOK: Duration = Duration::from_millis(200);

/// How many bytes of large payloads have left memory in a connection.
#[derive(Debug, Default)]
pub(super) struct PayloadMemory {
    /// Bytes of large payloads that had moved in both directions when memory was last released.
    released: u64,
    /// Bytes that had moved when they were last counted, and since when it was that many.
    counted: Option<(u64, Instant)>,
}

/// Whether a connection keeps memory of large payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeptMemory {
    Nothing,
    /// It may be released after this time.
    ReleaseIn(Duration),
    /// It was released now, after this number of bytes had moved.
    Released(u64),
}

impl WorkerConnection {
    /// Returns the bytes of large payloads that have moved since memory was released.
    pub(crate) fn bytes_since_release(&self) -> u64 {
        let moved = self.pieces_in.bytes_taken() + self.pieces_out.bytes_sent();
        moved - self.memory.released
    }

    /// Releases the memory that large payloads have left if none has come or gone for a second.
    pub(crate) fn release_idle_memory(&mut self, now: Instant) -> KeptMemory {
        let bytes = self.bytes_since_release();
        if bytes == 0 || self.broken.is_some() {
            return KeptMemory::Nothing;
        }
        let (before, since) = *self.memory.counted.get_or_insert((bytes, now));
        let waited = now.saturating_duration_since(since);
        if before != bytes {
            self.memory.counted = Some((bytes, now));
            return KeptMemory::ReleaseIn(LOOK);
        } else if waited < IDLE {
            return KeptMemory::ReleaseIn(LOOK.min(IDLE - waited));
        }
        self.memory.counted = None;
        self.scratch = Vec::new();
        self.pieces_in.copy_held();
        self.pieces_in.release_memory();
        if self.pieces_out.release_memory().is_err() {
            self.broken = Some(KillReason::Corrupt);
            return KeptMemory::Nothing;
        }
        if self.pieces_out.under_way() > 0 {
            // A worker that is stopped, or busy with another task, has not copied all pieces.
            return KeptMemory::ReleaseIn(IDLE);
        }
        self.memory.released += bytes;
        KeptMemory::Released(bytes)
    }
}
