//! Random sequences of all operations of pools, compared with a reference: a plain function that computes the expected
//! result of each task.
//!
//! `cargo xtask faults --steps N --seed N` runs longer sequences. A new operation of pools gets a [`Step`] and an arm in
//! [`State::take`].

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use proc_pool::{CancelOutcome, ExitCause, Fault, Pool, TaskError, Workers};
use serde::{Deserialize, Serialize};
use shm_buffers::Buffer;

use crate::support::{
    Crash, IsolatedTest, builder, hang, has_children, is_isolated, open_files, random, test_name, threads,
    try_kill, watchdog,
};

/// The action of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Action {
    Return,
    Sleep {
        us: u32,
    },
    LargeOutput,
    Panic,
    Exit,
    Kill,
    /// Only in pools with a deadline.
    Hang,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Task {
    number: u64,
    action: Action,
    padding: String,
    /// Each has the number of the task as its elements.
    buffers: Vec<Buffer<u64>>,
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            number,
            action,
            padding,
            buffers,
        } = self;
        let lens: Vec<usize> = buffers.iter().map(Buffer::len).collect();
        write!(
            f,
            "task {number} ({action:?}, padded with {}, buffers of {lens:?})",
            padding.len()
        )
    }
}

#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Output {
    answer: u64,
    /// Bytes of the task's padding.
    padded: usize,
    padding: String,
    buffers: Vec<Buffer<u64>>,
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let len = self.padding.len();
        write!(f, "answer {} to {}, padded with {len}", self.answer, self.padded)
    }
}

const LARGE: usize = 60_000;
/// How often the test may kill a worker of one pool.
const MAX_KILLS: u64 = 2;
const DEADLINE: Duration = Duration::from_millis(1500);

/// The reference: returns the expected output of a task.
fn expected_output(task: &Task) -> Output {
    let padding = match task.action {
        Action::LargeOutput => LARGE,
        _ => 0,
    };
    Output {
        answer: task.number.wrapping_mul(3),
        padded: task.padding.len(),
        padding: "y".repeat(padding),
        // Those of the task, in another order.
        buffers: task.buffers.iter().rev().cloned().collect(),
    }
}

/// The last buffers of a worker. It has not looked at them.
static KEPT: Mutex<VecDeque<(u64, Buffer<u64>)>> = Mutex::new(VecDeque::new());

/// Keeps one of the task's buffers, and checks the one that was kept for longest.
fn keep(task: &Task) {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    kept.extend(task.buffers.first().map(|buffer| (task.number, buffer.clone())));
    if kept.len() > 10
        && let Some((number, buffer)) = kept.pop_front()
    {
        assert!(
            buffer.iter().all(|&element| element == number),
            "{number} has changed"
        );
    }
}

/// The op.
fn op(task: Task) -> Output {
    keep(&task);
    match task.action {
        Action::Return | Action::LargeOutput => {}
        Action::Sleep { us } => thread::sleep(Duration::from_micros(us.into())),
        Action::Panic => panic!("number {}", task.number),
        Action::Exit => std::process::exit(5),
        Action::Kill => Crash::KillSelf.run(""),
        Action::Hang => hang(),
    }
    expected_output(&task)
}

/// Asserts that this is the expected result of the task. `stray_kills` tasks may instead have died by a kill from outside.
fn check(task: &Task, result: Result<Output, TaskError>, stray_kills: &mut u64) {
    let fault = match result {
        Ok(output) => {
            let succeeds = matches!(
                task.action,
                Action::Return | Action::Sleep { .. } | Action::LargeOutput
            );
            assert!(
                succeeds && output == expected_output(task),
                "{task:?} resulted in {output:?}"
            );
            return;
        }
        Err(error) => error.fault,
    };
    let fits = match (&fault, task.action) {
        (Fault::Panicked { message, .. }, Action::Panic) => *message == format!("number {}", task.number),
        (Fault::WorkerDied { cause, .. }, Action::Exit) => *cause == ExitCause::Exited { code: 5 },
        (Fault::WorkerDied { cause, .. }, Action::Kill) => Some(cause) == Crash::KillSelf.cause().as_ref(),
        (Fault::TimedOut { deadline, .. }, Action::Hang) => *deadline == DEADLINE,
        _ => false,
    };
    let from_outside = Crash::KilledFromOutside.cause();
    let is_stray = matches!(&fault, Fault::WorkerDied { cause, .. } if Some(cause) == from_outside.as_ref());
    if !fits && is_stray && *stray_kills > 0 {
        *stray_kills -= 1;
    } else {
        assert!(fits, "{task:?} resulted in {fault:?}");
    }
}

/// An operation.
#[derive(Debug, Clone, Copy)]
enum Step {
    Build,
    Map,
    MapAndKill,
    DropMapHalfWay,
    TwoMapsInTurn,
    MapsOfThreads,
    MapOfMap,
    Submit,
    Resize,
    KillIdle,
    Pause,
    Shutdown,
    Drop,
}

/// Each operation is listed as often as its weight.
const STEPS: [Step; 22] = [
    Step::Build,
    Step::Build,
    Step::Map,
    Step::Map,
    Step::Map,
    Step::Map,
    Step::MapAndKill,
    Step::DropMapHalfWay,
    Step::DropMapHalfWay,
    Step::TwoMapsInTurn,
    Step::TwoMapsInTurn,
    Step::MapsOfThreads,
    Step::MapOfMap,
    Step::Submit,
    Step::Submit,
    Step::Submit,
    Step::Resize,
    Step::KillIdle,
    Step::Pause,
    Step::Pause,
    Step::Shutdown,
    Step::Drop,
];

/// A pool, and what the test expects of its statistics.
struct TestedPool {
    pool: Pool<Task, Output>,
    retries: u64,
    deadline: bool,
    /// How often the test may still kill a worker: a pool fails when idle workers die repeatedly.
    kills_left: u64,
    /// How many kills may still be reported as the error of a task.
    stray_kills: u64,
    /// Tasks of maps that were consumed to their end.
    submitted: u64,
    /// Whether other maps were started and dropped: then the counts are lower bounds.
    inexact: bool,
    /// Deaths that its tasks cause.
    deaths: u64,
}

struct State<R> {
    random: R,
    pools: Vec<TestedPool>,
    /// The number of the latest task.
    last_number: u64,
    tasks: u64,
    /// How often each step was taken.
    counts: BTreeMap<String, u64>,
}

impl<R: FnMut() -> u64> State<R> {
    fn below(&mut self, n: usize) -> usize {
        (self.random)() as usize % n
    }

    fn tasks(&mut self, hang: bool) -> Vec<Task> {
        let count = [0, 1, 3, 20, 100, 300][self.below(6)];
        let wild = self.below(3) == 0;
        let mut tasks: Vec<Task> = (0..count).map(|_| self.task(wild)).collect();
        if hang && !tasks.is_empty() && self.below(25) == 0 {
            let index = self.below(tasks.len());
            tasks[index].action = Action::Hang;
        }
        self.tasks += tasks.len() as u64;
        tasks
    }

    fn task(&mut self, wild: bool) -> Task {
        self.last_number += 1;
        let action = match self.below(if wild { 100 } else { 1000 }) {
            0 => Action::Exit,
            1 => Action::Kill,
            2 | 3 => Action::LargeOutput,
            4..10 => Action::Panic,
            10..16 => Action::Sleep {
                us: self.below(2000) as u32,
            },
            _ => Action::Return,
        };
        let buffers = match self.below(20) {
            0 => vec![300_000],
            1 => vec![5, 2000, 0, 1024],
            2..5 => vec![1024],
            _ => vec![],
        };
        let buffers = buffers
            .into_iter()
            .map(|len| Buffer::from(vec![self.last_number; len]))
            .collect();
        let padding = match self.below(100) {
            0 => LARGE,
            1..10 => 500,
            _ => 0,
        };
        Task {
            number: self.last_number,
            action,
            padding: "x".repeat(padding),
            buffers,
        }
    }

    fn build(&mut self) {
        if self.pools.len() >= 3 {
            return;
        }
        let retries = [0, 0, 1, 2][self.below(4)];
        let deadline = self.below(4) == 0;
        let mut builder = builder(1 + self.below(4))
            .retries(retries as u32)
            // Reading the symbols for a stack takes a large part of a deadline on a busy machine.
            .env("RUST_BACKTRACE", "0")
            .slots(self.below(3))
            .user_ring([0, 1 << 10, 1 << 20][self.below(3)]);
        if deadline {
            builder = builder.deadline(DEADLINE);
        }
        self.pools.push(TestedPool {
            pool: builder.build_op(op).expect("the pool starts"),
            retries,
            deadline,
            kills_left: MAX_KILLS,
            stray_kills: 0,
            submitted: 0,
            inexact: false,
            deaths: 0,
        });
    }

    fn take(&mut self, step: Step) {
        if self.pools.is_empty() {
            return self.build();
        }
        let index = self.below(self.pools.len());
        let hang = self.pools[index].deadline;
        let ordered = self.below(2) == 0;
        match step {
            Step::Build => self.build(),
            Step::Map => {
                let tasks = self.tasks(hang);
                self.pools[index].map(&tasks, ordered);
            }
            Step::MapAndKill => {
                let tasks = self.tasks(hang);
                let after = self.below(tasks.len() + 1);
                let which = self.below(4);
                self.pools[index].map_and_kill(&tasks, after, which);
            }
            Step::DropMapHalfWay => {
                let tasks = self.tasks(false);
                let taken = self.below(tasks.len() + 1);
                self.pools[index].drop_map(&tasks, ordered, taken);
            }
            Step::TwoMapsInTurn => {
                let (one, two) = (self.tasks(hang), self.tasks(false));
                let turns = (self.random)();
                self.pools[index].two_maps(&one, &two, turns);
            }
            Step::MapsOfThreads => {
                let lists: Vec<Vec<Task>> = (0..3).map(|_| self.tasks(false)).collect();
                self.pools[index].maps_of_threads(&lists);
            }
            Step::MapOfMap => {
                let tasks = self.tasks(false);
                let other = self.below(self.pools.len());
                self.map_of_map(index, other, tasks);
            }
            Step::Submit => {
                let tasks = self.tasks(hang);
                let turns = (self.random)();
                self.pools[index].submit(&tasks, turns);
            }
            Step::Resize => {
                let workers = Workers::Count(1 + self.below(5));
                self.pools[index].pool.resize(workers).expect("the pool works");
            }
            Step::KillIdle => {
                let which = self.below(4);
                self.pools[index].kill(which);
            }
            // The standby thread takes over the event loop, and receives the wakeups.
            Step::Pause => thread::sleep(Duration::from_millis(self.below(25) as u64)),
            Step::Shutdown => self.pools.swap_remove(index).shutdown(),
            Step::Drop => drop(self.pools.swap_remove(index)),
        }
    }

    /// Uses the outputs of one pool as the tasks of another pool, or of the same pool.
    fn map_of_map(&mut self, first: usize, second: usize, mut tasks: Vec<Task>) {
        tasks.retain(|task| task.action == Action::Return);
        let follow = |number: u64| Task {
            number,
            action: Action::Return,
            padding: String::new(),
            buffers: Vec::new(),
        };
        let expected: Vec<Task> = tasks
            .iter()
            .map(|task| follow(expected_output(task).answer))
            .collect();
        let count = tasks.len() as u64;
        // A kill whose effect has not shown yet could end one of the tasks of the first pool.
        if self.pools[first].stray_kills > 0 {
            return;
        }
        let between = self.pools[first].pool.map(tasks);
        let between = between.map(|result| follow(result.expect("no task fails").answer));
        let results: Vec<_> = self.pools[second].pool.map(between).collect();
        assert_eq!(results.len(), expected.len());
        let last = &mut self.pools[second];
        for (task, result) in expected.iter().zip(results) {
            check(task, result, &mut last.stray_kills);
        }
        self.pools[first].submitted += count;
        self.pools[second].submitted += count;
    }
}

impl TestedPool {
    /// Adds the deaths and counts that these tasks cause.
    fn expect(&mut self, tasks: &[Task]) {
        self.submitted += tasks.len() as u64;
        let fatal = |task: &&Task| matches!(task.action, Action::Exit | Action::Kill | Action::Hang);
        self.deaths += tasks.iter().filter(fatal).count() as u64 * (1 + self.retries);
    }

    fn map(&mut self, tasks: &[Task], ordered: bool) {
        self.expect(tasks);
        if ordered {
            let results: Vec<_> = self.pool.map(tasks.iter().cloned()).collect();
            assert_eq!(results.len(), tasks.len());
            for (task, result) in tasks.iter().zip(results) {
                check(task, result, &mut self.stray_kills);
            }
        } else {
            let results = self.pool.map_unordered(tasks.iter().cloned());
            check_unordered(tasks, results, &mut self.stray_kills);
        }
    }

    /// Kills a worker in the middle of a map: that may end one of its tasks, or cause a retry.
    fn map_and_kill(&mut self, tasks: &[Task], after: usize, which: usize) {
        self.expect(tasks);
        let mut results = self.pool.map_unordered(tasks.iter().cloned());
        let mut list: Vec<_> = results.by_ref().take(after).collect();
        let pids = self.pool.bytes().pids();
        if self.kills_left > 0 && !pids.is_empty() {
            self.kills_left -= 1;
            self.stray_kills += u64::from(try_kill(pids[which % pids.len()].1));
        }
        list.extend(results);
        check_unordered(tasks, list.into_iter(), &mut self.stray_kills);
    }

    fn drop_map(&mut self, tasks: &[Task], ordered: bool, taken: usize) {
        self.inexact = true;
        if ordered {
            let results = self.pool.map(tasks.iter().cloned());
            for (task, result) in tasks.iter().zip(results.take(taken)) {
                check(task, result, &mut self.stray_kills);
            }
        } else {
            drop(
                self.pool
                    .map_unordered(tasks.iter().cloned())
                    .take(taken)
                    .collect::<Vec<_>>(),
            );
        }
    }

    fn two_maps(&mut self, one: &[Task], two: &[Task], mut turns: u64) {
        self.expect(one);
        self.expect(two);
        let mut first = self.pool.map(one.iter().cloned());
        let mut second = self.pool.map(two.iter().cloned());
        let (mut a, mut b) = (one.iter(), two.iter());
        loop {
            turns = turns.rotate_left(1);
            let (results, tasks) = match turns & 1 {
                0 => (&mut first, &mut a),
                _ => (&mut second, &mut b),
            };
            match (results.next(), tasks.next()) {
                (Some(result), Some(task)) => check(task, result, &mut self.stray_kills),
                (None, None) => break,
                (result, task) => panic!("{result:?} for {task:?}"),
            }
        }
        for (task, result) in a.zip(first).chain(b.zip(second)) {
            check(task, result, &mut self.stray_kills);
        }
    }

    fn maps_of_threads(&mut self, lists: &[Vec<Task>]) {
        lists.iter().for_each(|tasks| self.expect(tasks));
        let pool = &self.pool;
        let results: Vec<Vec<_>> = thread::scope(|scope| {
            let map = |tasks: &Vec<Task>| pool.map_unordered(tasks.clone()).collect();
            let threads: Vec<_> = lists
                .iter()
                .map(|tasks| scope.spawn(move || map(tasks)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("the map does not panic"))
                .collect()
        });
        for (tasks, results) in lists.iter().zip(results) {
            check_unordered(tasks, results.into_iter(), &mut self.stray_kills);
        }
    }

    /// Submits tasks; waits for some, cancels, kills or drops others.
    fn submit(&mut self, tasks: &[Task], turns: u64) {
        self.expect(tasks);
        let mut random = random(turns);
        // In every other call, no task is cancelled, killed or dropped: the statistics stay exact.
        let interferes = turns.is_multiple_of(2);
        let handles: Vec<_> = tasks
            .iter()
            .map(|task| (task, self.pool.submit(task.clone())))
            .collect();
        for (task, handle) in handles {
            let cancelled = match random() % 16 {
                0 if interferes => handle.cancel(),
                1 if interferes => handle.kill(),
                2 if interferes => continue,
                _ => CancelOutcome::StillRunning,
            };
            match (handle.wait(), cancelled) {
                (Err(error), CancelOutcome::Withdrawn) => {
                    assert!(
                        matches!(error.fault, Fault::Cancelled),
                        "{task:?} resulted in {error}"
                    );
                }
                (Ok(output), CancelOutcome::Withdrawn) => {
                    panic!("{task:?} was withdrawn, and resulted in {output:?}")
                }
                (result, _) => check(task, result, &mut self.stray_kills),
            }
        }
        self.inexact |= interferes;
    }

    fn kill(&mut self, which: usize) {
        let pids = self.pool.bytes().pids();
        if self.kills_left > 0 && !pids.is_empty() {
            self.kills_left -= 1;
            self.stray_kills += u64::from(try_kill(pids[which % pids.len()].1));
        }
    }

    fn shutdown(self) {
        let stats = self
            .pool
            .shutdown(Duration::from_secs(60))
            .expect("the pool works");
        assert_eq!(stats.submitted, stats.answered + stats.failed, "{stats:?}");
        let Self {
            submitted,
            deaths,
            inexact,
            kills_left,
            ..
        } = self;
        if inexact {
            assert!(stats.submitted >= submitted, "{stats:?}, {submitted} submitted");
        } else {
            assert_eq!(stats.submitted, submitted, "{stats:?}");
            let most = deaths + MAX_KILLS - kills_left;
            assert!(
                (deaths..=most).contains(&stats.deaths),
                "{stats:?}, not {deaths} to {most}"
            );
        }
    }
}

/// Asserts that these are the expected results of the tasks, in any order.
fn check_unordered(
    tasks: &[Task],
    results: impl Iterator<Item = Result<Output, TaskError>>,
    stray_kills: &mut u64,
) {
    // An output does not name its task, so it counts for any task with this expected output.
    let mut waiting: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (index, task) in tasks.iter().enumerate() {
        waiting
            .entry(expected_output(task).answer)
            .or_default()
            .push(index);
    }
    let mut checked = vec![false; tasks.len()];
    for result in results {
        let index = match &result {
            Err(error) => error.task as usize,
            Ok(output) => waiting
                .get_mut(&output.answer)
                .and_then(Vec::pop)
                .expect("the output belongs to one of the tasks"),
        };
        assert!(!checked[index], "{index} twice");
        checked[index] = true;
        check(&tasks[index], result, stray_kills);
    }
    assert!(
        checked.iter().all(|checked| *checked),
        "some tasks have no result"
    );
}

/// The variable with the number of steps and the seed: `STEPS SEED`.
const STEPS_AND_SEED: &str = "IT_MODEL";

#[test]
fn results_match_the_reference() {
    let numbers = std::env::var(STEPS_AND_SEED).unwrap_or_default();
    let mut numbers = numbers.split(' ').filter_map(|number| number.parse::<u64>().ok());
    let (steps, seed) = (numbers.next().unwrap_or(100), numbers.next());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    if !is_isolated() {
        println!("{steps} steps from seed {seed}: cargo xtask faults --steps {steps} --seed {seed}");
        return IsolatedTest::new(&test_name!())
            .env(STEPS_AND_SEED, format!("{steps} {seed}"))
            .run();
    }
    let mut state = State {
        random: random(seed),
        pools: Vec::new(),
        last_number: 0,
        tasks: 0,
        counts: BTreeMap::new(),
    };
    // Counted with a watchdog's thread.
    let own_threads = {
        let _watchdog = watchdog(120);
        threads()
    };
    let mut files = None;
    let mut last: VecDeque<String> = VecDeque::new();
    for number in 0..steps {
        let _watchdog = watchdog(120);
        let step = STEPS[state.below(STEPS.len())];
        *state.counts.entry(format!("{step:?}")).or_default() += 1;
        last.push_back(format!("{number}: {step:?}"));
        if last.len() > 6 {
            last.pop_front();
        }
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| state.take(step))) {
            eprintln!("seed {seed}, steps {steps}; the last steps were {last:#?}");
            resume_unwind(panic);
        }
        if number % 50 == 49 || number + 1 == steps {
            state.pools.clear();
            assert!(!has_children(), "a child is left at step {number}");
            let now = open_files();
            assert_eq!(*files.get_or_insert(now), now, "open files at step {number}");
            // A joined thread may still be listed for a moment.
            while threads() > own_threads {
                thread::yield_now();
            }
        }
    }
    println!("{} tasks in {:?}", state.tasks, state.counts);
}
