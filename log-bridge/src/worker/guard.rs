//! Writes what is pending before a worker ends.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::layer::WorkerLayer;
use super::shared::Shared;

/// The first and the longest pause between two attempts to write what is pending.
const PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(8)];

/// Writes what is pending when a worker ends: the summaries of [`Overflow::Collapse`](crate::Overflow::Collapse), and the
/// report of the last dropped events.
///
/// They have no room in the ring right after a flood, and a default subscriber is never dropped. So a worker keeps the guard
/// until it ends. Dropping it waits until the leader has made enough room, for at most
/// [`DROP_TIMEOUT`](Self::DROP_TIMEOUT). Events need no flush: they are in the ring, or counted as dropped. No event waits
/// for a flush.
///
/// [`install`](crate::WorkerLayerBuilder::install) returns a guard, and [`WorkerLayer::guard`] that of a layer which a
/// program has built itself.
///
/// ```
/// # let (producer, _leader) = log_bridge::ring::in_process(4096);
/// # let slots = log_bridge::Slots::in_process(log_bridge::SLOTS);
/// # let layer = log_bridge::WorkerLayer::builder(producer, slots).build()?;
/// let guard = layer.guard();
/// // … before `std::process::exit`, which drops nothing:
/// guard.flush(std::time::Duration::from_secs(1))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a worker keeps it until it ends"]
pub struct WorkerGuard {
    shared: Arc<Shared>,
}

/// Why a worker's pending records were not all written.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerFlushError {
    /// The leader did not make enough room in time.
    TimedOut {
        /// The time that the flush has waited.
        timeout: Duration,
        /// Records that are still pending.
        records: usize,
    },
    /// The leader has removed the source, or has ended.
    LeaderEnded {
        /// Records that are still pending.
        records: usize,
    },
}

impl fmt::Display for WorkerFlushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut { timeout, records } => write!(
                f,
                "{records} pending log records were not written within {timeout:?}: the ring is full; drain the collector more often, or wait longer"
            ),
            Self::LeaderEnded { records } => write!(
                f,
                "{records} pending log records cannot be written: the leader has removed the source or has ended; remove a source after its worker has ended"
            ),
        }
    }
}

impl Error for WorkerFlushError {}

impl WorkerLayer {
    /// Returns a guard that writes what is pending when it is dropped.
    ///
    /// Take it before the layer is moved into a subscriber; [`install`](crate::WorkerLayerBuilder::install) does it itself.
    pub fn guard(&self) -> WorkerGuard {
        WorkerGuard {
            shared: self.shared.clone(),
        }
    }
}

impl WorkerGuard {
    /// How long dropping a guard waits for room in the ring: a quarter of a second.
    pub const DROP_TIMEOUT: Duration = Duration::from_millis(250);

    /// Writes what is pending, and waits until the leader has made room for all of it, for at most `timeout`. Returns
    /// immediately if nothing is pending or everything fits. It may use the part of the ring that is reserved for WARN and
    /// ERROR.
    ///
    /// While other threads emit, new summaries may become pending.
    ///
    /// # Errors
    /// If records are still pending after `timeout`, or as soon as the leader is seen to have ended: it has removed the
    /// source, has dropped its collector, or was killed. That it was killed is seen only by a worker that has connected by a
    /// [`SourceHandle`](crate::SourceHandle) without a passed descriptor.
    pub fn flush(&self, timeout: Duration) -> Result<(), WorkerFlushError> {
        let start = Instant::now();
        let [mut pause, longest] = PAUSES;
        loop {
            let records = self.shared.writer.flush();
            if records == 0 {
                return Ok(());
            }
            if self.shared.leader.has_ended() {
                return Err(WorkerFlushError::LeaderEnded { records });
            }
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(WorkerFlushError::TimedOut { timeout, records });
            }
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(longest);
        }
    }
}

impl fmt::Debug for WorkerGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerGuard").finish_non_exhaustive()
    }
}

impl Drop for WorkerGuard {
    fn drop(&mut self) {
        // The counts contain lost records, and the leader reports them.
        let _ = self.flush(Self::DROP_TIMEOUT);
    }
}

shm_buffers::debug_with_causes!(WorkerFlushError);
