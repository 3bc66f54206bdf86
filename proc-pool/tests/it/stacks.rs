//! Stacks of workers whose task exceeds its deadline.

use std::time::Duration;

use proc_pool::Fault;

use crate::support::{block_all_signals, builder, hang, signal, watchdog};

#[inline(never)]
fn stuck_in_a_loop(mut n: u64) -> u64 {
    loop {
        n = std::hint::black_box(n.wrapping_mul(3));
    }
}

#[inline(never)]
fn stuck_in_the_kernel() -> u64 {
    hang()
}

fn op(n: u64) -> u64 {
    match n {
        1 => stuck_in_a_loop(n),
        3 => stuck_in_the_kernel(),
        5 => {
            // A stopped process cannot report its stack.
            signal(std::process::id(), rustix::process::Signal::STOP);
            n
        }
        n => n,
    }
}

#[test]
fn deadline_error_has_the_stack_of_the_task() {
    let _watchdog = watchdog(120);
    let builder = builder(2).deadline(Duration::from_millis(200));
    let pool = builder
        .clone()
        .stack_on_deadline()
        .build_op(op)
        .expect("the pool starts");
    let results: Vec<_> = pool.map(0..7).collect();
    let stack = |results: &[Result<u64, proc_pool::TaskError>], task: usize| {
        let Err(Fault::TimedOut { stack, .. }) = results[task].as_ref().map_err(|e| &e.fault) else {
            panic!("{task}: {:?}", results[task])
        };
        stack.clone()
    };
    for (task, function) in [(1, "stuck_in_a_loop"), (3, "stuck_in_the_kernel")] {
        let stack = stack(&results, task).expect("the worker reports its stack");
        let calls: Vec<&str> = stack.lines().collect();
        let at = calls
            .iter()
            .position(|line| line.contains(function))
            .expect(&stack);
        assert!(calls[at].contains("stacks.rs:"), "{stack}");
        assert!(
            calls[at + 1..].iter().any(|line| line.contains("stacks::op")),
            "{stack}"
        );
        assert!(
            !stack.contains("on_ask") && !stack.contains("worker::serve"),
            "{stack}"
        );
    }
    let stopped = stack(&results, 5);
    assert!(stopped.is_none_or(|text| text.contains("kernel")));
    for task in [0, 2, 4, 6] {
        assert_eq!(results[task].as_ref().ok(), Some(&(task as u64)));
    }
    // Without the option, no stack is captured.
    let pool = builder.build_op(op).expect("the pool starts");
    let results: Vec<_> = pool.map(0..2).collect();
    assert_eq!(stack(&results, 1), None);
}

/// Sleeps for `ms` milliseconds; above 200, with all signals blocked, so that it does not report its stack.
fn nap(ms: u64) -> u64 {
    if ms > 200 {
        block_all_signals();
    }
    std::thread::sleep(Duration::from_millis(ms));
    ms
}

#[test]
fn late_task_that_ends_during_the_stack_capture_succeeds() {
    let _watchdog = watchdog(120);
    let pool = builder(1)
        .deadline(Duration::from_millis(200))
        .stack_on_deadline()
        .build_op(nap)
        .expect("the pool starts");
    // Widens the window of the worker to more than one task.
    assert_eq!(
        pool.map((0..20_000).map(|_| 0)).filter_map(Result::ok).count(),
        20_000
    );
    let late = pool.submit(300);
    let others: Vec<_> = (0..6).map(|_| pool.submit(150)).collect();
    assert_eq!(late.wait().expect("the output came before the kill"), 300);
    for other in others {
        assert_eq!(other.wait().expect("the task was not late"), 150);
    }
    let stats = pool.shutdown(Duration::from_secs(30)).expect("the pool works");
    assert_eq!((stats.deaths, stats.failed), (1, 0), "{stats:?}");
}
