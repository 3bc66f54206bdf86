//! The rows of large payloads: workers that fail in the middle of one, and leaders that give one up when half of it has crossed.

use std::collections::BTreeSet;
use std::time::Duration;

use proc_pool::{BytePool, Bytes, CancelOutcome, EntryPoint, Fault as Seen, Handle, TaskError};
use rustix::process::{Pid, Signal};

use super::payload_worker::{LARGE, PayloadWorker, Task};
use super::report::Counts;
use super::row::{builder, matches_fault, name_of};
use super::{Case, Fault, Order, Phase};
use crate::support::is_stopped;

/// How long a shutdown waits for tasks that never end.
const SHUTDOWN: Duration = Duration::from_millis(200);

fn pool(case: Case) -> BytePool {
    let pool = builder(case).build(EntryPoint::service::<PayloadWorker>(), &[]);
    pool.expect("the pool starts")
}

/// A task without a fault: every third one has a large payload, in either direction.
fn plain(number: u64) -> Task {
    let size = |turn| match (number + turn) % 6 {
        0 => LARGE,
        1 => 100_000,
        _ => 10,
    };
    Task {
        number,
        injection: None,
        filler: size(0),
        output: size(3),
    }
}

/// Runs these tasks. Each must have an outcome that `may_fail` allows, once.
fn map(
    case: Case,
    pool: &BytePool,
    counts: &mut Counts,
    tasks: &[Task],
    may_fail: &dyn Fn(Task, &Seen) -> bool,
) {
    let bytes = tasks.iter().map(|task| task.encode());
    let results: Box<dyn Iterator<Item = Result<Bytes, TaskError>>> = match case.order {
        Order::Ordered => Box::new(pool.map(bytes)),
        Order::Unordered => Box::new(pool.map_unordered(bytes)),
    };
    let mut seen = BTreeSet::new();
    for (at, result) in results.enumerate() {
        let index = match &result {
            Err(error) => error.task as usize,
            Ok(output) => {
                let number = output.last_chunk().map(|bytes| u64::from_le_bytes(*bytes));
                let index = tasks.iter().position(|task| Some(task.number) == number);
                let index = index.expect("the output is that of a task");
                assert!(*output == tasks[index].expected(), "task {index}: another output");
                index
            }
        };
        assert!(seen.insert(index), "task {index} twice");
        assert!(
            case.order == Order::Unordered || at == index,
            "{index} instead of {at}"
        );
        record(counts, tasks[index], &result, may_fail);
    }
    assert_eq!(seen.len(), tasks.len());
}

/// Waits for the outcome of a handle.
fn wait(handle: Handle<Bytes>, counts: &mut Counts, task: Task, may_fail: &dyn Fn(Task, &Seen) -> bool) {
    let result = handle.wait();
    if let Ok(output) = &result {
        assert!(*output == task.expected(), "{task:?}: another output");
    }
    record(counts, task, &result, may_fail);
}

fn record(
    counts: &mut Counts,
    task: Task,
    result: &Result<Bytes, TaskError>,
    may_fail: &dyn Fn(Task, &Seen) -> bool,
) {
    match result {
        Ok(_) => counts.ok += 1,
        Err(error) => {
            assert!(may_fail(task, &error.fault), "{task:?}: {error:?}");
            counts.failed += 1;
        }
    }
    if task.injection.is_some() || result.is_err() {
        *counts.saw.entry(name_of(result)).or_default() += 1;
    }
}

fn never(_: Task, _: &Seen) -> bool {
    false
}

/// Checks that every task is accounted for, and ends the pool.
fn finish(case: Case, pool: BytePool, counts: &mut Counts) {
    let stats = pool.stats();
    counts.cases = 1;
    counts.resent += stats.resent;
    counts.deaths += stats.deaths;
    assert_eq!(stats.submitted, stats.answered + stats.failed, "{stats:?}");
    match case.order {
        Order::Ordered => drop(pool.shutdown(Duration::from_secs(20)).expect("the pool works")),
        Order::Unordered => drop(pool),
    }
}

/// Injects a fault of the worker into a payload's pieces.
pub(super) fn fail_in_a_payload(case: Case) -> Counts {
    let Case {
        phase,
        fault,
        workers,
        ..
    } = case;
    let mut counts = Counts::default();
    let faulty: &[u64] = match fault {
        Fault::Stop => &[2],
        _ => &[2, 5, 16],
    };
    let tasks: Vec<Task> = (0..30 + 3 * workers as u64)
        .map(|number| match (faulty.contains(&number), phase) {
            (false, _) => plain(number),
            (true, _) => Task {
                injection: Some((phase, fault)),
                output: if phase == Phase::ReadPiece { 10 } else { LARGE },
                filler: 10,
                ..plain(number)
            },
        })
        .map(|task| match phase {
            // The next task of a faulty worker is a large one.
            Phase::ReadPiece if task.injection.is_none() => Task {
                filler: LARGE,
                output: 10,
                ..task
            },
            _ => task,
        })
        .collect();
    let pool = pool(case);
    let may_fail = |task: Task, seen: &Seen| task.injection.is_some() && matches_fault(case, seen);
    map(case, &pool, &mut counts, &tasks, &may_fail);
    let crashes = !matches!(fault, Fault::Emfile | Fault::Enospc);
    // Which worker receives the large task after a faulty one is certain only for a single worker.
    let dies = crashes && (phase != Phase::ReadPiece || workers == 1);
    finish(case, pool, &mut counts);
    assert!(counts.deaths > 0 || !dies, "no worker died");
    counts
}

/// Waits until this number of the pool's workers are stopped, and returns their pids.
fn wait_for_stops(pool: &BytePool, count: usize) -> Vec<u32> {
    loop {
        let pids = pool.pids().into_iter().map(|(_, pid)| pid);
        let stopped: Vec<u32> = pids.filter(|pid| is_stopped(*pid)).collect();
        if stopped.len() >= count {
            return stopped;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Lets stopped workers continue, if they still exist.
fn resume(pids: &[u32]) {
    for pid in pids {
        let pid = Pid::from_raw(pid.cast_signed()).expect("no pid is 0");
        let _ = rustix::process::kill_process(pid, Signal::CONT);
    }
}

/// The leader gives a payload up when half of it has crossed.
pub(super) fn give_up_a_payload(case: Case) -> Counts {
    let Case {
        phase,
        fault,
        workers,
        ..
    } = case;
    let mut counts = Counts::default();
    let pool = pool(case);
    let stopping = |number| Task {
        number,
        injection: Some((phase, Fault::Stop)),
        filler: 10,
        output: if phase == Phase::HalfOutput { LARGE } else { 10 },
    };
    let large = |number| Task {
        filler: LARGE,
        ..plain(number)
    };
    if fault == Fault::DropMap {
        let tasks: Vec<Task> = (0..20)
            .map(|number| if number == 1 { stopping(1) } else { plain(number) })
            .collect();
        let mut map: Box<dyn Iterator<Item = _>> = match case.order {
            Order::Ordered => Box::new(pool.map(tasks.iter().map(|task| task.encode()))),
            Order::Unordered => Box::new(pool.map_unordered(tasks.iter().map(|task| task.encode()))),
        };
        assert!(map.next().is_some_and(|result| result.is_ok()));
        let stopped = wait_for_stops(&pool, 1);
        drop(map);
        resume(&stopped);
        return work_on(case, pool, counts, 0);
    }
    // One worker stops in the middle of an output, or all of them stop while tasks are sent to them.
    let stops = if phase == Phase::HalfOutput {
        1
    } else {
        workers as u64
    };
    let submit = |task: Task| (task, pool.submit(task.encode()));
    let stopping: Vec<_> = (0..stops).map(|number| submit(stopping(number))).collect();
    let stopped = wait_for_stops(&pool, stops as usize);
    let half_sent: Vec<_> = match phase {
        Phase::HalfTask => (stops..2 * stops).map(|number| submit(large(number))).collect(),
        _ => Vec::new(),
    };
    // The fault gives up the targets; the other tasks block them.
    let (targets, others) = match phase {
        Phase::HalfTask => (half_sent, stopping),
        _ => (stopping, half_sent),
    };
    let (cancelled, killed) = match phase {
        Phase::HalfTask => (CancelOutcome::Withdrawn, 0),
        _ => (CancelOutcome::StillRunning, stops),
    };
    let is_withdrawn = |_: Task, seen: &Seen| matches!(seen, Seen::Cancelled);
    let mut deaths = 0;
    match fault {
        Fault::DropHandle => drop(targets),
        Fault::Cancel => {
            for (task, handle) in targets {
                assert_eq!(handle.cancel(), cancelled);
                resume(if phase == Phase::HalfTask { &[] } else { &stopped });
                wait(handle, &mut counts, task, &is_withdrawn);
            }
        }
        Fault::KillTask => {
            deaths = killed;
            for (task, handle) in targets {
                assert_eq!(handle.kill(), CancelOutcome::Withdrawn);
                wait(handle, &mut counts, task, &is_withdrawn);
            }
        }
        Fault::Deadline => {
            deaths = stops;
            let is_late =
                |task: Task, seen: &Seen| task.injection.is_some() && matches!(seen, Seen::TimedOut { .. });
            for (task, handle) in others.into_iter().chain(targets) {
                wait(handle, &mut counts, task, &is_late);
            }
            return work_on(case, pool, counts, deaths);
        }
        Fault::Shutdown | Fault::DropPool => {
            match fault {
                Fault::DropPool => drop(pool),
                // The workers that do not end are killed.
                _ => drop(pool.shutdown(SHUTDOWN)),
            }
            counts.cases = 1;
            for (task, handle) in others.into_iter().chain(targets) {
                wait(handle, &mut counts, task, &|_, _| true);
            }
            assert_eq!(counts.ok, 0, "no task was at its end");
            return counts;
        }
        _ => unreachable!("a fault of the leader"),
    }
    resume(&stopped);
    for (task, handle) in others {
        wait(handle, &mut counts, task, &never);
    }
    work_on(case, pool, counts, deaths)
}

/// The pool works as before, and has lost that many workers.
fn work_on(case: Case, pool: BytePool, mut counts: Counts, deaths: u64) -> Counts {
    let tasks: Vec<Task> = (100..130).map(plain).collect();
    map(case, &pool, &mut counts, &tasks, &never);
    finish(case, pool, &mut counts);
    assert_eq!(counts.deaths, deaths, "deaths");
    counts
}
