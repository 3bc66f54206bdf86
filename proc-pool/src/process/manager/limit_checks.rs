//! Periodic checks of the limits that the pool sets: deadlines of tasks and memory of workers. The decisions are the
//! scheduler's; the manager only provides the time and the measurements.

use std::time::{Duration, Instant};

use super::ProcessManager;
use crate::leader::scheduler::MEMORY_SAMPLE_INTERVAL;
use crate::os;

/// How long the checks go on when no worker has a task any more.
const LINGER: Duration = Duration::from_secs(1);
/// Sampling the memory of workers takes at most about one part in this many of the manager's time.
const MEMORY_SAMPLE_SHARE: u32 = 50;

impl ProcessManager {
    /// Checks for tasks beyond their deadline and workers beyond their memory limits, if the pool has such limits. Returns the
    /// time until the next check, or `None` if none is needed until tasks are sent.
    pub(super) fn check_limits(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let mut scheduler = self.event_loop.scheduler();
        let interval = scheduler.limit_check_interval()?;
        if scheduler.busy() > 0 {
            self.last_busy = now;
        } else if now.saturating_duration_since(self.last_busy) >= LINGER {
            scheduler.limit_checks_ended();
            return None;
        }
        scheduler.enforce_deadline();
        if now >= self.next_memory_sample {
            let processes = scheduler.processes_to_sample();
            drop(scheduler);
            let samples = processes
                .into_iter()
                .map(|(process_id, pid)| (process_id, os::own_memory(pid)));
            let samples: Vec<_> = samples.collect();
            self.next_memory_sample = now + (now.elapsed() * MEMORY_SAMPLE_SHARE).max(MEMORY_SAMPLE_INTERVAL);
            let mut scheduler = self.event_loop.scheduler();
            for (process_id, bytes) in samples {
                // There is no value for a process that has ended.
                bytes
                    .into_iter()
                    .for_each(|bytes| scheduler.memory_sampled(process_id, bytes));
            }
        }
        Some(interval)
    }
}
