//! The end of a process: reaping it, finding its exit cause, and collecting its last words for the error of its task.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use shm_buffers::slots::Slots;

use super::ProcessManager;
use super::process::{IDLE_POLL, ManagedProcess};
use crate::error::{ExitCause, KillReason};
use crate::last_panics;
use crate::leader::crash_context::CrashContext;
use crate::leader::scheduler::ExitInfo;
use crate::os;
use crate::panics::guarded;

/// How long a process may live without its connection, or its connection without the process.
const GRACE: Duration = Duration::from_secs(1);

impl ProcessManager {
    /// Reaps processes that have ended, kills those whose connection closed long ago or whose stack was captured, and reports
    /// ended processes to the scheduler.
    pub(super) fn reap(&mut self) {
        let stopping = self.stopping_since.is_some();
        let now = self.event_loop.scheduler().now();
        let over = |since: Instant| now.saturating_duration_since(since) > GRACE;
        // Usually the closed connection reports the end of a process. Polling all of many processes each time would be costly.
        let poll_all = stopping || self.last_full_poll.elapsed() >= IDLE_POLL;
        if poll_all {
            self.last_full_poll = Instant::now();
        }
        let mut index = 0;
        while index < self.processes.len() {
            let process = &mut self.processes[index];
            if process.stack.poll_capture(&mut self.symbolizer) {
                process.spawned.kill();
            }
            if process.ended.is_none() && (poll_all || process.poll_interval() < IDLE_POLL) {
                match process.spawned.try_wait() {
                    Ok(None) => {
                        if process.disconnected_at.is_some_and(over) && process.killed.is_none() {
                            process.killed = Some(KillReason::Disconnected);
                            process.spawned.kill();
                        }
                    }
                    Ok(Some(status)) => process.ended = Some((now, Some(status))),
                    // Other code of this program has reaped it: a `wait(-1)`, or an ignored SIGCHLD.
                    Err(_) => process.ended = Some((now, None)),
                }
            }
            match process.ended {
                // The text of its stack comes from another thread.
                Some(_) if !stopping && !process.stack.is_resolved() => index += 1,
                // A child of the process may hold its connection open: `over` bounds the wait for the connection's end.
                Some((at, status))
                    if stopping || !process.connected || process.disconnected_at.is_some() || over(at) =>
                {
                    let process = self.processes.swap_remove(index);
                    self.report_end(process, status);
                }
                _ => index += 1,
            }
        }
    }

    fn report_end(&mut self, process: ManagedProcess, status: Option<ExitStatus>) {
        let ManagedProcess {
            process_id,
            pid,
            killed,
            connected,
            spawned,
            region,
            sizes,
            stack,
            values,
            ..
        } = process;
        spawned.finish(connected);
        let cause = match (killed, status) {
            // If the status is another one, the process ended by itself just before.
            (Some(reason), Some(status)) if os::is_kill(status) => ExitCause::Killed { reason },
            (Some(reason), None) => ExitCause::Killed { reason },
            (_, Some(status)) => {
                let oom = os::is_kill(status).then(|| self.oom_kills.cause()).flatten();
                oom.unwrap_or_else(|| os::exit_cause(status))
            }
            (None, None) => ExitCause::Unknown,
        };
        let printed = self
            .output_reader
            .as_ref()
            .map(|reader| reader.finish(process_id));
        let logs = guarded(|| self.observer.ended(process_id.worker, &cause)).unwrap_or_default();
        let panics = last_panics::read(&Slots::new(&region, sizes.layout().last_panics));
        drop(region);
        let context = CrashContext {
            logs,
            printed: printed.unwrap_or_default(),
            panics,
            stack: stack.into_text(),
        };
        let exit = ExitInfo {
            pid,
            cause: &cause,
            context: &context,
        };
        // Before the replacement is started.
        drop(values);
        self.event_loop.scheduler().ended(process_id, &exit);
        self.event_loop.nudge();
    }
}
