//! Leaders at a console of their own, that tells its processes (the workers are some, too) of Ctrl-C and Ctrl-Break.

use std::process::ExitStatus;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use proc_pool::{Builder, Cause, Fault, Interrupt, OnInterrupt, Pool, PoolError, WorkerState, Workers};

use crate::crash::{Event, at_console, generate, heed_ctrl_c};
use crate::support::{Alone, hang, is_alone, test_name, watchdog, wine_lacks};

/// What who is ended by Ctrl-C has as his status: `STATUS_CONTROL_C_EXIT`.
const CONTROL_C_EXIT: i32 = 0xC000_013A_u32 as i32;

const NO_CTRL_BREAK: &str = "GenerateConsoleCtrlEvent(CTRL_BREAK_EVENT) fails with ERROR_INVALID_HANDLE";

fn builder(reaction: OnInterrupt) -> Builder {
    heed_ctrl_c();
    Builder::new().workers(Workers::Count(2)).on_interrupt(reaction)
}

/// How a test ends that is run again at a console of its own.
fn end(test: &str) -> ExitStatus {
    let (leader, _tmp) = Alone::new(test).at_own_console().start();
    let output = leader.wait_with_output().expect("it is ours");
    println!("{}", String::from_utf8_lossy(&output.stdout));
    output.status
}

/// Tasks that don't end; Ctrl-C once they run, and again when the first one has had its effect.
fn interrupt_twice(pool: &Pool<u64, ()>, first: Interrupt) {
    thread::scope(|scope| {
        let map = scope.spawn(|| pool.map(0..5).collect::<Vec<_>>());
        let running = || {
            let workers = pool.snapshot().workers;
            workers.iter().filter(|w| w.state == WorkerState::Busy).count()
        };
        while running() < 2 {
            thread::yield_now();
        }
        generate(Event::CtrlC);
        while pool.bytes().interrupted().is_none() {
            thread::yield_now();
        }
        assert_eq!(pool.bytes().interrupted(), Some(first));
        generate(Event::CtrlC);
        for result in map.join().expect("it does not panic") {
            let error = result.expect_err("none ends");
            assert!(
                matches!(error.fault, Fault::Pool(PoolError::Interrupted)),
                "{error}"
            );
        }
    });
    assert_eq!(pool.bytes().interrupted(), Some(Interrupt::Kill));
}

/// It is told to leader and workers, and only the leader does something about it.
#[test]
fn the_first_ctrl_c_finishes() {
    if !is_alone() {
        return Alone::new(&test_name!()).at_own_console().run();
    }
    let _watchdog = watchdog(60);
    let pool = builder(OnInterrupt::Finish)
        .build_op(|n: u64| n)
        .expect("it starts");
    assert_eq!(at_console(), 3, "the workers are at the leader's console");
    let mut outputs = 0;
    for (n, output) in (0..).zip(pool.map(0..)) {
        assert_eq!(output.expect("it is finished"), n);
        outputs += 1;
        if n == 1000 {
            generate(Event::CtrlC);
        }
    }
    assert_eq!(pool.bytes().interrupted(), Some(Interrupt::Finish));
    let stats = pool.shutdown(Duration::from_secs(20)).expect("it did not fail");
    assert_eq!((stats.answered, stats.deaths), (outputs, 0));
    assert_eq!(at_console(), 1);
}

#[test]
fn the_second_ctrl_c_kills() {
    if !is_alone() {
        return Alone::new(&test_name!()).at_own_console().run();
    }
    let _watchdog = watchdog(60);
    for (reaction, first) in [
        (OnInterrupt::Finish, Interrupt::Finish),
        (OnInterrupt::Cancel, Interrupt::Cancel),
    ] {
        let pool = builder(reaction).build_op(|_: u64| -> () { hang() });
        interrupt_twice(&pool.expect("it starts"), first);
        assert_eq!(at_console(), 1);
    }
}

#[test]
fn the_third_ctrl_c_is_the_programs() {
    let _watchdog = watchdog(60);
    if is_alone() {
        let pool = builder(OnInterrupt::Finish).build_op(|_: u64| -> () { hang() });
        let pool = pool.expect("it starts");
        interrupt_twice(&pool, Interrupt::Finish);
        generate(Event::CtrlC);
        hang()
    }
    assert_eq!(end(&test_name!()).code(), Some(CONTROL_C_EXIT));
}

#[test]
fn ctrl_break_asks_for_a_dump() {
    if wine_lacks(NO_CTRL_BREAK) {
        return;
    }
    if !is_alone() {
        return Alone::new(&test_name!()).at_own_console().run();
    }
    let _watchdog = watchdog(60);
    let (dumps, dumped) = mpsc::channel();
    let pool = builder(OnInterrupt::Ignore)
        .on_dump(move |snapshot| dumps.send(snapshot.clone()).expect("somebody listens"))
        .build_op(|n: u64| n)
        .expect("it starts");
    assert_eq!(pool.map(0..100).filter(Result::is_ok).count(), 100);
    for _ in 0..2 {
        generate(Event::CtrlBreak);
        let snapshot = dumped.recv().expect("it comes");
        assert_eq!((snapshot.workers.len(), snapshot.stats.answered), (2, 100));
    }
    assert_eq!(pool.map(0..100).filter(Result::is_ok).count(), 100);
    let stats = pool.shutdown(Duration::from_secs(20)).expect("it did not fail");
    assert_eq!(stats.deaths, 0);
}

/// Whoever is not interested leaves it to the system, which ends the program; also when somebody was before.
#[test]
fn without_a_pool_that_listens_it_ends_the_program() {
    const EVENT: &str = "IT_EVENT";
    let _watchdog = watchdog(60);
    if is_alone() {
        let build = |reaction| builder(reaction).build_op(|n: u64| n).expect("it starts");
        drop(build(OnInterrupt::Finish));
        let deaf = build(OnInterrupt::Ignore);
        assert_eq!(deaf.map(0..10).filter(Result::is_ok).count(), 10);
        generate(match std::env::var(EVENT).as_deref() {
            Ok("break") => Event::CtrlBreak,
            _ => Event::CtrlC,
        });
        hang()
    }
    for event in ["c", "break"] {
        if event == "break" && wine_lacks(NO_CTRL_BREAK) {
            continue;
        }
        let leader = Alone::new(&test_name!()).env(EVENT, event).at_own_console();
        let (mut leader, _tmp) = leader.start();
        let status = leader.wait().expect("it is ours");
        let expected =
            match wine_lacks("its default handler of console events exits with 0 (RtlExitUserProcess)") {
                true => 0,
                false => CONTROL_C_EXIT,
            };
        assert_eq!(status.code(), Some(expected), "{event}");
    }
}

/// A program that a worker starts is told as ever.
#[test]
fn a_workers_program_is_not_spared() {
    const HEARS: &str = "IT_HEARS";
    if std::env::var_os(HEARS).is_some() {
        println!("ready");
        hang()
    }
    if !is_alone() {
        return Alone::new(&test_name!()).at_own_console().run();
    }
    let _watchdog = watchdog(60);
    let test = test_name!();
    let (heard, hears) = mpsc::channel();
    let pool = Builder::new()
        .workers(Workers::Count(1))
        .stdout(proc_pool::Redirect::Capture)
        .observer(std::sync::Arc::new(Ready(heard)))
        .on_interrupt(OnInterrupt::Finish)
        .build_op(|test: String| {
            let program = std::env::current_exe().expect("it has a path");
            let mut child = std::process::Command::new(program)
                .args([&test, "--exact", "--nocapture"])
                .env(HEARS, "1")
                .spawn()
                .expect("it can be started");
            child.wait().expect("it is ours").code()
        })
        .expect("it starts");
    heed_ctrl_c();
    thread::scope(|scope| {
        let map = scope.spawn(|| pool.map([test]).next().expect("one").expect("it lives"));
        hears.recv().expect("it starts");
        generate(Event::CtrlC);
        let code = map.join().expect("it does not panic");
        assert!(matches!(code, Some(0 | CONTROL_C_EXIT)), "{code:?}");
    });
}

/// Tells when a worker's program says that it is ready.
struct Ready(mpsc::Sender<()>);

impl proc_pool::Observer for Ready {
    fn started(&self, _: proc_pool::WorkerId, _: shm_buffers::ring::Consumer, _: shm_buffers::slots::Slots) {}

    fn ended(&self, _: proc_pool::WorkerId, _: &Cause) -> Vec<String> {
        Vec::new()
    }

    fn printed(&self, _: proc_pool::WorkerId, _: proc_pool::Stream, line: &str) {
        if line.contains("ready") {
            let _ = self.0.send(());
        }
    }
}
