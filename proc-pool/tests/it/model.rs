//! Random sequences of everything that one can do with pools, against a reference that is a plain function: what each
//! task must come to is known before it is run.
//!
//! `cargo xtask faults --steps N --seed N` runs longer ones. A new operation of pools gets a [`Step`] and an arm in
//! [`World::take`].

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;
use std::time::Duration;

use proc_pool::{Builder, Cancelled, Cause, Fault, Pool, TaskError, Workers};
use serde::{Deserialize, Serialize};

use crate::crash::Crash;
use crate::support::{
    Alone, hang, has_children, is_alone, open_files, random, test_name, threads, try_kill, watchdog,
};

/// What a task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Deed {
    Answer,
    Sleep {
        us: u32,
    },
    LargeOutput,
    Panic,
    Exit,
    Kill,
    /// Only where there is a deadline.
    Hang,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Task {
    number: u64,
    deed: Deed,
    padding: String,
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            number,
            deed,
            padding,
        } = self;
        write!(f, "task {number} ({deed:?}, padded with {})", padding.len())
    }
}

#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Output {
    answer: u64,
    /// Bytes of the task's padding.
    padded: usize,
    padding: String,
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let len = self.padding.len();
        write!(f, "answer {} to {}, padded with {len}", self.answer, self.padded)
    }
}

const LARGE: usize = 60_000;
const DEADLINE: Duration = Duration::from_millis(1500);

/// The reference: what a task's output is.
fn answer(task: &Task) -> Output {
    let padding = match task.deed {
        Deed::LargeOutput => LARGE,
        _ => 0,
    };
    Output {
        answer: task.number.wrapping_mul(3),
        padded: task.padding.len(),
        padding: "y".repeat(padding),
    }
}

/// What workers run.
fn work(task: Task) -> Output {
    match task.deed {
        Deed::Answer | Deed::LargeOutput => {}
        Deed::Sleep { us } => thread::sleep(Duration::from_micros(us.into())),
        Deed::Panic => panic!("number {}", task.number),
        Deed::Exit => std::process::exit(5),
        Deed::Kill => Crash::KillSelf.suffer(""),
        Deed::Hang => hang(),
    }
    answer(&task)
}

/// Whether that is what the task had to come to. `strays` are tasks that may have been hit by a kill from outside.
fn judge(task: &Task, result: Result<Output, TaskError>, strays: &mut u64) {
    let fault = match result {
        Ok(output) => {
            let answers = matches!(task.deed, Deed::Answer | Deed::Sleep { .. } | Deed::LargeOutput);
            assert!(answers && output == answer(task), "{task:?} came to {output:?}");
            return;
        }
        Err(error) => error.fault,
    };
    let fits = match (&fault, task.deed) {
        (Fault::Panicked { message, .. }, Deed::Panic) => *message == format!("number {}", task.number),
        (Fault::WorkerDied { cause, .. }, Deed::Exit) => *cause == Cause::Exited { code: 5 },
        (Fault::WorkerDied { cause, .. }, Deed::Kill) => Some(cause) == Crash::KillSelf.cause().as_ref(),
        (Fault::TimedOut { deadline, .. }, Deed::Hang) => *deadline == DEADLINE,
        _ => false,
    };
    let from_outside = Crash::KilledFromOutside.cause();
    let stray = matches!(&fault, Fault::WorkerDied { cause, .. } if Some(cause) == from_outside.as_ref());
    if !fits && stray && *strays > 0 {
        *strays -= 1;
    } else {
        assert!(fits, "{task:?} came to {fault:?}");
    }
}

/// What one can do.
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
    BeQuiet,
    Shutdown,
    Drop,
}

/// Each as often as it is listed.
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
    Step::BeQuiet,
    Step::BeQuiet,
    Step::Shutdown,
    Step::Drop,
];

/// A pool, and what is known of it.
struct Known {
    pool: Pool<Task, Output>,
    retries: u64,
    deadline: bool,
    /// Kills from outside that it may still get: idle workers that die again and again are its end.
    lives: u64,
    /// Kills that may still hit a task.
    strays: u64,
    /// Tasks of maps that were taken to their end.
    given: u64,
    /// Whether other maps were begun as well.
    dropped: bool,
    /// Deaths that its tasks were to cause.
    deaths: u64,
}

struct World<R> {
    random: R,
    pools: Vec<Known>,
    next: u64,
    tasks: u64,
    counts: BTreeMap<String, u64>,
}

impl<R: FnMut() -> u64> World<R> {
    fn below(&mut self, n: usize) -> usize {
        (self.random)() as usize % n
    }

    fn tasks(&mut self, hang: bool) -> Vec<Task> {
        let count = [0, 1, 3, 20, 100, 300][self.below(6)];
        let wild = self.below(3) == 0;
        let mut tasks: Vec<Task> = (0..count).map(|_| self.task(wild)).collect();
        if hang && !tasks.is_empty() && self.below(25) == 0 {
            let place = self.below(tasks.len());
            tasks[place].deed = Deed::Hang;
        }
        self.tasks += tasks.len() as u64;
        tasks
    }

    fn task(&mut self, wild: bool) -> Task {
        self.next += 1;
        let deed = match self.below(if wild { 100 } else { 1000 }) {
            0 => Deed::Exit,
            1 => Deed::Kill,
            2 | 3 => Deed::LargeOutput,
            4..10 => Deed::Panic,
            10..16 => Deed::Sleep {
                us: self.below(2000) as u32,
            },
            _ => Deed::Answer,
        };
        let padding = match self.below(100) {
            0 => LARGE,
            1..10 => 500,
            _ => 0,
        };
        Task {
            number: self.next,
            deed,
            padding: "x".repeat(padding),
        }
    }

    fn build(&mut self) {
        if self.pools.len() >= 3 {
            return;
        }
        let retries = [0, 0, 1, 2][self.below(4)];
        let deadline = self.below(4) == 0;
        let mut builder = Builder::new()
            .workers(Workers::Count(1 + self.below(4)))
            .retries(retries as u32)
            // Reading the symbols for a stack takes a large part of a deadline on a busy machine.
            .env("RUST_BACKTRACE", "0")
            .slots(self.below(3))
            .side_ring([0, 1 << 10, 1 << 20][self.below(3)]);
        if deadline {
            builder = builder.deadline(DEADLINE);
        }
        self.pools.push(Known {
            pool: builder.build_op(work).expect("it starts"),
            retries,
            deadline,
            lives: 2,
            strays: 0,
            given: 0,
            dropped: false,
            deaths: 0,
        });
    }

    fn take(&mut self, step: Step) {
        if self.pools.is_empty() {
            return self.build();
        }
        let place = self.below(self.pools.len());
        let hang = self.pools[place].deadline;
        let ordered = self.below(2) == 0;
        match step {
            Step::Build => self.build(),
            Step::Map => {
                let tasks = self.tasks(hang);
                self.pools[place].map(&tasks, ordered);
            }
            Step::MapAndKill => {
                let tasks = self.tasks(hang);
                let after = self.below(tasks.len() + 1);
                let which = self.below(4);
                self.pools[place].map_and_kill(&tasks, after, which);
            }
            Step::DropMapHalfWay => {
                let tasks = self.tasks(false);
                let taken = self.below(tasks.len() + 1);
                self.pools[place].drop_map(&tasks, ordered, taken);
            }
            Step::TwoMapsInTurn => {
                let (one, two) = (self.tasks(hang), self.tasks(false));
                let turns = (self.random)();
                self.pools[place].two_maps(&one, &two, turns);
            }
            Step::MapsOfThreads => {
                let lists: Vec<Vec<Task>> = (0..3).map(|_| self.tasks(false)).collect();
                self.pools[place].maps_of_threads(&lists);
            }
            Step::MapOfMap => {
                let tasks = self.tasks(false);
                let other = self.below(self.pools.len());
                self.map_of_map(place, other, tasks);
            }
            Step::Submit => {
                let tasks = self.tasks(hang);
                let turns = (self.random)();
                self.pools[place].submit(&tasks, turns);
            }
            Step::Resize => {
                let workers = Workers::Count(1 + self.below(5));
                self.pools[place]
                    .pool
                    .resize(workers)
                    .expect("the pool did not fail");
            }
            Step::KillIdle => {
                let which = self.below(4);
                self.pools[place].kill(which);
            }
            // The standby thread takes over, and bells go to it.
            Step::BeQuiet => thread::sleep(Duration::from_millis(self.below(25) as u64)),
            Step::Shutdown => self.pools.swap_remove(place).shutdown(),
            Step::Drop => drop(self.pools.swap_remove(place)),
        }
    }

    /// The outputs of one pool are the tasks of another, or of the same.
    fn map_of_map(&mut self, first: usize, second: usize, mut tasks: Vec<Task>) {
        tasks.retain(|task| task.deed == Deed::Answer);
        let follow = |number: u64| Task {
            number,
            deed: Deed::Answer,
            padding: String::new(),
        };
        let expected: Vec<Task> = tasks.iter().map(|task| follow(answer(task).answer)).collect();
        let count = tasks.len() as u64;
        // A kill that is still under way would be somebody's in between.
        if self.pools[first].strays > 0 {
            return;
        }
        let between = self.pools[first].pool.map(tasks);
        let between = between.map(|result| follow(result.expect("no task fails").answer));
        let results: Vec<_> = self.pools[second].pool.map(between).collect();
        assert_eq!(results.len(), expected.len());
        let last = &mut self.pools[second];
        for (task, result) in expected.iter().zip(results) {
            judge(task, result, &mut last.strays);
        }
        self.pools[first].given += count;
        self.pools[second].given += count;
    }
}

impl Known {
    /// The deaths and counts that these tasks bring.
    fn expect(&mut self, tasks: &[Task]) {
        self.given += tasks.len() as u64;
        let fatal = |task: &&Task| matches!(task.deed, Deed::Exit | Deed::Kill | Deed::Hang);
        self.deaths += tasks.iter().filter(fatal).count() as u64 * (1 + self.retries);
    }

    fn map(&mut self, tasks: &[Task], ordered: bool) {
        self.expect(tasks);
        if ordered {
            let results: Vec<_> = self.pool.map(tasks.iter().cloned()).collect();
            assert_eq!(results.len(), tasks.len());
            for (task, result) in tasks.iter().zip(results) {
                judge(task, result, &mut self.strays);
            }
        } else {
            let results = self.pool.map_unordered(tasks.iter().cloned());
            judge_unordered(tasks, results, &mut self.strays);
        }
    }

    /// Kills a worker in the middle: a task of it may be hit, and is retried if that was asked for.
    fn map_and_kill(&mut self, tasks: &[Task], after: usize, which: usize) {
        self.expect(tasks);
        let mut results = self.pool.map_unordered(tasks.iter().cloned());
        let mut list: Vec<_> = results.by_ref().take(after).collect();
        let pids = self.pool.bytes().pids();
        if self.lives > 0 && !pids.is_empty() {
            self.lives -= 1;
            self.strays += u64::from(try_kill(pids[which % pids.len()].1));
        }
        list.extend(results);
        judge_unordered(tasks, list.into_iter(), &mut self.strays);
    }

    fn drop_map(&mut self, tasks: &[Task], ordered: bool, taken: usize) {
        self.dropped = true;
        if ordered {
            let results = self.pool.map(tasks.iter().cloned());
            for (task, result) in tasks.iter().zip(results.take(taken)) {
                judge(task, result, &mut self.strays);
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
                (Some(result), Some(task)) => judge(task, result, &mut self.strays),
                (None, None) => break,
                (result, task) => panic!("{result:?} for {task:?}"),
            }
        }
        for (task, result) in a.zip(first).chain(b.zip(second)) {
            judge(task, result, &mut self.strays);
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
                .map(|thread| thread.join().expect("a map does not panic"))
                .collect()
        });
        for (tasks, results) in lists.iter().zip(results) {
            judge_unordered(tasks, results.into_iter(), &mut self.strays);
        }
    }

    /// Some are waited for, some cancelled or killed, some given up.
    fn submit(&mut self, tasks: &[Task], turns: u64) {
        self.expect(tasks);
        let mut random = random(turns);
        // Some of a list are treated alike, so that what is exact can be told to be.
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
                _ => Cancelled::Running,
            };
            match (handle.wait(), cancelled) {
                (Err(error), Cancelled::Withdrawn) => {
                    assert!(
                        matches!(error.fault, Fault::Cancelled),
                        "{task:?} came to {error}"
                    );
                }
                (Ok(output), Cancelled::Withdrawn) => {
                    panic!("{task:?} was withdrawn, and came to {output:?}")
                }
                (result, _) => judge(task, result, &mut self.strays),
            }
        }
        self.dropped |= interferes;
    }

    fn kill(&mut self, which: usize) {
        let pids = self.pool.bytes().pids();
        // Tasks of dropped maps may still run, and are nobody's.
        if self.lives > 0 && !pids.is_empty() {
            self.lives -= 1;
            self.strays += u64::from(try_kill(pids[which % pids.len()].1));
        }
    }

    fn shutdown(self) {
        let stats = self
            .pool
            .shutdown(Duration::from_secs(60))
            .expect("it did not fail");
        assert_eq!(stats.submitted, stats.answered + stats.faulted, "{stats:?}");
        let Self {
            given,
            deaths,
            dropped,
            lives,
            ..
        } = self;
        if dropped {
            assert!(stats.submitted >= given, "{stats:?}, {given} given");
        } else {
            assert_eq!(stats.submitted, given, "{stats:?}");
            let most = deaths + 2 - lives;
            assert!(
                (deaths..=most).contains(&stats.deaths),
                "{stats:?}, not {deaths} to {most}"
            );
        }
    }
}

fn judge_unordered(
    tasks: &[Task],
    results: impl Iterator<Item = Result<Output, TaskError>>,
    strays: &mut u64,
) {
    // By what they come to: an output does not tell its task.
    let mut waiting: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (index, task) in tasks.iter().enumerate() {
        waiting.entry(answer(task).answer).or_default().push(index);
    }
    let mut judged = vec![false; tasks.len()];
    for result in results {
        let index = match &result {
            Err(error) => error.task as usize,
            Ok(output) => waiting
                .get_mut(&output.answer)
                .and_then(Vec::pop)
                .expect("an answer to one of the tasks"),
        };
        assert!(!judged[index], "{index} twice");
        judged[index] = true;
        judge(&tasks[index], result, strays);
    }
    assert!(judged.iter().all(|judged| *judged), "some have no result");
}

/// `STEPS SEED`.
const WISH: &str = "IT_MODEL";

#[test]
fn sequences() {
    let wish = std::env::var(WISH).unwrap_or_default();
    let mut numbers = wish.split(' ').filter_map(|number| number.parse::<u64>().ok());
    let (steps, seed) = (numbers.next().unwrap_or(100), numbers.next());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    if !is_alone() {
        println!("{steps} steps from seed {seed}: cargo xtask faults --steps {steps} --seed {seed}");
        return Alone::new(&test_name!())
            .env(WISH, format!("{steps} {seed}"))
            .run();
    }
    let mut world = World {
        random: random(seed),
        pools: Vec::new(),
        next: 0,
        tasks: 0,
        counts: BTreeMap::new(),
    };
    let own = {
        let _watchdog = watchdog(120);
        threads()
    };
    let mut files = None;
    let mut last: VecDeque<String> = VecDeque::new();
    for number in 0..steps {
        let _watchdog = watchdog(120);
        let step = STEPS[world.below(STEPS.len())];
        *world.counts.entry(format!("{step:?}")).or_default() += 1;
        last.push_back(format!("{number}: {step:?}"));
        if last.len() > 6 {
            last.pop_front();
        }
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.take(step))) {
            eprintln!("seed {seed}, steps {steps}; the last were {last:#?}");
            resume_unwind(panic);
        }
        if number % 50 == 49 || number + 1 == steps {
            world.pools.clear();
            assert!(!has_children(), "a child is left at step {number}");
            let now = open_files();
            assert_eq!(*files.get_or_insert(now), now, "open files at step {number}");
            // A thread that was joined may still be listed for a moment.
            while threads() > own {
                thread::yield_now();
            }
        }
    }
    println!("{} tasks in {:?}", world.tasks, world.counts);
}
