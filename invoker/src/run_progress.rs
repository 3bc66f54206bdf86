//! [`RunProgress`]: the counts and times of all runs of an invoker, and its bar.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proc_pool::{Interrupt, TaskError};
use progress::{Bar, Counters, Outcome, Reporter, Total};

/// Counts runs and outputs, and shows the bar from the first run on.
pub struct RunProgress {
    bar: Bar,
    done: AtomicU64,
    failed: AtomicU64,
    state: Mutex<State>,
}

struct State {
    reporter: Option<Arc<Reporter>>,
    /// The sum of all runs' tasks; unknown as soon as one run's is.
    total: Total,
    /// The start of the first run.
    started: Option<Instant>,
    /// The end of the last run.
    ended: Option<Instant>,
    failures: Counters,
}

impl RunProgress {
    /// Returns counts of zero. The bar is shown from the first run on, if there is a reporter.
    pub fn new(bar: Bar, reporter: Option<Arc<Reporter>>) -> Self {
        let failures = bar.counters();
        let state = State {
            reporter,
            total: Total::Known(0),
            started: None,
            ended: None,
            failures,
        };
        let (done, failed) = (AtomicU64::new(0), AtomicU64::new(0));
        Self {
            bar,
            done,
            failed,
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a new run of `tasks` tasks, if their number is known.
    pub fn start_run(&self, tasks: Option<usize>) {
        let mut state = self.state();
        state.total = match (state.total, tasks) {
            (Total::Known(before), Some(tasks)) => Total::Known(before.saturating_add(tasks as u64)),
            _ => Total::Unknown,
        };
        self.bar.set_total(state.total);
        if state.started.is_none() {
            state.started = Some(Instant::now());
            // Only now, so that the bar's rate does not count the time before the first run.
            if let Some(reporter) = &state.reporter {
                reporter.add(&self.bar);
            }
        }
    }

    /// Counts an output that the caller receives.
    pub(crate) fn count<R>(&self, output: &Result<R, TaskError>) {
        match output {
            Ok(_) => self.count_done(),
            Err(_) => self.count_failed(),
        }
    }

    #[inline]
    pub(crate) fn count_done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.state().failures.counter(Outcome::Failed).inc();
    }

    /// Counts outputs that were passed on without a look at them.
    pub(crate) fn count_all(&self, done: u64, failed: u64) {
        self.done.fetch_add(done, Ordering::Relaxed);
        if failed > 0 {
            self.failed.fetch_add(failed, Ordering::Relaxed);
            self.state().failures.counter(Outcome::Failed).add(failed);
        }
    }

    /// Moves the bar for an output that no worker has computed.
    pub(crate) fn count_read<R>(&self, output: &Result<R, TaskError>) {
        // The bar counts failed outputs elsewhere.
        if output.is_ok() {
            self.bar.inc(Outcome::Done);
        }
    }

    /// Counts the output of a submitted task, and ends its run.
    pub(crate) fn end_single<R>(&self, output: &Result<R, TaskError>) {
        self.count(output);
        self.end_run();
    }

    /// Records that a run has ended, or that its outputs were dropped.
    pub(crate) fn end_run(&self) {
        self.state().ended = Some(Instant::now());
    }

    /// Finishes the bar; that of an interrupted run is cleared.
    pub fn close(&self, interrupted: Option<Interrupt>) {
        let (reporter, ended) = {
            let mut state = self.state();
            // Handles may keep `self` alive for longer than the reporter should live.
            (state.reporter.take(), state.ended)
        };
        match (interrupted, ended) {
            (Some(_), _) => self.bar.finish_and_clear(),
            // The time after the last run counts neither for the bar nor for the report.
            (None, Some(ended)) => self.bar.finish_at(ended),
            (None, None) => self.bar.finish(),
        }
        drop(reporter);
    }

    /// Returns the numbers of done and failed tasks.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (
            self.done.load(Ordering::Relaxed),
            self.failed.load(Ordering::Relaxed),
        )
    }

    /// Returns the start of the first run.
    pub(crate) fn started(&self) -> Option<Instant> {
        self.state().started
    }

    /// Returns the time from the start of the first run to the end of the last one.
    pub(crate) fn elapsed(&self) -> Duration {
        let state = self.state();
        let Some(started) = state.started else {
            return Duration::ZERO;
        };
        state
            .ended
            .unwrap_or_else(Instant::now)
            .saturating_duration_since(started)
    }
}

impl Drop for RunProgress {
    /// Finishes the bar of an invoker that was dropped without `finish`. Otherwise a shared reporter would show it for as
    /// long as the reporter lives.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let shared = state
            .reporter
            .take()
            .and_then(|reporter| Arc::try_unwrap(reporter).err());
        if let (Some(_), Some(ended)) = (shared, state.ended) {
            self.bar.finish_at(ended);
        }
    }
}
