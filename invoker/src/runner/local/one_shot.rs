//! [`OneShot`]: one task of a [`LocalPool`](super::LocalPool), shared by the thread that runs it and the
//! [`Handle`](proc_pool::Handle) that waits for its output.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use proc_pool::facade::{Origin, TaskSource, guarded};
use proc_pool::{CancelOutcome, Fault, PoolError};

/// The state of one task, and then its output.
pub struct OneShot<R> {
    state: Mutex<State<R>>,
    changed: Condvar,
    origin: Origin,
}

struct State<R> {
    phase: Phase,
    output: Option<Result<R, Fault>>,
    /// The waker of the future that awaits the output.
    waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Waiting,
    Running,
    Finished,
}

impl<R> Default for OneShot<R> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                phase: Phase::Waiting,
                output: None,
                waker: None,
            }),
            changed: Condvar::new(),
            origin: Origin::here(),
        }
    }
}

impl<R> OneShot<R> {
    fn state(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims the task for the calling thread. Returns `false` if the task was withdrawn and must not run.
    pub fn begin(&self) -> bool {
        let mut state = self.state();
        let wanted = state.phase == Phase::Waiting;
        if wanted {
            state.phase = Phase::Running;
        }
        wanted
    }

    /// Stores the output and wakes the waiting thread or future.
    pub fn finish(&self, output: Result<R, Fault>) {
        let mut state = self.state();
        state.phase = Phase::Finished;
        state.output = Some(output);
        let waker = state.waker.take();
        drop(state);
        self.changed.notify_all();
        if let Some(waker) = waker {
            // The waker is user code. Its panic must not affect the thread that ran the task.
            let _ = guarded(|| waker.wake());
        }
    }
}

impl<R: Send> TaskSource<R> for OneShot<R> {
    fn forked(&self) -> Option<PoolError> {
        let pid = self.origin.pid();
        (!self.origin.is_here()).then_some(PoolError::Forked { pid })
    }

    fn withdraw(&self) -> CancelOutcome {
        let phase = self.state().phase;
        match phase {
            Phase::Waiting if self.begin() => {
                self.finish(Err(Fault::Cancelled));
                CancelOutcome::Withdrawn
            }
            Phase::Finished => CancelOutcome::Finished,
            _ => CancelOutcome::StillRunning,
        }
    }

    fn is_finished(&self) -> bool {
        self.state().phase == Phase::Finished
    }

    fn is_running(&self) -> bool {
        self.state().phase == Phase::Running
    }

    fn take(&self, deadline: Option<Instant>) -> Option<Result<R, Fault>> {
        let mut state = self.state();
        while state.phase != Phase::Finished {
            state = match deadline {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.checked_duration_since(Instant::now())?;
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        Some(state.take_output())
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Result<R, Fault>> {
        // Cloning and dropping a waker is user code, which must not run under the lock.
        let mut clone = None;
        loop {
            let mut state = self.state();
            if state.phase == Phase::Finished {
                let output = state.take_output();
                drop(state);
                return Poll::Ready(output);
            }
            let registered = state.waker.as_ref();
            if registered.is_some_and(|registered| registered.will_wake(context.waker())) {
                return Poll::Pending;
            }
            if clone.is_some() {
                std::mem::swap(&mut state.waker, &mut clone);
                drop(state);
                return Poll::Pending;
            }
            drop(state);
            clone = Some(context.waker().clone());
        }
    }
}

impl<R> State<R> {
    fn take_output(&mut self) -> Result<R, Fault> {
        // A future that is polled again after it was ready has no output.
        self.output.take().unwrap_or(Err(Fault::Cancelled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_runs_from_its_begin_to_its_end() {
        let task = OneShot::<u32>::default();
        assert!(!task.is_running());
        assert!(task.begin() && task.is_running());
        assert_eq!(task.withdraw(), CancelOutcome::StillRunning);
        task.finish(Ok(3));
        assert!(!task.is_running() && task.is_finished());
        let withdrawn = OneShot::<u32>::default();
        assert_eq!(withdrawn.withdraw(), CancelOutcome::Withdrawn);
        assert!(!withdrawn.is_running() && !withdrawn.begin());
    }
}
