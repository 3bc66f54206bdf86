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
    /// Starts that may fail in a row, in one worker's place, before the pool fails.
    pub(crate) start_attempts: u32,
    /// Before the second attempt; doubles each time.
    pub(crate) backoff: Duration,
}

/// A worker that has been ready for so long and then dies idle did not fail to start.
const STABLE: Duration = Duration::from_secs(1);
/// How long a worker that was told to end may take, exit handlers included.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// Of the workers wanted, so many may be replaced at once for what is no hurry: one of four, and one in any case.
const AT_ONCE: usize = 4;

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
    /// It has more memory than one should keep; told again while that is so.
    Oversized(WorkerId),
    /// It has had all the tasks that it gets, has answered them, and was told to end.
    ToldToEnd(WorkerId),
    /// So many workers are wanted from now on.
    Resize(usize),
    /// Time passes.
    Tick,
    /// No more workers are wanted.
    Stop,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Spawn(WorkerId),
    Kill(WorkerId, KillReason),
    /// Give it no more tasks, and tell it to end when it has answered those that it has.
    Retire(WorkerId),
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
    Ready {
        since: Instant,
        /// It gets no more tasks.
        retiring: bool,
    },
    /// It was told to end.
    Ending {
        since: Instant,
        killed: bool,
    },
    Gone,
}

/// How far a place's process is, without the details.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Due,
    Starting,
    Ready,
    Ending,
    Gone,
}

/// A worker's place.
#[derive(Debug, Clone)]
struct Place {
    state: State,
    /// Failures in a row: starts that failed, and deaths soon after with no task to blame.
    failures: u32,
    /// How often the pool had got on before the first of them.
    before: u64,
}

impl Place {
    fn new(now: Instant) -> Self {
        Self {
            state: State::Due(now),
            failures: 0,
            before: 0,
        }
    }

    /// Whether it takes no tasks now.
    fn is_away(&self) -> bool {
        !matches!(self.state, State::Ready { retiring: false, .. })
    }
}

#[derive(Debug)]
pub(crate) struct Supervisor {
    /// How often workers have finished tasks.
    progress: u64,
    patience: Patience,
    /// Of the workers wanted, and after them of those that were.
    places: Vec<Place>,
    wanted: usize,
    stopped: bool,
}

impl Supervisor {
    pub(crate) fn new(workers: usize, patience: Patience, now: Instant) -> Self {
        Self {
            progress: 0,
            patience,
            places: vec![Place::new(now); workers],
            wanted: workers,
            stopped: false,
        }
    }

    /// How many workers there should be.
    pub(crate) fn wanted(&self) -> usize {
        self.wanted
    }

    /// Whether nobody wants a worker in that place any more.
    pub(crate) fn is_surplus(&self, worker: WorkerId) -> bool {
        worker.0 as usize >= self.wanted
    }

    fn place(&mut self, worker: WorkerId) -> &mut Place {
        &mut self.places[worker.0 as usize]
    }

    /// When [`Event::Tick`] is due at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let due = |place: &Place| match place.state {
            State::Due(at) => Some(at),
            State::Starting {
                since, killed: false, ..
            } => since.checked_add(self.patience.start_timeout),
            State::Ending { since, killed: false } => Some(since + END_TIMEOUT),
            _ => None,
        };
        self.places.iter().filter_map(due).min()
    }

    pub(crate) fn is_ready(&self, worker: WorkerId) -> bool {
        matches!(self.places[worker.0 as usize].state, State::Ready { .. })
    }

    pub(crate) fn phase(&self, worker: WorkerId) -> Phase {
        match self.places[worker.0 as usize].state {
            State::Due(_) => Phase::Due,
            State::Spawning | State::Starting { .. } => Phase::Starting,
            State::Ready { .. } => Phase::Ready,
            State::Ending { .. } => Phase::Ending,
            State::Gone => Phase::Gone,
        }
    }

    /// Whether all workers wanted are ready.
    pub(crate) fn all_ready(&self) -> bool {
        (0..self.wanted as u32).all(|index| self.is_ready(WorkerId(index)))
    }

    /// Whether no process is left, or about to be.
    pub(crate) fn all_gone(&self) -> bool {
        let gone = |place: &Place| matches!(place.state, State::Gone | State::Due(_));
        self.places.iter().all(gone)
    }

    /// The worker finished a task: it works.
    #[inline]
    pub(crate) fn progress(&mut self, worker: WorkerId) {
        self.progress += 1;
        self.place(worker).failures = 0;
    }

    pub(crate) fn handle(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Spawned(worker) => {
                self.place(worker).state = State::Starting {
                    since: now,
                    reason: None,
                    killed: false,
                };
            }
            Event::Ready(worker) => {
                let retiring = self.is_surplus(worker);
                let state = &mut self.place(worker).state;
                if matches!(state, State::Starting { killed: false, .. }) {
                    *state = State::Ready { since: now, retiring };
                    actions.extend(retiring.then_some(Action::Retire(worker)));
                }
            }
            Event::StartFailed(worker, why) => match &mut self.place(worker).state {
                State::Starting { reason, .. } => *reason = Some(why),
                State::Spawning => self.failed(worker, why, now, &mut actions),
                // Its process lives, or there is none: the process's end tells.
                State::Ready { .. } | State::Ending { .. } | State::Due(_) | State::Gone => {}
            },
            Event::Ended {
                worker,
                cause,
                in_task,
            } => match std::mem::replace(&mut self.place(worker).state, State::Gone) {
                State::Starting { reason, .. } => {
                    let reason = reason.unwrap_or_else(|| cause.to_string());
                    self.failed(worker, reason, now, &mut actions);
                }
                State::Ready { since, .. } if in_task || now.saturating_duration_since(since) >= STABLE => {
                    // It did start, so that failures before are none in a row with those to come.
                    self.place(worker).failures = 0;
                    self.respawn(worker, now);
                }
                State::Ending { .. } => self.respawn(worker, now),
                State::Ready { .. } => {
                    // Somebody kills it perhaps. As long as others get on, that is no reason to give everything up.
                    let place = &mut self.places[worker.0 as usize];
                    if self.progress > place.before {
                        place.failures = place.failures.min(self.patience.start_attempts.saturating_sub(2));
                    }
                    self.failed(worker, format!("died idle: {cause}"), now, &mut actions);
                }
                State::Due(_) | State::Spawning | State::Gone => {}
            },
            Event::Oversized(worker) => {
                let away = self.places[..self.wanted].iter().filter(|place| place.is_away());
                if away.count() < (self.wanted / AT_ONCE).max(1) {
                    self.retire(worker, &mut actions);
                }
            }
            Event::ToldToEnd(worker) => {
                let state = &mut self.place(worker).state;
                if matches!(state, State::Ready { .. }) {
                    *state = State::Ending {
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
                for place in &mut self.places {
                    if matches!(place.state, State::Due(_)) {
                        place.state = State::Gone;
                    }
                }
            }
        }
        self.act_on_time(now, &mut actions);
        actions
    }

    fn act_on_time(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for (index, place) in self.places.iter_mut().enumerate() {
            let worker = WorkerId(index as u32);
            match &mut place.state {
                State::Due(at) if *at <= now => {
                    place.state = State::Spawning;
                    actions.push(Action::Spawn(worker));
                }
                State::Starting { since, killed, .. }
                    if !*killed && now.saturating_duration_since(*since) >= self.patience.start_timeout =>
                {
                    *killed = true;
                    actions.push(Action::Kill(worker, KillReason::StartTimeout));
                }
                State::Ending { since, killed }
                    if !*killed && now.saturating_duration_since(*since) >= END_TIMEOUT =>
                {
                    *killed = true;
                    actions.push(Action::Kill(worker, KillReason::EndTimeout));
                }
                _ => {}
            }
        }
    }

    /// Brings the workers to that number. Those with the highest ids go; one who is on his way out is replaced if
    /// he is wanted again.
    fn resize(&mut self, wanted: usize, now: Instant, actions: &mut Vec<Action>) {
        self.wanted = wanted;
        for place in self.places.iter_mut().take(wanted) {
            if place.state == State::Gone {
                *place = Place::new(now);
            }
        }
        let places = self.places.len().max(wanted);
        self.places.resize(places, Place::new(now));
        for index in wanted..places {
            let place = &mut self.places[index];
            match place.state {
                State::Due(_) => place.state = State::Gone,
                // One who starts is retired when he is ready.
                _ => self.retire(WorkerId(index as u32), actions),
            }
        }
    }

    fn retire(&mut self, worker: WorkerId, actions: &mut Vec<Action>) {
        if let State::Ready { retiring, .. } = &mut self.place(worker).state
            && !*retiring
        {
            *retiring = true;
            actions.push(Action::Retire(worker));
        }
    }

    fn respawn(&mut self, worker: WorkerId, at: Instant) {
        if !self.stopped && !self.is_surplus(worker) {
            self.place(worker).state = State::Due(at);
        }
    }

    fn failed(&mut self, worker: WorkerId, reason: String, now: Instant, actions: &mut Vec<Action>) {
        let progress = self.progress;
        let place = self.place(worker);
        place.state = State::Gone;
        if place.failures == 0 {
            place.before = progress;
        }
        place.failures += 1;
        let attempts = place.failures;
        if self.stopped || self.is_surplus(worker) {
            return;
        }
        if attempts >= self.patience.start_attempts {
            self.stopped = true;
            actions.push(Action::Fail {
                worker,
                attempts,
                reason,
            });
        } else {
            let doublings = (attempts - 1).min(10);
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
            it.progress(A);
        }
    }

    #[test]
    fn workers_that_all_die_idle_at_once_are_replaced() {
        let now = Instant::now();
        let mut it = ready(5, now);
        for worker in (0..5).map(WorkerId) {
            assert_eq!(it.handle(exited(worker, false), now), []);
        }
        assert_eq!(it.handle(Event::Tick, now + PATIENCE.backoff).len(), 5);
    }

    #[test]
    fn a_death_after_a_long_idle_time_is_no_failure_to_start() {
        let mut now = Instant::now();
        let mut it = ready(1, now);
        for _ in 0..10 {
            now += STABLE;
            assert_eq!(it.handle(exited(A, false), now), [Action::Spawn(A)]);
            it.handle(Event::Spawned(A), now);
            it.handle(Event::Ready(A), now);
        }
    }

    fn fails_to_start(it: &mut Supervisor, worker: WorkerId, now: Instant) -> Vec<Action> {
        it.handle(Event::Spawned(worker), now);
        it.handle(exited(worker, false), now)
    }

    #[test]
    fn who_kills_an_idle_worker_does_not_stop_those_who_get_on() {
        let mut now = Instant::now();
        let mut it = ready(2, now);
        for round in 0..10 {
            it.progress(B);
            assert_eq!(it.handle(exited(A, false), now), [], "round {round}");
            now += PATIENCE.backoff * 4;
            assert_eq!(it.handle(Event::Tick, now), [Action::Spawn(A)]);
            it.handle(Event::Spawned(A), now);
            it.handle(Event::Ready(A), now);
        }
    }

    #[test]
    fn failures_long_ago_are_none_in_a_row() {
        for in_task in [true, false] {
            let mut now = Instant::now();
            let mut it = ready(1, now);
            for _ in 0..10 {
                now += STABLE;
                assert_eq!(it.handle(exited(A, in_task), now), [Action::Spawn(A)]);
                for _ in 1..PATIENCE.start_attempts {
                    assert_eq!(fails_to_start(&mut it, A, now), []);
                    now += PATIENCE.backoff * 2;
                    assert_eq!(it.handle(Event::Tick, now), [Action::Spawn(A)]);
                }
                it.handle(Event::Spawned(A), now);
                it.handle(Event::Ready(A), now);
            }
        }
    }

    /// What it starts from has vanished meanwhile.
    #[test]
    fn a_worker_that_can_start_no_more_fails_the_pool() {
        let mut now = Instant::now();
        let mut it = ready(2, now);
        now += STABLE;
        assert_eq!(it.handle(exited(A, true), now), [Action::Spawn(A)]);
        for _ in 1..PATIENCE.start_attempts {
            assert_eq!(fails_to_start(&mut it, A, now), []);
            now = it.deadline().expect("another attempt");
            assert_eq!(it.handle(Event::Tick, now), [Action::Spawn(A)]);
        }
        let failed = fails_to_start(&mut it, A, now);
        assert!(
            matches!(failed[..], [Action::Fail { attempts: 3, .. }]),
            "{failed:?}"
        );
    }

    #[test]
    fn who_was_told_to_end_is_replaced_without_a_failure() {
        let now = Instant::now();
        let mut it = ready(1, now);
        for _ in 0..10 {
            assert_eq!(it.handle(Event::ToldToEnd(A), now), []);
            assert!(!it.all_ready());
            assert_eq!(it.handle(exited(A, false), now), [Action::Spawn(A)]);
            it.handle(Event::Spawned(A), now);
            it.handle(Event::Ready(A), now);
        }
    }

    #[test]
    fn who_was_told_to_end_and_does_not_is_killed_once() {
        let now = Instant::now();
        let mut it = ready(1, now);
        it.handle(Event::ToldToEnd(A), now);
        let late = now + END_TIMEOUT;
        assert_eq!(it.deadline(), Some(late));
        assert_eq!(
            it.handle(Event::Tick, late),
            [Action::Kill(A, KillReason::EndTimeout)]
        );
        assert_eq!(it.handle(Event::Tick, late), []);
        assert_eq!(it.handle(exited(A, false), late), [Action::Spawn(A)]);
    }

    #[test]
    fn oversized_workers_are_retired_a_few_at_a_time() {
        let now = Instant::now();
        for (workers, at_once) in [(1, 1), (2, 1), (3, 1), (8, 2), (64, 16)] {
            let mut it = ready(workers, now);
            let all = (0..workers as u32).map(WorkerId);
            let tell = |it: &mut Supervisor| -> Vec<Action> {
                let told = all
                    .clone()
                    .flat_map(|worker| it.handle(Event::Oversized(worker), now));
                told.collect()
            };
            let first: Vec<Action> = all.clone().take(at_once).map(Action::Retire).collect();
            assert_eq!(tell(&mut it), first, "{workers}");
            assert_eq!(tell(&mut it), [], "nobody twice, nobody else meanwhile");
            it.handle(Event::ToldToEnd(A), now);
            it.handle(exited(A, false), now);
            it.handle(Event::Spawned(A), now);
            assert_eq!(tell(&mut it), []);
            it.handle(Event::Ready(A), now);
            assert_eq!(tell(&mut it).len(), 1);
        }
    }

    #[test]
    fn who_dies_while_he_retires_is_replaced() {
        let now = Instant::now();
        let mut it = ready(1, now);
        assert_eq!(it.handle(Event::Oversized(A), now), [Action::Retire(A)]);
        assert_eq!(it.handle(exited(A, true), now), [Action::Spawn(A)]);
    }

    #[test]
    fn growing_spawns_at_once_and_shrinking_retires_the_last() {
        let now = Instant::now();
        let mut it = ready(1, now);
        assert_eq!(it.handle(Event::Resize(2), now), [Action::Spawn(B)]);
        assert_eq!(it.wanted(), 2);
        assert!(!it.all_ready());
        it.handle(Event::Spawned(B), now);
        it.handle(Event::Ready(B), now);
        assert!(it.all_ready());
        assert_eq!(it.handle(Event::Resize(1), now), [Action::Retire(B)]);
        assert!(it.all_ready() && it.is_surplus(B) && !it.is_surplus(A));
        it.handle(Event::ToldToEnd(B), now);
        assert_eq!(it.handle(exited(B, false), now), []);
        assert_eq!(it.deadline(), None);
        assert_eq!(it.handle(Event::Resize(2), now), [Action::Spawn(B)]);
    }

    #[test]
    fn a_surplus_worker_in_any_state_goes_and_comes_back_when_wanted() {
        let now = Instant::now();
        let spawned = |it: &mut Supervisor| it.handle(Event::Spawned(B), now);
        type Step<'a> = &'a dyn Fn(&mut Supervisor);
        let steps: [Step<'_>; 5] = [
            &|it| drop(spawned(it)),
            &|it| drop(it.handle(Event::Ready(B), now)),
            &|it| drop(it.handle(Event::Oversized(B), now)),
            &|it| drop(it.handle(Event::ToldToEnd(B), now)),
            &|it| drop(it.handle(Event::Tick, now + END_TIMEOUT)),
        ];
        for before in 0..=steps.len() {
            for back in [false, true] {
                let mut it = ready(1, now);
                it.handle(Event::Resize(2), now);
                steps[..before].iter().for_each(|step| step(&mut it));
                let retired = it.handle(Event::Resize(1), now);
                assert_eq!(retired.len(), usize::from(before == 2), "{before}: {retired:?}");
                if back {
                    assert_eq!(it.handle(Event::Resize(2), now), [], "not two in one place");
                }
                if before == 0 {
                    spawned(&mut it);
                }
                let ended = it.handle(exited(B, false), now);
                let deadline = it.deadline();
                match (back, before) {
                    (false, _) => assert_eq!((ended, deadline), (vec![], None), "{before}"),
                    // It failed to start, or died idle soon after.
                    (true, 0..=3) => assert_eq!((ended, deadline), (vec![], Some(now + PATIENCE.backoff))),
                    (true, _) => assert_eq!(ended, [Action::Spawn(B)]),
                }
            }
        }
    }

    #[test]
    fn one_who_gets_ready_when_he_is_not_wanted_any_more_is_retired() {
        let now = Instant::now();
        let mut it = ready(1, now);
        it.handle(Event::Resize(2), now);
        it.handle(Event::Spawned(B), now);
        assert_eq!(it.handle(Event::Resize(1), now), []);
        assert_eq!(it.handle(Event::Ready(B), now), [Action::Retire(B)]);
        assert!(it.is_ready(B));
    }

    #[test]
    fn a_failed_or_stopped_pool_does_not_grow() {
        let now = Instant::now();
        let mut it = ready(1, now);
        it.handle(Event::Stop, now);
        assert_eq!(it.handle(Event::Resize(5), now), []);
        assert_eq!(it.wanted(), 1);
    }

    #[test]
    fn a_worker_that_is_ready_can_no_more_fail_to_start() {
        let now = Instant::now();
        let mut it = ready(1, now);
        for _ in 0..10 {
            assert_eq!(it.handle(Event::StartFailed(A, "a lie".into()), now), []);
            assert_eq!(it.handle(Event::Ready(A), now), []);
        }
        assert!(it.all_ready());
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
