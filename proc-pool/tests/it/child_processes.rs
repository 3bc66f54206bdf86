//! Programs that ops start, and that end with their worker.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use proc_pool::{Builder, Fault, Pool};
use rustix::process::Signal;

use crate::support::{
    IsolatedTest, RENDEZVOUS, Rendezvous, block_all_signals, builder, hang, is_isolated, kill, processes_of,
    rendezvous_of_the_test, report, reset_sigint, signal, test_name, try_kill, watchdog,
};

/// The variable with the [`Then`] of the leader's op.
const THEN: &str = "IT_THEN";

/// The action of an op after it has started a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
enum Then {
    Return,
    Hang,
    Abort,
    /// Block every signal that can be blocked, and hang.
    BlockSignals,
}

fn sleeper() -> Command {
    let mut command = Command::new("sleep");
    command.arg("600").stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Starts a program that starts another one, and reports that one's pid.
#[expect(clippy::zombie_processes, reason = "the test is about the end of the child")]
fn start((rendezvous, then): (String, Then)) {
    let shell = "sleep 600 >/dev/null 2>&1 & echo $!; wait";
    let mut child = Command::new("sh")
        .args(["-c", shell])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the shell can be started");
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().expect("stdout is piped"));
    std::io::BufRead::read_line(&mut stdout, &mut line).expect("the shell prints the pid");
    report(&rendezvous, line.trim().parse().expect("the line is a pid"));
    match then {
        Then::Return => {}
        Then::Hang => hang(),
        Then::Abort => std::process::abort(),
        Then::BlockSignals => {
            block_all_signals();
            hang()
        }
    }
}

fn starter(builder: Builder) -> Pool<(String, Then), ()> {
    builder.build_op(start).expect("the pool starts")
}

/// Whether the process runs. A process that has ended, and not been reaped by its parent, does not.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z ") && !stat.contains(") X "))
}

fn wait_for_end(pid: u32) {
    while runs(pid) {
        thread::yield_now();
    }
}

#[test]
fn deadline_ends_the_programs_of_the_op() {
    let _watchdog = watchdog(60);
    let rendezvous = Rendezvous::new();
    let pool = starter(builder(1).deadline(Duration::from_millis(500)));
    let error = pool
        .submit((rendezvous.address.clone(), Then::Hang))
        .wait()
        .expect_err("the task hangs");
    assert!(matches!(error.fault, Fault::TimedOut { .. }), "{error}");
    wait_for_end(rendezvous.receive());
}

#[test]
fn crash_ends_the_programs_of_the_op() {
    let _watchdog = watchdog(60);
    let rendezvous = Rendezvous::new();
    let pool = starter(builder(1));
    pool.submit((rendezvous.address.clone(), Then::Abort))
        .wait()
        .expect_err("the task crashes");
    wait_for_end(rendezvous.receive());
}

#[test]
fn end_of_the_pool_ends_the_programs_of_its_ops() {
    let _watchdog = watchdog(60);
    let rendezvous = Rendezvous::new();
    for shut_down in [false, true] {
        let pool = starter(builder(1));
        pool.submit((rendezvous.address.clone(), Then::Return))
            .wait()
            .expect("the task succeeds");
        let pid = rendezvous.receive();
        assert!(runs(pid), "the program outlives its task");
        match shut_down {
            false => drop(pool),
            true => drop(pool.shutdown(Duration::from_secs(20)).expect("the pool works")),
        }
        wait_for_end(pid);
    }
}

#[test]
fn programs_end_with_a_killed_worker() {
    let _watchdog = watchdog(60);
    let rendezvous = Rendezvous::new();
    let pool = starter(builder(1));
    let handle = pool.submit((rendezvous.address.clone(), Then::Hang));
    let pid = rendezvous.receive();
    let worker = pool.snapshot().workers[0].pid.expect("the worker runs");
    kill(worker);
    handle.wait().expect_err("its worker is dead");
    wait_for_end(pid);
}

/// The leader ends by a signal that it does not handle (a terminal's Ctrl-C) or by SIGKILL.
#[test]
fn death_of_the_leader_ends_the_programs_of_its_ops() {
    let _watchdog = watchdog(120);
    if is_isolated() {
        reset_sigint();
        let rendezvous = rendezvous_of_the_test();
        let then = match std::env::var(THEN).expect("the test sets it").as_str() {
            "return" => Then::Return,
            "hang" => Then::Hang,
            _ => Then::BlockSignals,
        };
        let pool = starter(builder(1));
        let handle = pool.submit((rendezvous, then));
        if then == Then::Return {
            handle.wait().expect("the task succeeds");
        }
        hang()
    }
    for end in [Signal::INT, Signal::TERM, Signal::KILL] {
        for then in ["return", "hang", "block-signals"] {
            let rendezvous = Rendezvous::new();
            let leader = IsolatedTest::new(&test_name!())
                .env(RENDEZVOUS, &rendezvous.address)
                .env(THEN, then);
            let (mut leader, tmp) = leader.start();
            let pid = rendezvous.receive();
            signal(leader.id(), end);
            leader.wait().expect("the leader can be waited for");
            wait_for_end(pid);
            while !processes_of(&leader, &tmp).is_empty() {
                thread::yield_now();
            }
        }
    }
}

#[test]
fn program_with_a_process_group_of_its_own_continues() {
    let _watchdog = watchdog(60);
    let pool = builder(1)
        .build_op(|(): ()| {
            sleeper()
                .process_group(0)
                .spawn()
                .expect("the program can be started")
                .id()
        })
        .expect("the pool starts");
    let pid = pool.submit(()).wait().expect("the task succeeds");
    pool.shutdown(Duration::from_secs(20)).expect("the pool works");
    assert!(runs(pid));
    assert!(try_kill(pid));
}

/// Workers, and the programs that they start, can write to a terminal in the background (`stty tostop`).
#[test]
fn terminal_does_not_stop_workers() {
    let _watchdog = watchdog(60);
    let pool = builder(1)
        .build_op(|(): ()| {
            let status = std::fs::read_to_string("/proc/self/status").expect("/proc is readable");
            let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
            u64::from_str_radix(ignored.expect("status has this line").trim(), 16)
                .expect("a hexadecimal number")
        })
        .expect("the pool starts");
    let ignored = pool.submit(()).wait().expect("the task succeeds");
    for number in [Signal::TTIN, Signal::TTOU] {
        assert_eq!(ignored >> (number.as_raw() - 1) & 1, 1, "{number:?}");
    }
}

#[test]
fn worker_that_changes_its_process_group_is_killed() {
    let _watchdog = watchdog(60);
    let pool = builder(1)
        .deadline(Duration::from_millis(500))
        .build_op(|group: i32| -> () {
            let group = rustix::process::Pid::from_raw(group);
            rustix::process::setpgid(None, group).expect("the group is in the same session");
            hang()
        })
        .expect("the pool starts");
    let own = rustix::process::getpgrp().as_raw_nonzero().get();
    let error = pool.submit(own).wait().expect_err("the task hangs");
    let killed = matches!(error.fault, Fault::TimedOut { .. });
    assert!(killed, "{error}");
}
