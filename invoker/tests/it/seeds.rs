//! Seeds are those of tasks, and of nothing else.

use std::collections::HashSet;

use invoker::{Executor, Invoker, Workers, task_seed};

use crate::executors::EXECUTORS;

/// Its seed; costs its worker at the first try, if there is a directory to note that in.
fn seed(_: &(), (n, directory): (u64, String)) -> (u64, Option<u64>) {
    if n % 40 == 7 && !directory.is_empty() && std::fs::create_dir(format!("{directory}/{n}")).is_ok() {
        std::process::abort();
    }
    (n, task_seed())
}

fn tasks(directory: &str) -> impl Iterator<Item = (u64, String)> + use<> {
    let directory = directory.to_owned();
    (0..200).map(move |n| (n, directory.clone()))
}

#[test]
fn seeds_depend_on_the_root_and_the_position_only() {
    let _watchdog = crate::watchdog::watchdog(120);
    let reference: Vec<_> = {
        let builder = Invoker::builder(seed)
            .model(())
            .executor(Executor::InProcess)
            .seed(42);
        let invoker = builder.build().expect("it builds");
        invoker
            .map(tasks(""))
            .map(|out| out.expect("none fails"))
            .collect()
    };
    let distinct: HashSet<_> = reference
        .iter()
        .map(|(_, seed)| seed.expect("asked for"))
        .collect();
    assert_eq!(distinct.len(), 200);
    for (executor, workers) in EXECUTORS {
        let builder = Invoker::builder(seed)
            .model(())
            .executor(executor)
            .workers(workers);
        let invoker = builder.seed(42).build().expect("it builds");
        for _ in 0..2 {
            let ordered = invoker.map(tasks("")).map(|out| out.expect("none fails"));
            assert!(ordered.eq(reference.iter().copied()), "{executor:?}");
        }
        let unordered = invoker.map_unordered(tasks(""));
        let mut unordered: Vec<_> = unordered.map(|out| out.expect("none fails")).collect();
        unordered.sort_unstable();
        assert_eq!(unordered, reference, "{executor:?}");
        let handles: Vec<_> = tasks("").map(|task| invoker.submit(task)).collect();
        let submitted = handles
            .into_iter()
            .map(|handle| handle.wait().expect("none fails"));
        assert!(submitted.eq(reference.iter().copied()), "{executor:?}");
    }
    // Workers that are replaced, tasks that are run again.
    let dir = tempfile::tempdir().expect("there is a temporary directory");
    let builder = Invoker::builder(seed).model(()).workers(Workers::Count(2));
    let builder = builder.executor(Executor::Processes).seed(42);
    let invoker = builder.recycle_after(30).retries(1).build().expect("it builds");
    let outputs = invoker.map(tasks(dir.path().to_str().expect("it is text")));
    assert!(
        outputs
            .map(|out| out.expect("it may fail once"))
            .eq(reference.iter().copied())
    );
    let processes = invoker
        .finish()
        .expect("it ends well")
        .processes
        .expect("there were some");
    assert_eq!((processes.died, processes.retried), (5, 5));
    assert!(processes.spawned > 2 + 5, "{processes:?}");

    let builder = Invoker::builder(seed).model(()).executor(Executor::InProcess);
    let others = builder.seed(43).build().expect("it builds");
    let others = others.map(tasks("")).map(|out| out.expect("none fails"));
    assert!(others.zip(&reference).all(|(one, other)| one.1 != other.1));
}

#[test]
fn without_a_root_there_are_none() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        let builder = Invoker::builder(seed)
            .model(())
            .executor(executor)
            .workers(workers);
        let invoker = builder.build().expect("it builds");
        assert!(
            invoker
                .map(tasks(""))
                .all(|out| out.expect("none fails").1.is_none())
        );
    }
    assert_eq!(task_seed(), None);
}
