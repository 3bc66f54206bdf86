//! The ready-made subscribers.

use std::io;
use std::sync::{Arc, Mutex};

use log_bridge::Filter;
use log_bridge::setup::{self, Color, Files, Format, Roll};
use tracing::Dispatch;
use tracing::dispatcher::with_default;

use crate::support::{Bridge, bridge};

#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl io::Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn filter() -> Filter {
    "warn,chatty=debug".parse().unwrap()
}

/// Emits in a worker.
fn bridged(leader: Dispatch) {
    let Bridge {
        worker,
        mut collector,
    } = bridge(1 << 16, leader);
    with_default(&worker, || {
        tracing::info!("no");
        tracing::warn!(n = 1, "yes");
        tracing::debug!(target: "chatty", "yes, too");
    });
    collector.drain();
    collector.remove(3);
}

fn printed(leader: impl FnOnce(Screen) -> Dispatch) -> String {
    let screen = Screen::default();
    bridged(leader(screen.clone()));
    let bytes = screen.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_terminal_has_lines_for_people() {
    let with = |color| {
        printed(move |screen| Dispatch::new(setup::terminal(&filter(), move || screen.clone(), color)))
    };
    let plain = with(Color::Never);
    let lines: Vec<_> = plain.lines().collect();
    assert_eq!(lines.len(), 2, "{plain}");
    assert!(
        lines[0].contains("Z  WARN worker{id=3}: it::setup: yes n=1"),
        "{plain}"
    );
    assert!(
        lines[1].contains("DEBUG worker{id=3}: chatty: yes, too"),
        "{plain}"
    );
    assert!(with(Color::Always).contains('\u{1b}'));
    assert!(!plain.contains('\u{1b}'));
}

#[test]
fn json_lines_are_objects() {
    let text = printed(|screen| Dispatch::new(setup::json_lines(&filter(), move || screen.clone())));
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["level"], "WARN");
    assert_eq!(lines[0]["fields"]["n"], 1);
    assert_eq!(lines[0]["spans"][0]["id"], 3);
    assert!(lines[1]["timestamp"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn files_are_complete_once_the_guard_is_gone() {
    for format in [Format::Text, Format::Json] {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("made/for/it");
        let files = Files::new(&inner, "run").roll(Roll::Never).keep(3).format(format);
        let (subscriber, guard) = files.build(&filter()).unwrap();
        bridged(Dispatch::new(subscriber));
        assert_eq!(guard.lost_lines(), 0);
        drop(guard);
        let text = std::fs::read_to_string(inner.join("run.log")).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert_eq!(text.starts_with('{'), format == Format::Json);
    }
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let inner = file.path().join("below a file");
    let Err(error) = Files::new(&inner, "run").build(&filter()) else {
        panic!("made a directory below a file");
    };
    assert!(error.to_string().contains("below a file"), "{error}");
    assert!(std::error::Error::source(&error).is_some());
}
