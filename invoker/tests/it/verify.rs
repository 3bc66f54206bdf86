//! Outputs that depend on their worker are found.

use invoker::{Error, Executor, Invoker, Workers, task_seed};

/// The number of its task and, for odd ones, something of its worker's own.
fn leaky(_: &(), n: u32) -> String {
    match n % 4 {
        0 => format!("{n} {:?}", task_seed()),
        2 => panic!("as asked"),
        _ => format!("{n} {} {:?}", std::process::id(), std::thread::current().id()),
    }
}

#[test]
fn what_depends_on_the_worker_is_found() {
    let _watchdog = crate::watchdog::watchdog(120);
    for executor in [Executor::Processes, Executor::Threads] {
        for workers in [1, 2] {
            let builder = Invoker::builder(leaky).model(()).executor(executor).seed(7);
            let invoker = builder
                .workers(Workers::Count(workers))
                .build()
                .expect("it starts");
            let found = invoker.verify(0..40).expect("another worker starts");
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
            let sound = invoker.verify((0..40).step_by(4)).expect("another worker starts");
            assert_eq!(
                (sound.compared, sound.different, sound.failed),
                (10, vec![], vec![])
            );
            assert_eq!(invoker.finish().expect("it ends").tasks.done, 0);
        }
    }
}

#[test]
fn the_caller_has_no_other_worker() {
    let _watchdog = crate::watchdog::watchdog(120);
    let invoker = Invoker::builder(leaky).model(()).executor(Executor::InProcess);
    let invoker = invoker.build().expect("it starts");
    let Err(error) = invoker.verify([0]) else {
        panic!("nobody else is there")
    };
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
}
