//! [`Supervisor`]: decides which worker processes should exist, as a pure state machine.
//!
//! Events go in, actions come out, and time is an argument: no processes, no clocks, no locks. The scheduler feeds it and turns its
//! actions into commands to the process manager.

use std::time::{Duration, Instant};

use crate::error::{ExitCause, KillReason, WorkerId};
use crate::leader::start_failure::StartFailure;

/// When workers are restarted, and when the pool gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RestartPolicy {
    /// Maximum time from spawn to ready.
    pub(crate) start_timeout: Duration,
    /// Number of starts of one worker that may fail in a row before the pool fails.
    pub(crate) start_attempts: u32,
    /// Delay before the second attempt; it doubles with each further one.
    pub(crate) backoff: Duration,
    /// Whether the workers run the leader's own program.
    pub(crate) own_program: bool,
}

/// The death of an idle worker is not a failure to start if the worker has been ready for at least this long.
const STABLE_UPTIME: Duration = Duration::from_secs(1);
/// How long a worker that was asked to stop may take to end, exit handlers included.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// One in this many workers, and at least one, may be replaced at the same time because of its memory: that is not urgent.
const RETIRE_PART: usize = 4;

#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// The process was started.
    Spawned(WorkerId),
    /// The process has called `init`, as its first message shows.
    Introduced(WorkerId),
    /// The process is ready for tasks.
    Ready(WorkerId),
    /// The process could not be started, or reports why it gives up. If there is a process, it still has to end.
    StartFailed(WorkerId, StartFailure),
    /// The process has ended and was reaped.
    Ended {
        worker: WorkerId,
        cause: ExitCause,
        in_task: bool,
    },
    /// The process's memory is beyond the recycling threshold. Repeated as long as that is so.
    Oversized(WorkerId),
    /// The process has answered all tasks that it may have, and was asked to stop.
    StopRequested(WorkerId),
    /// The requested number of workers has changed.
    Resize(usize),
    /// Time has passed.
    Tick,
    /// No workers are needed any more.
    Stop,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    Spawn(WorkerId),
    Kill(WorkerId, KillReason),
    /// Send the worker no more tasks, and ask it to stop when it has answered those that it has.
    Retire(WorkerId),
    /// Fail the pool.
    Fail {
        worker: WorkerId,
        attempts: u32,
        failure: StartFailure,
    },
}

#[derive(Debug, Clone)]
enum SlotState {
    /// No process; one will be spawned at this time.
    Pending(Instant),
    /// The spawn was requested and is not confirmed yet.
    Spawning,
    Starting {
        since: Instant,
        /// It has called `init`.
        introduced: bool,
        failure: Option<StartFailure>,
        killed: bool,
    },
    Ready {
        since: Instant,
        /// It gets no more tasks.
        retiring: bool,
    },
    /// It was asked to stop.
    Stopping { since: Instant, killed: bool },
    /// No process, and none will be spawned.
    Gone,
}

/// The state of a slot without its details.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SlotPhase {
    Pending,
    Starting,
    Ready,
    Stopping,
    Gone,
}

/// The state of one worker index.
#[derive(Debug, Clone)]
struct WorkerSlot {
    state: SlotState,
    /// Number of failures in a row: failed starts, and deaths soon after a start while idle.
    failures: u32,
    /// The pool's progress at the first of these failures.
    progress_before: u64,
}

impl WorkerSlot {
    fn new(now: Instant) -> Self {
        Self {
            state: SlotState::Pending(now),
            failures: 0,
            progress_before: 0,
        }
    }

    /// Returns whether the worker takes no tasks now.
    fn is_unavailable(&self) -> bool {
        !matches!(self.state, SlotState::Ready { retiring: false, .. })
    }
}

#[derive(Debug)]
pub(crate) struct Supervisor {
    /// Counts that workers have finished tasks.
    progress: u64,
    policy: RestartPolicy,
    /// The slots of the requested workers, then those of workers that are not requested any more.
    slots: Vec<WorkerSlot>,
    wanted: usize,
    /// A worker has been ready: the program and the op are right.
    has_started: bool,
    stopped: bool,
}

impl Supervisor {
    pub(crate) fn new(workers: usize, policy: RestartPolicy, now: Instant) -> Self {
        Self {
            progress: 0,
            policy,
            slots: vec![WorkerSlot::new(now); workers],
            wanted: workers,
            has_started: false,
            stopped: false,
        }
    }

    /// Returns the requested number of workers.
    pub(crate) fn wanted(&self) -> usize {
        self.wanted
    }

    /// Returns whether the worker is not requested any more.
    pub(crate) fn is_surplus(&self, worker: WorkerId) -> bool {
        worker.0 as usize >= self.wanted
    }

    fn slot(&mut self, worker: WorkerId) -> &mut WorkerSlot {
        &mut self.slots[worker.0 as usize]
    }

    /// Returns when [`Event::Tick`] is due at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let due = |slot: &WorkerSlot| match slot.state {
            SlotState::Pending(at) => Some(at),
            SlotState::Starting {
                since, killed: false, ..
            } => since.checked_add(self.policy.start_timeout),
            SlotState::Stopping { since, killed: false } => Some(since + STOP_TIMEOUT),
            _ => None,
        };
        self.slots.iter().filter_map(due).min()
    }

    pub(crate) fn is_ready(&self, worker: WorkerId) -> bool {
        matches!(self.slots[worker.0 as usize].state, SlotState::Ready { .. })
    }

    pub(crate) fn phase(&self, worker: WorkerId) -> SlotPhase {
        match self.slots[worker.0 as usize].state {
            SlotState::Pending(_) => SlotPhase::Pending,
            SlotState::Spawning | SlotState::Starting { .. } => SlotPhase::Starting,
            SlotState::Ready { .. } => SlotPhase::Ready,
            SlotState::Stopping { .. } => SlotPhase::Stopping,
            SlotState::Gone => SlotPhase::Gone,
        }
    }

    /// Returns whether all requested workers are ready.
    pub(crate) fn all_ready(&self) -> bool {
        (0..self.wanted as u32).all(|index| self.is_ready(WorkerId(index)))
    }

    /// Returns whether no process is left or is being started.
    pub(crate) fn all_gone(&self) -> bool {
        let gone = |slot: &WorkerSlot| matches!(slot.state, SlotState::Gone | SlotState::Pending(_));
        self.slots.iter().all(gone)
    }

    /// Records that the worker has finished a task.
    #[inline]
    pub(crate) fn progress(&mut self, worker: WorkerId) {
        self.progress += 1;
        self.slot(worker).failures = 0;
    }

    /// Handles an event and the time that has passed. Returns the resulting actions.
    pub(crate) fn handle(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Spawned(worker) => {
                self.slot(worker).state = SlotState::Starting {
                    since: now,
                    introduced: false,
                    failure: None,
                    killed: false,
                };
            }
            Event::Introduced(worker) => {
                if let SlotState::Starting { introduced, .. } = &mut self.slot(worker).state {
                    *introduced = true;
                }
            }
            Event::Ready(worker) => {
                let retiring = self.is_surplus(worker);
                let state = &mut self.slot(worker).state;
                if matches!(state, SlotState::Starting { killed: false, .. }) {
                    *state = SlotState::Ready { since: now, retiring };
                    self.has_started = true;
                    actions.extend(retiring.then_some(Action::Retire(worker)));
                }
            }
            Event::StartFailed(worker, why) => match &mut self.slot(worker).state {
                SlotState::Starting { failure, .. } => *failure = Some(why),
                SlotState::Spawning => self.failed(worker, why, now, &mut actions),
                // The process is beyond its start, or does not exist: only its end counts.
                SlotState::Ready { .. }
                | SlotState::Stopping { .. }
                | SlotState::Pending(_)
                | SlotState::Gone => {}
            },
            Event::Ended {
                worker,
                cause,
                in_task,
            } => match std::mem::replace(&mut self.slot(worker).state, SlotState::Gone) {
                SlotState::Starting {
                    introduced, failure, ..
                } => {
                    let failure = StartFailure::of_end(introduced, failure, cause);
                    self.failed(worker, failure, now, &mut actions);
                }
                SlotState::Ready { since, .. }
                    if in_task || now.saturating_duration_since(since) >= STABLE_UPTIME =>
                {
                    // It did start, so earlier failures and those to come are not in a row.
                    self.slot(worker).failures = 0;
                    self.respawn(worker, now);
                }
                SlotState::Stopping { .. } => self.respawn(worker, now),
                SlotState::Ready { .. } => {
                    // Perhaps another program kills it. As long as other workers make progress, the pool goes on.
                    let slot = &mut self.slots[worker.0 as usize];
                    if self.progress > slot.progress_before {
                        slot.failures = slot.failures.min(self.policy.start_attempts.saturating_sub(2));
                    }
                    let failure = StartFailure::Failed(format!("died idle: {cause}"));
                    self.failed(worker, failure, now, &mut actions);
                }
                SlotState::Pending(_) | SlotState::Spawning | SlotState::Gone => {}
            },
            Event::Oversized(worker) => {
                let unavailable = self.slots[..self.wanted]
                    .iter()
                    .filter(|slot| slot.is_unavailable());
                if unavailable.count() < (self.wanted / RETIRE_PART).max(1) {
                    self.retire(worker, &mut actions);
                }
            }
            Event::StopRequested(worker) => {
                let state = &mut self.slot(worker).state;
                if matches!(state, SlotState::Ready { .. }) {
                    *state = SlotState::Stopping {
                        since: now,
                        killed: false,
                    };
                }
            }
            Event::Resize(_) if self.stopped => {}
            Event::Resize(wanted) => self.resize(wanted, now, &mut actions),
            Event::Tick => {}
            Event::Stop => {
                self.stopped = true;
                for slot in &mut self.slots {
                    if matches!(slot.state, SlotState::Pending(_)) {
                        slot.state = SlotState::Gone;
                    }
                }
            }
        }
        self.handle_time(now, &mut actions);
        actions
    }

    fn handle_time(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let worker = WorkerId(index as u32);
            match &mut slot.state {
                SlotState::Pending(at) if *at <= now => {
                    slot.state = SlotState::Spawning;
                    actions.push(Action::Spawn(worker));
                }
                SlotState::Starting { since, killed, .. }
                    if !*killed && now.saturating_duration_since(*since) >= self.policy.start_timeout =>
                {
                    *killed = true;
                    actions.push(Action::Kill(worker, KillReason::StartTimeout));
                }
                SlotState::Stopping { since, killed }
                    if !*killed && now.saturating_duration_since(*since) >= STOP_TIMEOUT =>
                {
                    *killed = true;
                    actions.push(Action::Kill(worker, KillReason::EndTimeout));
                }
                _ => {}
            }
        }
    }

    /// Sets the requested number of workers. The workers with the highest indices are retired; a worker that is about to end is
    /// replaced if it is requested again.
    fn resize(&mut self, wanted: usize, now: Instant, actions: &mut Vec<Action>) {
        self.wanted = wanted;
        for slot in self.slots.iter_mut().take(wanted) {
            if matches!(slot.state, SlotState::Gone) {
                *slot = WorkerSlot::new(now);
            }
        }
        let len = self.slots.len().max(wanted);
        self.slots.resize(len, WorkerSlot::new(now));
        for index in wanted..len {
            let slot = &mut self.slots[index];
            match slot.state {
                SlotState::Pending(_) => slot.state = SlotState::Gone,
                // A worker that is starting is retired when it is ready.
                _ => self.retire(WorkerId(index as u32), actions),
            }
        }
    }

    fn retire(&mut self, worker: WorkerId, actions: &mut Vec<Action>) {
        if let SlotState::Ready { retiring, .. } = &mut self.slot(worker).state
            && !*retiring
        {
            *retiring = true;
            actions.push(Action::Retire(worker));
        }
    }

    fn respawn(&mut self, worker: WorkerId, at: Instant) {
        if !self.stopped && !self.is_surplus(worker) {
            self.slot(worker).state = SlotState::Pending(at);
        }
    }

    fn failed(&mut self, worker: WorkerId, failure: StartFailure, now: Instant, actions: &mut Vec<Action>) {
        let progress = self.progress;
        let hopeless = failure.is_permanent(self.policy.own_program) && !self.has_started;
        let slot = self.slot(worker);
        slot.state = SlotState::Gone;
        if slot.failures == 0 {
            slot.progress_before = progress;
        }
        slot.failures += 1;
        let attempts = slot.failures;
        if self.stopped || self.is_surplus(worker) {
            return;
        }
        if hopeless || attempts >= self.policy.start_attempts {
            self.stopped = true;
            actions.push(Action::Fail {
                worker,
                attempts,
                failure,
            });
        } else {
            let doublings = (attempts - 1).min(10);
            self.respawn(worker, now + self.policy.backoff * 2u32.pow(doublings));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RestartPolicy = RestartPolicy {
        start_timeout: Duration::from_secs(30),
        start_attempts: 3,
        backoff: Duration::from_millis(100),
        own_program: false,
    };
    const A: WorkerId = WorkerId(0);
    const B: WorkerId = WorkerId(1);

    fn exited(worker: WorkerId, in_task: bool) -> Event {
        Event::Ended {
            worker,
            cause: ExitCause::Exited { code: 3 },
            in_task,
        }
    }

    fn failed(reason: &str) -> StartFailure {
        StartFailure::Failed(reason.to_owned())
    }

    fn ready(workers: usize, now: Instant) -> Supervisor {
        let mut supervisor = Supervisor::new(workers, POLICY, now);
        assert_eq!(supervisor.handle(Event::Tick, now).len(), workers);
        for worker in (0..workers as u32).map(WorkerId) {
            assert_eq!(supervisor.handle(Event::Spawned(worker), now), []);
            assert!(!supervisor.all_ready());
            assert_eq!(supervisor.handle(Event::Ready(worker), now), []);
        }
        assert!(supervisor.all_ready());
        supervisor
    }

    #[test]
    fn death_in_a_task_is_followed_by_an_immediate_restart_any_number_of_times() {
        let now = Instant::now();
        let mut supervisor = ready(2, now);
        for _ in 0..100 {
            assert_eq!(supervisor.handle(exited(B, true), now), [Action::Spawn(B)]);
            supervisor.handle(Event::Spawned(B), now);
            supervisor.handle(Event::Ready(B), now);
        }
        assert!(supervisor.all_ready());
    }

    #[test]
    fn failed_starts_back_off_and_are_bounded() {
        let now = Instant::now();
        let mut supervisor = Supervisor::new(1, POLICY, now);
        supervisor.handle(Event::Tick, now);
        supervisor.handle(Event::Spawned(A), now);
        supervisor.handle(Event::Introduced(A), now);
        assert_eq!(supervisor.handle(exited(A, false), now), []);
        assert_eq!(supervisor.deadline(), Some(now + POLICY.backoff));
        assert_eq!(supervisor.handle(Event::Tick, now + POLICY.backoff / 2), []);
        let now = now + POLICY.backoff;
        assert_eq!(supervisor.handle(Event::Tick, now), [Action::Spawn(A)]);
        // A failed spawn, without a process, has the same consequence.
        assert_eq!(
            supervisor.handle(Event::StartFailed(A, failed("no memory")), now),
            []
        );
        assert_eq!(supervisor.deadline(), Some(now + POLICY.backoff * 2));
        let now = now + POLICY.backoff * 2;
        assert_eq!(supervisor.handle(Event::Tick, now), [Action::Spawn(A)]);
        supervisor.handle(Event::Spawned(A), now);
        supervisor.handle(Event::Introduced(A), now);
        supervisor.handle(Event::StartFailed(A, failed("no such model")), now);
        assert_eq!(
            supervisor.handle(exited(A, false), now),
            [Action::Fail {
                worker: A,
                attempts: 3,
                failure: failed("no such model")
            }]
        );
        assert_eq!(
            supervisor.handle(Event::Tick, now + Duration::from_secs(3600)),
            []
        );
        assert!(supervisor.all_gone());
    }

    #[test]
    fn permanent_failure_gets_no_second_attempt_until_a_worker_has_been_ready() {
        let now = Instant::now();
        let refused = StartFailure::Refused("has no such op".to_owned());
        let fail = |attempts| Action::Fail {
            worker: A,
            attempts,
            failure: refused.clone(),
        };
        let mut supervisor = Supervisor::new(1, POLICY, now);
        supervisor.handle(Event::Tick, now);
        assert_eq!(
            supervisor.handle(Event::StartFailed(A, refused.clone()), now),
            [fail(1)]
        );
        let mut supervisor = ready(1, now);
        assert_eq!(supervisor.handle(exited(A, true), now), [Action::Spawn(A)]);
        let mut now = now;
        for _ in 1..POLICY.start_attempts {
            let failed = Event::StartFailed(A, refused.clone());
            assert_eq!(supervisor.handle(failed, now), []);
            now = supervisor.deadline().expect("another attempt");
            assert_eq!(supervisor.handle(Event::Tick, now), [Action::Spawn(A)]);
        }
        let failed = Event::StartFailed(A, refused.clone());
        assert_eq!(supervisor.handle(failed, now), [fail(POLICY.start_attempts)]);
    }

    #[test]
    fn process_that_exits_or_times_out_without_a_message_gets_no_second_attempt() {
        for introduced in [false, true] {
            for times_out in [false, true] {
                let mut now = Instant::now();
                let mut supervisor = Supervisor::new(1, POLICY, now);
                supervisor.handle(Event::Tick, now);
                supervisor.handle(Event::Spawned(A), now);
                if introduced {
                    supervisor.handle(Event::Introduced(A), now);
                }
                let reason = KillReason::StartTimeout;
                let mut end = exited(A, false);
                if times_out {
                    now += POLICY.start_timeout;
                    assert_eq!(supervisor.handle(Event::Tick, now), [Action::Kill(A, reason)]);
                    end = Event::Ended {
                        worker: A,
                        cause: ExitCause::Killed { reason },
                        in_task: false,
                    };
                }
                let actions = supervisor.handle(end, now);
                let fails = matches!(
                    actions[..],
                    [Action::Fail {
                        attempts: 1,
                        failure: StartFailure::NotConnected(_),
                        ..
                    }]
                );
                assert_eq!(fails, !introduced, "{actions:?}");
            }
        }
    }

    #[test]
    fn idle_deaths_count_as_failures_until_there_is_progress() {
        let mut now = Instant::now();
        let mut supervisor = ready(1, now);
        for round in 0..10 {
            assert_eq!(supervisor.handle(exited(A, false), now), [], "round {round}");
            now += POLICY.backoff * 4;
            assert_eq!(supervisor.handle(Event::Tick, now), [Action::Spawn(A)]);
            supervisor.handle(Event::Spawned(A), now);
            supervisor.handle(Event::Ready(A), now);
            supervisor.progress(A);
        }
    }

    #[test]
    fn simultaneous_idle_deaths_of_all_workers_are_survived() {
        let now = Instant::now();
        let mut supervisor = ready(5, now);
        for worker in (0..5).map(WorkerId) {
            assert_eq!(supervisor.handle(exited(worker, false), now), []);
        }
        assert_eq!(supervisor.handle(Event::Tick, now + POLICY.backoff).len(), 5);
    }

    #[test]
    fn death_after_a_long_idle_time_is_not_a_failed_start() {
        let mut now = Instant::now();
        let mut supervisor = ready(1, now);
        for _ in 0..10 {
            now += STABLE_UPTIME;
            assert_eq!(supervisor.handle(exited(A, false), now), [Action::Spawn(A)]);
            supervisor.handle(Event::Spawned(A), now);
            supervisor.handle(Event::Ready(A), now);
        }
    }

    fn fails_to_start(supervisor: &mut Supervisor, worker: WorkerId, now: Instant) -> Vec<Action> {
        supervisor.handle(Event::Spawned(worker), now);
        supervisor.handle(exited(worker, false), now)
    }

    #[test]
    fn repeated_kills_of_an_idle_worker_do_not_fail_a_pool_that_makes_progress() {
        let mut now = Instant::now();
        let mut supervisor = ready(2, now);
        for round in 0..10 {
            supervisor.progress(B);
            assert_eq!(supervisor.handle(exited(A, false), now), [], "round {round}");
            now += POLICY.backoff * 4;
            assert_eq!(supervisor.handle(Event::Tick, now), [Action::Spawn(A)]);
            supervisor.handle(Event::Spawned(A), now);
            supervisor.handle(Event::Ready(A), now);
        }
    }

    #[test]
    fn failures_before_a_stable_start_do_not_count() {
        for in_task in [true, false] {
            let mut now = Instant::now();
            let mut supervisor = ready(1, now);
            for _ in 0..10 {
                now += STABLE_UPTIME;
                assert_eq!(supervisor.handle(exited(A, in_task), now), [Action::Spawn(A)]);
                for _ in 1..POLICY.start_attempts {
                    assert_eq!(fails_to_start(&mut supervisor, A, now), []);
                    now += POLICY.backoff * 2;
                    assert_eq!(supervisor.handle(Event::Tick, now), [Action::Spawn(A)]);
                }
                supervisor.handle(Event::Spawned(A), now);
                supervisor.handle(Event::Ready(A), now);
            }
        }
    }

    /// For example because its program was removed.
    #[test]
    fn worker_that_cannot_restart_fails_the_pool() {
        let mut now = Instant::now();
        let mut supervisor = ready(2, now);
        now += STABLE_UPTIME;
        assert_eq!(supervisor.handle(exited(A, true), now), [Action::Spawn(A)]);
        for _ in 1..POLICY.start_attempts {
            assert_eq!(fails_to_start(&mut supervisor, A, now), []);
            now = supervisor.deadline().expect("another attempt");
            assert_eq!(supervisor.handle(Event::Tick, now), [Action::Spawn(A)]);
        }
        let failed = fails_to_start(&mut supervisor, A, now);
        assert!(
            matches!(failed[..], [Action::Fail { attempts: 3, .. }]),
            "{failed:?}"
        );
    }

    #[test]
    fn stopped_worker_is_replaced_without_a_failure() {
        let now = Instant::now();
        let mut supervisor = ready(1, now);
        for _ in 0..10 {
            assert_eq!(supervisor.handle(Event::StopRequested(A), now), []);
            assert!(!supervisor.all_ready());
            assert_eq!(supervisor.handle(exited(A, false), now), [Action::Spawn(A)]);
            supervisor.handle(Event::Spawned(A), now);
            supervisor.handle(Event::Ready(A), now);
        }
    }

    #[test]
    fn worker_that_does_not_stop_is_killed_once() {
        let now = Instant::now();
        let mut supervisor = ready(1, now);
        supervisor.handle(Event::StopRequested(A), now);
        let late = now + STOP_TIMEOUT;
        assert_eq!(supervisor.deadline(), Some(late));
        assert_eq!(
            supervisor.handle(Event::Tick, late),
            [Action::Kill(A, KillReason::EndTimeout)]
        );
        assert_eq!(supervisor.handle(Event::Tick, late), []);
        assert_eq!(supervisor.handle(exited(A, false), late), [Action::Spawn(A)]);
    }

    #[test]
    fn oversized_workers_are_retired_a_few_at_a_time() {
        let now = Instant::now();
        for (workers, at_once) in [(1, 1), (2, 1), (3, 1), (8, 2), (64, 16)] {
            let mut supervisor = ready(workers, now);
            let all = (0..workers as u32).map(WorkerId);
            let report_all = |supervisor: &mut Supervisor| -> Vec<Action> {
                let actions = all
                    .clone()
                    .flat_map(|worker| supervisor.handle(Event::Oversized(worker), now));
                actions.collect()
            };
            let first: Vec<Action> = all.clone().take(at_once).map(Action::Retire).collect();
            assert_eq!(report_all(&mut supervisor), first, "{workers}");
            assert_eq!(
                report_all(&mut supervisor),
                [],
                "no worker twice, and no other one meanwhile"
            );
            supervisor.handle(Event::StopRequested(A), now);
            supervisor.handle(exited(A, false), now);
            supervisor.handle(Event::Spawned(A), now);
            assert_eq!(report_all(&mut supervisor), []);
            supervisor.handle(Event::Ready(A), now);
            assert_eq!(report_all(&mut supervisor).len(), 1);
        }
    }

    #[test]
    fn worker_that_dies_while_it_retires_is_replaced() {
        let now = Instant::now();
        let mut supervisor = ready(1, now);
        assert_eq!(supervisor.handle(Event::Oversized(A), now), [Action::Retire(A)]);
        assert_eq!(supervisor.handle(exited(A, true), now), [Action::Spawn(A)]);
    }

    #[test]
    fn growing_spawns_immediately_and_shrinking_retires_the_last() {
        let now = Instant::now();
        let mut supervisor = ready(1, now);
        assert_eq!(supervisor.handle(Event::Resize(2), now), [Action::Spawn(B)]);
        assert_eq!(supervisor.wanted(), 2);
        assert!(!supervisor.all_ready());
        supervisor.handle(Event::Spawned(B), now);
        supervisor.handle(Event::Ready(B), now);
        assert!(supervisor.all_ready());
        assert_eq!(supervisor.handle(Event::Resize(1), now), [Action::Retire(B)]);
        assert!(supervisor.all_ready() && supervisor.is_surplus(B) && !supervisor.is_surplus(A));
        supervisor.handle(Event::StopRequested(B), now);
        assert_eq!(supervisor.handle(exited(B, false), now), []);
        assert_eq!(supervisor.deadline(), None);
        assert_eq!(supervisor.handle(Event::Resize(2), now), [Action::Spawn(B)]);
    }

    #[test]
    fn surplus_worker_in_any_state_ends_and_is_replaced_when_requested_again() {
        let now = Instant::now();
        let spawned = |supervisor: &mut Supervisor| supervisor.handle(Event::Spawned(B), now);
        type Step<'a> = &'a dyn Fn(&mut Supervisor);
        let steps: [Step<'_>; 5] = [
            &|supervisor| drop(spawned(supervisor)),
            &|supervisor| drop(supervisor.handle(Event::Ready(B), now)),
            &|supervisor| drop(supervisor.handle(Event::Oversized(B), now)),
            &|supervisor| drop(supervisor.handle(Event::StopRequested(B), now)),
            &|supervisor| drop(supervisor.handle(Event::Tick, now + STOP_TIMEOUT)),
        ];
        for before in 0..=steps.len() {
            for back in [false, true] {
                let mut supervisor = ready(1, now);
                supervisor.handle(Event::Resize(2), now);
                steps[..before].iter().for_each(|step| step(&mut supervisor));
                let retired = supervisor.handle(Event::Resize(1), now);
                assert_eq!(retired.len(), usize::from(before == 2), "{before}: {retired:?}");
                if back {
                    assert_eq!(
                        supervisor.handle(Event::Resize(2), now),
                        [],
                        "not two processes of one worker"
                    );
                }
                if before == 0 {
                    spawned(&mut supervisor);
                }
                let ended = supervisor.handle(exited(B, false), now);
                let deadline = supervisor.deadline();
                match (back, before) {
                    (false, _) => assert_eq!((ended, deadline), (vec![], None), "{before}"),
                    // It failed to start, or died idle soon after its start.
                    (true, 0..=3) => assert_eq!((ended, deadline), (vec![], Some(now + POLICY.backoff))),
                    (true, _) => assert_eq!(ended, [Action::Spawn(B)]),
                }
            }
        }
    }

    #[test]
    fn surplus_worker_that_becomes_ready_is_retired() {
        let now = Instant::now();
        let mut supervisor = ready(1, now);
        supervisor.handle(Event::Resize(2), now);
        supervisor.handle(Event::Spawned(B), now);
        assert_eq!(supervisor.handle(Event::Resize(1), now), []);
        assert_eq!(supervisor.handle(Event::Ready(B), now), [Action::Retire(B)]);
        assert!(supervisor.is_ready(B));
    }

    #[test]
    fn stopped_pool_does_not_grow() {
        let now = Instant::now();
        let mut supervisor = ready(1, now);
        supervisor.handle(Event::Stop, now);
        assert_eq!(supervisor.handle(Event::Resize(5), now), []);
        assert_eq!(supervisor.wanted(), 1);
    }

    #[test]
    fn ready_worker_cannot_fail_to_start() {
        let now = Instant::now();
        let mut supervisor = ready(1, now);
        for _ in 0..10 {
            assert_eq!(
                supervisor.handle(Event::StartFailed(A, failed("forged")), now),
                []
            );
            assert_eq!(supervisor.handle(Event::Ready(A), now), []);
        }
        assert!(supervisor.all_ready());
    }

    #[test]
    fn worker_that_does_not_become_ready_is_killed_once() {
        let now = Instant::now();
        let mut supervisor = Supervisor::new(1, POLICY, now);
        supervisor.handle(Event::Tick, now);
        supervisor.handle(Event::Spawned(A), now);
        let late = now + POLICY.start_timeout;
        assert_eq!(supervisor.deadline(), Some(late));
        assert_eq!(
            supervisor.handle(Event::Tick, late),
            [Action::Kill(A, KillReason::StartTimeout)]
        );
        assert_eq!(supervisor.handle(Event::Tick, late), []);
        assert_eq!(supervisor.handle(Event::Ready(A), late), [], "too late");
        assert!(!supervisor.all_ready());
    }

    #[test]
    fn stopped_pool_spawns_no_worker() {
        let now = Instant::now();
        let mut supervisor = ready(2, now);
        assert_eq!(supervisor.handle(Event::Stop, now), []);
        assert_eq!(supervisor.handle(exited(A, true), now), []);
        assert!(!supervisor.all_gone());
        assert_eq!(supervisor.handle(exited(B, false), now), []);
        assert!(supervisor.all_gone());
        assert_eq!(supervisor.deadline(), None);
    }
}
