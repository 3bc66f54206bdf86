//! Leaders that are stopped and continued, alone and with their workers.

use std::process::Child;
use std::time::Duration;

use proc_pool::{BoxError, Builder, Worker, WorkerContext, Workers};
use rustix::process::Signal;

use crate::support::{Alone, Dir, Ear, is_alone, processes_of, signal, tell, test_name, watchdog};

const EAR: &str = "IT_EAR";
/// A few times longer than what is allowed.
const STOPPED: Duration = Duration::from_secs(3);
const ALLOWED: Duration = Duration::from_secs(1);
const EACH: Duration = Duration::from_millis(100);

fn ear() -> String {
    std::env::var(EAR).expect("it was told")
}

/// The processes that are stopped: a terminal's Ctrl-Z stops the leader's process group, and a container's pause all processes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stopped {
    Leader,
    All,
}

/// Stops the leader, or all its processes, when the ear hears of something, for long, and lets it go on to its end.
fn stop_when_told(test: &str) {
    for stopped in [Stopped::Leader, Stopped::All] {
        let ear = Ear::new();
        let (leader, tmp): (Child, Dir) = Alone::new(test).env(EAR, &ear.path).start();
        ear.hear();
        let processes = match stopped {
            Stopped::Leader => vec![leader.id()],
            Stopped::All => processes_of(&leader, &tmp),
        };
        assert_eq!(processes.len() > 1, stopped == Stopped::All);
        processes.iter().for_each(|pid| signal(*pid, Signal::STOP));
        // Not for something to happen: this is what happens.
        std::thread::sleep(STOPPED);
        processes.iter().for_each(|pid| signal(*pid, Signal::CONT));
        let output = leader.wait_with_output().expect("it is ours");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
}

#[test]
fn no_task_exceeds_its_deadline_while_everything_is_stopped() {
    let _watchdog = watchdog(60);
    if !is_alone() {
        return stop_when_told(&test_name!());
    }
    let ear = ear();
    let pool = Builder::new()
        .workers(Workers::Count(2))
        .deadline(ALLOWED)
        .build_op(|n: u64| {
            std::thread::sleep(EACH);
            n
        })
        .expect("it starts");
    for (n, result) in pool.map_unordered(0..30).enumerate() {
        result.expect("no task takes long");
        if n == 5 {
            tell(&ear, std::process::id());
        }
    }
    assert_eq!(pool.bytes().stats().deaths, 0);
}

/// Says so when it starts, and takes its time.
struct Slow;

impl Worker for Slow {
    type Op = ();
    type Init = String;
    type Task = ();
    type Output = ();

    fn start(context: &mut WorkerContext, (): (), ear: String) -> Result<Self, BoxError> {
        if context.worker().0 == 0 {
            tell(&ear, std::process::id());
        }
        std::thread::sleep(EACH);
        Ok(Self)
    }

    fn run(&mut self, (): ()) {}
}

#[test]
fn no_start_takes_too_long_while_everything_is_stopped() {
    let _watchdog = watchdog(60);
    if !is_alone() {
        return stop_when_told(&test_name!());
    }
    let ear = ear();
    let pool = Builder::new()
        .workers(Workers::Count(2))
        .start_timeout(ALLOWED)
        .build::<Slow>((), &ear)
        .expect("it starts");
    let stats = pool.bytes().stats();
    assert_eq!((stats.spawned, stats.deaths), (2, 0));
}
