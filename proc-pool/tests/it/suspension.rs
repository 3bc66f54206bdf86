//! Leaders that are stopped and continued, alone or with their workers: stopped time counts for no deadline.

use std::process::Child;
use std::time::Duration;

use proc_pool::{BoxError, EntryPoint, Worker, WorkerContext};
use rustix::process::Signal;

use crate::support::{
    IsolatedTest, RENDEZVOUS, Rendezvous, TempDir, builder, is_isolated, processes_of,
    rendezvous_of_the_test, report, signal, test_name, watchdog,
};

/// How long the processes are stopped: longer than they may take.
const STOPPED: Duration = Duration::from_secs(3);
/// The deadline of tasks, and the time that workers may take to start.
const ALLOWED: Duration = Duration::from_secs(1);
/// How long a task, or the start of a worker, takes.
const EACH: Duration = Duration::from_millis(100);

/// The processes that are stopped: a terminal's Ctrl-Z stops the leader's process group, pausing a container stops all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stopped {
    Leader,
    All,
}

/// Runs the test again as a leader; when the leader reports to its rendezvous, stops it, or all its processes, and
/// continues them later. The leader must succeed.
fn stop_when_reported(test: &str) {
    for stopped in [Stopped::Leader, Stopped::All] {
        let rendezvous = Rendezvous::new();
        let (leader, tmp): (Child, TempDir) = IsolatedTest::new(test)
            .env(RENDEZVOUS, &rendezvous.address)
            .start();
        rendezvous.receive();
        let processes = match stopped {
            Stopped::Leader => vec![leader.id()],
            Stopped::All => processes_of(&leader, &tmp),
        };
        assert_eq!(processes.len() > 1, stopped == Stopped::All);
        processes.iter().for_each(|pid| signal(*pid, Signal::STOP));
        std::thread::sleep(STOPPED);
        processes.iter().for_each(|pid| signal(*pid, Signal::CONT));
        let output = leader.wait_with_output().expect("the child can be waited for");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
}

#[test]
fn stopped_time_does_not_count_for_deadlines() {
    let _watchdog = watchdog(60);
    if !is_isolated() {
        return stop_when_reported(&test_name!());
    }
    let rendezvous = rendezvous_of_the_test();
    let pool = builder(2)
        .deadline(ALLOWED)
        .build_op(|n: u64| {
            std::thread::sleep(EACH);
            n
        })
        .expect("the pool starts");
    for (n, result) in pool.map_unordered(0..30).enumerate() {
        result.expect("no task is late");
        if n == 5 {
            report(&rendezvous, std::process::id());
        }
    }
    assert_eq!(pool.bytes().stats().deaths, 0);
}

/// Reports its start to the rendezvous, and starts slowly.
struct Slow;

impl Worker for Slow {
    type Op = ();
    type Init = String;
    type Task = ();
    type Output = ();

    fn start(context: &mut WorkerContext, (): (), rendezvous: String) -> Result<Self, BoxError> {
        if context.worker().0 == 0 {
            report(&rendezvous, std::process::id());
        }
        std::thread::sleep(EACH);
        Ok(Self)
    }

    fn run(&mut self, (): ()) {}
}

#[test]
fn stopped_time_does_not_count_for_start_timeouts() {
    let _watchdog = watchdog(60);
    if !is_isolated() {
        return stop_when_reported(&test_name!());
    }
    let rendezvous = rendezvous_of_the_test();
    let pool = builder(2)
        .start_timeout(ALLOWED)
        .build(EntryPoint::worker::<Slow>(()), &rendezvous)
        .expect("the pool starts");
    let stats = pool.bytes().stats();
    assert_eq!((stats.spawned, stats.deaths), (2, 0));
}
