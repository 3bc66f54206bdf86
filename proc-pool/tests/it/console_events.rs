//! Ctrl-C and Ctrl-Break at a console, which sends them to all of its processes: the leader and its workers.

use std::process::ExitStatus;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use proc_pool::{Builder, ExitCause, Interrupt, OnInterrupt};

use crate::interrupts::interrupt_hung_tasks;
use crate::support::{
    Event, IsolatedTest, builder, generate, hang, is_isolated, processes_at_console, run_one,
    stop_ignoring_ctrl_c, test_name, watchdog, wine_lacks,
};

/// The exit code of a process that Ctrl-C ends: `STATUS_CONTROL_C_EXIT`.
const CONTROL_C_EXIT: i32 = 0xC000_013A_u32 as i32;

const NO_CTRL_BREAK: &str = "GenerateConsoleCtrlEvent(CTRL_BREAK_EVENT) fails with ERROR_INVALID_HANDLE";

fn builder_on(reaction: OnInterrupt) -> Builder {
    stop_ignoring_ctrl_c();
    builder(2).on_interrupt(reaction)
}

/// Runs a test again at a console of its own, and returns how it ended.
fn status_at_own_console(test: &str) -> ExitStatus {
    let (leader, _tmp) = IsolatedTest::new(test).at_own_console().start();
    let output = leader.wait_with_output().expect("the child can be waited for");
    println!("{}", String::from_utf8_lossy(&output.stdout));
    output.status
}

/// Leader and workers receive it; the workers ignore it.
#[test]
fn first_ctrl_c_finishes() {
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).at_own_console().run();
    }
    let _watchdog = watchdog(60);
    let pool = builder_on(OnInterrupt::Finish)
        .build_op(|n: u64| n)
        .expect("the pool starts");
    assert_eq!(
        processes_at_console(),
        3,
        "the workers are at the leader's console"
    );
    let mut outputs = 0;
    for (n, output) in (0..).zip(pool.map(0..)) {
        assert_eq!(output.expect("the task succeeds"), n);
        outputs += 1;
        if n == 1000 {
            generate(Event::CtrlC);
        }
    }
    assert_eq!(pool.bytes().interrupted(), Some(Interrupt::Finish));
    let stats = pool.shutdown(Duration::from_secs(20)).expect("the pool works");
    assert_eq!((stats.answered, stats.deaths), (outputs, 0));
    assert_eq!(processes_at_console(), 1);
}

#[test]
fn second_ctrl_c_kills() {
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).at_own_console().run();
    }
    let _watchdog = watchdog(60);
    for (reaction, first) in [
        (OnInterrupt::Finish, Interrupt::Finish),
        (OnInterrupt::Cancel, Interrupt::Cancel),
    ] {
        let pool = builder_on(reaction).build_op(|_: u64| -> () { hang() });
        interrupt_hung_tasks(&pool.expect("the pool starts"), first, 2, || {
            generate(Event::CtrlC)
        });
        assert_eq!(processes_at_console(), 1);
    }
}

#[test]
fn third_ctrl_c_ends_the_program() {
    let _watchdog = watchdog(60);
    if is_isolated() {
        let pool = builder_on(OnInterrupt::Finish).build_op(|_: u64| -> () { hang() });
        let pool = pool.expect("the pool starts");
        interrupt_hung_tasks(&pool, Interrupt::Finish, 2, || generate(Event::CtrlC));
        generate(Event::CtrlC);
        hang()
    }
    assert_eq!(status_at_own_console(&test_name!()).code(), Some(CONTROL_C_EXIT));
}

#[test]
fn ctrl_break_asks_for_a_dump() {
    if wine_lacks(NO_CTRL_BREAK) {
        return;
    }
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).at_own_console().run();
    }
    let _watchdog = watchdog(60);
    let (dumps, dumped) = mpsc::channel();
    let pool = builder_on(OnInterrupt::Default)
        .on_dump(move |snapshot| dumps.send(snapshot.clone()).expect("the test receives dumps"))
        .build_op(|n: u64| n)
        .expect("the pool starts");
    assert_eq!(pool.map(0..100).filter(Result::is_ok).count(), 100);
    for _ in 0..2 {
        generate(Event::CtrlBreak);
        let snapshot = dumped.recv().expect("a dump comes");
        assert_eq!((snapshot.workers.len(), snapshot.stats.answered), (2, 100));
    }
    assert_eq!(pool.map(0..100).filter(Result::is_ok).count(), 100);
    let stats = pool.shutdown(Duration::from_secs(20)).expect("the pool works");
    assert_eq!(stats.deaths, 0);
}

/// The system's default handler runs: also after the end of a pool that handled the events.
#[test]
fn events_end_a_program_whose_pool_ignores_them() {
    const EVENT: &str = "IT_EVENT";
    let _watchdog = watchdog(60);
    if is_isolated() {
        let build = |reaction| {
            builder_on(reaction)
                .build_op(|n: u64| n)
                .expect("the pool starts")
        };
        drop(build(OnInterrupt::Finish));
        let ignoring = build(OnInterrupt::Default);
        assert_eq!(ignoring.map(0..10).filter(Result::is_ok).count(), 10);
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
        let leader = IsolatedTest::new(&test_name!())
            .env(EVENT, event)
            .at_own_console();
        let (mut leader, _tmp) = leader.start();
        let status = leader.wait().expect("the child can be waited for");
        let expected =
            match wine_lacks("its default handler of console events exits with 0 (RtlExitUserProcess)") {
                true => 0,
                false => CONTROL_C_EXIT,
            };
        assert_eq!(status.code(), Some(expected), "{event}");
    }
}

/// A program that a worker starts does not inherit that the worker ignores Ctrl-C.
#[test]
fn ctrl_c_reaches_a_program_that_a_worker_starts() {
    const PROGRAM: &str = "IT_PROGRAM";
    if std::env::var_os(PROGRAM).is_some() {
        println!("ready");
        hang()
    }
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).at_own_console().run();
    }
    let _watchdog = watchdog(60);
    let test = test_name!();
    let (ready, is_ready) = mpsc::channel();
    let pool = builder(1)
        .stdout(proc_pool::Redirect::Capture)
        .observer(std::sync::Arc::new(Ready(ready)))
        .on_interrupt(OnInterrupt::Finish)
        .build_op(|test: String| {
            let program = std::env::current_exe().expect("this program has a path");
            let mut child = std::process::Command::new(program)
                .args([&test, "--exact", "--nocapture"])
                .env(PROGRAM, "1")
                .spawn()
                .expect("the program can be started");
            child.wait().expect("the child can be waited for").code()
        })
        .expect("the pool starts");
    stop_ignoring_ctrl_c();
    thread::scope(|scope| {
        let map = scope.spawn(|| run_one(&pool, test));
        is_ready.recv().expect("the program starts");
        generate(Event::CtrlC);
        let code = map.join().expect("no thread panics");
        assert!(matches!(code, Some(0 | CONTROL_C_EXIT)), "{code:?}");
    });
}

/// Sends a message when a worker prints that its program is ready.
struct Ready(mpsc::Sender<()>);

impl proc_pool::Observer for Ready {
    fn started(&self, _: proc_pool::WorkerId, _: shm_buffers::ring::Consumer, _: shm_buffers::slots::Slots) {}

    fn ended(&self, _: proc_pool::WorkerId, _: &ExitCause) -> Vec<String> {
        Vec::new()
    }

    fn printed(&self, _: proc_pool::WorkerId, _: proc_pool::Stream, line: &str) {
        if line.contains("ready") {
            let _ = self.0.send(());
        }
    }
}
