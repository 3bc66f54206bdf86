//! Tasks with buffers: the same outputs with every executor and way to run them, with seeds, and with a journal.

use std::collections::VecDeque;
use std::sync::Mutex;

use invoker::{Buffer, Invoker, Processes, task_seed};
use serde::{Deserialize, Serialize};

use crate::executors::EXECUTORS;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Rows {
    number: u64,
    rows: Vec<Option<Buffer<f32>>>,
}

/// The lengths of the rows of a task.
fn lengths(number: u64) -> Vec<usize> {
    match number % 4 {
        0 => vec![],
        1 => vec![2047, 2048, 2049],
        2 => vec![10, 30_000, 0, 5000],
        _ => vec![700_000],
    }
}

fn rows(number: u64) -> Rows {
    let row = |len| (0..len).map(|at| (number + at as u64) as f32).collect();
    let rows = lengths(number).into_iter().map(|len| (len > 0).then(|| row(len)));
    Rows {
        number,
        rows: rows.collect(),
    }
}

/// The number of the task, whether it is whole, its seed and its rows.
type Output = (u64, bool, Option<u64>, Rows);

fn check(_: &Buffer<f32>, task: Rows) -> Output {
    (task.number, task == rows(task.number), task_seed(), task)
}

fn is_right(output: Output, number: u64, seeded: bool) -> bool {
    output.0 == number && output.1 && output.2.is_some() == seeded && output.3 == rows(number)
}

#[test]
fn tasks_with_buffers_have_the_same_outputs_everywhere() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        for seed in [None, Some(7)] {
            let mut builder = Invoker::builder(check).model(vec![0.5_f32; 10_000].into());
            if let Some(seed) = seed {
                builder = builder.seed(seed);
            }
            let invoker = builder
                .executor(executor)
                .workers(workers)
                .build()
                .expect("it builds");
            let right = |output: Output, number| is_right(output, number, seed.is_some());
            for (number, output) in (0..).zip(invoker.map((0..40).map(rows))) {
                assert!(
                    right(output.expect("no task fails"), number),
                    "{executor:?} {number}"
                );
            }
            for output in invoker.map_unordered((0..40).map(rows)) {
                let output = output.expect("no task fails");
                let number = output.0;
                assert!(right(output, number), "{executor:?} {number}");
            }
            invoker.for_each((0..20).map(rows), |output| {
                let output = output.expect("no task fails");
                let number = output.0;
                assert!(right(output, number), "{executor:?} {number}");
            });
            let handles: Vec<_> = (0..12).map(|number| invoker.submit(rows(number))).collect();
            for (number, handle) in (0..).zip(handles) {
                assert!(
                    right(handle.wait().expect("the task succeeds"), number),
                    "{executor:?} {number}"
                );
            }
        }
    }
}

#[test]
fn journals_recognise_tasks_with_buffers() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let run = |tasks: usize, most: usize| {
            let invoker = Invoker::builder(check)
                .model(vec![0.5_f32; 10_000].into())
                .journal(dir.path().join("journal"))
                .executor(executor)
                .workers(workers)
                .build()
                .expect("it builds");
            let outputs = invoker.map((0..tasks as u64).map(rows)).take(most);
            for (number, output) in (0..).zip(outputs) {
                assert!(
                    is_right(output.expect("no task fails"), number, false),
                    "{executor:?}"
                );
            }
            let report = invoker.finish().expect("it ends");
            let journal = report.journal.expect("there is one");
            (journal.read, journal.written)
        };
        let (read, written) = run(40, 17);
        assert!(
            read == 0 && (17..=40).contains(&written),
            "{executor:?}: {written}"
        );
        assert_eq!(run(40, usize::MAX), (written, 40 - written), "{executor:?}");
        assert_eq!(run(40, usize::MAX), (40, 0), "{executor:?}");
    }
}

/// An op that keeps the buffers of its last tasks.
#[test]
fn ops_of_every_executor_may_keep_buffers() {
    static KEPT: Mutex<VecDeque<(u64, Buffer<f32>)>> = Mutex::new(VecDeque::new());

    fn keep(_: &u64, (number, buffer): (u64, Buffer<f32>)) -> bool {
        let mut kept = KEPT.lock().expect("no op panics");
        kept.push_back((number, buffer));
        let oldest = if kept.len() > 30 { kept.pop_front() } else { None };
        oldest.is_none_or(|(number, buffer)| buffer == numbers(number))
    }

    fn numbers(number: u64) -> Buffer<f32> {
        (0..30_000).map(|at| (number + at) as f32).collect()
    }

    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        let invoker = Invoker::builder(keep)
            .model(1)
            .executor(executor)
            .workers(workers)
            .build()
            .expect("it builds");
        let tasks = (0..300).map(|number| (number, numbers(number)));
        assert!(
            invoker.map(tasks).all(|right| right.expect("no task fails")),
            "{executor:?}"
        );
    }
}

/// Workers are replaced again and again.
#[test]
fn recycled_workers_lose_no_buffers() {
    fn sum(scale: &u64, buffer: Buffer<u32>) -> u64 {
        scale * buffer.iter().map(|&n| u64::from(n)).sum::<u64>()
    }

    let _watchdog = crate::watchdog::watchdog(120);
    let invoker = Invoker::builder(sum)
        .model(3)
        .executor(Processes::new().recycle_after(7))
        .workers(2)
        .build()
        .expect("it builds");
    let tasks = (0..200).map(|number| Buffer::from(vec![number; 40_000]));
    for (number, output) in (0..).zip(invoker.map(tasks)) {
        assert_eq!(output.expect("no task fails"), 3 * number * 40_000);
    }
}
