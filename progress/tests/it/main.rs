//! The public interface of the reporter, with real threads and real time.

#[cfg(all(target_os = "linux", feature = "indicatif"))]
mod broken_stderr;
#[cfg(all(target_os = "linux", feature = "indicatif"))]
mod pseudo_terminal;
mod rayon_loops;
mod remote;
#[cfg(all(target_os = "linux", feature = "indicatif"))]
mod terminal;
mod test_screen;

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use progress::{Outcome, Render, Reporter, Total};

/// A writer that sends each write to the test.
struct ChannelWriter(Sender<String>);

impl Write for ChannelWriter {
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
        .output(ChannelWriter(send))
        .line_interval(Duration::from_millis(1))
        .start()
        .expect("a thread");
    (reporter, receive)
}

/// A timeout of this length means that the test hangs.
const WATCHDOG: Duration = Duration::from_secs(60);

#[test]
fn thread_draws_while_the_job_runs() {
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
fn drop_writes_no_last_line() {
    let (reporter, written) = reporter(Render::Lines);
    reporter.bar("job", Total::Known(2));
    drop(reporter);
    let all: String = written.iter().collect();
    assert!(!all.contains("took"), "{all}");
}

#[test]
fn drop_in_a_panicking_thread_writes_no_last_line() {
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
fn render_none_draws_nothing_but_counts_and_writes_log_lines() {
    let (reporter, written) = reporter(Render::None);
    let bar = reporter.bar("job", Total::Known(2));
    bar.counters().counter(Outcome::Done).add(2);
    reporter.writer().write_all(b"a log line\n").expect("written");
    reporter.finish();
    assert_eq!(bar.counts().ended(), 2);
    assert_eq!(written.iter().collect::<String>(), "a log line\n");
}

#[test]
fn each_clone_of_a_writer_writes_whole_lines() {
    let (reporter, written) = reporter(Render::None);
    let mut first = reporter.writer();
    let mut second = first.clone();
    write!(first, "first ").expect("it never fails");
    write!(second, "second, ").expect("it never fails");
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
fn very_long_line_is_split() {
    let (reporter, written) = reporter(Render::None);
    let mut writer = reporter.writer();
    writer.write_all(&[b'x'; 200_000]).expect("written");
    drop((writer, reporter));
    let lengths: Vec<usize> = written.iter().map(|line| line.len()).collect();
    assert_eq!(lengths, [65_537, 65_537, 65_537, 3_393]);
}

#[test]
fn writer_outlives_its_reporter() {
    let (reporter, written) = reporter(Render::Lines);
    let mut writer = reporter.writer();
    reporter.finish();
    writeln!(writer, "later").expect("written");
    drop(writer);
    assert_eq!(written.iter().last().as_deref(), Some("later\n"));
}

#[test]
fn logging_within_suspend_does_not_deadlock() {
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
fn failing_output_does_not_fail_the_job() {
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
        // A logger would print an error to standard error, which may fail as well.
        log.write_all(b"log\nlog\n").expect("it never fails");
        reporter.finish();
        assert_eq!(bar.counts().ended(), 0);
        // Two log lines and the bar's last line.
        assert_eq!(log.lost_lines(), 3, "{render}");
    }
}

/// A writer that blocks until the test sends or drops `release`.
struct BlockedWriter {
    release: Receiver<()>,
    inner: ChannelWriter,
}

impl Write for BlockedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // An error means that the sender was dropped, and releases the writer too.
        let _ = self.release.recv();
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn blocked_output_delays_nothing_and_gets_its_lines_later() {
    for render in [Render::Auto, Render::JsonLines, Render::None] {
        let (hold, release) = channel();
        let (send, written) = channel();
        let reporter = Reporter::builder()
            .render(render)
            .output(BlockedWriter {
                release,
                inner: ChannelWriter(send),
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
fn lines_beyond_the_capacity_of_a_blocked_output_are_counted_as_lost() {
    let (_hold, release) = channel();
    let (send, _written) = channel();
    let output = BlockedWriter {
        release,
        inner: ChannelWriter(send),
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
    // One mebibyte is queued.
    let queued = (1 << 20) / line.len() as u64;
    assert!(
        log.lost_lines().abs_diff(40_000 - queued) <= 1,
        "{}",
        log.lost_lines()
    );
    drop(reporter);
    assert!(bars.iter().all(|bar| bar.counts().ended() == 0));
}

#[test]
fn panicking_output_loses_its_lines_and_nothing_else() {
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
        // The hook also runs in the thread that writes.
        reporter.install_panic_hook();
        let bar = reporter.bar("job", Total::Known(1));
        bar.counters().counter(Outcome::Done).inc();
        let mut log = reporter.writer();
        for _ in 0..3 {
            writeln!(log, "a line").expect("it never fails");
        }
        reporter.finish();
        // The report of a panic may take longer than the reporter waits.
        while log.lost_lines() < 4 {
            std::thread::yield_now();
        }
        assert_eq!((log.lost_lines(), bar.counts().ended()), (4, 1));
    }
}

#[cfg(feature = "indicatif")]
#[test]
fn blocked_output_gets_the_newest_bars_after_its_release() {
    let (hold, release) = channel();
    let (send, written) = channel();
    let output = BlockedWriter {
        release,
        inner: ChannelWriter(send),
    };
    let reporter = Reporter::builder()
        .render(Render::Bar)
        .output(output)
        .start()
        .expect("a thread");
    let bar = reporter.bar("job", Total::Known(10_000));
    let counters = bar.counters();
    // Log lines are queued while the output is blocked. Frames are skipped.
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
fn render_bar_draws_bars_on_any_output() {
    let (reporter, written) = reporter(Render::Bar);
    let bar = reporter.bar("job", Total::Known(2));
    bar.counters().counter(Outcome::Done).add(1);
    let drawn = written.recv_timeout(WATCHDOG).expect("a bar");
    assert!(drawn.starts_with("job  "), "{drawn:?}");
    drop(reporter);
}

#[cfg(feature = "indicatif")]
#[test]
fn drop_erases_the_bars_even_if_log_writers_remain() {
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
fn render_bar_without_the_feature_is_an_error() {
    let error = Reporter::builder()
        .render(Render::Bar)
        .start()
        .expect_err("no bars");
    assert!(error.to_string().ends_with("ask for lines instead"), "{error}");
}

#[cfg(feature = "tracing")]
#[test]
fn tracing_subscriber_writes_through_the_writer() {
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
