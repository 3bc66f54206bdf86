//! A row's leader: runs cases one after the other and sees that each ended as it should and left nothing.

use std::collections::{BTreeSet, HashMap};
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use proc_pool::{Builder, Cause, Fault as Seen, Observer, Pool, PoolError, TaskError, WorkerId, Workers};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shm_buffers::ring::Consumer;
use shm_buffers::slots::Slots;

use super::report::Counts;
use super::victim::{DecodeMine, LARGE, ONCE, Output, PAGES, STRIKE, Strike, Task, Victim};
use super::{Case, Fault, Order, Phase};
use crate::support::{
    Dir, Ear, assert_left_nothing, has_children, is_stopped, open_files, shared_memory, threads, try_kill,
    watchdog,
};
use crate::trip;

/// The cases to run.
pub(super) const CASES: &str = "IT_FAULT_CASES";

/// How long a task may run where one is stopped: long enough for all others on a busy machine.
const DEADLINE: Duration = Duration::from_millis(1500);

pub(super) fn lead() {
    let cases = std::env::var(CASES).expect("a leader is told what to do");
    let cases: Vec<Case> = cases
        .split(' ')
        .map(|case| case.parse().expect("a case"))
        .collect();
    // The watchdog's is one more.
    let tasks = threads() + 1;
    {
        // What the process makes once for all pools is made now.
        let _watchdog = watchdog(120);
        let pool = builder(cases[0]).build::<Victim>((), &None).expect("it starts");
        let task = |number| Task {
            strike: strike(Phase::Run, Fault::Kill, number == 3),
            ..plain(number)
        };
        assert_eq!(pool.map((0..20).map(task)).filter(Result::is_err).count(), 1);
    }
    let baseline = (open_files(), tasks);
    for case in cases {
        let began = Instant::now();
        let watchdog = watchdog(150);
        let shm = shared_memory();
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let counts = run(case);
            assert_nothing_left(baseline, &shm);
            counts
        }));
        drop(watchdog);
        let line = match ran {
            Ok(counts) => Counts {
                seconds: began.elapsed().as_secs_f64(),
                ..counts
            }
            .to_line(case),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                format!("<<failed {case} {}", text.unwrap_or_default().replace('\n', " "))
            }
        };
        println!("\n{line}");
    }
}

fn assert_nothing_left((files, tasks): (usize, usize), shm: &[PathBuf]) {
    assert!(!has_children(), "a child is left");
    let links = || -> Vec<_> {
        let entries = std::fs::read_dir("/proc/self/fd")
            .expect("it is readable")
            .flatten();
        entries
            .filter_map(|entry| std::fs::read_link(entry.path()).ok())
            .collect()
    };
    assert_eq!(open_files(), files, "open files: {:?}", links());
    // A thread that was joined may still be listed for a moment.
    let patience = Instant::now() + Duration::from_secs(20);
    while threads() > tasks && Instant::now() < patience {
        thread::yield_now();
    }
    assert!(threads() <= tasks, "{} threads, before {tasks}", threads());
    let temporary = std::env::temp_dir();
    let left: Vec<_> = std::fs::read_dir(&temporary)
        .expect("it is readable")
        .flatten()
        .collect();
    assert!(left.is_empty(), "left in the temporary directory: {left:?}");
    let sockets = std::fs::read_to_string("/proc/net/unix").expect("it is readable");
    let within = format!("{}/", temporary.display());
    let ours: Vec<&str> = sockets.lines().filter(|line| line.contains(&within)).collect();
    assert!(ours.is_empty(), "sockets are left: {ours:?}");
    assert_left_nothing(shm);
}

fn run(case: Case) -> Counts {
    match case.phase {
        Phase::Spawn | Phase::Connect | Phase::Attach => struck_at_the_start(case),
        Phase::Idle => struck_idle(case),
        _ => struck_at_work(case),
    }
}

fn builder(case: Case) -> Builder {
    // Reading the symbols for a stack takes a large part of a deadline on a busy machine.
    let builder = Builder::new()
        .workers(Workers::Count(case.workers))
        .env("RUST_BACKTRACE", "0");
    match case.fault {
        Fault::Stop => builder.deadline(DEADLINE),
        _ => builder,
    }
}

fn plain(number: u64) -> Task {
    Task {
        number,
        mine: DecodeMine(None),
        strike: None,
        output: 10,
        padding: String::new(),
    }
}

fn strike(phase: Phase, fault: Fault, now: bool) -> Option<Strike> {
    now.then_some(Strike { phase, fault })
}

// -- at the start --

fn struck_at_the_start(case: Case) -> Counts {
    let dir = Dir::new();
    let mut counts = Counts::default();
    let wish = format!("{}/{}", case.phase.name(), case.fault.name());
    let error = match (case.phase, case.fault) {
        (Phase::Spawn, Fault::Emfile) => with_few_files(|| build(builder(case)).err()),
        (Phase::Spawn, Fault::Enospc) => in_a_thread(|| {
            trip::no_space_for_memory(trip::Reach::Thread);
            build(builder(case)).err()
        }),
        (Phase::Connect, Fault::Enospc) => in_a_thread(|| {
            trip::no_space_for_sockets(trip::Reach::Thread);
            build(builder(case)).err()
        }),
        (_, fault) => {
            let patience = match fault {
                Fault::Stop => Duration::from_millis(500),
                _ => Duration::from_secs(60),
            };
            build(builder(case).start_timeout(patience).env(STRIKE, &wish)).err()
        }
    };
    let error = error.expect("no worker can start");
    let said = proc_pool_chain(&error);
    let expected = at_the_start(case);
    assert!(said.contains(expected), "`{said}` does not tell `{expected}`");
    *counts.saw.entry(format!("no pool: {expected}")).or_default() += 1;
    // Struck once, the next attempt succeeds.
    let marker = dir.path().join("struck");
    let pool = build(
        builder(case)
            .start_timeout(Duration::from_secs(3))
            .env(STRIKE, wish)
            .env(ONCE, &marker),
    );
    let pool = pool.unwrap_or_else(|e| panic!("one failed start is none: {}", proc_pool_chain(&e)));
    map(case, &pool, &mut counts, (0..100).map(plain), &|_, result| {
        assert!(result.is_ok(), "{result:?}");
        Expected::Plain
    });
    finish(case, pool, &mut counts);
    counts
}

/// What a pool's error tells.
fn at_the_start(case: Case) -> &'static str {
    match (case.phase, case.fault) {
        (Phase::Attach, Fault::Panic) => "as asked",
        (_, Fault::Panic | Fault::Abort | Fault::Alloc) => "SIGABRT",
        (_, Fault::Exit0) => "exited with status 0",
        (_, Fault::Exit3) => "exited with status 3",
        (_, Fault::Kill) => "SIGKILL",
        (_, Fault::Segv) => "SIGSEGV",
        (_, Fault::Stop) => "not ready in time",
        (_, Fault::Emfile) => "Too many open files",
        (_, Fault::Enospc) => "No space left on device",
    }
}

fn build(builder: Builder) -> Result<Pool<Task, Output>, PoolError> {
    builder.build::<Victim>((), &None)
}

fn proc_pool_chain(error: &dyn std::error::Error) -> String {
    let errors = std::iter::successors(Some(error), |e| e.source());
    errors.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn with_few_files<R>(then: impl FnOnce() -> R) -> R {
    let limits = getrlimit(Resource::Nofile);
    // One of them reads the list: there is room for one end of a pair of sockets.
    let few = Some(open_files() as u64);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: few,
            ..limits
        },
    )
    .expect("less is allowed");
    let result = then();
    setrlimit(Resource::Nofile, limits).expect("as before");
    result
}

/// What is done to a thread that cannot be undone ends with it.
fn in_a_thread<R: Send>(then: impl FnOnce() -> R + Send) -> R {
    thread::scope(|scope| match scope.spawn(then).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

// -- with nothing to do --

fn struck_idle(case: Case) -> Counts {
    let dir = Dir::new();
    let ear = Ear::new();
    let mut counts = Counts::default();
    let marker = dir.path().join("struck");
    let marker = marker.to_str().expect("it is UTF-8");
    // One of them, or all.
    let struck = match case.order {
        Order::Ordered => 1,
        Order::Unordered => case.workers,
    };
    for spared in struck..case.workers {
        std::fs::write(format!("{marker}{spared}"), "").expect("it can be written");
    }
    let wish = format!("{}/{}", case.phase.name(), case.fault.name());
    let builder = builder(case).env(STRIKE, wish).env(ONCE, marker);
    let pool = builder
        .build::<Victim>((), &Some(ear.path.clone()))
        .expect("it starts");
    let connections: Vec<_> = (0..struck).map(|_| ear.accept()).collect();
    for mut connection in &connections {
        connection.write_all(&[1]).expect("it listens");
    }
    let pids = || pool.bytes().pids().into_iter().map(|(_, pid)| pid);
    for mut connection in connections {
        if case.fault != Fault::Stop {
            // Until it closes, whatever that looks like from here.
            let _ = connection.read(&mut [0]);
        }
    }
    while case.fault == Fault::Stop && pids().filter(|pid| is_stopped(*pid)).count() < struck {
        thread::yield_now();
    }
    map(case, &pool, &mut counts, (0..100).map(plain), &|_, result| {
        assert!(result.is_ok(), "{result:?}");
        Expected::Plain
    });
    *counts.saw.entry("nothing".to_owned()).or_default() += struck as u64;
    let deaths = match case.fault {
        // Of a thread, or of nothing at all.
        Fault::Panic | Fault::Emfile | Fault::Enospc => 0,
        _ => struck as u64,
    };
    finish(case, pool, &mut counts);
    assert!(counts.deaths >= deaths, "{} of {deaths} deaths", counts.deaths);
    counts
}

// -- at work --

/// What a result means.
enum Expected {
    /// An output as it should be, of a task that was not struck.
    Plain,
    /// Of one that was, or that had to suffer with it.
    Struck,
}

fn struck_at_work(case: Case) -> Counts {
    let Case { phase, fault, .. } = case;
    let mut counts = Counts::default();
    let count = 40 + 20 * case.workers as u64;
    let victims: &[u64] = match fault {
        Fault::Stop => &[2],
        _ => &[2, 3, 20],
    };
    let leader_has_no_space = (phase, fault) == (Phase::Receive, Fault::Enospc);
    // A payload that is received in pieces takes memory.
    let large_tasks = phase == Phase::ReceiveLarge || (phase == Phase::Receive && fault == Fault::Alloc);
    let tasks = (0..count).map(|number| {
        let struck = victims.contains(&number);
        let mut task = plain(number);
        match phase {
            Phase::Receive if leader_has_no_space && struck => task.padding = "x".repeat(LARGE),
            Phase::Receive if leader_has_no_space => {}
            Phase::Receive | Phase::ReceiveLarge => {
                // One that is struck comes small, so that it leaves no large room to the next.
                let large = large_tasks && !struck;
                task.padding = "x".repeat(if large { LARGE } else { PAGES });
                task.strike = strike(phase, fault, struck);
            }
            Phase::Decode => task.mine = DecodeMine(struck.then_some(fault)),
            _ => {
                task.strike = strike(phase, fault, struck);
                task.output = match phase {
                    Phase::SendSmall => PAGES,
                    Phase::SendLarge if struck => LARGE,
                    _ => 10,
                };
            }
        }
        task
    });
    let listener = Arc::new(Listener::default());
    let pool = build(builder(case).observer(listener.clone())).expect("it starts");
    let check = |number: u64, result: &Result<Output, TaskError>| {
        let struck = victims.contains(&number);
        // A worker without memory may end at any allocation.
        let drags_others_along = case.starves();
        let fits = match result {
            Ok(output) => output.number == number && (!struck || may_succeed(case)),
            Err(error) => (struck || drags_others_along) && matches_fault(case, &error.fault),
        };
        assert!(fits, "task {number} (struck: {struck}): {result:?}");
        if struck || result.is_err() {
            Expected::Struck
        } else {
            Expected::Plain
        }
    };
    if leader_has_no_space {
        in_a_thread(|| {
            trip::no_space_for_memory(trip::Reach::Thread);
            map(case, &pool, &mut counts, tasks, &check);
        });
        finish(case, pool, &mut counts);
    } else {
        map(case, &pool, &mut counts, tasks, &check);
        finish(case, pool, &mut counts);
    }
    let crashes = !matches!(fault, Fault::Panic | Fault::Emfile | Fault::Enospc) && !case.starves();
    // The next task is where it is struck, which only a single worker is sure to get.
    let receives = matches!(phase, Phase::Receive | Phase::ReceiveLarge);
    let dies = crashes && (!receives || case.workers == 1);
    assert!(counts.deaths > 0 || !dies, "nobody died");
    let broken = listener.broken.lock().expect("nobody panics");
    assert!(broken.is_empty(), "side rings of the dead: {broken:?}");
    counts
}

/// Whether a task that is struck may have an output.
fn may_succeed(case: Case) -> bool {
    match (case.phase, case.fault) {
        // The one after it would be hit, which is sent again.
        (Phase::Receive | Phase::ReceiveLarge, _) => true,
        (Phase::Run | Phase::SendSmall | Phase::SendLarge | Phase::Log, Fault::Emfile | Fault::Enospc) => {
            true
        }
        (Phase::SendSmall | Phase::SendLarge | Phase::Log, Fault::Alloc) => true,
        _ => false,
    }
}

fn matches_fault(case: Case, seen: &Seen) -> bool {
    let died = |expected: &Cause| matches!(seen, Seen::WorkerDied { cause, .. } if cause == expected);
    let signal = |number, name: &str| {
        let name = name.to_owned();
        died(&Cause::Signal { number, name })
    };
    match (case.phase, case.fault) {
        (Phase::Receive | Phase::ReceiveLarge, Fault::Alloc) => {
            signal(6, "SIGABRT") || matches!(seen, Seen::Task(_))
        }
        (Phase::Receive | Phase::ReceiveLarge, _) => false,
        (Phase::SendSmall | Phase::SendLarge | Phase::Log, Fault::Emfile | Fault::Enospc) => false,
        (Phase::Decode, Fault::Emfile | Fault::Enospc) => matches!(seen, Seen::Task(_)),
        (_, Fault::Emfile | Fault::Enospc) => matches!(seen, Seen::Output(_)),
        (_, Fault::Panic) => matches!(seen, Seen::Panicked { message, .. } if message == "as asked"),
        (_, Fault::Exit0) => died(&Cause::Exited { code: 0 }),
        (_, Fault::Exit3) => died(&Cause::Exited { code: 3 }),
        (_, Fault::Abort | Fault::Alloc) => signal(6, "SIGABRT"),
        (_, Fault::Kill) => signal(9, "SIGKILL"),
        (_, Fault::Segv) => signal(11, "SIGSEGV"),
        (_, Fault::Stop) => matches!(seen, Seen::TimedOut { deadline, .. } if *deadline == DEADLINE),
    }
}

/// Runs the tasks, each of which must come out once and at its place.
fn map(
    case: Case,
    pool: &Pool<Task, Output>,
    counts: &mut Counts,
    tasks: impl Iterator<Item = Task> + Clone + Send,
    check: &(impl Fn(u64, &Result<Output, TaskError>) -> Expected + Sync),
) {
    let count = tasks.clone().count();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let from_outside = case.fault == Fault::Stop
            && matches!(case.phase, Phase::Receive | Phase::Idle)
            && !case.waits_for_the_pool();
        if from_outside {
            scope.spawn(|| kill_the_stopped(pool, &done));
        }
        let results: Box<dyn Iterator<Item = _>> = match case.order {
            Order::Ordered => Box::new(pool.map(tasks)),
            Order::Unordered => Box::new(pool.map_unordered(tasks)),
        };
        let results = catch_unwind(AssertUnwindSafe(|| results.collect::<Vec<_>>()));
        done.store(true, Ordering::SeqCst);
        let results = results.expect("a map does not panic");
        assert_eq!(results.len(), count);
        let mut seen = BTreeSet::new();
        for (place, result) in results.iter().enumerate() {
            let number = result
                .as_ref()
                .map_or_else(|error| error.task, |output| output.number);
            assert!(seen.insert(number), "{number} twice");
            assert!(
                case.order == Order::Unordered || number == place as u64,
                "{number} at {place}"
            );
            match result {
                Ok(_) => counts.ok += 1,
                Err(_) => counts.faulted += 1,
            }
            if let Expected::Struck = check(number, result) {
                *counts.saw.entry(name_of(result)).or_default() += 1;
            }
        }
    });
}

fn name_of(result: &Result<Output, TaskError>) -> String {
    match result.as_ref().map_err(|error| &error.fault) {
        Ok(_) => "output".to_owned(),
        Err(Seen::Panicked { .. }) => "panicked".to_owned(),
        Err(Seen::WorkerDied {
            cause: Cause::Signal { name, .. },
            ..
        }) => format!("died of {name}"),
        Err(Seen::WorkerDied { cause, .. }) => format!("died: {cause}"),
        Err(Seen::TimedOut { .. }) => "timed out".to_owned(),
        Err(Seen::Task(_)) => "task not passed".to_owned(),
        Err(Seen::Output(_)) => "output not passed".to_owned(),
        Err(other) => other.to_string(),
    }
}

fn kill_the_stopped(pool: &Pool<Task, Output>, done: &AtomicBool) {
    while !done.load(Ordering::SeqCst) {
        for (_, pid) in pool.bytes().pids() {
            if is_stopped(pid) {
                try_kill(pid);
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Ends the pool and looks at its books.
fn finish(case: Case, pool: Pool<Task, Output>, counts: &mut Counts) {
    let stats = pool.bytes().stats();
    counts.cases = 1;
    counts.resent += stats.resent;
    counts.deaths += stats.deaths;
    assert_eq!(stats.submitted, stats.answered + stats.faulted, "{stats:?}");
    assert_eq!(stats.submitted, counts.ok + counts.faulted, "{stats:?}");
    match case.order {
        Order::Ordered => {
            pool.shutdown(Duration::from_secs(20)).expect("it did not fail");
        }
        Order::Unordered => drop(pool),
    }
}

/// Reads the side rings of those that have ended.
#[derive(Default)]
struct Listener {
    live: Mutex<HashMap<WorkerId, Consumer>>,
    broken: Mutex<Vec<String>>,
}

impl Observer for Listener {
    fn started(&self, worker: WorkerId, side: Consumer, _: Slots) {
        self.live.lock().expect("nobody panics").insert(worker, side);
    }

    fn ended(&self, worker: WorkerId, _: &Cause) -> Vec<String> {
        let mut live = self.live.lock().expect("nobody panics");
        let mut side = live.remove(&worker).expect("it was started");
        let mut frame = Vec::new();
        loop {
            frame.clear();
            match side.pop(&mut frame) {
                Ok(Some(_)) if frame.len() == 8 || frame == [7; PAGES] => {}
                Ok(None) => return Vec::new(),
                odd => {
                    let odd = format!("{odd:?} of {} bytes", frame.len());
                    self.broken.lock().expect("nobody panics").push(odd);
                    return Vec::new();
                }
            }
        }
    }
}
