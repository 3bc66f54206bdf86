//! `verify` finds outputs that depend on their worker.

use invoker::{Executor, Invoker, task_seed};

/// The output of odd tasks depends on the worker; every fourth task fails.
fn worker_dependent(_: &(), n: u32) -> String {
    match n % 4 {
        0 => format!("{n} {:?}", task_seed()),
        2 => panic!("on purpose"),
        _ => format!("{n} {} {:?}", std::process::id(), std::thread::current().id()),
    }
}

#[test]
fn outputs_that_depend_on_the_worker_are_found() {
    let _watchdog = crate::watchdog::watchdog(120);
    for executor in [Executor::Processes, Executor::Threads] {
        for workers in [1, 2] {
            let builder = Invoker::builder(worker_dependent)
                .model(())
                .executor(executor)
                .seed(7);
            let invoker = builder.workers(workers).build().expect("it starts");
            let found = invoker.verify(0..40).expect("a second worker starts");
            assert_eq!(found.compared, 30);
            assert_eq!(
                found.different,
                (0..40).filter(|n| n % 2 == 1).collect::<Vec<_>>()
            );
            assert_eq!(found.failed, (0..40).filter(|n| n % 4 == 2).collect::<Vec<_>>());
            let text = found.to_string();
            assert!(
                text.starts_with("30 tasks run twice: 20 differ, the first is task 1;"),
                "{text}"
            );
            let independent = invoker
                .verify((0..40).step_by(4))
                .expect("a second worker starts");
            assert_eq!(
                (independent.compared, independent.different, independent.failed),
                (10, vec![], vec![])
            );
            assert_eq!(invoker.finish().expect("no error").tasks.done, 0);
        }
    }
}

#[test]
fn verify_without_a_second_worker_is_refused() {
    let _watchdog = crate::watchdog::watchdog(120);
    let invoker = Invoker::builder(worker_dependent)
        .model(())
        .executor(Executor::Inline);
    let invoker = invoker.build().expect("it starts");
    let error = invoker.verify([0]).expect_err("there is no second worker");
    assert_eq!(
        error.to_string(),
        "`verify` needs a second worker: use `Executor::Threads` or `Executor::Processes`"
    );
}
