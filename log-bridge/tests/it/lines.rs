//! What a child prints, as events.

use std::io::{self, Read};

use log_bridge::{Lines, Source, Stdio};
use tracing::Level;

use crate::support::{Capture, Seen};

fn captured(text: &[u8], lines: Lines) -> (Vec<Seen>, log_bridge::Captured) {
    let capture = Capture::default();
    let captured = lines.dispatch(capture.dispatch()).run(text).unwrap();
    (capture.take(), captured)
}

#[test]
fn lines_become_events_below_the_worker() {
    let stdout = Lines::new(Source::new(7), Stdio::Stdout);
    let (seen, captured) = captured(b"one\r\n\nbad \xff\nlast", stdout);
    let fields: Vec<_> = seen.iter().map(|seen| seen.fields.as_str()).collect();
    let expected = ["one", "", "bad \u{fffd}", "last"].map(|line| format!("[message debug {line}]"));
    assert_eq!(fields, expected);
    assert_eq!((captured.lines, captured.truncated), (4, 0));
    assert!(
        seen.iter()
            .all(|seen| seen.level == Level::INFO && seen.metadata.contains(" stdout "))
    );
    assert!(seen[0].spans[0].ends_with("[id u64 7]"), "{seen:?}");
}

#[test]
fn long_lines_are_cut_and_what_follows_is_not() {
    let stderr = Lines::new(Source::new(7), Stdio::Stderr).max_line(16);
    let mut text = vec![b'x'; 100_000];
    text.extend_from_slice(b"\nexactly sixteen.\nexactly sixteen.\r\nseventeen letters\nshort\n");
    let (seen, captured) = captured(&text, stderr.clone());
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
    assert_eq!((captured.lines, captured.truncated), (5, 2));
    assert!(
        seen.iter()
            .all(|seen| seen.level == Level::WARN && seen.metadata.contains(" stderr "))
    );
    let (seen, _) = self::captured(b"x", stderr.level(Level::TRACE));
    assert_eq!(seen[0].level, Level::TRACE);
}

#[test]
fn what_was_read_before_an_error_was_emitted() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let capture = Capture::default();
    let lines = Lines::new(Source::new(7), Stdio::Stdout).dispatch(capture.dispatch());
    let error = lines.run(b"one\n".chain(Broken)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(capture.take().len(), 1);
}

#[test]
fn of_a_line_that_is_written_again_and_again_the_last_state_counts() {
    let stdout = Lines::new(Source::new(7), Stdio::Stdout).max_line(16);
    let (seen, captured) = captured(b"10 %\r20 % of a long line\r30 %\r\nnext\r\n\r40 %\r", stdout);
    let fields: Vec<_> = seen.iter().map(|seen| seen.fields.as_str()).collect();
    let expected = ["30 %", "next", "40 %"].map(|line| format!("[message debug {line}]"));
    assert_eq!(fields, expected);
    assert_eq!((captured.lines, captured.truncated), (3, 0));
}
