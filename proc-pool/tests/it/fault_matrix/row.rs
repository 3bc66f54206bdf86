//! The leader of a row: runs its cases one after the other, and checks that each ends as expected and leaks nothing.

use std::collections::{BTreeSet, HashMap};
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use proc_pool::{
    Builder, EntryPoint, ExitCause, Fault as Seen, Observer, Pool, PoolError, TaskError, WorkerId,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shm_buffers::ring::Consumer;
use shm_buffers::slots::Slots;

use super::faulty_worker::{
    FRAME, FailingDecode, FaultyWorker, INJECT, Injection, LARGE, ONCE, Output, PAGES, Task,
};
use super::report::Counts;
use super::{Case, Fault, Order, Phase, payload_rows};
use crate::support::{
    Rendezvous, TempDir, assert_no_shared_memory_left, fault_injection, has_children, is_stopped, open_files,
    pids, release, shared_memory, threads, try_kill, watchdog,
};

/// The variable with the cases to run.
pub(super) const CASES: &str = "IT_FAULT_CASES";

/// The deadline of tasks in rows with [`Fault::Stop`]: long enough for all other tasks on a busy machine.
const DEADLINE: Duration = Duration::from_millis(1500);

/// Runs the cases of [`CASES`], and prints a line for each.
pub(super) fn lead() {
    let cases = std::env::var(CASES).expect("the test sets the cases");
    let cases: Vec<Case> = cases
        .split(' ')
        .map(|case| case.parse().expect("it is a case"))
        .collect();
    // One more for the watchdog.
    let tasks = threads() + 1;
    {
        // The first pool creates what the process needs only once.
        let _watchdog = watchdog(120);
        let pool = builder(cases[0])
            .build(EntryPoint::worker::<FaultyWorker>(()), &None)
            .expect("the pool starts");
        let task = |number| Task {
            injection: injection(Phase::Run, Fault::Kill, number == 3),
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
            .expect("/proc is readable")
            .flatten();
        entries
            .filter_map(|entry| std::fs::read_link(entry.path()).ok())
            .collect()
    };
    assert_eq!(open_files(), files, "open files: {:?}", links());
    // A joined thread may still be listed for a moment.
    let give_up = Instant::now() + Duration::from_secs(20);
    while threads() > tasks && Instant::now() < give_up {
        thread::yield_now();
    }
    assert!(threads() <= tasks, "{} threads, before {tasks}", threads());
    let temporary = std::env::temp_dir();
    let left: Vec<_> = std::fs::read_dir(&temporary)
        .expect("the directory is readable")
        .flatten()
        .collect();
    assert!(left.is_empty(), "left in the temporary directory: {left:?}");
    let sockets = std::fs::read_to_string("/proc/net/unix").expect("/proc is readable");
    let within = format!("{}/", temporary.display());
    let ours: Vec<&str> = sockets.lines().filter(|line| line.contains(&within)).collect();
    assert!(ours.is_empty(), "sockets are left: {ours:?}");
    assert_no_shared_memory_left(shm);
}

fn run(case: Case) -> Counts {
    match case.phase {
        Phase::Spawn | Phase::Connect | Phase::Attach => fail_at_start(case),
        Phase::Idle => fail_while_idle(case),
        Phase::ReadPiece | Phase::WritePiece | Phase::PublishPiece => payload_rows::fail_in_a_payload(case),
        Phase::HalfTask | Phase::HalfOutput => payload_rows::give_up_a_payload(case),
        _ => fail_in_tasks(case),
    }
}

pub(super) fn builder(case: Case) -> Builder {
    // Reading the symbols for a stack takes a large part of a deadline on a busy machine.
    let builder = crate::support::builder(case.workers).env("RUST_BACKTRACE", "0");
    match case.fault {
        Fault::Stop | Fault::Deadline => builder.deadline(DEADLINE),
        _ => builder,
    }
}

fn plain(number: u64) -> Task {
    Task {
        number,
        failing: FailingDecode(None),
        injection: None,
        output: 10,
        padding: String::new(),
    }
}

fn injection(phase: Phase, fault: Fault, is_faulty: bool) -> Option<Injection> {
    is_faulty.then_some(Injection { phase, fault })
}

/// Injects the fault while workers start: first into all of them, then into one.
fn fail_at_start(case: Case) -> Counts {
    let dir = TempDir::new();
    let mut counts = Counts::default();
    let request = format!("{}/{}", case.phase.name(), case.fault.name());
    let error = match (case.phase, case.fault) {
        (Phase::Spawn, Fault::Emfile) => with_few_files(|| build(builder(case)).err()),
        (Phase::Spawn, Fault::Enospc) => in_a_thread(|| {
            fault_injection::no_space_for_memory(fault_injection::Reach::Thread);
            build(builder(case)).err()
        }),
        (Phase::Connect, Fault::Enospc) => in_a_thread(|| {
            fault_injection::no_space_for_sockets(fault_injection::Reach::Thread);
            build(builder(case)).err()
        }),
        (_, fault) => {
            let timeout = match fault {
                Fault::Stop => Duration::from_millis(500),
                _ => Duration::from_secs(60),
            };
            build(builder(case).start_timeout(timeout).env(INJECT, &request)).err()
        }
    };
    let error = error.expect("no worker can start");
    let message = with_sources(&error);
    let expected = start_error(case);
    assert!(
        message.contains(expected),
        "`{message}` does not contain `{expected}`"
    );
    *counts.saw.entry(format!("no pool: {expected}")).or_default() += 1;
    // If one start fails, the next attempt succeeds.
    let marker = dir.path().join("failed");
    let pool = build(
        builder(case)
            .start_timeout(Duration::from_secs(3))
            .env(INJECT, request)
            .env(ONCE, &marker),
    );
    let pool = pool.unwrap_or_else(|e| panic!("one failed start must not matter: {}", with_sources(&e)));
    map(case, &pool, &mut counts, (0..100).map(plain), &|_, result| {
        assert!(result.is_ok(), "{result:?}");
        Expected::Plain
    });
    finish(case, pool, &mut counts);
    counts
}

/// Returns a part of the error of a pool whose workers cannot start.
fn start_error(case: Case) -> &'static str {
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
        (_, other) => unreachable!("{} is no fault of a worker", other.name()),
    }
}

fn build(builder: Builder) -> Result<Pool<Task, Output>, PoolError> {
    builder.build(EntryPoint::worker::<FaultyWorker>(()), &None)
}

/// Returns the message of an error with those of its sources.
fn with_sources(error: &dyn std::error::Error) -> String {
    let errors = std::iter::successors(Some(error), |e| e.source());
    errors.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Calls `then` while this process can open one file only.
fn with_few_files<R>(then: impl FnOnce() -> R) -> R {
    let limits = getrlimit(Resource::Nofile);
    // One of the open files reads the list of them: there is room for one end of a pair of sockets.
    let few = Some(open_files() as u64);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: few,
            ..limits
        },
    )
    .expect("a limit can be lowered");
    let result = then();
    setrlimit(Resource::Nofile, limits).expect("the limit can be restored");
    result
}

/// Calls `then` on a thread of its own, for faults that a thread keeps until it ends.
fn in_a_thread<R: Send>(then: impl FnOnce() -> R + Send) -> R {
    thread::scope(|scope| match scope.spawn(then).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Injects the fault while workers are idle: into one of them (ordered cases) or all (unordered cases).
fn fail_while_idle(case: Case) -> Counts {
    let dir = TempDir::new();
    let rendezvous = Rendezvous::new();
    let mut counts = Counts::default();
    let marker = dir.path().join("failed");
    let marker = marker.to_str().expect("the path is UTF-8");
    let faulty = match case.order {
        Order::Ordered => 1,
        Order::Unordered => case.workers,
    };
    for healthy in faulty..case.workers {
        std::fs::write(format!("{marker}{healthy}"), "").expect("the file can be written");
    }
    let request = format!("{}/{}", case.phase.name(), case.fault.name());
    let builder = builder(case).env(INJECT, request).env(ONCE, marker);
    let pool = builder
        .build(
            EntryPoint::worker::<FaultyWorker>(()),
            &Some(rendezvous.address.clone()),
        )
        .expect("the pool starts");
    let connections: Vec<_> = (0..faulty).map(|_| rendezvous.accept()).collect();
    connections.iter().for_each(release);
    for mut connection in connections {
        if case.fault != Fault::Stop {
            // Until the connection closes or is reset.
            let _ = connection.read(&mut [0]);
        }
    }
    while case.fault == Fault::Stop && pids(&pool).into_iter().filter(|pid| is_stopped(*pid)).count() < faulty
    {
        thread::yield_now();
    }
    map(case, &pool, &mut counts, (0..100).map(plain), &|_, result| {
        assert!(result.is_ok(), "{result:?}");
        Expected::Plain
    });
    *counts.saw.entry("nothing".to_owned()).or_default() += faulty as u64;
    let deaths = match case.fault {
        // These end a thread at most.
        Fault::Panic | Fault::Emfile | Fault::Enospc => 0,
        _ => faulty as u64,
    };
    finish(case, pool, &mut counts);
    assert!(counts.deaths >= deaths, "{} of {deaths} deaths", counts.deaths);
    counts
}

/// A result that passed its check.
enum Expected {
    /// The output of a task without a fault.
    Plain,
    /// The result of a task with a fault, or an error that a fault of another task may cause.
    Faulty,
}

/// Injects the fault into some tasks of a map.
fn fail_in_tasks(case: Case) -> Counts {
    let Case { phase, fault, .. } = case;
    let mut counts = Counts::default();
    let count = 40 + 20 * case.workers as u64;
    let faulty: &[u64] = match fault {
        Fault::Stop => &[2],
        _ => &[2, 3, 20],
    };
    let leader_has_no_space = (phase, fault) == (Phase::Receive, Fault::Enospc);
    // The worker allocates memory to receive a payload in pieces.
    let large_tasks = phase == Phase::ReceiveLarge || (phase == Phase::Receive && fault == Fault::Alloc);
    let tasks = (0..count).map(|number| {
        let is_faulty = faulty.contains(&number);
        let mut task = plain(number);
        match phase {
            Phase::Receive if leader_has_no_space && is_faulty => task.padding = "x".repeat(LARGE),
            Phase::Receive if leader_has_no_space => {}
            Phase::Receive | Phase::ReceiveLarge => {
                // A faulty task is small: a large one would leave its buffer to the next task.
                let large = large_tasks && !is_faulty;
                task.padding = "x".repeat(if large { LARGE } else { FRAME });
                task.injection = injection(phase, fault, is_faulty);
            }
            Phase::Decode => task.failing = FailingDecode(is_faulty.then_some(fault)),
            _ => {
                task.injection = injection(phase, fault, is_faulty);
                task.output = match phase {
                    Phase::SendSmall => FRAME,
                    Phase::SendLarge if is_faulty => LARGE,
                    _ => 10,
                };
            }
        }
        task
    });
    let reader = Arc::new(SideRingReader::default());
    let pool = build(builder(case).observer(reader.clone())).expect("the pool starts");
    let check = |number: u64, result: &Result<Output, TaskError>| {
        let is_faulty = faulty.contains(&number);
        // A worker without memory may die in a later task.
        let may_fail = is_faulty || case.dies_at_the_next_allocation();
        let fits = match result {
            Ok(output) => output.number == number && (!is_faulty || may_succeed(case)),
            Err(error) => may_fail && matches_fault(case, &error.fault),
        };
        assert!(fits, "task {number} (faulty: {is_faulty}): {result:?}");
        if is_faulty || result.is_err() {
            Expected::Faulty
        } else {
            Expected::Plain
        }
    };
    if leader_has_no_space {
        in_a_thread(|| {
            fault_injection::no_space_for_memory(fault_injection::Reach::Thread);
            map(case, &pool, &mut counts, tasks, &check);
        });
        finish(case, pool, &mut counts);
    } else {
        map(case, &pool, &mut counts, tasks, &check);
        finish(case, pool, &mut counts);
    }
    let crashes =
        !matches!(fault, Fault::Panic | Fault::Emfile | Fault::Enospc) && !case.dies_at_the_next_allocation();
    // The fault occurs when the same worker receives its next task; only a single worker certainly receives one.
    let receives = matches!(phase, Phase::Receive | Phase::ReceiveLarge);
    let dies = crashes && (!receives || case.workers == 1);
    assert!(counts.deaths > 0 || !dies, "no worker died");
    let corrupt = reader.corrupt.lock().expect("the lock is not poisoned");
    assert!(corrupt.is_empty(), "side rings of ended workers: {corrupt:?}");
    counts
}

/// Whether a faulty task may have an output.
fn may_succeed(case: Case) -> bool {
    match (case.phase, case.fault) {
        // The fault occurs in the task after it, and that task is sent again.
        (Phase::Receive | Phase::ReceiveLarge, _) => true,
        (Phase::Run | Phase::SendSmall | Phase::SendLarge | Phase::Log, Fault::Emfile | Fault::Enospc) => {
            true
        }
        (Phase::SendSmall | Phase::SendLarge | Phase::Log, Fault::Alloc) => true,
        _ => false,
    }
}

/// Whether this is the error that the fault causes.
pub(super) fn matches_fault(case: Case, seen: &Seen) -> bool {
    let died = |expected: &ExitCause| matches!(seen, Seen::WorkerDied { cause, .. } if cause == expected);
    let signal = |number, name: &str| {
        let name = name.to_owned();
        died(&ExitCause::Signal { number, name })
    };
    match (case.phase, case.fault) {
        (Phase::Receive | Phase::ReceiveLarge, Fault::Alloc) => {
            signal(6, "SIGABRT") || matches!(seen, Seen::Task(_))
        }
        // They fail after the task, while another one is received.
        (Phase::Receive | Phase::ReceiveLarge | Phase::ReadPiece, _) => false,
        (Phase::WritePiece | Phase::PublishPiece, Fault::Emfile | Fault::Enospc) => false,
        (Phase::SendSmall | Phase::SendLarge | Phase::Log, Fault::Emfile | Fault::Enospc) => false,
        (Phase::Decode, Fault::Emfile | Fault::Enospc) => matches!(seen, Seen::Task(_)),
        (_, Fault::Emfile | Fault::Enospc) => matches!(seen, Seen::Output(_)),
        (_, Fault::Panic) => matches!(seen, Seen::Panicked { message, .. } if message == "as asked"),
        (_, Fault::Exit0) => died(&ExitCause::Exited { code: 0 }),
        (_, Fault::Exit3) => died(&ExitCause::Exited { code: 3 }),
        (_, Fault::Abort | Fault::Alloc) => signal(6, "SIGABRT"),
        (_, Fault::Kill) => signal(9, "SIGKILL"),
        (_, Fault::Segv) => signal(11, "SIGSEGV"),
        (_, Fault::Stop) => matches!(seen, Seen::TimedOut { deadline, .. } if *deadline == DEADLINE),
        (_, other) => unreachable!("{} is no fault of a worker", other.name()),
    }
}

/// Runs the tasks; checks each result, and that each task has one, in order if the case says so.
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
            && !case.ends_by_a_long_timeout();
        if from_outside {
            scope.spawn(|| kill_stopped_workers(pool, &done));
        }
        let results: Box<dyn Iterator<Item = _>> = match case.order {
            Order::Ordered => Box::new(pool.map(tasks)),
            Order::Unordered => Box::new(pool.map_unordered(tasks)),
        };
        let results = catch_unwind(AssertUnwindSafe(|| results.collect::<Vec<_>>()));
        done.store(true, Ordering::SeqCst);
        let results = results.expect("the map does not panic");
        assert_eq!(results.len(), count);
        let mut seen = BTreeSet::new();
        for (index, result) in results.iter().enumerate() {
            let number = result
                .as_ref()
                .map_or_else(|error| error.task, |output| output.number);
            assert!(seen.insert(number), "{number} twice");
            assert!(
                case.order == Order::Unordered || number == index as u64,
                "{number} at {index}"
            );
            match result {
                Ok(_) => counts.ok += 1,
                Err(_) => counts.failed += 1,
            }
            if let Expected::Faulty = check(number, result) {
                *counts.saw.entry(name_of(result)).or_default() += 1;
            }
        }
    });
}

/// Names a result for the report.
pub(super) fn name_of<R>(result: &Result<R, TaskError>) -> String {
    match result.as_ref().map_err(|error| &error.fault) {
        Ok(_) => "output".to_owned(),
        Err(Seen::Panicked { .. }) => "panicked".to_owned(),
        Err(Seen::WorkerDied {
            cause: ExitCause::Signal { name, .. },
            ..
        }) => format!("died of {name}"),
        Err(Seen::WorkerDied { cause, .. }) => format!("died: {cause}"),
        Err(Seen::TimedOut { .. }) => "timed out".to_owned(),
        Err(Seen::Task(_)) => "task not passed".to_owned(),
        Err(Seen::Output(_)) => "output not passed".to_owned(),
        Err(other) => other.to_string(),
    }
}

/// Kills stopped workers until the map is done.
fn kill_stopped_workers(pool: &Pool<Task, Output>, done: &AtomicBool) {
    while !done.load(Ordering::SeqCst) {
        for (_, pid) in pool.bytes().pids() {
            if is_stopped(pid) {
                try_kill(pid);
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Checks the pool's statistics, and ends it.
fn finish(case: Case, pool: Pool<Task, Output>, counts: &mut Counts) {
    let stats = pool.bytes().stats();
    counts.cases = 1;
    counts.resent += stats.resent;
    counts.deaths += stats.deaths;
    assert_eq!(stats.submitted, stats.answered + stats.failed, "{stats:?}");
    assert_eq!(stats.submitted, counts.ok + counts.failed, "{stats:?}");
    match case.order {
        Order::Ordered => {
            pool.shutdown(Duration::from_secs(20)).expect("the pool works");
        }
        Order::Unordered => drop(pool),
    }
}

/// Reads the side rings of workers that have ended.
#[derive(Default)]
struct SideRingReader {
    live: Mutex<HashMap<WorkerId, Consumer>>,
    corrupt: Mutex<Vec<String>>,
}

impl Observer for SideRingReader {
    fn started(&self, worker: WorkerId, side: Consumer, _: Slots) {
        self.live
            .lock()
            .expect("the lock is not poisoned")
            .insert(worker, side);
    }

    fn ended(&self, worker: WorkerId, _: &ExitCause) -> Vec<String> {
        let mut live = self.live.lock().expect("the lock is not poisoned");
        let mut side = live.remove(&worker).expect("the worker was started");
        let mut frame = Vec::new();
        loop {
            frame.clear();
            match side.pop(&mut frame) {
                Ok(Some(_)) if frame.len() == 8 || frame == [7; PAGES] => {}
                Ok(None) => return Vec::new(),
                other => {
                    let other = format!("{other:?} of {} bytes", frame.len());
                    self.corrupt.lock().expect("the lock is not poisoned").push(other);
                    return Vec::new();
                }
            }
        }
    }
}
