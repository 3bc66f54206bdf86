//! Leaders that are stopped and continued with their workers, as a terminal's Ctrl-Z does.

use std::process::Child;
use std::time::Duration;

use proc_pool::{BoxError, Builder, Worker, WorkerContext, Workers};
use rustix::process::{Pid, Signal, kill_process_group, setpgid};

use crate::support::{Alone, Dir, Ear, is_alone, tell, test_name, watchdog};

const EAR: &str = "IT_EAR";
/// A few times longer than what is allowed.
const STOPPED: Duration = Duration::from_secs(3);
const ALLOWED: Duration = Duration::from_secs(1);
const EACH: Duration = Duration::from_millis(100);

/// To be one's own group before there are workers: the test must not stop itself.
fn own_group() -> String {
    setpgid(None, None).expect("it is no leader of a session");
    std::env::var(EAR).expect("it was told")
}

/// Stops everything when somebody says so, for long, and lets it go on to its end.
fn stop_when_told(test: &str) {
    let ear = Ear::new();
    let (leader, _tmp): (Child, Dir) = Alone::new(test).env(EAR, &ear.path).start();
    let group = Pid::from_raw(ear.hear() as i32).expect("no pid is 0");
    kill_process_group(group, Signal::STOP).expect("it lives");
    // Not for something to happen: this is what happens.
    std::thread::sleep(STOPPED);
    kill_process_group(group, Signal::CONT).expect("it lives");
    let output = leader.wait_with_output().expect("it is ours");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn no_task_exceeds_its_deadline_while_everything_is_stopped() {
    let _watchdog = watchdog(60);
    if !is_alone() {
        return stop_when_told(&test_name!());
    }
    let ear = own_group();
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
            tell(&ear, rustix::process::getpgrp().as_raw_nonzero().get() as u32);
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
    let ear = own_group();
    let pool = Builder::new()
        .workers(Workers::Count(2))
        .start_timeout(ALLOWED)
        .build::<Slow>((), &ear)
        .expect("it starts");
    let stats = pool.bytes().stats();
    assert_eq!((stats.spawned, stats.deaths), (2, 0));
}
