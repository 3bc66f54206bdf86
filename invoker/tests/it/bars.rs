//! Bars on real terminals, and jobs whose standard error is unusable.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use invoker::{Executor, Invoker, run_isolated};

use super::batch_eval::{program, ratings};
use super::guide_of_progress;
use super::screen::terminal;

/// A watchdog, not an expectation.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// The variable that names the scenario of a child.
const SCENARIO: &str = "INVOKER_TEST_SCENARIO";

/// Returns the command of a child that runs `scenario` of this binary.
pub(crate) fn command(scenario: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command
        .args(["--exact", "bars::child", "--nocapture"])
        .env(SCENARIO, scenario);
    plain(&mut command);
    command
}

/// Sets the environment of a terminal that draws bars, without colours.
fn plain(command: &mut Command) {
    for variable in [
        "CI",
        "CLICOLOR",
        "CLICOLOR_FORCE",
        "COLUMNS",
        "LINES",
        "RUST_LOG",
        "INVOKER_PROGRESS",
    ] {
        command.env_remove(variable);
    }
    command.envs([
        ("TERM", "xterm"),
        ("LC_ALL", "C.UTF-8"),
        ("NO_COLOR", "1"),
        ("RUST_BACKTRACE", "0"),
    ]);
}

pub(crate) fn status(code: i32) -> ExitStatus {
    ExitStatus::from_raw(code << 8)
}

#[test]
fn child() {
    let _watchdog = crate::watchdog::watchdog(120);
    let Ok(scenario) = std::env::var(SCENARIO) else {
        return;
    };
    if let Some(ended) = guide_of_progress::run_example(&scenario) {
        return ended.expect("no error");
    }
    match scenario.as_str() {
        "nested" => nested(),
        "panic" => panic_in_the_leader(),
        _ => panic!("no scenario {scenario}"),
    }
}

/// A terminal after a program has ended.
#[derive(Debug)]
pub(crate) struct Screen {
    pub(crate) rows: Vec<String>,
    /// Everything that was drawn.
    pub(crate) raw: String,
    pub(crate) status: ExitStatus,
}

impl Screen {
    /// Runs `command` with a terminal as its standard error. Panics if it draws nothing for `timeout`.
    pub(crate) fn of(mut command: Command, timeout: Duration) -> Self {
        let (mut device, slave) = terminal();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(slave));
        let mut child = command.spawn().expect("it starts");
        drop(command);
        let (send, receive) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // At the end, Linux returns an error instead of 0 bytes.
            while let Ok(n @ 1..) = device.read(&mut buffer) {
                if send.send(buffer[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut raw = Vec::new();
        loop {
            match receive.recv_timeout(timeout) {
                Ok(bytes) => raw.extend(bytes),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it hangs: {:?}", String::from_utf8_lossy(&raw)),
            }
        }
        let mut parser = vt100::Parser::new(24, 160, 0);
        parser.process(&raw);
        let rows = parser.screen().rows(0, 160).map(|row| row.trim_end().to_owned());
        let mut rows: Vec<String> = rows.collect();
        let used = rows.iter().rposition(|row| !row.is_empty());
        rows.truncate(used.map_or(0, |last| last + 1));
        Self {
            rows,
            raw: String::from_utf8_lossy(&raw).into_owned(),
            status: child.wait().expect("no error"),
        }
    }
}

/// Runs `command` to its end, without a terminal.
pub(crate) fn run(mut command: Command) -> Output {
    command.stdin(Stdio::null()).output().expect("no error")
}

/// Ops that use invokers with progress, with every executor.
fn nested() {
    fn inner() -> u32 {
        let builder = Invoker::builder(|_: &(), n: u32| n)
            .model(())
            .executor(Executor::Inline)
            .progress("inner");
        let inner = builder.build().expect("the invoker builds");
        let sum = inner.map(0..4).sum::<Result<u32, _>>().expect("no task fails");
        inner.finish().expect("no error");
        sum
    }
    fn outer(_: &(), n: u32) -> u32 {
        n + inner()
    }
    for executor in [Executor::Processes, Executor::Threads, Executor::Inline] {
        let builder = Invoker::builder(outer)
            .model(())
            .executor(executor)
            .progress("outer");
        let builder = match executor {
            Executor::Inline => builder,
            _ => builder.workers(2),
        };
        let invoker = builder.build().expect("the invoker builds");
        let outputs: Vec<u32> = invoker
            .map(0..20)
            .collect::<Result<_, _>>()
            .expect("no task fails");
        assert_eq!(outputs[4], 10);
        invoker.finish().expect("no error");
    }
    // Also on another thread of a worker.
    fn threaded(_: &(), n: u32) -> u32 {
        std::thread::spawn(move || n + inner()).join().expect("no panic")
    }
    let builder = Invoker::builder(threaded)
        .model(())
        .executor(Executor::Processes)
        .progress("outer");
    let invoker = builder.build().expect("the invoker builds");
    assert_eq!(invoker.map(0..20).filter(Result::is_ok).count(), 20);
    invoker.finish().expect("no error");
    let isolated = run_isolated(
        |n: u32| std::thread::spawn(move || n + inner()).join().expect("no panic"),
        1,
    );
    assert_eq!(isolated.expect("no error"), 7);
}

#[test]
fn an_invoker_within_an_op_draws_nothing() {
    let _watchdog = crate::watchdog::watchdog(120);
    for render in ["auto", "bar", "lines", "json"] {
        let mut nested = command("nested");
        nested.env("INVOKER_PROGRESS", render);
        let screen = Screen::of(nested, LONG);
        assert_eq!(screen.status, status(0), "{render}: {screen:?}");
        assert!(!screen.raw.contains("inner"), "{render}: {screen:?}");
        // One last line per run.
        assert_eq!(
            screen.raw.matches(", took ").count() + screen.raw.matches("finished").count(),
            4,
            "{render}: {screen:?}"
        );
    }
}

/// A thread of the leader panics while the bar is shown.
fn panic_in_the_leader() {
    let builder = Invoker::builder(|_: &(), n: u32| n)
        .model(())
        .executor(Executor::Threads)
        .progress("job");
    let invoker = builder.build().expect("the invoker builds");
    let mut outputs = invoker.map(0..4);
    outputs.next().expect("the first").expect("no task fails");
    // The bar is drawn several times before and after.
    std::thread::sleep(Duration::from_millis(300));
    let panicked = std::thread::spawn(|| panic!("the first line\nthe second line")).join();
    assert!(panicked.is_err());
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(outputs.count(), 3);
    invoker.finish().expect("no error");
}

#[test]
fn a_panic_of_the_leader_is_printed_whole_above_the_bar() {
    let _watchdog = crate::watchdog::watchdog(120);
    let screen = Screen::of(command("panic"), LONG);
    assert_eq!(screen.status, status(0), "{screen:?}");
    let first = screen.rows.iter().position(|row| row == "the first line");
    let first = first.unwrap_or_else(|| panic!("the message: {screen:?}"));
    assert!(
        screen.rows[first - 1].starts_with("thread '<unnamed>'"),
        "{screen:?}"
    );
    assert_eq!(screen.rows[first + 1], "the second line");
    let last = screen.rows.last().expect("rows");
    assert!(
        last.starts_with("job  █") && last.contains("4/4 (100 %)"),
        "{screen:?}"
    );
}

/// Waits for a child whose standard output is piped, and returns its status and its output.
fn outcome(mut child: Child, name: &str) -> (ExitStatus, String) {
    let mut stdout = child.stdout.take().expect("it is piped");
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        if started.elapsed() > LONG {
            let _ = child.kill();
            panic!("{name}: the job hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    (status, reading.join().expect("no panic").expect("text"))
}

/// A standard error, and what keeps it in its state.
type Stderr = (Stdio, Option<Box<dyn Send>>);

/// A name, and a function that creates such a standard error.
type BrokenStderr = (&'static str, fn() -> Stderr);

fn broken_stderrs() -> [BrokenStderr; 4] {
    fn unread() -> Stderr {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        // Full from the start.
        rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).expect("set");
        while writer.write(&[b'x'; 4096]).is_ok() {}
        while writer.write(b"x").is_ok() {}
        rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::empty()).expect("set");
        (writer.into(), Some(Box::new(reader)))
    }
    fn broken() -> Stderr {
        let (_, writer) = std::io::pipe().expect("a pipe");
        (writer.into(), None)
    }
    fn full() -> Stderr {
        let full: File = OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .expect("Linux has it");
        (full.into(), None)
    }
    fn dead() -> Stderr {
        let (_, slave) = terminal();
        (slave.into(), None)
    }
    [
        ("unread", unread),
        ("broken", broken),
        ("full", full),
        ("dead", dead),
    ]
}

#[test]
fn a_job_does_not_depend_on_its_standard_error() {
    let _watchdog = crate::watchdog::watchdog(120);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let ratings = ratings(dir.path());
    for (name, stderr) in broken_stderrs() {
        for (crash, code) in [(None, 0), (Some("15"), 1)] {
            let mut job = Command::new(program());
            plain(&mut job);
            job.args([
                "--ratings",
                &ratings,
                "--workers",
                "2",
                "--progress",
                "bar",
                "--log",
                "debug",
            ])
            .args(["--report", "json"])
            .args(crash.iter().flat_map(|user| ["--crash-user", user]));
            let (stderr, _kept) = stderr();
            job.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
            let child = job.spawn().expect("it starts");
            drop(job);
            let (status, report) = outcome(child, &format!("{name}, {crash:?}"));
            assert_eq!(status.code(), Some(code), "{name}, {crash:?}: {report}");
            let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
            let tasks = &report["run"]["tasks"];
            let failed = u64::from(crash.is_some());
            assert_eq!(tasks["failed"], failed, "{name}: {report}");
            assert_eq!(tasks["done"], 60 - failed, "{name}: {report}");
        }
    }
}
