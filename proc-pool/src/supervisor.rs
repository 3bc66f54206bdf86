//! The supervisor: which workers should live, as a pure state machine.
//!
//! Events go in, actions come out; time is an argument. No processes, no clocks, no locks.

use std::time::{Duration, Instant};

use crate::error::{Cause, KillReason, PoolError, WorkerId};

/// How patient a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patience {
    /// From spawn to ready.
    pub(crate) start_timeout: Duration,
    /// Starts that may fail in a row, over the whole pool, before the pool fails.
    pub(crate) start_attempts: u32,
    /// Before the second attempt; doubles each time.
    pub(crate) backoff: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The process was started.
    Spawned(WorkerId),
    /// It is ready for tasks.
    Ready(WorkerId),
    /// It could not even be started, or told why it gives up. Its process, if any, still has to end.
    StartFailed(WorkerId, String),
    /// The process has ended and was reaped.
    Ended {
        worker: WorkerId,
        cause: Cause,
        in_task: bool,
    },
    /// Time passes.
    Tick,
    /// No more workers are wanted.
    Stop,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Spawn(WorkerId),
    Kill(WorkerId, KillReason),
    /// The pool can't go on.
    Fail {
        worker: WorkerId,
        attempts: u32,
        reason: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// To be spawned at that time.
    Due(Instant),
    /// Asked for; not yet confirmed.
    Spawning,
    Starting {
        since: Instant,
        reason: Option<String>,
        killed: bool,
    },
    Ready,
    Gone,
}

#[derive(Debug)]
pub(crate) struct Supervisor {
    patience: Patience,
    states: Vec<State>,
    /// Failures in a row: starts that failed, and workers that died with no task to blame.
    failures: u32,
    stopped: bool,
}

impl Supervisor {
    pub(crate) fn new(workers: usize, patience: Patience, now: Instant) -> Self {
        Self {
            patience,
            states: vec![State::Due(now); workers],
            failures: 0,
            stopped: false,
        }
    }

    /// When [`Event::Tick`] is due at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let due = |state: &State| match state {
            State::Due(at) => Some(*at),
            State::Starting {
                since, killed: false, ..
            } => Some(*since + self.patience.start_timeout),
            _ => None,
        };
        self.states.iter().filter_map(due).min()
    }

    pub(crate) fn all_ready(&self) -> bool {
        self.states.iter().all(|state| *state == State::Ready)
    }

    /// Whether no process is left, or about to be.
    pub(crate) fn all_gone(&self) -> bool {
        self.states
            .iter()
            .all(|state| matches!(state, State::Gone | State::Due(_)))
    }

    /// Some task was finished: the pool works.
    pub(crate) fn progress(&mut self) {
        self.failures = 0;
    }

    pub(crate) fn handle(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Spawned(worker) => {
                self.states[worker.0 as usize] = State::Starting {
                    since: now,
                    reason: None,
                    killed: false,
                };
            }
            Event::Ready(worker) => {
                let state = &mut self.states[worker.0 as usize];
                if matches!(state, State::Starting { killed: false, .. }) {
                    *state = State::Ready;
                }
            }
            Event::StartFailed(worker, why) => match &mut self.states[worker.0 as usize] {
                State::Starting { reason, .. } => *reason = Some(why),
                _ => self.failed(worker, why, now, &mut actions),
            },
            Event::Ended {
                worker,
                cause,
                in_task,
            } => match std::mem::replace(&mut self.states[worker.0 as usize], State::Gone) {
                State::Starting { reason, .. } => {
                    let reason = reason.unwrap_or_else(|| cause.to_string());
                    self.failed(worker, reason, now, &mut actions);
                }
                State::Ready if in_task => self.respawn(worker, now),
                State::Ready => self.failed(worker, format!("died idle: {cause}"), now, &mut actions),
                State::Due(_) | State::Spawning | State::Gone => {}
            },
            Event::Tick => {}
            Event::Stop => {
                self.stopped = true;
                for state in &mut self.states {
                    if matches!(state, State::Due(_)) {
                        *state = State::Gone;
                    }
                }
            }
        }
        self.act_on_time(now, &mut actions);
        actions
    }

    fn act_on_time(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for (index, state) in self.states.iter_mut().enumerate() {
            let worker = WorkerId(index as u32);
            match state {
                State::Due(at) if *at <= now => {
                    *state = State::Spawning;
                    actions.push(Action::Spawn(worker));
                }
                State::Starting { since, killed, .. }
                    if !*killed && *since + self.patience.start_timeout <= now =>
                {
                    *killed = true;
                    actions.push(Action::Kill(worker, KillReason::StartTimeout));
                }
                _ => {}
            }
        }
    }

    fn respawn(&mut self, worker: WorkerId, at: Instant) {
        if !self.stopped {
            self.states[worker.0 as usize] = State::Due(at);
        }
    }

    fn failed(&mut self, worker: WorkerId, reason: String, now: Instant, actions: &mut Vec<Action>) {
        self.states[worker.0 as usize] = State::Gone;
        self.failures += 1;
        if self.stopped {
            return;
        }
        if self.failures >= self.patience.start_attempts {
            self.stopped = true;
            actions.push(Action::Fail {
                worker,
                attempts: self.failures,
                reason,
            });
        } else {
            let doublings = (self.failures - 1).min(10);
            self.respawn(worker, now + self.patience.backoff * 2u32.pow(doublings));
        }
    }
}

/// The pool's error for [`Action::Fail`].
pub(crate) fn failure(worker: WorkerId, attempts: u32, reason: String) -> PoolError {
    PoolError::Start {
        worker,
        attempts,
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        start_timeout: Duration::from_secs(30),
        start_attempts: 3,
        backoff: Duration::from_millis(100),
    };
    const A: WorkerId = WorkerId(0);
    const B: WorkerId = WorkerId(1);

    fn exited(worker: WorkerId, in_task: bool) -> Event {
        Event::Ended {
            worker,
            cause: Cause::Exited { code: 3 },
            in_task,
        }
    }

    fn ready(workers: usize, now: Instant) -> Supervisor {
        let mut it = Supervisor::new(workers, PATIENCE, now);
        assert_eq!(it.handle(Event::Tick, now).len(), workers);
        for worker in (0..workers as u32).map(WorkerId) {
            assert_eq!(it.handle(Event::Spawned(worker), now), []);
            assert!(!it.all_ready());
            assert_eq!(it.handle(Event::Ready(worker), now), []);
        }
        assert!(it.all_ready());
        it
    }

    #[test]
    fn a_death_in_a_task_is_followed_by_a_new_worker_at_once_any_number_of_times() {
        let now = Instant::now();
        let mut it = ready(2, now);
        for _ in 0..100 {
            assert_eq!(it.handle(exited(B, true), now), [Action::Spawn(B)]);
            it.handle(Event::Spawned(B), now);
            it.handle(Event::Ready(B), now);
        }
        assert!(it.all_ready());
    }

    #[test]
    fn starts_that_fail_are_backed_off_and_bounded() {
        let now = Instant::now();
        let mut it = Supervisor::new(1, PATIENCE, now);
        it.handle(Event::Tick, now);
        it.handle(Event::Spawned(A), now);
        assert_eq!(it.handle(exited(A, false), now), []);
        assert_eq!(it.deadline(), Some(now + PATIENCE.backoff));
        assert_eq!(it.handle(Event::Tick, now + PATIENCE.backoff / 2), []);
        let now = now + PATIENCE.backoff;
        assert_eq!(it.handle(Event::Tick, now), [Action::Spawn(A)]);
        // Spawning itself fails: no process, same consequence.
        assert_eq!(it.handle(Event::StartFailed(A, "no memory".into()), now), []);
        assert_eq!(it.deadline(), Some(now + PATIENCE.backoff * 2));
        let now = now + PATIENCE.backoff * 2;
        assert_eq!(it.handle(Event::Tick, now), [Action::Spawn(A)]);
        it.handle(Event::Spawned(A), now);
        it.handle(Event::StartFailed(A, "no such model".into()), now);
        let reason = "no such model".to_owned();
        assert_eq!(
            it.handle(exited(A, false), now),
            [Action::Fail {
                worker: A,
                attempts: 3,
                reason
            }]
        );
        assert_eq!(it.handle(Event::Tick, now + Duration::from_secs(3600)), []);
        assert!(it.all_gone());
    }

    #[test]
    fn dying_idle_counts_as_failure_until_there_is_progress() {
        let mut now = Instant::now();
        let mut it = ready(1, now);
        for round in 0..10 {
            assert_eq!(it.handle(exited(A, false), now), [], "round {round}");
            now += PATIENCE.backoff * 4;
            assert_eq!(it.handle(Event::Tick, now), [Action::Spawn(A)]);
            it.handle(Event::Spawned(A), now);
            it.handle(Event::Ready(A), now);
            it.progress();
        }
    }

    #[test]
    fn a_worker_that_does_not_get_ready_is_killed_once() {
        let now = Instant::now();
        let mut it = Supervisor::new(1, PATIENCE, now);
        it.handle(Event::Tick, now);
        it.handle(Event::Spawned(A), now);
        let late = now + PATIENCE.start_timeout;
        assert_eq!(it.deadline(), Some(late));
        assert_eq!(
            it.handle(Event::Tick, late),
            [Action::Kill(A, KillReason::StartTimeout)]
        );
        assert_eq!(it.handle(Event::Tick, late), []);
        assert_eq!(it.handle(Event::Ready(A), late), [], "too late");
        assert!(!it.all_ready());
    }

    #[test]
    fn after_stop_nobody_is_spawned() {
        let now = Instant::now();
        let mut it = ready(2, now);
        assert_eq!(it.handle(Event::Stop, now), []);
        assert_eq!(it.handle(exited(A, true), now), []);
        assert!(!it.all_gone());
        assert_eq!(it.handle(exited(B, false), now), []);
        assert!(it.all_gone());
        assert_eq!(it.deadline(), None);
    }
}
