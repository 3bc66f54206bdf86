//! Runs that stop at the first error, limits of tasks in flight, retries, and the end of states.

use std::cell::Cell;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use invoker::{Executor, Fault, Interrupt, Invoker, Processes, Retry, TaskError, WithContext, worker};
use serde::{Deserialize, Serialize};

use crate::executors::EXECUTORS;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum EvenError {
    Odd(u64),
    Failed(u64),
}

impl From<TaskError> for EvenError {
    fn from(error: TaskError) -> Self {
        Self::Failed(error.task)
    }
}

fn even(_: &(), n: u64) -> Result<u64, EvenError> {
    assert_ne!(n, 1000, "a thousand");
    match n % 2 {
        0 => Ok(n),
        _ => Err(EvenError::Odd(n)),
    }
}

#[test]
fn try_map_ends_at_the_first_error() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        let builder = Invoker::builder(even)
            .model(())
            .executor(executor)
            .workers(workers);
        let invoker = builder.build().expect("the invoker builds");
        let all = |tasks: Vec<u64>| invoker.try_map(tasks).collect::<Result<Vec<u64>, EvenError>>();
        assert_eq!(all(vec![0, 2, 4]), Ok(vec![0, 2, 4]), "{executor:?}");
        assert_eq!(all(vec![]), Ok(vec![]));
        assert_eq!(all(vec![0, 7, 9, 1000]), Err(EvenError::Odd(7)));
        assert_eq!(all(vec![0, 1000, 7]), Err(EvenError::Failed(1)));
        // The input may be infinite, and the iterator is fused.
        let mut outputs = invoker.try_map((0..).map(|n| 2 * n)).max_in_flight(50);
        assert_eq!(outputs.by_ref().take(500).filter(Result::is_ok).count(), 500);
        assert_eq!(outputs.next(), Some(Err(EvenError::Failed(500))));
        assert_eq!((outputs.next(), outputs.size_hint()), (None, (0, Some(0))));
    }
}

#[test]
fn an_interrupted_try_map_is_no_success() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        let builder = Invoker::builder(even)
            .model(())
            .executor(executor)
            .workers(workers);
        let invoker = builder.build().expect("the invoker builds");
        let mut outputs = invoker.try_map((0..).step_by(2).filter(|n| *n != 1000));
        assert_eq!(outputs.next(), Some(Ok(0)));
        invoker.interrupter().interrupt(Interrupt::Finish);
        let rest: Vec<_> = outputs.collect();
        let (last, done) = rest.split_last().expect("an error");
        assert!(done.iter().all(Result::is_ok));
        assert_eq!(
            *last,
            Err(EvenError::Failed(1 + done.len() as u64)),
            "{executor:?}"
        );
        // An interruption after the whole input costs nothing.
        assert_eq!(invoker.try_map([]).next(), None);
    }
}

#[test]
fn no_more_tasks_are_in_flight_than_allowed() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        let builder = Invoker::builder(|_: &(), n: usize| n)
            .model(())
            .executor(executor)
            .workers(workers);
        let invoker = builder.build().expect("the invoker builds");
        for limit in [0, 1, 3, 100] {
            let taken = Cell::new(0);
            let tasks = || (0..500).inspect(|n| taken.set(n + 1));
            for (returned, output) in invoker.map(tasks()).max_in_flight(limit).enumerate() {
                assert_eq!(output.expect("no task fails"), returned);
                assert!(
                    taken.get() <= returned + limit.max(1),
                    "{executor:?}, {limit}: {taken:?}, {returned}"
                );
            }
            let unordered = invoker.map_unordered(tasks()).max_in_flight(limit).enumerate();
            let most = unordered.map(|(returned, _)| taken.get() - returned).max();
            assert!(
                most.is_some_and(|most| most <= limit.max(1)),
                "{executor:?}, {limit}: {most:?}"
            );
        }
    }
}

/// What a test's ops write, one line after the other, from any process.
fn append(path: &Path, line: &str) {
    let file = OpenOptions::new().append(true).create(true).open(path);
    let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    written.expect("the directory of the test exists");
}

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

type Log = WithContext<(), PathBuf>;

/// Fails twice for odd numbers, and always for 4: by a panic if `n` is below 10, otherwise by an error.
fn flaky(log: &Log, n: u32) -> Result<u32, String> {
    let log = log.context.join(n.to_string());
    append(&log, "attempt");
    let fails = n % 10 == 4 || (n % 2 == 1 && lines(&log).len() <= 2);
    assert!(!fails || n >= 10, "attempt {}", lines(&log).len());
    match fails {
        true => Err(format!("attempt {}", lines(&log).len())),
        false => Ok(n),
    }
}

#[test]
fn failed_tasks_are_retried_on_request() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        let dir = tempfile::tempdir().expect("a directory");
        let attempts = |n: u32| lines(&dir.path().join(n.to_string())).len();
        let builder = Invoker::builder(flaky)
            .retry_errors(Retry::new(2))
            .context(dir.path().to_owned());
        let invoker = builder
            .model(())
            .executor(executor)
            .workers(workers)
            .build()
            .expect("it builds");
        let outputs: Vec<_> = invoker.map([1, 2, 4, 11, 14]).collect();
        let text = |output: &Result<Result<u32, String>, TaskError>| match output {
            Ok(Ok(n)) => n.to_string(),
            Ok(Err(text)) => text.clone(),
            Err(TaskError {
                fault: Fault::Panicked { message, .. },
                ..
            }) => format!("panic: {message}"),
            Err(other) => panic!("{other}"),
        };
        let texts: Vec<String> = outputs.iter().map(text).collect();
        assert_eq!(
            texts,
            ["1", "2", "panic: attempt 3", "11", "attempt 3"],
            "{executor:?}"
        );
        assert_eq!([1, 2, 4, 11, 14].map(attempts), [3, 1, 3, 3, 3]);
        let report = invoker.finish().expect("no error");
        assert_eq!((report.tasks.done, report.tasks.failed), (4, 1));

        // Only panics are retried here.
        let builder = Invoker::builder(flaky)
            .retry_panics(Retry::new(9))
            .context(dir.path().to_owned());
        let invoker = builder
            .model(())
            .executor(executor)
            .workers(workers)
            .build()
            .expect("it builds");
        let outputs: Vec<_> = invoker.map([3, 13]).map(|output| text(&output)).collect();
        assert_eq!(outputs, ["3", "attempt 1"], "{executor:?}");
    }
}

#[test]
fn retries_wait_and_the_deadline_is_for_all_attempts() {
    let _watchdog = crate::watchdog::watchdog(120);
    let fails = |_: &(), n: u32| Err::<(), u32>(n);
    let retry = Retry::new(2).backoff(Duration::from_millis(20));
    let builder = Invoker::builder(fails).retry_errors(retry).model(());
    let invoker = builder.executor(Executor::Inline).build().expect("it builds");
    let started = Instant::now();
    assert_eq!(invoker.submit(7).wait().expect("no panic"), Err(7));
    assert!(started.elapsed() >= Duration::from_millis(60));

    let retry = Retry::new(1000)
        .backoff(Duration::from_millis(50))
        .max_pause(Duration::from_millis(50));
    let builder = Invoker::builder(fails).retry_errors(retry).model(());
    let options = Processes::new().deadline(Duration::from_millis(300));
    let invoker = builder.executor(options).workers(1).build().expect("it builds");
    let error = invoker.submit(7).wait().expect_err("it is late");
    assert!(matches!(error.fault, Fault::TimedOut { .. }), "{error}");
}

/// Writes how often a state was used when its worker ends.
fn write_uses(log: &Log, uses: &mut u32) {
    append(&log.context.join("uses"), &uses.to_string());
    // The worker is still known.
    let worker = worker().expect("the worker ends");
    append(&log.context.join("workers"), &worker.index.to_string());
    assert_ne!(*uses, 13, "thirteen");
}

fn use_state(_: &Log, uses: &mut u32, n: u32) -> u32 {
    *uses += 1;
    match n {
        99 => panic!("ninety-nine"),
        98 => std::process::abort(),
        n => n,
    }
}

fn counted(dir: &Path) -> u32 {
    lines(&dir.join("uses"))
        .iter()
        .map(|uses| uses.parse::<u32>().expect("a number"))
        .sum()
}

#[test]
fn each_state_is_ended_once_at_finish() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        let dir = tempfile::tempdir().expect("a directory");
        let builder = Invoker::builder_with_state(|_: &Log| Ok(0), use_state).on_exit(write_uses);
        let builder = builder.context(dir.path().to_owned()).model(());
        let invoker = builder
            .executor(executor)
            .workers(workers)
            .build()
            .expect("it builds");
        let workers = invoker.workers();
        let tasks = (0..200).filter(|n| *n != 98);
        assert_eq!(
            invoker.map(tasks).filter(Result::is_err).count(),
            1,
            "{executor:?}"
        );
        invoker.finish().expect("no error");
        let mut ended = lines(&dir.path().join("workers"));
        ended.sort_unstable();
        let all: Vec<String> = (0..workers).map(|index| index.to_string()).collect();
        assert_eq!(ended, all, "{executor:?}");
    }
}

#[test]
fn replaced_processes_end_their_state_and_a_crash_does_not() {
    let _watchdog = crate::watchdog::watchdog(120);
    let dir = tempfile::tempdir().expect("a directory");
    let build = |options: Processes| {
        let builder = Invoker::builder_with_state(|_: &Log| Ok(0), use_state).on_exit(write_uses);
        let builder = builder.context(dir.path().to_owned()).model(());
        builder.executor(options).workers(1).build().expect("it builds")
    };
    let invoker = build(Processes::new().recycle_after(10));
    assert_eq!(invoker.map(0..45).filter(Result::is_ok).count(), 45);
    invoker.finish().expect("no error");
    assert_eq!(counted(dir.path()), 45);
    assert!(lines(&dir.path().join("uses")).len() >= 5);

    let before = counted(dir.path());
    let invoker = build(Processes::new());
    assert_eq!(invoker.map([1, 2, 98, 3, 4]).filter(Result::is_ok).count(), 4);
    invoker.finish().expect("no error");
    // Only the second process, which has run two tasks, has ended in order.
    assert_eq!(counted(dir.path()) - before, 2);
    // A killed process has not.
    drop(build(Processes::new()));
    assert_eq!(counted(dir.path()) - before, 2);
}

#[test]
fn a_panic_at_the_end_of_a_state_is_harmless() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, _) in EXECUTORS {
        let dir = tempfile::tempdir().expect("a directory");
        let builder = Invoker::builder_with_state(|_: &Log| Ok(0), use_state).on_exit(write_uses);
        let builder = builder.context(dir.path().to_owned()).model(());
        let invoker = builder.executor(executor).workers(1).build().expect("it builds");
        assert_eq!(invoker.map(0..13).filter(Result::is_ok).count(), 13);
        let report = invoker.finish().expect("no error");
        assert_eq!((report.tasks.done, counted(dir.path())), (13, 13), "{executor:?}");
        assert!(
            report.processes.is_none_or(|processes| processes.died == 0),
            "{executor:?}"
        );
    }
}
