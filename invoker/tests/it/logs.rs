//! Events of workers reach the leader's subscriber, however it is set up and however the program ends.

use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use invoker::{Fault, Filter, Invoker, Processes, Redirect, Report};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::{Layer, filter::LevelFilter};

#[path = "guide_logs/by_rust_log.rs"]
mod by_rust_log;
#[path = "guide_logs/plain.rs"]
mod plain;

const ROLE: &str = "INVOKER_TEST_ROLE";
const WATCHDOG: Duration = Duration::from_secs(120);

/// Runs `role` of this file in its own process, with standard error `stderr`.
fn program(role: &str, stderr: Stdio, set: impl FnOnce(&mut Command)) -> Output {
    let mut command = Command::new(std::env::current_exe().expect("it has a path"));
    command
        .args([
            "--exact",
            "logs::in_its_own_process",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(ROLE, role)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr);
    set(&mut command);
    let child = command.spawn().expect("it starts");
    let pid = child.id();
    let (ended, end) = std::sync::mpsc::channel();
    let watchdog = std::thread::spawn(move || {
        if end.recv_timeout(WATCHDOG).is_err() {
            eprintln!("the program {pid} hangs");
            std::process::abort();
        }
    });
    let output = child.wait_with_output().expect("no error");
    ended.send(()).expect("the watchdog waits");
    watchdog.join().expect("no panic");
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn in_its_own_process() {
    let _watchdog = crate::watchdog::watchdog(120);
    let role = std::env::var(ROLE).unwrap_or_default();
    match role.as_str() {
        "plain" => plain::main().expect("no error"),
        "by RUST_LOG" => by_rust_log::main().expect("no error"),
        "exit after map" => exit_after(|invoker| assert_eq!(invoker.map(0..20).count(), 20)),
        "exit after the last output" => exit_after(|invoker| {
            // Takes all outputs, but never the end.
            let mut outputs = invoker.map(0..20);
            (0..20).for_each(|_| assert!(outputs.next().is_some()));
            std::process::exit(0);
        }),
        "exit after wait" => exit_after(|invoker| {
            let handles: Vec<_> = (0..20).map(|n| invoker.submit(n)).collect();
            handles
                .into_iter()
                .for_each(|handle| assert!(handle.wait().is_ok()));
        }),
        "forgotten" => {
            print_logs();
            let invoker = chatty();
            invoker.for_each(0..20, |output| assert!(output.is_ok()));
            std::mem::forget(invoker);
        }
        "static" => {
            static INVOKER: OnceLock<Invoker<(), u32, u32>> = OnceLock::new();
            print_logs();
            let invoker = INVOKER.get_or_init(chatty);
            assert_eq!(invoker.map_unordered(0..20).count(), 20);
        }
        "late" => {
            let invoker = chatty();
            print_logs();
            assert_eq!(invoker.map(0..20).count(), 20);
            print_counts(&invoker.finish().expect("no error"));
        }
        "logger" => {
            log_only::set();
            let invoker = chatty();
            assert_eq!(invoker.map(0..20).count(), 20);
            print_counts(&invoker.finish().expect("no error"));
        }
        "crash" => {
            print_logs();
            crash();
        }
        _ => {}
    }
}

fn chat(_: &(), n: u32) -> u32 {
    tracing::info!(n, "chatting");
    n
}

fn chatty() -> Invoker<(), u32, u32> {
    let builder = Invoker::builder(chat).model(()).workers(2);
    builder.build().expect("the invoker builds")
}

fn print_logs() {
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
}

fn exit_after(run: impl FnOnce(&Invoker<(), u32, u32>)) -> ! {
    print_logs();
    run(&chatty());
    std::process::exit(0);
}

fn print_counts(report: &Report) {
    let logs = report.logs.expect("there were processes");
    println!(
        "{} emitted, {} delivered, {} dropped, {} waiting",
        logs.emitted, logs.delivered, logs.dropped, logs.waiting
    );
}

/// A leader with a logger of the `log` crate and no subscriber.
mod log_only {
    struct Logger;

    impl log::Log for Logger {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &log::Record<'_>) {
            eprintln!("{} {}: {}", record.level(), record.target(), record.args());
        }

        fn flush(&self) {}
    }

    pub(crate) fn set() {
        log::set_logger(&Logger).expect("the first logger");
        log::set_max_level(log::LevelFilter::Info);
    }
}

fn log_and_abort(_: &(), n: u32) -> u32 {
    (0..150).for_each(|word| tracing::info!(n, word, "text"));
    if n == 3 {
        tracing::error!("last\u{1b}[2K words\r\nINFO forged");
        std::process::abort();
    }
    n
}

fn crash() {
    let builder = Invoker::builder(log_and_abort).model(()).workers(1);
    let invoker = builder.build().expect("the invoker builds");
    let outputs: Vec<_> = invoker.map(0..6).collect();
    let Err(error) = &outputs[3] else {
        panic!("{outputs:?}")
    };
    let Fault::WorkerDied { last_logs, .. } = &error.fault else {
        panic!("{error}")
    };
    println!("{} last logs, {:?}", last_logs.len(), last_logs.last());
    println!(
        "{} outputs",
        outputs.iter().filter(|output| output.is_ok()).count()
    );
    print_counts(&invoker.finish().expect("no error"));
}

#[test]
fn a_program_that_exits_after_the_last_output_has_all_events() {
    let _watchdog = crate::watchdog::watchdog(120);
    for role in [
        "exit after map",
        "exit after the last output",
        "exit after wait",
        "forgotten",
        "static",
    ] {
        let output = program(role, Stdio::piped(), |_| {});
        let logs = text(&output.stderr);
        assert!(output.status.success(), "{role}: {logs}");
        let chatting =
            |line: &&str| line.contains("INFO worker{id=") && line.contains("it::logs: chatting n=");
        assert_eq!(logs.lines().filter(chatting).count(), 20, "{role}: {logs}");
    }
}

#[test]
fn a_subscriber_installed_after_build_receives_worker_events() {
    let _watchdog = crate::watchdog::watchdog(120);
    let output = program("late", Stdio::piped(), |_| {});
    let logs = text(&output.stderr);
    assert_eq!(logs.matches("chatting").count(), 20, "{logs}");
    let printed = text(&output.stdout);
    assert!(
        printed.contains("20 emitted, 20 delivered, 0 dropped, 0 waiting"),
        "{printed}"
    );
}

#[test]
fn a_leader_with_only_a_logger_receives_worker_events() {
    let _watchdog = crate::watchdog::watchdog(120);
    let output = program("logger", Stdio::piped(), |_| {});
    let logs = text(&output.stderr);
    assert_eq!(logs.matches("INFO it::logs: worker{id=").count(), 20, "{logs}");
    let printed = text(&output.stdout);
    assert!(
        printed.contains("20 emitted, 20 delivered, 0 dropped, 0 waiting"),
        "{printed}"
    );
}

/// The subscriber prints to a full disk, then to a pipe without a reader, then to a working pipe.
#[cfg(target_os = "linux")]
#[test]
fn a_broken_standard_error_loses_no_outputs_counts_or_last_logs() {
    let _watchdog = crate::watchdog::watchdog(120);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    let (reader, broken) = std::io::pipe().expect("a pipe");
    drop(reader);
    let expected = [
        r#"16 last logs, Some("ERROR it::logs: last\\u{1b}[2K words\\r\\nINFO forged")"#,
        "5 outputs",
        "901 emitted, 901 delivered, 0 dropped, 0 waiting",
    ];
    for stderr in [full.expect("it opens").into(), broken.into(), Stdio::piped()] {
        let output = program("crash", stderr, |_| {});
        let printed = text(&output.stdout);
        assert!(output.status.success(), "{} {printed}", output.status);
        for line in expected {
            assert!(printed.contains(line), "{line}: {printed}");
        }
    }
}

/// A layer that takes two milliseconds per event.
struct Slow;

impl<S: tracing::Subscriber> Layer<S> for Slow {
    fn on_event(&self, _: &tracing::Event<'_>, _: Context<'_, S>) {
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn flood(_: &(), n: u32) -> u32 {
    (0..1000).for_each(|nth| tracing::info!(n, nth, "flood"));
    if n == 98 {
        std::process::abort();
    }
    n
}

#[test]
fn a_slow_subscriber_delays_the_end_by_a_bounded_time_and_all_events_are_counted() {
    let _watchdog = crate::watchdog::watchdog(120);
    let slow = tracing_subscriber::registry().with(LevelFilter::INFO).with(Slow);
    tracing::subscriber::with_default(slow, || {
        let builder = Invoker::builder(flood).model(()).workers(2);
        let invoker = builder.build().expect("the invoker builds");
        let mut errors = Vec::new();
        for output in invoker.map(0..100) {
            errors.extend(output.err());
            let logs = invoker.report().logs.expect("there are processes");
            assert_eq!(
                logs.emitted,
                logs.delivered + logs.dropped + logs.waiting,
                "{logs:?}"
            );
        }
        let Fault::WorkerDied { last_logs, .. } = &errors[0].fault else {
            panic!("{errors:?}")
        };
        assert_eq!(last_logs.len(), 16);
        let logs = invoker.report().logs.expect("there are processes");
        // The dead worker lost its last output, but none of its events.
        assert_eq!(logs.emitted, 100_000);
        assert!(logs.waiting > 0, "{logs:?}");
        let started = Instant::now();
        let logs = invoker
            .finish()
            .expect("no error")
            .logs
            .expect("there were processes");
        // A watchdog. The subscriber has two seconds, and the workers some; a full replay would take minutes.
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "{:?}",
            started.elapsed()
        );
        assert_eq!((logs.emitted, logs.waiting), (100_000, 0));
        assert_eq!(logs.delivered + logs.dropped, 100_000);
    });
}

fn progress_lines(_: &(), n: u32) -> u32 {
    use std::io::Write;
    let mut out = std::io::stdout();
    for percent in 0..=20_000 {
        write!(out, "\r{percent} of 20000").expect("the leader reads it");
    }
    out.flush().expect("the leader reads it");
    if n == 1 {
        std::process::abort();
    }
    writeln!(out, "\r\nnext\u{1b}[1m line").expect("the leader reads it");
    n
}

#[test]
fn captured_progress_keeps_its_last_state_and_escapes_controls() {
    let _watchdog = crate::watchdog::watchdog(120);
    let options = Processes::new().stdout(Redirect::Capture);
    let builder = Invoker::builder(progress_lines).model(()).workers(1);
    let invoker = builder.executor(options).build().expect("the invoker builds");
    let outputs: Vec<_> = invoker.map(0..2).collect();
    let Err(error) = &outputs[1] else {
        panic!("{outputs:?}")
    };
    let Fault::WorkerDied { last_printed, .. } = &error.fault else {
        panic!("{error}")
    };
    assert_eq!(
        last_printed,
        &["20000 of 20000", "next\\u{1b}[1m line", "20000 of 20000"],
    );
}

#[test]
fn the_examples_of_the_guide_print_every_event_with_any_rust_log() {
    let _watchdog = crate::watchdog::watchdog(120);
    let guide = include_str!("../../guide/logs.md");
    for example in [
        include_str!("guide_logs/plain.rs"),
        include_str!("guide_logs/by_rust_log.rs"),
    ] {
        let (_, code) = example.split_once("\n\n").expect("a first line of documentation");
        assert!(guide.contains(&code.replace("pub(crate) ", "")), "{code}");
    }
    for (role, rust_log, expected) in [
        ("plain", None, "INFO"),
        ("plain", Some("info"), "INFO"),
        ("plain", Some("my_crate=debug"), "INFO"),
        ("by RUST_LOG", None, "INFO"),
        ("by RUST_LOG", Some("info"), "INFO"),
        ("by RUST_LOG", Some("my_crate=debug"), "DEBUG"),
    ] {
        let output = program(role, Stdio::piped(), |command| {
            command.envs(rust_log.map(|value| ("RUST_LOG", value)));
        });
        let logs = text(&output.stderr);
        assert!(output.status.success(), "{role} {rust_log:?}: {logs}");
        let events: Vec<_> = logs.lines().filter(|line| line.contains("user=")).collect();
        assert_eq!(events.len(), 10, "{role} {rust_log:?}: {logs}");
        let of_a_worker = |line: &&str| line.contains(&format!("{expected} worker{{id="));
        assert!(events.iter().all(of_a_worker), "{role} {rust_log:?}: {logs}");
        assert_eq!(text(&output.stdout).matches("Ok(").count(), 10);
    }
}

fn quiet(_: &(), n: u32) -> u32 {
    n
}

#[test]
fn runs_without_logs_do_not_wait_for_them() {
    let _watchdog = crate::watchdog::watchdog(120);
    let builder = Invoker::builder(quiet).model(()).workers(1);
    let builder = builder.executor(Processes::new().logs(Filter::off()));
    let invoker = builder.build().expect("the invoker builds");
    assert_eq!((0..100).map(|n| invoker.map([n]).count()).sum::<usize>(), 100);
    let logs = invoker
        .finish()
        .expect("no error")
        .logs
        .expect("there were processes");
    assert_eq!((logs.emitted, logs.dropped), (0, 0));
}
