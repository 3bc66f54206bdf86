//! Seeds of tasks.

use std::collections::HashSet;

use invoker::{Executor, Invoker, Processes, task_seed};

use crate::executors::EXECUTORS;

/// Returns the seed. With a directory, some tasks record their first attempt there and kill their worker.
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
fn seeds_depend_only_on_the_root_and_the_position() {
    let _watchdog = crate::watchdog::watchdog(120);
    let reference: Vec<_> = {
        let builder = Invoker::builder(seed)
            .model(())
            .executor(Executor::Inline)
            .seed(42);
        let invoker = builder.build().expect("the invoker builds");
        invoker
            .map(tasks(""))
            .map(|out| out.expect("no task fails"))
            .collect()
    };
    let distinct: HashSet<_> = reference
        .iter()
        .map(|(_, seed)| seed.expect("the builder has a root"))
        .collect();
    assert_eq!(distinct.len(), 200);
    for (executor, workers) in EXECUTORS {
        let builder = Invoker::builder(seed)
            .model(())
            .executor(executor)
            .workers(workers);
        let invoker = builder.seed(42).build().expect("the invoker builds");
        for _ in 0..2 {
            let ordered = invoker.map(tasks("")).map(|out| out.expect("no task fails"));
            assert!(ordered.eq(reference.iter().copied()), "{executor:?}");
        }
        let unordered = invoker.map_unordered(tasks(""));
        let mut unordered: Vec<_> = unordered.map(|out| out.expect("no task fails")).collect();
        unordered.sort_unstable();
        assert_eq!(unordered, reference, "{executor:?}");
        let handles: Vec<_> = tasks("").map(|task| invoker.submit(task)).collect();
        let submitted = handles
            .into_iter()
            .map(|handle| handle.wait().expect("no task fails"));
        assert!(submitted.eq(reference.iter().copied()), "{executor:?}");
    }
    // With recycled workers and retried tasks.
    let dir = tempfile::tempdir().expect("a temporary directory");
    let builder = Invoker::builder(seed).model(()).workers(2).seed(42);
    let options = Processes::new().recycle_after(30).retries(1);
    let invoker = builder.executor(options).build().expect("the invoker builds");
    let outputs = invoker.map(tasks(dir.path().to_str().expect("UTF-8")));
    assert!(
        outputs
            .map(|out| out.expect("retried"))
            .eq(reference.iter().copied())
    );
    let processes = invoker
        .finish()
        .expect("no error")
        .processes
        .expect("there were processes");
    assert_eq!((processes.died, processes.retried), (5, 5));
    assert!(processes.spawned > 2 + 5, "{processes:?}");

    let builder = Invoker::builder(seed).model(()).executor(Executor::Inline);
    let others = builder.seed(43).build().expect("the invoker builds");
    let others = others.map(tasks("")).map(|out| out.expect("no task fails"));
    assert!(others.zip(&reference).all(|(first, second)| first.1 != second.1));
}

#[test]
fn tasks_have_no_seeds_without_a_root() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        let builder = Invoker::builder(seed)
            .model(())
            .executor(executor)
            .workers(workers);
        let invoker = builder.build().expect("the invoker builds");
        assert!(
            invoker
                .map(tasks(""))
                .all(|out| out.expect("no task fails").1.is_none())
        );
    }
    assert_eq!(task_seed(), None);
}

#[test]
fn parts_of_an_input_have_the_seeds_of_the_whole() {
    let _watchdog = crate::watchdog::watchdog(120);
    let builder = || Invoker::builder(seed).model(());
    let run = |builder: invoker::Builder<'_, _, _, _, _>, tasks: &mut dyn Iterator<Item = (u64, String)>| {
        let invoker = builder.workers(2).build().expect("the invoker builds");
        let outputs = invoker.map(tasks).map(|out| out.expect("no task fails"));
        outputs.collect::<Vec<_>>()
    };
    let whole = run(builder().seed(42), &mut tasks(""));
    let part = |from: usize, to: usize| {
        let mut tasks = tasks("").skip(from).take(to - from);
        run(builder().seed_from(42, from as u64), &mut tasks)
    };
    assert_eq!([part(0, 67), part(67, 133), part(133, 200)].concat(), whole);
}
