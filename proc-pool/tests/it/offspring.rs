//! Programs that ops start: they end with their worker.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use proc_pool::{Builder, Fault, Pool, Workers};
use rustix::process::Signal;

use crate::support::{Alone, Ear, hang, is_alone, signal, tell, test_name, try_kill, watchdog};

const EAR: &str = "IT_EAR";

/// The way an op goes on once it has started a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
enum Then {
    Return,
    Hang,
    Abort,
    /// Block every signal that can be blocked, and hang.
    Deafen,
}

fn sleeper() -> Command {
    let mut command = Command::new("sleep");
    command.arg("600").stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Starts a program that starts another one, and reports the pid of that.
#[expect(clippy::zombie_processes, reason = "what becomes of it is the test")]
fn start((ear, then): (String, Then)) {
    let shell = "sleep 600 >/dev/null 2>&1 & echo $!; wait";
    let mut child = Command::new("sh")
        .args(["-c", shell])
        .stdout(Stdio::piped())
        .spawn()
        .expect("there is a shell");
    let mut line = String::new();
    let mut said = std::io::BufReader::new(child.stdout.take().expect("it is piped"));
    std::io::BufRead::read_line(&mut said, &mut line).expect("it speaks");
    tell(&ear, line.trim().parse().expect("a pid"));
    match then {
        Then::Return => {}
        Then::Hang => hang(),
        Then::Abort => std::process::abort(),
        Then::Deafen => {
            crate::crash::block_all_signals();
            hang()
        }
    }
}

fn builder() -> Builder {
    Builder::new().workers(Workers::Count(1))
}

fn starter(builder: Builder) -> Pool<(String, Then), ()> {
    builder.build_op(start).expect("it starts")
}

/// Whether the process runs; one that has ended may still have to be reaped, by a process that is not ours.
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
fn a_deadline_ends_what_the_op_has_started() {
    let _watchdog = watchdog(60);
    let ear = Ear::new();
    let pool = starter(builder().deadline(Duration::from_millis(500)));
    let error = pool
        .submit((ear.path.clone(), Then::Hang))
        .wait()
        .expect_err("it hangs");
    assert!(matches!(error.fault, Fault::TimedOut { .. }), "{error}");
    wait_for_end(ear.hear());
}

#[test]
fn a_crash_ends_what_the_op_has_started() {
    let _watchdog = watchdog(60);
    let ear = Ear::new();
    let pool = starter(builder());
    pool.submit((ear.path.clone(), Then::Abort))
        .wait()
        .expect_err("it crashes");
    wait_for_end(ear.hear());
}

#[test]
fn a_pools_end_ends_what_ops_have_started() {
    let _watchdog = watchdog(60);
    let ear = Ear::new();
    for shut_down in [false, true] {
        let pool = starter(builder());
        pool.submit((ear.path.clone(), Then::Return))
            .wait()
            .expect("it returns");
        let pid = ear.hear();
        assert!(runs(pid), "it lasts beyond its task");
        match shut_down {
            false => drop(pool),
            true => drop(pool.shutdown(Duration::from_secs(20)).expect("no failure")),
        }
        wait_for_end(pid);
    }
}

#[test]
fn a_killed_worker_takes_along_what_it_has_started() {
    let _watchdog = watchdog(60);
    let ear = Ear::new();
    let pool = starter(builder());
    let handle = pool.submit((ear.path.clone(), Then::Hang));
    let pid = ear.hear();
    let worker = pool.snapshot().workers[0].pid.expect("it runs");
    crate::support::kill(worker);
    handle.wait().expect_err("its worker is dead");
    wait_for_end(pid);
}

/// Whatever ends the leader: a signal that it does not handle, as a terminal's Ctrl-C, or SIGKILL.
#[test]
fn a_leaders_death_ends_what_ops_have_started() {
    let _watchdog = watchdog(120);
    if is_alone() {
        crate::crash::reset_interrupts();
        let ear = std::env::var(EAR).expect("it was told");
        let then = match std::env::var("IT_THEN").expect("it was told").as_str() {
            "return" => Then::Return,
            "hang" => Then::Hang,
            _ => Then::Deafen,
        };
        let pool = starter(builder());
        let handle = pool.submit((ear, then));
        if then == Then::Return {
            handle.wait().expect("it returns");
        }
        hang()
    }
    for end in [Signal::INT, Signal::TERM, Signal::KILL] {
        for then in ["return", "hang", "deafen"] {
            let ear = Ear::new();
            let leader = Alone::new(&test_name!()).env(EAR, &ear.path).env("IT_THEN", then);
            let (mut leader, tmp) = leader.start();
            let pid = ear.hear();
            signal(leader.id(), end);
            leader.wait().expect("it is ours");
            wait_for_end(pid);
            while !crate::support::processes_of(&leader, &tmp).is_empty() {
                thread::yield_now();
            }
        }
    }
}

/// A program that leads a group of its own is not killed.
#[test]
fn what_leads_a_group_of_its_own_goes_on() {
    let _watchdog = watchdog(60);
    let pool = builder()
        .build_op(|(): ()| sleeper().process_group(0).spawn().expect("it starts").id())
        .expect("it starts");
    let pid = pool.submit(()).wait().expect("it returns");
    pool.shutdown(Duration::from_secs(20)).expect("no failure");
    assert!(runs(pid));
    assert!(try_kill(pid));
}

/// A program that an op starts can write to the terminal, which stops no worker either (`stty tostop`).
#[test]
fn terminals_stop_no_worker() {
    let _watchdog = watchdog(60);
    let pool = builder()
        .build_op(|(): ()| {
            let status = std::fs::read_to_string("/proc/self/status").expect("it is readable");
            let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
            u64::from_str_radix(ignored.expect("it is there").trim(), 16).expect("a number")
        })
        .expect("it starts");
    let ignored = pool.submit(()).wait().expect("it returns");
    for number in [Signal::TTIN, Signal::TTOU] {
        assert_eq!(ignored >> (number.as_raw() - 1) & 1, 1, "{number:?}");
    }
}

#[test]
fn a_worker_that_changes_its_group_is_killed_all_the_same() {
    let _watchdog = watchdog(60);
    let pool = builder()
        .deadline(Duration::from_millis(500))
        .build_op(|group: i32| -> () {
            let group = rustix::process::Pid::from_raw(group);
            rustix::process::setpgid(None, group).expect("it is of the same session");
            hang()
        })
        .expect("it starts");
    let own = rustix::process::getpgrp().as_raw_nonzero().get();
    let error = pool.submit(own).wait().expect_err("it hangs");
    let killed = matches!(error.fault, Fault::TimedOut { .. });
    assert!(killed, "{error}");
}
