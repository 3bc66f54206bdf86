//! [`Single`]: one task's output to come, from a thread of this process.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use crate::error::{Fault, PoolError};
use crate::handle::Cancelled;
use crate::os::Origin;
use crate::panics::guarded;

/// Between who runs a task and who waits for it.
pub(crate) struct Single<R> {
    state: Mutex<State<R>>,
    changed: Condvar,
    origin: Origin,
}

struct State<R> {
    phase: Phase,
    output: Option<Result<R, Fault>>,
    /// Who awaits it.
    waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Waiting,
    Running,
    Finished,
}

impl<R> Default for Single<R> {
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

impl<R> Single<R> {
    /// The error in a forked copy of the process, whose threads are not there.
    pub(crate) fn forked(&self) -> Option<PoolError> {
        let pid = self.origin.pid();
        (!self.origin.is_here()).then_some(PoolError::Forked { pid })
    }

    fn state(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the task is still wanted; from now on it runs.
    pub(crate) fn begin(&self) -> bool {
        let mut state = self.state();
        let wanted = state.phase == Phase::Waiting;
        if wanted {
            state.phase = Phase::Running;
        }
        wanted
    }

    pub(crate) fn give(&self, output: Result<R, Fault>) {
        let mut state = self.state();
        state.phase = Phase::Finished;
        state.output = Some(output);
        let waker = state.waker.take();
        drop(state);
        self.changed.notify_all();
        if let Some(waker) = waker {
            // User code: its panic does not concern the thread that ran the task.
            let _ = guarded(|| waker.wake());
        }
    }

    /// Withdraws the task unless it has begun.
    pub(crate) fn withdraw(&self) -> Cancelled {
        let phase = self.state().phase;
        match phase {
            Phase::Waiting if self.begin() => {
                self.give(Err(Fault::Cancelled));
                Cancelled::Withdrawn
            }
            Phase::Finished => Cancelled::Finished,
            _ => Cancelled::Running,
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.state().phase == Phase::Finished
    }

    /// The output, if it comes before the deadline.
    pub(crate) fn take(&self, deadline: Option<Instant>) -> Option<Result<R, Fault>> {
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
        Some(state.taken())
    }

    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<Result<R, Fault>> {
        // Cloning and dropping a waker is user code: it runs while nothing is locked.
        let mut clone = None;
        loop {
            let mut state = self.state();
            if state.phase == Phase::Finished {
                let output = state.taken();
                drop(state);
                return Poll::Ready(output);
            }
            let noted = state.waker.as_ref();
            if noted.is_some_and(|noted| noted.will_wake(context.waker())) {
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
    fn taken(&mut self) -> Result<R, Fault> {
        // A future may be polled after it was ready.
        self.output.take().unwrap_or(Err(Fault::Cancelled))
    }
}
