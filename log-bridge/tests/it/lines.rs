//! Printed lines as events.

use std::io::{self, Read};

use log_bridge::{LineLogger, LineSummary, Source, StdStream};
use tracing::Level;

use crate::support::{Capture, Seen};

fn log_lines(text: &[u8], logger: LineLogger) -> (Vec<Seen>, LineSummary) {
    let capture = Capture::default();
    let summary = logger.dispatch(capture.dispatch()).run(text).unwrap();
    (capture.take(), summary)
}

#[test]
fn lines_become_events_in_the_worker_span() {
    let stdout = LineLogger::new(Source::new(7), StdStream::Stdout);
    let (seen, summary) = log_lines(b"one\r\n\nbad \xff\nlast", stdout);
    let fields: Vec<_> = seen.iter().map(|seen| seen.fields.as_str()).collect();
    let expected = ["one", "", "bad \u{fffd}", "last"].map(|line| format!("[message debug {line}]"));
    assert_eq!(fields, expected);
    assert_eq!((summary.lines, summary.truncated), (4, 0));
    assert!(
        seen.iter()
            .all(|seen| seen.level == Level::INFO && seen.metadata.contains(" stdout "))
    );
    assert!(seen[0].spans[0].ends_with("[id u64 7]"), "{seen:?}");
}

#[test]
fn long_lines_are_truncated_and_the_next_ones_are_complete() {
    let stderr = LineLogger::new(Source::new(7), StdStream::Stderr).max_line(16);
    let mut text = vec![b'x'; 100_000];
    text.extend_from_slice(b"\nexactly sixteen.\nexactly sixteen.\r\nseventeen letters\nshort\n");
    let (seen, summary) = log_lines(&text, stderr.clone());
    let fields: Vec<_> = seen.iter().map(|seen| seen.fields.as_str()).collect();
    assert_eq!(
        fields,
        [
            "[message debug xxxxxxxxxxxxxxxx…[truncated]]",
            "[message debug exactly sixteen.]",
            "[message debug exactly sixteen.]",
            "[message debug seventeen letter…[truncated]]",
            "[message debug short]",
        ]
    );
    assert_eq!((summary.lines, summary.truncated), (5, 2));
    assert!(
        seen.iter()
            .all(|seen| seen.level == Level::WARN && seen.metadata.contains(" stderr "))
    );
    let (seen, _) = log_lines(b"x", stderr.level(Level::TRACE));
    assert_eq!(seen[0].level, Level::TRACE);
}

#[test]
fn lines_before_a_read_error_are_emitted() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let capture = Capture::default();
    let logger = LineLogger::new(Source::new(7), StdStream::Stdout).dispatch(capture.dispatch());
    let error = logger.run(b"one\n".chain(Broken)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(capture.take().len(), 1);
}

#[test]
fn text_after_a_carriage_return_replaces_the_line() {
    let stdout = LineLogger::new(Source::new(7), StdStream::Stdout).max_line(16);
    let (seen, summary) = log_lines(b"10 %\r20 % of a long line\r30 %\r\nnext\r\n\r40 %\r", stdout);
    let fields: Vec<_> = seen.iter().map(|seen| seen.fields.as_str()).collect();
    let expected = ["30 %", "next", "40 %"].map(|line| format!("[message debug {line}]"));
    assert_eq!(fields, expected);
    assert_eq!((summary.lines, summary.truncated), (3, 0));
}
