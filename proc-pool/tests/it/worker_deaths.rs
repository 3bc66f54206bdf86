//! Workers that die: in a task, while they are idle, between tasks.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use proc_pool::{Fault, Pool, TaskError};
use serde::{Deserialize, Serialize};

use crate::support::{
    CRASHES, Crash, IsolatedTest, Rendezvous, ends_within, has_children, is_isolated, kill, open_files, pids,
    pool, test_name, threads, try_kill, watchdog,
};
#[cfg(target_os = "linux")]
use crate::support::{exit_leaving_a_fork, fault_injection::crash_on_call, is_stopped, signal};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Task {
    number: u64,
    /// The crash, and the address to which it reports its pid.
    crash: Option<(Crash, String)>,
}

fn op(task: Task) -> u64 {
    if let Some((crash, rendezvous)) = task.crash {
        crash.run(&rendezvous);
    }
    task.number * 3
}

/// Asserts that this is the error of a task with this crash.
fn check(error: &TaskError, crash: Crash) {
    let Some(expected) = crash.cause() else {
        let Fault::Panicked { message, .. } = &error.fault else {
            panic!("{crash:?}: {error}")
        };
        let expected = match crash {
            Crash::Panic => "as asked",
            _ => "a payload that is not a string",
        };
        return assert_eq!(message, expected);
    };
    let Fault::WorkerDied { cause, .. } = &error.fault else {
        panic!("{crash:?}: {error}")
    };
    assert_eq!(*cause, expected);
}

/// Kills the worker that reports its pid, if this crash comes from outside.
fn kill_from_outside(rendezvous: &Rendezvous, crash: Crash) {
    if crash == Crash::KilledFromOutside {
        kill(rendezvous.receive());
    }
    #[cfg(target_os = "linux")]
    if crash == Crash::StoppedThenKilled {
        let pid = rendezvous.receive();
        signal(pid, rustix::process::Signal::STOP);
        while !is_stopped(pid) {
            thread::yield_now();
        }
        kill(pid);
    }
}

/// Runs a map in which one task crashes.
fn map_with_a_crash(pool: &Pool<Task, u64>, rendezvous: &Rendezvous, crash: Crash, ordered: bool) {
    const TASKS: u64 = 400;
    const CRASHING: u64 = 150;
    let tasks = (0..TASKS).map(|number| Task {
        number,
        crash: (number == CRASHING).then(|| (crash, rendezvous.address.clone())),
    });
    thread::scope(|scope| {
        scope.spawn(|| kill_from_outside(rendezvous, crash));
        let mut seen = BTreeSet::new();
        let mut failed = 0;
        let mut take = |index: usize, result: Result<u64, TaskError>| {
            let number = match result {
                Ok(output) => output / 3,
                Err(error) => {
                    check(&error, crash);
                    assert_eq!(error.task, CRASHING);
                    failed += 1;
                    error.task
                }
            };
            assert!(!ordered || number == index as u64, "{number} at {index}");
            assert!(seen.insert(number), "{number} twice");
        };
        if ordered {
            pool.map(tasks).enumerate().for_each(|(i, r)| take(i, r));
        } else {
            pool.map_unordered(tasks)
                .enumerate()
                .for_each(|(i, r)| take(i, r));
        }
        assert_eq!((seen.len(), failed), (TASKS as usize, 1), "{crash:?}");
    });
}

/// Every crash, ordered and unordered, with 1, 2 and 5 workers, each in the middle of a map.
#[test]
fn crash_costs_one_task_and_leaks_nothing() {
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).run();
    }
    let _watchdog = watchdog(120);
    let rendezvous = Rendezvous::new();
    {
        // The first pool creates what the process needs only once.
        let pool = pool(1, op);
        map_with_a_crash(&pool, &rendezvous, Crash::Exit3, true);
    }
    let before = (open_files(), threads());
    for workers in [1, 2, 5] {
        let pool = pool(workers, op);
        for crash in CRASHES {
            for ordered in [true, false] {
                map_with_a_crash(&pool, &rendezvous, crash, ordered);
            }
        }
        let stats = pool.bytes().stats();
        assert_eq!(stats.submitted, 400 * 20);
        assert_eq!(stats.submitted, stats.answered + stats.failed, "{stats:?}");
        assert_eq!((stats.failed, stats.deaths), (14, 14), "{stats:?}");
        drop(pool);
        assert!(!has_children());
        assert_eq!(open_files(), before.0);
    }
    // A joined thread may still be listed for a moment.
    while threads() > before.1 {
        thread::yield_now();
    }
}

/// All workers are killed together, in any state: only the tasks that run at that moment fail.
#[test]
fn killing_all_workers_repeatedly_fails_only_running_tasks() {
    let _watchdog = watchdog(60);
    let pool = pool(5, |n: u64| {
        thread::sleep(Duration::from_micros(n % 7 * 100));
        n
    });
    let mut results = pool.map_unordered(0..2000);
    let mut seen = BTreeSet::new();
    let mut killed = 0;
    for count in 0.. {
        if count % 250 == 200 {
            for (_, pid) in pool.bytes().pids() {
                killed += u64::from(try_kill(pid));
            }
        }
        let Some(result) = results.next() else { break };
        let number = match result {
            Ok(number) => number,
            Err(error) => {
                check(&error, Crash::KillSelf);
                error.task
            }
        };
        assert!(seen.insert(number));
    }
    assert_eq!(seen.len(), 2000);
    drop(results);
    let stats = pool.bytes().stats();
    assert!(killed >= 5 && stats.failed <= killed, "{stats:?}");
    assert_eq!(stats.submitted, stats.answered + stats.failed, "{stats:?}");
}

#[test]
fn workers_killed_while_idle_are_replaced() {
    let _watchdog = watchdog(60);
    for workers in [1, 2, 5] {
        let pool = pool(workers, |n: u64| n + 1);
        let pids = pids(&pool);
        assert_eq!(pids.len(), workers);
        pids.iter().for_each(|&pid| kill(pid));
        let outputs: Vec<u64> = pool
            .map(0..100)
            .map(|r| r.expect("no task was running"))
            .collect();
        assert_eq!(outputs, (1..101).collect::<Vec<_>>());
        assert!(ends_within(&pids, 1000));
    }
}

/// A large output that is complete is not lost when its worker dies in the next task.
#[test]
fn large_output_survives_a_crash_in_the_next_task() {
    let _watchdog = watchdog(60);
    for ordered in [true, false] {
        let pool = pool(2, |n: u32| {
            if n % 2 == 1 {
                std::process::abort()
            }
            vec![n as u8; 200_000]
        });
        let check = |result: Result<Vec<u8>, TaskError>| match result {
            Ok(output) => {
                assert!(output.len() == 200_000 && output.iter().all(|b| b % 2 == 0));
                1
            }
            Err(error) => {
                assert_eq!(error.task % 2, 1, "{error}");
                0
            }
        };
        let outputs: usize = if ordered {
            pool.map(0..40).map(check).sum()
        } else {
            pool.map_unordered(0..40).map(check).sum()
        };
        assert_eq!(outputs, 20);
    }
}

/// A child that the op forks keeps the worker's connection open.
#[cfg(target_os = "linux")]
#[test]
fn death_is_noticed_although_the_connection_stays_open() {
    let _watchdog = watchdog(60);
    let pool = pool(1, |n: u32| {
        if n == 3 {
            exit_leaving_a_fork();
        }
        n
    });
    let failed: Vec<_> = pool.map(0..6).filter_map(Result::err).collect();
    let [TaskError { task: 3, fault, .. }] = &failed[..] else {
        panic!("{failed:?}")
    };
    assert!(
        matches!(
            fault,
            Fault::WorkerDied {
                cause: proc_pool::ExitCause::Exited { code: 7 },
                ..
            }
        ),
        "{fault}"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn large_output_that_was_written_is_not_lost_with_its_worker() {
    let _watchdog = watchdog(60);
    let pool = pool(1, |n: u32| {
        if n == 3 {
            // The worker dies when it rings the doorbell for this output; the output is in the ring by then.
            crash_on_call(libc::SYS_sendto, Crash::CloseFilesThenDie);
        }
        vec![1; 100_000]
    });
    let is_complete =
        |result: &Result<Vec<u8>, _>| result.as_ref().is_ok_and(|output| output.len() == 100_000);
    // The worker does not ring while its leader is awake: then it survives, and another round follows.
    for _ in 0..1000 {
        let results: Vec<_> = pool.map(0..6).collect();
        assert!(results.iter().all(is_complete), "{results:?}");
        if pool.bytes().stats().deaths > 0 {
            return;
        }
    }
    panic!("no worker has died");
}

#[cfg(target_os = "linux")]
#[test]
fn death_in_the_middle_of_an_output_fails_its_task() {
    let _watchdog = watchdog(60);
    let pool = pool(1, |n: u32| {
        if n == 3 {
            // The worker dies when it rings the doorbell to have its first pieces taken.
            crash_on_call(libc::SYS_sendto, Crash::KillSelf);
        }
        vec![1u8; 12 << 20]
    });
    let failed: Vec<_> = pool.map(0..6).filter_map(Result::err).collect();
    let [error] = &failed[..] else {
        panic!("{failed:?}")
    };
    assert_eq!(error.task, 3);
    check(error, Crash::KillSelf);
}

/// The closing of the worker's connection wakes the pool: no call has to ask.
#[test]
fn death_of_an_idle_worker_is_noticed() {
    let _watchdog = watchdog(60);
    // The only worker runs tasks between its deaths; a worker that runs none would count as unable to start.
    let pool = pool(1, |n: u64| n);
    for deaths in 1..5 {
        kill(pool.bytes().pids()[0].1);
        let began = std::time::Instant::now();
        while pool.bytes().stats().deaths < deaths {
            thread::yield_now();
        }
        println!("noticed and reaped after {:?}", began.elapsed());
        while pool.bytes().pids().is_empty() {
            thread::yield_now();
        }
        assert_eq!(pool.map(0..10).filter(Result::is_ok).count(), 10);
    }
}
