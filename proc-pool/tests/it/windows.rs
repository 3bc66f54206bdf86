//! Windows: exceptions, jobs, handles and standard streams, where Unix has signals, parents and descriptors.

use std::io::{BufRead, BufReader, Read};
use std::os::windows::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use proc_pool::{ExitCause, Fault};
use windows_sys::Win32::System::Threading::CREATE_BREAKAWAY_FROM_JOB;

use crate::support::{
    Crash, Rendezvous, builder, ends_within, hang, kill, pool, release, report, run_one, try_kill,
    wait_for_release, watchdog,
};

fn exception(code: u32, name: &str) -> ExitCause {
    let name = name.to_owned();
    ExitCause::Exception { code, name }
}

/// Each crash costs one task, and the error names its cause.
#[test]
fn deaths_have_named_causes() {
    let _watchdog = watchdog(120);
    let rendezvous = Rendezvous::new();
    let pool = pool(2, |(crash, rendezvous): (Option<Crash>, String)| {
        if let Some(crash) = crash {
            crash.run(&rendezvous);
        }
    });
    for (crash, expected) in [
        (Crash::Exit3, ExitCause::Exited { code: 3 }),
        (
            Crash::Abort,
            exception(0xC000_0409, "STATUS_STACK_BUFFER_OVERRUN"),
        ),
        (Crash::Segfault, exception(0xC000_0005, "STATUS_ACCESS_VIOLATION")),
        (
            Crash::StackOverflow,
            exception(0xC000_00FD, "STATUS_STACK_OVERFLOW"),
        ),
        (Crash::KillSelf, ExitCause::Exited { code: 1 }),
        (Crash::KilledFromOutside, ExitCause::Exited { code: 1 }),
    ] {
        let tasks = (0..50).map(|n| ((n == 20).then_some(crash), rendezvous.address.clone()));
        let results = std::thread::scope(|scope| {
            if crash == Crash::KilledFromOutside {
                scope.spawn(|| kill(rendezvous.receive()));
            }
            pool.map(tasks).collect::<Vec<_>>()
        });
        let mut failed = results.iter().filter_map(|result| result.as_ref().err());
        let (one, no_other) = (failed.next(), failed.next());
        let Some(Fault::WorkerDied { cause, .. }) = one.map(|error| &error.fault) else {
            panic!("{crash:?}: {one:?}")
        };
        assert_eq!(cause, &expected, "{crash:?}");
        assert!(
            no_other.is_none() && results.len() == 50,
            "{crash:?}: {no_other:?}"
        );
    }
}

/// One thread can wait for 64 objects (`MAXIMUM_WAIT_OBJECTS`).
#[test]
fn seventy_workers_run_at_the_same_time() {
    let _watchdog = watchdog(300);
    let rendezvous = Rendezvous::new();
    let pool = pool(70, |path: String| {
        wait_for_release(&path);
        std::process::id()
    });
    let tasks = vec![rendezvous.address.clone(); 70];
    std::thread::scope(|scope| {
        // All tasks wait before the first one is released: each worker runs one.
        scope.spawn(|| {
            let all: Vec<_> = (0..70).map(|_| rendezvous.accept()).collect();
            all.into_iter().for_each(release);
        });
        let mut pids: Vec<u32> = pool.map(tasks).map(|pid| pid.expect("no task fails")).collect();
        pids.sort_unstable();
        pids.dedup();
        assert_eq!(pids.len(), 70);
    });
}

/// Set in a program that a test starts from this one: a leader, or the program of a worker.
const LEADER: &str = "IT_LEADER";

#[test]
fn workers_end_with_a_killed_leader() {
    let _watchdog = watchdog(120);
    if let Ok(path) = std::env::var(LEADER) {
        let pool = pool(3, |(path, n): (String, u32)| {
            report(&path, std::process::id());
            if n > 0 {
                hang();
            }
        });
        // One worker is idle, two hang.
        let tasks = [0, 1, 2].map(|n| (path.clone(), n));
        pool.map_unordered(tasks).for_each(drop);
        return;
    }
    let rendezvous = Rendezvous::new();
    let mut leader = Command::new(std::env::current_exe().expect("this program has a path"))
        .args(["windows::workers_end_with_a_killed_leader", "--exact"])
        .env(LEADER, &rendezvous.address)
        .stdout(Stdio::null())
        .spawn()
        .expect("the program can be started");
    let pids = [rendezvous.receive(), rendezvous.receive(), rendezvous.receive()];
    assert!(!ends_within(&pids[..1], 0), "the worker runs");
    leader.kill().expect("the leader runs");
    leader.wait().expect("the leader can be waited for");
    assert!(ends_within(&pids, 2000), "workers outlive their leader");
}

/// If a worker had the writing end of a pipe, the reader would wait forever.
#[test]
fn workers_inherit_no_handles() {
    let _watchdog = watchdog(60);
    let (mut reader, writer) = std::io::pipe().expect("a pipe can be created");
    let pool = pool(2, |n: u64| n);
    assert_eq!(pool.map(0..10).filter(Result::is_ok).count(), 10);
    drop(writer);
    assert_eq!(reader.read(&mut [0]).expect("the pipe is readable"), 0);
}

/// A worker's output is captured through a pipe, and its input is empty.
#[test]
fn standard_streams_are_redirected() {
    let _watchdog = watchdog(60);
    let pool = builder(1)
        .stdout(proc_pool::Redirect::Capture)
        .build_op(|n: u64| {
            let read = std::io::stdin().lines().count();
            println!("task {n} read {read} lines");
            Crash::Exit3.run("");
        })
        .expect("the pool starts");
    let results: Vec<Result<(), _>> = pool.map([7]).collect();
    let Err(error) = &results[0] else {
        panic!("the worker survived")
    };
    let Fault::WorkerDied { last_printed, .. } = &error.fault else {
        panic!("{error}")
    };
    assert_eq!(last_printed, &["task 7 read 0 lines"]);
}

#[test]
fn deadline_ends_an_endless_loop() {
    let _watchdog = watchdog(60);
    let pool = builder(1)
        .deadline(Duration::from_millis(200))
        .build_op(|n: u64| {
            while n == 1 {
                std::hint::spin_loop();
            }
            n
        })
        .expect("the pool starts");
    let results: Vec<_> = pool.map(0..3).collect();
    assert!(results[0].is_ok() && results[2].is_ok());
    let Err(error) = &results[1] else {
        panic!("the loop ended")
    };
    assert!(matches!(error.fault, Fault::TimedOut { .. }), "{error}");
}

/// Starts a pool whose op starts this test again, with the given creation flags. Returns the process id of that program, after
/// the pool has ended.
fn program_started_by_an_op(test: &str, flags: u32) -> u32 {
    let rendezvous = Rendezvous::new();
    let workers = pool(1, |(test, address, flags): (String, String, u32)| {
        let child = Command::new(std::env::current_exe().expect("this program has a path"))
            .args([&*test, "--exact"])
            .env(LEADER, address)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .creation_flags(flags)
            .spawn();
        child.expect("the program can be started").id()
    });
    let task = (test.to_owned(), rendezvous.address.clone(), flags);
    let pid = run_one(&workers, task);
    assert_eq!(rendezvous.receive(), pid);
    pid
}

#[test]
fn program_that_a_worker_starts_ends_with_the_worker() {
    let _watchdog = watchdog(60);
    if let Ok(address) = std::env::var(LEADER) {
        report(&address, std::process::id());
        hang();
    }
    let test = "windows::program_that_a_worker_starts_ends_with_the_worker";
    let pid = program_started_by_an_op(test, 0);
    assert!(ends_within(&[pid], 5000), "the program outlives its worker");
}

#[test]
fn program_that_breaks_away_from_the_job_of_its_worker_goes_on() {
    let _watchdog = watchdog(60);
    if let Ok(address) = std::env::var(LEADER) {
        report(&address, std::process::id());
        hang();
    }
    let test = "windows::program_that_breaks_away_from_the_job_of_its_worker_goes_on";
    let pid = program_started_by_an_op(test, CREATE_BREAKAWAY_FROM_JOB);
    assert!(!ends_within(&[pid], 100), "the program ended with its worker");
    assert!(try_kill(pid));
}

/// Workers do not read from the pipe that is the leader's standard input.
#[test]
fn standard_input_belongs_to_the_leader() {
    let _watchdog = watchdog(60);
    if std::env::var_os(LEADER).is_some() {
        let pool = pool(2, |n: u64| std::io::stdin().lines().count() as u64 + n);
        let sum: u64 = pool.map(0..10).map(|n| n.expect("no task fails")).sum();
        let line = std::io::stdin()
            .lock()
            .lines()
            .next()
            .expect("standard input has a line")
            .expect("the line is UTF-8");
        println!("read {line} {sum}");
        return;
    }
    let mut leader = Command::new(std::env::current_exe().expect("this program has a path"))
        .args([
            "windows::standard_input_belongs_to_the_leader",
            "--exact",
            "--nocapture",
        ])
        .env(LEADER, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program can be started");
    let mut input = leader.stdin.take().expect("stdin is piped");
    std::io::Write::write_all(&mut input, b"hello\n").expect("the leader reads");
    let printed = BufReader::new(leader.stdout.take().expect("stdout is piped")).lines();
    let read = printed
        .map_while(Result::ok)
        .any(|line| line.contains("read hello 45"));
    leader.wait().expect("the leader can be waited for");
    assert!(read);
}
