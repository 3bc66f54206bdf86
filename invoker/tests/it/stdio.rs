//! Output, panics and log events of worker processes, in the leader's logs.

use invoker::{ExitCause, Fault, Filter, Invoker, Processes, Redirect};
use tracing::Level;
use tracing_subscriber::filter::LevelFilter;

use crate::executors::Printed;

fn loud(_: &(), n: u32) -> u32 {
    // The test harness captures `println!`.
    use std::io::Write;
    writeln!(std::io::stdout(), "out {n}").expect("a reader");
    writeln!(std::io::stderr(), "err {n}").expect("a reader");
    match n {
        3 => panic!("three"),
        4 => std::process::abort(),
        _ => n,
    }
}

/// Returns what `run` logs in this process.
fn logged(level: LevelFilter, run: impl FnOnce()) -> String {
    let printed = Printed::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(printed.clone())
        .with_ansi(false)
        .with_max_level(level)
        .finish();
    tracing::subscriber::with_default(subscriber, run);
    printed.text()
}

#[test]
fn captured_lines_are_events_and_the_last_lines_are_in_the_error() {
    let _watchdog = crate::watchdog::watchdog(120);
    let text = logged(LevelFilter::INFO, || {
        let options = Processes::new()
            .stdout(Redirect::Capture)
            .stderr(Redirect::Capture)
            .log_panics()
            .logs("info".parse().expect("a filter"));
        let builder = Invoker::builder(loud).model(()).workers(1);
        let invoker = builder.executor(options).build().expect("the invoker builds");
        let outputs: Vec<_> = invoker.map(0..6).collect();
        assert!(matches!(&outputs[3], Err(error) if matches!(error.fault, Fault::Panicked { .. })));
        match outputs[4].as_ref().map_err(|error| &error.fault) {
            Err(Fault::WorkerDied {
                cause, last_printed, ..
            }) => {
                assert!(
                    matches!(cause, ExitCause::Signal { .. }) || cfg!(not(unix)),
                    "{cause}"
                );
                let last = |line: &str| last_printed.iter().any(|printed| printed == line);
                assert!(last("out 4") && last("err 4"), "{last_printed:?}");
            }
            other => panic!("{other:?}"),
        }
        invoker.finish().expect("no error");
    });
    for n in 0..6 {
        for line in [
            format!(" INFO worker{{id=0}}: stdout: out {n}"),
            format!(" WARN worker{{id=0}}: stderr: err {n}"),
        ] {
            assert_eq!(
                text.lines().filter(|it| it.ends_with(&line)).count(),
                1,
                "{line}\n{text}"
            );
        }
    }
    let panics = |line: &&str| line.contains("ERROR worker{id=0}: panic: panicked: three");
    assert_eq!(text.lines().filter(panics).count(), 1, "{text}");
}

fn chatter(_: &(), n: u32) -> bool {
    tracing::debug!(n, "chattering");
    tracing::enabled!(Level::DEBUG)
}

#[test]
fn the_filter_can_be_changed_while_workers_run() {
    let _watchdog = crate::watchdog::watchdog(120);
    let text = logged(LevelFilter::DEBUG, || {
        let options = Processes::new().logs(Filter::covering("info"));
        let builder = Invoker::builder(chatter).model(()).workers(1);
        let invoker = builder.executor(options).build().expect("the invoker builds");
        assert_eq!(
            invoker.map([1, 2]).filter(|out| matches!(out, Ok(true))).count(),
            0
        );
        invoker
            .set_filter(&Filter::covering("info,it=debug"))
            .expect("few targets");
        let watchdog = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !invoker.submit(3).wait().expect("no task fails") {
            assert!(std::time::Instant::now() < watchdog);
        }
        invoker.finish().expect("no error");
    });
    assert!(
        text.contains("chattering n=3") && !text.contains("chattering n=1"),
        "{text}"
    );
}
