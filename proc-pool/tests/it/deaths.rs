//! Workers that die: in a task, idle, between tasks.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use proc_pool::{Fault, Pool, TaskError};
use serde::{Deserialize, Serialize};

use crate::crash::{CRASHES, Crash, ends_within};
use crate::support::{
    Alone, Ear, has_children, is_alone, kill, open_files, pool, test_name, threads, watchdog,
};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Task {
    number: u64,
    crash: Option<(Crash, String)>,
}

fn op(task: Task) -> u64 {
    if let Some((crash, socket)) = task.crash {
        crash.suffer(&socket);
    }
    task.number * 3
}

fn check(error: &TaskError, crash: Crash) {
    let Some(expected) = crash.cause() else {
        let Fault::Panicked { message, .. } = &error.fault else {
            panic!("{crash:?}: {error}")
        };
        let expected = match crash {
            Crash::Panic => "as asked",
            _ => "a value that is no string",
        };
        return assert_eq!(message, expected);
    };
    let Fault::WorkerDied { cause, .. } = &error.fault else {
        panic!("{crash:?}: {error}")
    };
    assert_eq!(*cause, expected);
}

/// Kills whoever asks for it.
fn executioner(ear: &Ear, crash: Crash) {
    if crash == Crash::KilledFromOutside {
        kill(ear.hear());
    }
    #[cfg(target_os = "linux")]
    if crash == Crash::StoppedThenKilled {
        let pid = ear.hear();
        crate::support::signal(pid, rustix::process::Signal::STOP);
        while !crate::support::is_stopped(pid) {
            thread::yield_now();
        }
        kill(pid);
    }
}

fn one_map(pool: &Pool<Task, u64>, ear: &Ear, crash: Crash, ordered: bool) {
    const TASKS: u64 = 400;
    const VICTIM: u64 = 150;
    let tasks = (0..TASKS).map(|number| Task {
        number,
        crash: (number == VICTIM).then(|| (crash, ear.path.clone())),
    });
    thread::scope(|scope| {
        scope.spawn(|| executioner(ear, crash));
        let mut seen = BTreeSet::new();
        let mut failed = 0;
        let mut take = |place: usize, result: Result<u64, TaskError>| {
            let number = match result {
                Ok(output) => output / 3,
                Err(error) => {
                    check(&error, crash);
                    assert_eq!(error.task, VICTIM);
                    failed += 1;
                    error.task
                }
            };
            assert!(!ordered || number == place as u64, "{number} at {place}");
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

/// Fault × order × workers, each in the middle of a map, all maps of one pool one after the other.
#[test]
fn every_fault_costs_one_task_and_leaves_nothing() {
    if !is_alone() {
        return Alone::new(&test_name!()).run();
    }
    let _watchdog = watchdog(120);
    let ear = Ear::new();
    let start = || {
        let pool = pool(1, op);
        one_map(&pool, &ear, Crash::Exit3, true);
    };
    start();
    let before = (open_files(), threads());
    for workers in [1, 2, 5] {
        let pool = pool(workers, op);
        for crash in CRASHES {
            for ordered in [true, false] {
                one_map(&pool, &ear, crash, ordered);
            }
        }
        let stats = pool.bytes().stats();
        assert_eq!(stats.submitted, 400 * 20);
        assert_eq!(stats.submitted, stats.answered + stats.faulted, "{stats:?}");
        assert_eq!((stats.faulted, stats.deaths), (14, 14), "{stats:?}");
        drop(pool);
        assert!(!has_children());
        assert_eq!(open_files(), before.0);
    }
    // A thread that was joined may still be listed for a moment.
    while threads() > before.1 {
        thread::yield_now();
    }
}

/// All at once and at any moment: nobody's task but the running ones' is lost.
#[test]
fn all_workers_killed_again_and_again() {
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
                killed += u64::from(crate::support::try_kill(pid));
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
    assert!(killed >= 5 && stats.faulted <= killed, "{stats:?}");
    assert_eq!(stats.submitted, stats.answered + stats.faulted, "{stats:?}");
}

#[test]
fn workers_killed_idle_are_replaced() {
    let _watchdog = watchdog(60);
    for workers in [1, 2, 5] {
        let pool = pool(workers, |n: u64| n + 1);
        let pids: Vec<u32> = pool.bytes().pids().into_iter().map(|(_, pid)| pid).collect();
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

/// A finished large output must not go with the worker that dies in the next task.
#[test]
fn a_large_output_survives_the_next_tasks_crash() {
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
        let whole: usize = if ordered {
            pool.map(0..40).map(check).sum()
        } else {
            pool.map_unordered(0..40).map(check).sum()
        };
        assert_eq!(whole, 20);
    }
}

/// A child that the op leaves behind holds the worker's connection open.
#[cfg(target_os = "linux")]
#[test]
fn a_death_is_noticed_although_the_connection_stays_open() {
    let _watchdog = watchdog(60);
    let pool = pool(1, |n: u32| {
        if n == 3 {
            crate::crash::fork_and_die();
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
                cause: proc_pool::Cause::Exited { code: 7 },
                ..
            }
        ),
        "{fault}"
    );
}

/// A large output that was written to its end outlives its worker.
#[cfg(target_os = "linux")]
#[test]
fn a_large_output_that_was_written_is_not_lost_with_its_worker() {
    let _watchdog = watchdog(60);
    let pool = pool(1, |n: u32| {
        if n == 3 {
            // The bell for the output, which is in the ring then.
            crate::trip::on_call(libc::SYS_sendto, Crash::DieSlowly);
        }
        vec![1; 100_000]
    });
    let whole = |result: &Result<Vec<u8>, _>| result.as_ref().is_ok_and(|output| output.len() == 100_000);
    // A leader that is awake needs no bell: then there is no death, and another round.
    for _ in 0..1000 {
        let results: Vec<_> = pool.map(0..6).collect();
        assert!(results.iter().all(whole), "{results:?}");
        if pool.bytes().stats().deaths > 0 {
            return;
        }
    }
    panic!("no worker has died");
}

/// A death in the middle of an output is the error of its task, whatever of it has arrived.
#[cfg(target_os = "linux")]
#[test]
fn a_death_in_the_middle_of_an_output_is_its_tasks() {
    let _watchdog = watchdog(60);
    let pool = pool(1, |n: u32| {
        if n == 3 {
            // A bell: the leader is to take the first pieces, so that there is room for more.
            crate::trip::on_call(libc::SYS_sendto, Crash::KillSelf);
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
