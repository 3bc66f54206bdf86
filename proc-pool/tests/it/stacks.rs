//! Stacks of workers that are stuck.

use std::time::Duration;

use proc_pool::{Builder, Fault, Workers};

use crate::support::{hang, signal, watchdog};

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
            // It can't answer.
            signal(std::process::id(), rustix::process::Signal::STOP);
            n
        }
        n => n,
    }
}

#[test]
fn what_a_task_was_doing_beyond_its_deadline() {
    let _watchdog = watchdog(120);
    let builder = Builder::new()
        .workers(Workers::Count(2))
        .deadline(Duration::from_millis(200));
    let pool = builder
        .clone()
        .stack_on_deadline()
        .build_op(op)
        .expect("it starts");
    let results: Vec<_> = pool.map(0..7).collect();
    let stack = |pool: &[Result<u64, proc_pool::TaskError>], task: usize| {
        let Err(Fault::TimedOut { stack, .. }) = pool[task].as_ref().map_err(|e| &e.fault) else {
            panic!("{task}: {:?}", pool[task])
        };
        stack.clone()
    };
    for (task, function) in [(1, "stuck_in_a_loop"), (3, "stuck_in_the_kernel")] {
        let stack = stack(&results, task).expect("it answers");
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
    // Not unless it is asked for.
    let pool = builder.build_op(op).expect("it starts");
    let results: Vec<_> = pool.map(0..2).collect();
    assert_eq!(stack(&results, 1), None);
}

/// Naps for `ms` milliseconds; above 200, without an answer to questions.
fn nap(ms: u64) -> u64 {
    if ms > 200 {
        crate::crash::ignore_questions();
    }
    std::thread::sleep(Duration::from_millis(ms));
    ms
}

#[test]
fn a_late_task_that_ends_while_its_stack_is_asked_for_counts_and_no_other_task_dies() {
    let _watchdog = watchdog(120);
    let pool = Builder::new()
        .workers(Workers::Count(1))
        .deadline(Duration::from_millis(200))
        .stack_on_deadline()
        .build_op(nap)
        .expect("it starts");
    // So that its worker takes more than one at a time.
    assert_eq!(
        pool.map((0..20_000).map(|_| 0)).filter_map(Result::ok).count(),
        20_000
    );
    let late = pool.submit(300);
    let others: Vec<_> = (0..6).map(|_| pool.submit(150)).collect();
    assert_eq!(late.wait().expect("its outcome came before the kill"), 300);
    for other in others {
        assert_eq!(other.wait().expect("it was not late"), 150);
    }
    let stats = pool.shutdown(Duration::from_secs(30)).expect("it works");
    assert_eq!((stats.deaths, stats.faulted), (1, 0), "{stats:?}");
}
