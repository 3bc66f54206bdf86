//! Outputs depend only on the tasks: not on the number of workers, on deaths or on replacements.

use std::fs::OpenOptions;
use std::path::Path;

use invoker::{Buffer, Executor, Invoker, Processes, task_seed};
use serde::{Deserialize, Serialize};

const TASKS: u64 = 400;

#[derive(Serialize, Deserialize)]
struct Model {
    weights: Buffer<f64>,
    /// A directory where a task records that it has killed its worker; `None` if no task does.
    marks: Option<String>,
}

fn model(marks: Option<&Path>) -> Model {
    Model {
        weights: (0..1000).map(|n| f64::from(n).sqrt()).collect(),
        marks: marks.map(|dir| dir.to_str().expect("UTF-8").to_owned()),
    }
}

/// Walks over the weights by the seed of the task. Every fiftieth task kills its worker at its first attempt.
fn walk(model: &Model, n: u64) -> (u64, Option<u64>, f64) {
    if let Some(marks) = &model.marks
        && n % 50 == 13
    {
        let mark = Path::new(marks).join(n.to_string());
        if OpenOptions::new().write(true).create_new(true).open(mark).is_ok() {
            std::process::abort();
        }
    }
    let seed = task_seed();
    let mut state = seed.unwrap_or(n);
    let sum = (0..200).fold(0.0, |sum: f64, _| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        sum * 0.9 + model.weights[(state >> 33) as usize % model.weights.len()]
    });
    (n, seed, sum)
}

/// Returns outputs with the bits of their numbers.
fn bits(outputs: impl Iterator<Item = (u64, Option<u64>, f64)>) -> Vec<(u64, Option<u64>, u64)> {
    outputs.map(|(n, seed, sum)| (n, seed, sum.to_bits())).collect()
}

#[test]
fn outputs_depend_only_on_the_tasks() {
    let _watchdog = crate::watchdog::watchdog(120);
    let builder = Invoker::builder(walk).model(model(None)).seed(42);
    let inline = builder
        .executor(Executor::Inline)
        .build()
        .expect("the invoker builds");
    let expected = bits(inline.map(0..TASKS).map(|output| output.expect("no task fails")));
    assert!(expected.iter().all(|(_, seed, _)| seed.is_some()));
    for workers in [1, 2, 5] {
        for recycle in [None, Some(7)] {
            let marks = tempfile::tempdir().expect("a temporary directory");
            let builder = Invoker::builder(walk).model(model(Some(marks.path()))).seed(42);
            let mut options = Processes::new().retries(1);
            if let Some(tasks) = recycle {
                options = options.recycle_after(tasks);
            }
            let builder = builder.workers(workers).executor(options);
            let invoker = builder.build().expect("the invoker builds");
            let ordered = bits(invoker.map(0..TASKS).map(|output| output.expect("retried")));
            assert_eq!(ordered, expected, "{workers} workers, recycled after {recycle:?}");
            let unordered = invoker
                .map_unordered(0..TASKS)
                .map(|output| output.expect("no task fails"));
            let mut unordered = bits(unordered);
            unordered.sort_unstable();
            assert_eq!(
                unordered, expected,
                "{workers} workers, recycled after {recycle:?}, unordered"
            );
            let processes = invoker
                .finish()
                .expect("no error")
                .processes
                .expect("there were processes");
            assert_eq!((processes.died, processes.retried), (TASKS / 50, TASKS / 50));
            assert_eq!(processes.recycled > 0, recycle.is_some(), "{processes:?}");
        }
    }
}
