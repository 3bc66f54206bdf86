//! State that workers keep between tasks.

use std::collections::HashMap;

use invoker::{BoxError, Error, Executor, Invoker, PoolError, Processes};

use crate::executors::EXECUTORS;

/// The identity of a worker, and the number of its tasks.
struct Counter {
    id: String,
    tasks: u64,
}

fn counter(start: &u64) -> Result<Counter, BoxError> {
    let thread = std::thread::current().id();
    let id = format!("{} {thread:?}", std::process::id());
    Ok(Counter { id, tasks: *start })
}

fn count(_: &u64, state: &mut Counter, n: u64) -> (String, u64) {
    state.tasks += 1;
    assert_ne!(n % 100, 99, "ninety-nine");
    (state.id.clone(), state.tasks)
}

#[test]
fn each_worker_has_one_state_and_keeps_it() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        let builder = Invoker::builder_with_state(counter, count).model(1000);
        let invoker = builder
            .executor(executor)
            .workers(workers)
            .build()
            .expect("the invoker builds");
        let mut last: HashMap<String, u64> = HashMap::new();
        let mut failed = 0;
        for _ in 0..2 {
            for output in invoker.map_unordered(0..1000) {
                match output {
                    Ok((id, tasks)) => {
                        let last = last.entry(id).or_insert(0);
                        *last = tasks.max(*last);
                    }
                    Err(_) => failed += 1,
                }
            }
        }
        assert!(last.len() <= invoker.workers(), "{executor:?}: {last:?}");
        // Tasks that panicked were counted too, except after the last output of a worker.
        let counted: u64 = last.values().map(|tasks| tasks - 1000).sum();
        assert!(
            (2000 - failed..=2000).contains(&counted),
            "{executor:?}: {last:?}"
        );
        assert_eq!(failed, 20);
    }
}

#[test]
fn a_failing_state_is_the_same_build_error_with_every_executor() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        let fails = |_: &()| -> Result<(), BoxError> { Err("no such cache".into()) };
        let builder = Invoker::builder_with_state(fails, |_: &(), (): &mut (), n: u64| n).model(());
        let built = builder.executor(executor).workers(workers).build().map(drop);
        let Err(Error::Pool(PoolError::Start { reason, .. })) = built else {
            panic!("{executor:?}: {built:?}")
        };
        assert_eq!(reason, "failed to start: no such cache");
        let panics = |_: &()| -> Result<(), BoxError> { panic!("no idea") };
        let builder = Invoker::builder_with_state(panics, |_: &(), (): &mut (), n: u64| n).model(());
        let built = builder.executor(executor).workers(workers).build().map(drop);
        let Err(Error::Pool(PoolError::Start { reason, .. })) = built else {
            panic!("{executor:?}: {built:?}")
        };
        assert!(
            reason.starts_with("panicked at ") && reason.ends_with(": no idea"),
            "{reason}"
        );
    }
}

#[test]
fn a_recycled_process_starts_with_a_new_state() {
    let _watchdog = crate::watchdog::watchdog(120);
    let builder = Invoker::builder_with_state(counter, count).model(0);
    let builder = builder.executor(Processes::new().recycle_after(1));
    let invoker = builder.workers(1).build().expect("the invoker builds");
    let mut ids = Vec::new();
    for output in invoker.map(0..5) {
        let (id, tasks) = output.expect("no task fails");
        assert_eq!(tasks, 1);
        ids.push(id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 5, "{ids:?}");
}

#[test]
fn concurrent_callers_have_a_state_each() {
    let _watchdog = crate::watchdog::watchdog(120);
    let builder = Invoker::builder_with_state(counter, count).model(0);
    let invoker = builder
        .executor(Executor::Inline)
        .build()
        .expect("the invoker builds");
    let run = || {
        invoker
            .map(0..90)
            .map(|out| out.expect("no task fails").1)
            .collect::<Vec<_>>()
    };
    let both = std::thread::scope(|scope| {
        let runs = [scope.spawn(run), scope.spawn(run)];
        runs.map(|run| run.join().expect("no panic"))
    });
    assert!(both.iter().all(|counts| counts.len() == 90));
    // One or two states remain, and are reused.
    let least = run().into_iter().min().expect("90 outputs");
    assert!(least > 1, "{least}");
}
