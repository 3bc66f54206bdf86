//! The journal: what was given to callers, and when.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proc_pool::{Interrupt, TaskError};
use progress::{Bar, Counters, Outcome, Reporter, Total};

/// Keeps count of runs and outputs, and shows the bar while there is something to show.
pub(crate) struct Journal {
    bar: Bar,
    done: AtomicU64,
    failed: AtomicU64,
    state: Mutex<State>,
}

struct State {
    reporter: Option<Arc<Reporter>>,
    /// Tasks announced by all runs; unknown once one run does not know.
    total: Total,
    /// Begin of the first run, end of the last.
    begun: Option<Instant>,
    rested: Option<Instant>,
    failures: Counters,
}

impl Journal {
    pub(crate) fn new(bar: Bar, reporter: Option<Arc<Reporter>>) -> Self {
        let failures = bar.counters();
        let state = State {
            reporter,
            total: Total::Known(0),
            begun: None,
            rested: None,
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

    /// A run over so many tasks begins.
    pub(crate) fn begin(&self, tasks: Option<usize>) {
        let mut state = self.state();
        state.total = match (state.total, tasks) {
            (Total::Known(before), Some(tasks)) => Total::Known(before.saturating_add(tasks as u64)),
            _ => Total::Unknown,
        };
        self.bar.set_total(state.total);
        if state.begun.is_none() {
            state.begun = Some(Instant::now());
            // From now on: its rate should not count the time before.
            if let Some(reporter) = &state.reporter {
                reporter.add(&self.bar);
            }
        }
    }

    /// An output was given.
    pub(crate) fn count<R>(&self, output: &Result<R, TaskError>) {
        match output {
            Ok(_) => {
                self.done.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                self.state().failures.counter(Outcome::Failed).inc();
            }
        }
    }

    /// The output of a task was given that was a run of its own.
    pub(crate) fn end<R>(&self, output: &Result<R, TaskError>) {
        self.count(output);
        self.rest();
    }

    /// A run has ended, or was left.
    pub(crate) fn rest(&self) {
        self.state().rested = Some(Instant::now());
    }

    /// Nothing more is to be shown: the bar's last state stays, or of an interrupted run nothing.
    pub(crate) fn close(&self, interrupted: Option<Interrupt>) {
        let (reporter, rested) = {
            let mut state = self.state();
            // Handles may be around for longer.
            (state.reporter.take(), state.rested)
        };
        match (interrupted, rested) {
            (Some(_), _) => self.bar.dismiss(),
            // The time after the last run belongs to neither the bar nor the report.
            (None, Some(rested)) => self.bar.finish_at(rested),
            (None, None) => self.bar.finish(),
        }
        drop(reporter);
    }

    pub(crate) fn counts(&self) -> (u64, u64) {
        (
            self.done.load(Ordering::Relaxed),
            self.failed.load(Ordering::Relaxed),
        )
    }

    /// When the first run began.
    pub(crate) fn begun(&self) -> Option<Instant> {
        self.state().begun
    }

    /// From the first run's begin to the last one's end.
    pub(crate) fn elapsed(&self) -> Duration {
        let state = self.state();
        let Some(begun) = state.begun else {
            return Duration::ZERO;
        };
        state
            .rested
            .unwrap_or_else(Instant::now)
            .saturating_duration_since(begun)
    }
}

impl Drop for Journal {
    /// Of an invoker that was dropped instead of finished. On a reporter that others hold, its bar would run for as long as
    /// the reporter does.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let shared = state
            .reporter
            .take()
            .and_then(|reporter| Arc::try_unwrap(reporter).err());
        if let (Some(_), Some(rested)) = (shared, state.rested) {
            self.bar.finish_at(rested);
        }
    }
}
