//! The reporter as its users see it: real threads, real time, and nothing that waits for either.

#[cfg(all(target_os = "linux", feature = "indicatif"))]
mod hardship;
#[cfg(all(target_os = "linux", feature = "indicatif"))]
mod pseudo_terminal;
mod rehearsal;
#[cfg(all(target_os = "linux", feature = "indicatif"))]
mod terminal;

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use progress::{Outcome, Render, Reporter, Total};

/// Sends every write to the test.
struct Wire(Sender<String>);

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.send(String::from_utf8_lossy(bytes).into_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn reporter(render: Render) -> (Reporter, Receiver<String>) {
    let (send, receive) = channel();
    let reporter = Reporter::builder()
        .render(render)
        .output(Wire(send))
        .lines_every(Duration::from_millis(1))
        .start()
        .expect("a thread");
    (reporter, receive)
}

const WATCHDOG: Duration = Duration::from_secs(60);

#[test]
fn the_thread_draws_while_the_job_runs() {
    let (reporter, written) = reporter(Render::Lines);
    let bar = reporter.bar("job", Total::Known(10));
    bar.counters().counter(Outcome::Done).add(3);
    let line = written.recv_timeout(WATCHDOG).expect("a line");
    assert!(line.starts_with("job: 3/10 (30.0 %)"), "{line}");
    drop(reporter);
}

#[test]
fn finish_draws_the_last_state_once() {
    let (reporter, written) = reporter(Render::Auto);
    let bar = reporter.bar("job", Total::Known(2));
    bar.counters().counter(Outcome::Done).add(2);
    reporter.finish();
    let all: String = written.iter().collect();
    assert_eq!(all.matches("took").count(), 1, "{all}");
    assert!(all.contains("job: 2/2 (100 %)"), "{all}");
}

#[test]
fn drop_stops_without_a_last_line() {
    let (reporter, written) = reporter(Render::Lines);
    reporter.bar("job", Total::Known(2));
    drop(reporter);
    let all: String = written.iter().collect();
    assert!(!all.contains("took"), "{all}");
}

#[test]
fn drop_while_panicking_is_quiet() {
    let (reporter, written) = reporter(Render::Lines);
    let panicked = std::thread::spawn(move || {
        let _reporter = reporter;
        panic!("on purpose");
    })
    .join();
    assert!(panicked.is_err());
    let all: String = written.iter().collect();
    assert!(!all.contains("took"), "{all}");
}

#[test]
fn none_draws_nothing_and_still_counts_and_prints_logs() {
    let (reporter, written) = reporter(Render::None);
    let bar = reporter.bar("job", Total::Known(2));
    bar.counters().counter(Outcome::Done).add(2);
    reporter.writer().write_all(b"a log line\n").expect("written");
    reporter.finish();
    assert_eq!(bar.counts().ended(), 2);
    assert_eq!(written.iter().collect::<String>(), "a log line\n");
}

#[test]
fn lines_are_written_whole_and_each_clone_has_its_own() {
    let (reporter, written) = reporter(Render::None);
    let mut first = reporter.writer();
    let mut second = first.clone();
    write!(first, "first ").expect("kept");
    write!(second, "second, ").expect("kept");
    first.flush().expect("nothing to do");
    writeln!(second, "whole").expect("written");
    write!(first, "one\nfirst two\nfirst unfinished").expect("written");
    drop(first);
    drop(second);
    drop(reporter);
    let all: Vec<String> = written.iter().collect();
    assert_eq!(
        all,
        ["second, whole\n", "first one\nfirst two\n", "first unfinished\n"]
    );
}

#[test]
fn an_endless_line_is_cut() {
    let (reporter, written) = reporter(Render::None);
    let mut writer = reporter.writer();
    writer.write_all(&[b'x'; 200_000]).expect("written");
    drop((writer, reporter));
    let lengths: Vec<usize> = written.iter().map(|line| line.len()).collect();
    assert_eq!(lengths, [65_537, 65_537, 65_537, 3_393]);
}

#[test]
fn a_writer_outlives_its_reporter() {
    let (reporter, written) = reporter(Render::Lines);
    let mut writer = reporter.writer();
    reporter.finish();
    writeln!(writer, "later").expect("written");
    drop(writer);
    assert_eq!(written.iter().last().as_deref(), Some("later\n"));
}

#[test]
fn logging_while_the_screen_is_suspended_does_not_deadlock() {
    let (reporter, written) = reporter(Render::None);
    let mut writer = reporter.writer();
    let answer = reporter.suspend(|| {
        writeln!(writer, "within").expect("written");
        42
    });
    drop((writer, reporter));
    assert_eq!(
        (answer, written.iter().collect::<String>()),
        (42, "within\n".into())
    );
}

#[test]
fn an_output_that_fails_does_not_fail_the_job() {
    struct Broken;
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for render in [Render::Auto, Render::Lines, Render::JsonLines] {
        let reporter = Reporter::builder()
            .render(render)
            .output(Broken)
            .start()
            .expect("a thread");
        let bar = reporter.bar("job", Total::Known(1));
        let mut log = reporter.writer();
        // An error would be printed by whoever logs, to a standard error that may fail as well.
        log.write_all(b"log\nlog\n").expect("it never fails");
        reporter.finish();
        assert_eq!(bar.counts().ended(), 0);
        // And the bar's last line.
        assert_eq!(log.lost_lines(), 3, "{render}");
    }
}

/// A writer that takes nothing until it is released.
struct Held {
    release: Receiver<()>,
    then: Wire,
}

impl Write for Held {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // An error is the release as well.
        let _ = self.release.recv();
        self.then.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_output_that_blocks_holds_up_nothing_and_gets_its_lines_later() {
    for render in [Render::Auto, Render::JsonLines, Render::None] {
        let (hold, release) = channel();
        let (send, written) = channel();
        let reporter = Reporter::builder()
            .render(render)
            .output(Held {
                release,
                then: Wire(send),
            })
            .start()
            .expect("a thread");
        let mut log = reporter.writer();
        let bar = reporter.bar("job", Total::Known(1));
        for n in 0..1000 {
            writeln!(log, "line {n}").expect("it never fails");
        }
        bar.counters().counter(Outcome::Done).inc();
        reporter.suspend(|| ());
        reporter.finish();
        assert_eq!(log.lost_lines(), 0);
        drop((log, hold));
        let all: String = written.iter().collect();
        let logs: Vec<&str> = all.lines().filter(|line| line.starts_with("line ")).collect();
        let expected: Vec<String> = (0..1000).map(|n| format!("line {n}")).collect();
        assert_eq!(logs, expected);
        assert_eq!(
            all.lines().count(),
            if render == Render::None { 1000 } else { 1001 }
        );
    }
}

#[test]
fn an_output_that_never_takes_anything_costs_lines_that_are_counted() {
    let (_hold, release) = channel();
    let (send, _written) = channel();
    let output = Held {
        release,
        then: Wire(send),
    };
    let reporter = Reporter::builder().output(output).start().expect("a thread");
    let bars = [0, 1, 2, 3].map(|n| reporter.bar(format!("bar {n}"), Total::Known(1)));
    let log = reporter.writer();
    let line = "x".repeat(99) + "\n";
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let mut log = log.clone();
            let line = &line;
            scope.spawn(move || {
                (0..10_000).for_each(|_| log.write_all(line.as_bytes()).expect("it never fails"))
            });
        }
    });
    // A mebibyte waits.
    let waiting = (1 << 20) / line.len() as u64;
    assert!(
        log.lost_lines().abs_diff(40_000 - waiting) <= 1,
        "{}",
        log.lost_lines()
    );
    drop(reporter);
    assert!(bars.iter().all(|bar| bar.counts().ended() == 0));
}

#[test]
fn an_output_that_panics_costs_its_lines_and_nothing_else() {
    struct Panics;
    impl Write for Panics {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            panic!("on purpose")
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("on purpose, again")
        }
    }
    for render in [Render::Auto, Render::JsonLines] {
        let reporter = Reporter::builder()
            .render(render)
            .output(Panics)
            .start()
            .expect("a thread");
        // The hook that this sets runs in the thread that writes, too.
        reporter.guard_panics();
        let bar = reporter.bar("job", Total::Known(1));
        bar.counters().counter(Outcome::Done).inc();
        let mut log = reporter.writer();
        for _ in 0..3 {
            writeln!(log, "a line").expect("it never fails");
        }
        reporter.finish();
        // Reporting a panic may take longer than a reporter waits.
        while log.lost_lines() < 4 {
            std::thread::yield_now();
        }
        assert_eq!((log.lost_lines(), bar.counts().ended()), (4, 1));
    }
}

#[cfg(feature = "indicatif")]
#[test]
fn bars_are_drawn_again_when_the_output_takes_them() {
    let (hold, release) = channel();
    let (send, written) = channel();
    let output = Held {
        release,
        then: Wire(send),
    };
    let reporter = Reporter::builder()
        .render(Render::Bar)
        .output(output)
        .start()
        .expect("a thread");
    let bar = reporter.bar("job", Total::Known(10_000));
    let counters = bar.counters();
    // Each is given way by more than any drawing could need.
    let mut log = reporter.writer();
    for _ in 0..100 {
        counters.counter(Outcome::Done).inc();
        writeln!(log, "log").expect("it never fails");
    }
    counters.counter(Outcome::Done).add(900);
    drop(hold);
    let mut drawn = String::new();
    while !drawn.contains("1000/10000") {
        drawn += &written.recv_timeout(WATCHDOG).expect("the newest state");
    }
    assert_eq!(drawn.matches("log\n").count(), 100, "{drawn:?}");
}

#[cfg(feature = "indicatif")]
#[test]
fn bars_off_a_terminal_are_drawn_when_asked_for() {
    let (reporter, written) = reporter(Render::Bar);
    let bar = reporter.bar("job", Total::Known(2));
    bar.counters().counter(Outcome::Done).add(1);
    let drawn = written.recv_timeout(WATCHDOG).expect("a bar");
    assert!(drawn.starts_with("job  "), "{drawn:?}");
    drop(reporter);
}

#[cfg(feature = "indicatif")]
#[test]
fn drop_takes_the_bars_off_though_log_writers_live_on() {
    let (reporter, written) = reporter(Render::Bar);
    let _log = reporter.writer();
    reporter.bar("job", Total::Known(2));
    let drawn = written.recv_timeout(WATCHDOG).expect("a bar");
    assert!(drawn.starts_with("job  "), "{drawn:?}");
    drop(reporter);
    assert_eq!(written.try_iter().last().as_deref(), Some("\r\u{1b}[J"));
}

#[cfg(not(feature = "indicatif"))]
#[test]
fn bars_that_are_not_built_in_are_refused() {
    let error = Reporter::builder()
        .render(Render::Bar)
        .start()
        .expect_err("no bars");
    assert!(error.to_string().ends_with("ask for lines instead"), "{error}");
}

#[cfg(feature = "tracing")]
#[test]
fn tracing_prints_through_it() {
    let (reporter, written) = reporter(Render::None);
    let subscriber = tracing_subscriber::fmt()
        .with_writer(reporter.writer())
        .without_time()
        .with_ansi(false)
        .finish();
    tracing::subscriber::with_default(subscriber, || tracing::warn!(user = 15, "slow"));
    drop(reporter);
    assert_eq!(written.iter().collect::<String>(), " WARN it: slow user=15\n");
}
