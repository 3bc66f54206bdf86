//! Whole runs with an engine that is a queue in memory: leader and nodes in one process, with real workers.

mod engine;
#[path = "../../../proc-pool/tests/it/support/watchdog.rs"]
mod watchdog;

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cluster_run::{ClusterReport, LeaderState, NodeEnd};
use engine::{Faults, Run};
use invoker::{Fault, Invoker, TaskError};
use serde::{Deserialize, Deserializer, Serialize};
use watchdog::watchdog;

invoker::init_in_tests!();

const TASKS: u64 = 4000;

fn op(model: &u64, task: u64) -> u64 {
    if task == u64::MAX {
        std::process::exit(1);
    }
    std::thread::sleep(Duration::from_micros(50));
    model * task
}

fn node() -> Invoker<u64, u64, u64> {
    let built = Invoker::builder(op).model(3).workers(1).build();
    built.expect("a worker starts")
}

/// Runs tasks on three nodes.
fn run(faults: Faults, tasks: impl Iterator<Item = u64>) -> (Vec<Result<u64, TaskError>>, ClusterReport) {
    let run = Run::start(op, faults, |manifest| manifest.node_losses = 3);
    let nodes: Vec<_> = (0..3).map(|id| run.node(id, node)).collect();
    let outputs = run.jobs.map(tasks).collect();
    let handle = run.jobs.submit(7);
    assert_eq!(handle.wait().expect("no node is lost for it alone"), 21);
    let report = run.finish();
    nodes.into_iter().for_each(|node| node.join().expect("no panic"));
    (outputs, report)
}

#[test]
fn outputs_are_those_of_one_machine_and_failed_tasks_are_named() {
    let _watchdog = watchdog(60);
    let tasks = (0..TASKS).map(|n| if n == 1000 { u64::MAX } else { n });
    let (outputs, report) = run(Faults::default(), tasks);
    for (index, output) in (0..).zip(outputs) {
        match (index, output) {
            (1000, Err(error)) => assert!(matches!(error.fault, Fault::WorkerDied { .. }), "{error}"),
            (index, output) => assert_eq!(output.expect("only that one"), 3 * index),
        }
    }
    assert_eq!((report.delivered, report.nodes.len()), (TASKS + 1, 3), "{report}");
    assert_eq!((report.duplicates, report.invalid, report.foreign), (0, 0, 0));
    assert!(
        report
            .nodes
            .iter()
            .all(|node| node.end == NodeEnd::Left && node.delivered > 0),
        "{report}"
    );
}

/// An engine may deliver batches and answers twice, and what it delivers may be damaged. A node is lost with the batches that it has.
#[test]
fn each_output_comes_once_though_messages_come_twice_or_damaged_and_a_node_is_lost() {
    let _watchdog = watchdog(60);
    let faults = Faults {
        doubled: true,
        damaged: true,
        lost_after: Some(5),
    };
    let (outputs, report) = run(faults, 0..TASKS);
    let outputs: Result<Vec<u64>, TaskError> = outputs.into_iter().collect();
    assert!(
        outputs
            .expect("no task costs three nodes")
            .into_iter()
            .eq((0..TASKS).map(|n| 3 * n))
    );
    assert_eq!(report.delivered, TASKS + 1);
    assert!(report.duplicates > 0 && report.invalid > 0, "{report}");
    assert_eq!(report.nodes_lost, 1, "{report}");
}

/// The leader sends batches again that the engine has lost for good.
#[test]
fn batches_that_the_engine_has_lost_are_sent_again() {
    let _watchdog = watchdog(60);
    let run = Run::start(op, Faults::default(), |_| {});
    run.drops.store(2, Ordering::Relaxed);
    let node = run.node(1, node);
    let outputs: Result<Vec<u64>, TaskError> = run.jobs.map_unordered(0..100).collect();
    assert_eq!(outputs.expect("no task fails").len(), 100);
    let report = run.finish();
    assert!(report.resent >= 2, "{report}");
    node.join().expect("no panic");
}

/// Returns when it has run, in microseconds since 1970.
fn long(_: &u64, _: u64) -> (u128, u128) {
    let now = || {
        let time = SystemTime::now().duration_since(UNIX_EPOCH);
        time.expect("after 1970").as_micros()
    };
    let started = now();
    std::thread::sleep(Duration::from_millis(300));
    (started, now())
}

/// Tasks that take longer than a batch is to take, and tasks that come one by one.
#[test]
fn all_workers_of_a_node_run_tasks_at_the_same_time() {
    let _watchdog = watchdog(60);
    let run = Run::start(long, Faults::default(), |_| {});
    let node = run.node(1, || {
        let built = Invoker::builder(long).model(0).workers(4).build();
        built.expect("workers start")
    });
    let at_once = |times: &[(u128, u128)]| {
        let running = |at: u128| {
            times
                .iter()
                .filter(|(from, to)| (*from..*to).contains(&at))
                .count()
        };
        times.iter().map(|(from, _)| running(*from)).max()
    };
    let mapped: Result<Vec<_>, TaskError> = run.jobs.map(0..12).collect();
    assert_eq!(at_once(&mapped.expect("no task fails")), Some(4));
    let handles: Vec<_> = (0..12).map(|task| run.jobs.submit(task)).collect();
    let submitted: Result<Vec<_>, TaskError> = handles.into_iter().map(|it| it.wait()).collect();
    assert_eq!(at_once(&submitted.expect("no task fails")), Some(4));
    run.finish();
    node.join().expect("no panic");
}

/// An output whose deserialization panics for some values.
#[derive(Debug, PartialEq, Serialize)]
struct Fragile(u64);

impl<'de> Deserialize<'de> for Fragile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(deserializer)?;
        assert!(!(300..=301).contains(&number), "no {number}");
        Ok(Self(number))
    }
}

/// The leader reads answers with a thread that all jobs need.
#[test]
fn an_output_that_panics_when_it_is_read_is_the_error_of_its_task() {
    fn op(_: &u64, task: u64) -> Fragile {
        Fragile(task)
    }
    let _watchdog = watchdog(60);
    let run = Run::start(op, Faults::default(), |_| {});
    let node = run.node(1, || {
        let built = Invoker::builder(op).model(0).workers(1).build();
        built.expect("a worker starts")
    });
    for (index, output) in (0..).zip(run.jobs.map(0..TASKS)) {
        match (index, output) {
            (300..=301, Err(error)) => {
                let text = error.to_string();
                assert!(
                    text.contains("panicked at ") && text.contains(&format!("no {index}")),
                    "{text}"
                );
                assert!(matches!(error.fault, Fault::Output(_)), "{error}");
            }
            (index, output) => assert_eq!(output.expect("only those"), Fragile(index)),
        }
    }
    let error = run.jobs.submit(300).wait().expect_err("it panics");
    assert!(matches!(error.fault, Fault::Output(_)), "{error}");
    run.finish();
    node.join().expect("no panic");
}

/// Looks at the run when it is woken.
struct Looks(Arc<LeaderState>, mpsc::Sender<u64>);

impl Wake for Looks {
    fn wake(self: Arc<Self>) {
        let _ = self.1.send(self.0.report().delivered);
    }
}

#[test]
fn a_waker_may_use_the_leader() {
    let _watchdog = watchdog(60);
    let run = Run::start(op, Faults::default(), |_| {});
    let mut handle = run.jobs.submit(5);
    let (woken, wakeups) = mpsc::channel();
    let waker = Arc::new(Looks(run.state.clone(), woken)).into();
    let mut context = Context::from_waker(&waker);
    assert!(Pin::new(&mut handle).poll(&mut context).is_pending());
    let node = run.node(1, node);
    assert_eq!(wakeups.recv(), Ok(1));
    let Poll::Ready(output) = Pin::new(&mut handle).poll(&mut context) else {
        panic!("it was woken");
    };
    assert_eq!(output.expect("it does not fail"), 15);
    run.finish();
    node.join().expect("no panic");
}

/// Panics when it is woken.
struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("woken");
    }
}

/// This process is no worker.
static IS_LEADER: AtomicBool = AtomicBool::new(false);

/// An output that panics when it is dropped.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Explosive(u64);

impl Drop for Explosive {
    fn drop(&mut self) {
        // Only in the engine's threads, where duplicates are dropped: they have no names.
        let is_engine = IS_LEADER.load(Ordering::Relaxed) && std::thread::current().name().is_none();
        assert!(!is_engine, "dropped");
    }
}

#[test]
fn wakers_and_outputs_that_panic_cost_no_other_output() {
    fn op(_: &u64, task: u64) -> Explosive {
        Explosive(task)
    }
    let _watchdog = watchdog(60);
    IS_LEADER.store(true, Ordering::Relaxed);
    let faults = Faults {
        doubled: true,
        ..Faults::default()
    };
    let run = Run::start(op, faults, |_| {});
    let mut handle = run.jobs.submit(5);
    let waker = Arc::new(Panics).into();
    assert!(
        Pin::new(&mut handle)
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    let node = run.node(1, || {
        let built = Invoker::builder(op).model(0).workers(1).build();
        built.expect("a worker starts")
    });
    assert_eq!(handle.wait().expect("it does not fail"), Explosive(5));
    let outputs: Result<Vec<Explosive>, TaskError> = run.jobs.map(0..1000).collect();
    assert!(
        outputs
            .expect("no task fails")
            .into_iter()
            .eq((0..1000).map(Explosive))
    );
    let report = run.finish();
    assert!(report.duplicates > 0, "{report}");
    node.join().expect("no panic");
}

#[test]
fn a_run_that_is_dropped_ends_its_submitted_tasks_and_its_nodes() {
    let _watchdog = watchdog(60);
    let run = Run::start(op, Faults::default(), |_| {});
    let handle = run.jobs.submit(1);
    let state = run.state.clone();
    drop(run);
    assert!(state.has_ended());
    let error = handle.wait().expect_err("no node has come");
    assert!(matches!(error.fault, Fault::Pool(_)), "{error}");
    assert_eq!(Arc::strong_count(&state), 1, "the engine's threads have ended");
}
