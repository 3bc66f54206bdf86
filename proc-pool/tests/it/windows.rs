//! What Windows does where Unix has signals, parents and descriptors.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Duration;

use proc_pool::{Builder, Cause, Fault, Workers};

use crate::crash::{Crash, ends_within, kill};
use crate::support::{Ear, hang, pool, tell, watchdog};

fn exception(code: u32, name: &str) -> Cause {
    let name = name.to_owned();
    Cause::Exception { code, name }
}

/// Each costs one task, and its cause has a name.
#[test]
fn deaths_have_causes() {
    let _watchdog = watchdog(120);
    let ear = Ear::new();
    let pool = pool(2, |(crash, ear): (Option<Crash>, String)| {
        if let Some(crash) = crash {
            crash.suffer(&ear);
        }
    });
    for (crash, expected) in [
        (Crash::Exit3, Cause::Exited { code: 3 }),
        (
            Crash::Abort,
            exception(0xC000_0409, "STATUS_STACK_BUFFER_OVERRUN"),
        ),
        (Crash::Segfault, exception(0xC000_0005, "STATUS_ACCESS_VIOLATION")),
        (
            Crash::StackOverflow,
            exception(0xC000_00FD, "STATUS_STACK_OVERFLOW"),
        ),
        (Crash::KillSelf, Cause::Exited { code: 1 }),
        (Crash::KilledFromOutside, Cause::Exited { code: 1 }),
    ] {
        let tasks = (0..50).map(|n| ((n == 20).then_some(crash), ear.path.clone()));
        let results = std::thread::scope(|scope| {
            if crash == Crash::KilledFromOutside {
                scope.spawn(|| assert!(kill(ear.hear())));
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

/// More than a thread can wait for at once (`MAXIMUM_WAIT_OBJECTS` is 64).
#[test]
fn seventy_workers() {
    let _watchdog = watchdog(300);
    let ear = Ear::new();
    let pool = pool(70, |path: String| {
        crate::support::hear_from(&path);
        std::process::id()
    });
    let tasks = vec![ear.path.clone(); 70];
    std::thread::scope(|scope| {
        // Nobody is answered before all wait: each of them runs one.
        scope.spawn(|| {
            let all: Vec<_> = (0..70).map(|_| ear.accept()).collect();
            for mut stream in all {
                std::io::Write::write_all(&mut stream, &[1]).expect("it is there");
            }
        });
        let mut pids: Vec<u32> = pool.map(tasks).map(|pid| pid.expect("no task fails")).collect();
        pids.sort_unstable();
        pids.dedup();
        assert_eq!(pids.len(), 70);
    });
}

const LEADER: &str = "IT_LEADER";

/// Whatever its workers do, and however it dies.
#[test]
fn a_killed_leader_takes_its_workers_along() {
    let _watchdog = watchdog(120);
    if let Ok(path) = std::env::var(LEADER) {
        let pool = pool(3, |(path, n): (String, u32)| {
            tell(&path, std::process::id());
            if n > 0 {
                hang();
            }
        });
        // One is idle, two hang.
        let tasks = [0, 1, 2].map(|n| (path.clone(), n));
        pool.map_unordered(tasks).for_each(drop);
        return;
    }
    let ear = Ear::new();
    let mut leader = Command::new(std::env::current_exe().expect("it has a path"))
        .args(["windows::a_killed_leader_takes_its_workers_along", "--exact"])
        .env(LEADER, &ear.path)
        .stdout(Stdio::null())
        .spawn()
        .expect("it can be started");
    let pids = [ear.hear(), ear.hear(), ear.hear()];
    assert!(!ends_within(&pids[..1], 0), "it works");
    leader.kill().expect("it lives");
    leader.wait().expect("it is ours");
    assert!(ends_within(&pids, 2000), "workers outlive their leader");
}

/// A pipe's end that a worker had would keep its reader waiting.
#[test]
fn workers_inherit_no_handles() {
    let _watchdog = watchdog(60);
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let pool = pool(2, |n: u64| n);
    assert_eq!(pool.map(0..10).filter(Result::is_ok).count(), 10);
    drop(writer);
    assert_eq!(reader.read(&mut [0]).expect("it is open"), 0);
}

/// What a worker prints is read from a pipe of its own, and its input is empty.
#[test]
fn standard_streams() {
    let _watchdog = watchdog(60);
    let pool = Builder::new()
        .workers(Workers::Count(1))
        .stdout(proc_pool::Redirect::Capture)
        .build_op(|n: u64| {
            let read = std::io::stdin().lines().count();
            println!("task {n} read {read} lines");
            Crash::Exit3.suffer("");
        })
        .expect("the pool starts");
    let results: Vec<Result<(), _>> = pool.map([7]).collect();
    let Err(error) = &results[0] else {
        panic!("it died")
    };
    let Fault::WorkerDied { last_printed, .. } = &error.fault else {
        panic!("{error}")
    };
    assert_eq!(last_printed, &["task 7 read 0 lines"]);
}

/// By the system's own means a deadline ends a task that computes for ever.
#[test]
fn a_deadline_ends_a_loop() {
    let _watchdog = watchdog(60);
    let pool = Builder::new()
        .workers(Workers::Count(1))
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
        panic!("it ended")
    };
    assert!(matches!(error.fault, Fault::TimedOut { .. }), "{error}");
}

/// Programs that a worker starts are not the pool's: they may outlive it.
#[test]
fn a_program_that_a_worker_starts_goes_on() {
    let _watchdog = watchdog(60);
    if let Ok(path) = std::env::var(LEADER) {
        tell(&path, std::process::id());
        hang();
    }
    let ear = Ear::new();
    let started = pool(1, |path: String| {
        let child = Command::new(std::env::current_exe().expect("it has a path"))
            .args(["windows::a_program_that_a_worker_starts_goes_on", "--exact"])
            .env(LEADER, path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        child.expect("it can be started").id()
    });
    let pid = started
        .map([ear.path.clone()])
        .next()
        .expect("one")
        .expect("it works");
    assert_eq!(ear.hear(), pid);
    drop(started);
    assert!(!ends_within(&[pid], 100));
    assert!(kill(pid));
}

/// A leader that reads lines from a pipe leaves them to itself.
#[test]
fn the_leaders_input_is_its_own() {
    let _watchdog = watchdog(60);
    if std::env::var_os(LEADER).is_some() {
        let pool = pool(2, |n: u64| std::io::stdin().lines().count() as u64 + n);
        let sum: u64 = pool.map(0..10).map(|n| n.expect("no task fails")).sum();
        let line = std::io::stdin()
            .lock()
            .lines()
            .next()
            .expect("one")
            .expect("text");
        println!("heard {line} {sum}");
        return;
    }
    let mut leader = Command::new(std::env::current_exe().expect("it has a path"))
        .args(["windows::the_leaders_input_is_its_own", "--exact", "--nocapture"])
        .env(LEADER, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it can be started");
    let mut input = leader.stdin.take().expect("piped");
    std::io::Write::write_all(&mut input, b"hello\n").expect("it listens");
    let said = BufReader::new(leader.stdout.take().expect("piped")).lines();
    let heard = said
        .map_while(Result::ok)
        .any(|line| line.contains("heard hello 45"));
    leader.wait().expect("it is ours");
    assert!(heard);
}
