//! A bar and a flood of worker logs on one real terminal.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::batch_eval::{program, ratings};

/// A watchdog, not an expectation.
const LONG: Duration = Duration::from_secs(60);

const ROWS: u16 = 24;
/// Columns for the longest log line.
const COLUMNS: u16 = 160;
/// More rows than are ever written.
const SCROLLBACK: usize = 1_000_000;

const USERS: u64 = 60;
/// Enough tasks for a bar that is drawn more than once.
const REPEAT: u64 = if cfg!(debug_assertions) { 60 } else { 2000 };

pub(crate) fn terminal() -> (File, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).expect("a pseudo-terminal");
    grantpt(&master).expect("granted");
    unlockpt(&master).expect("unlocked");
    let name = ptsname(&master, Vec::new()).expect("a name");
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let slave = rustix::fs::open(name, flags, Mode::empty()).expect("opened");
    let size = Winsize {
        ws_col: COLUMNS,
        ws_row: ROWS,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&slave, size).expect("sized");
    (File::from(master), slave)
}

/// Returns the visible rows, up to the last one that is used.
fn in_view(screen: &vt100::Screen) -> Vec<String> {
    let mut rows: Vec<String> = screen
        .rows(0, COLUMNS)
        .map(|row| row.trim_end().to_owned())
        .collect();
    let used = rows.iter().rposition(|row| !row.is_empty());
    rows.truncate(used.map_or(0, |last| last + 1));
    rows
}

/// Returns all rows that were not erased, from the first to the last, scrolled ones included.
fn all_rows(parser: &mut vt100::Parser) -> Vec<String> {
    let screen = parser.screen_mut();
    screen.set_scrollback(usize::MAX);
    let mut above = screen.scrollback();
    let mut rows = Vec::new();
    while above > 0 {
        screen.set_scrollback(above);
        let visible = screen.rows(0, COLUMNS).take(above.min(ROWS.into()));
        rows.extend(visible.map(|row| row.trim_end().to_owned()));
        above = above.saturating_sub(ROWS.into());
    }
    screen.set_scrollback(0);
    rows.extend(in_view(screen));
    rows
}

fn is_bar(row: &str) -> bool {
    row.starts_with("evaluate ") || row.contains(['█', '░'])
}

fn is_finished(row: &str) -> bool {
    let tasks = USERS * REPEAT;
    row.starts_with("evaluate  █")
        && !row.contains('░')
        && row.contains(&format!("  {tasks}/{tasks} (100 %), "))
        && row.contains(", took ")
}

/// Returns whether a row is exactly one line of the log, from its time to its last field.
fn is_whole(row: &str) -> bool {
    let mut words = row.split_whitespace().peekable();
    let time = words.next().unwrap_or_default();
    let level = words.next().unwrap_or_default();
    let of_worker = words.next_if(|word| word.starts_with("worker{")).is_some();
    let target = words.next().unwrap_or_default();
    let begins = time.len() == "2026-01-01T00:00:00.000000Z".len()
        && time.ends_with('Z')
        && ["DEBUG", "INFO", "WARN", "ERROR"].contains(&level)
        && target.ends_with(':');
    let rest: Vec<&str> = words.collect();
    let fields = |fields: &[&str], wanted: &[&str]| {
        let names = fields
            .iter()
            .map(|field| field.split_once('=').map(|(name, _)| name));
        names.eq(wanted.iter().map(|name| Some(*name)))
    };
    begins
        && match rest.as_slice() {
            ["evaluated", rest @ ..] => of_worker && fields(rest, &["user", "rated", "recommended", "ndcg"]),
            others => !others.is_empty() && !others.contains(&"evaluated"),
        }
}

#[test]
fn a_flood_of_logs_does_not_garble_the_bar() {
    let _watchdog = crate::watchdog::watchdog(120);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let ratings = ratings(dir.path());
    let (mut device, slave) = terminal();
    let mut command = Command::new(program());
    command
        .args([
            "--ratings",
            &ratings,
            "--repeat",
            &REPEAT.to_string(),
            "--workers",
            "2",
        ])
        .args(["--progress", "bar", "--log", "debug", "--report", "json"])
        .envs([("TERM", "xterm"), ("LC_ALL", "C.UTF-8")])
        .env_remove("CI")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::from(slave));
    let mut child = command.spawn().expect("it starts");
    // It holds the other end of the terminal, which must close when the child and its workers end.
    drop(command);
    let mut stdout = child.stdout.take().expect("it is piped");
    let report = std::thread::spawn(move || {
        let mut report = String::new();
        stdout.read_to_string(&mut report).map(|_| report)
    });
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

    let mut parser = vt100::Parser::new(ROWS, COLUMNS, SCROLLBACK);
    let mut running_below_logs = 0;
    while let Ok(bytes) = receive.recv_timeout(LONG) {
        // Checks the screen before each erasure, so that incomplete drawings are seen too.
        for part in bytes.split_inclusive(|byte| *byte == b'\r') {
            parser.process(part);
            let rows = in_view(parser.screen());
            let above = &rows[..rows.len().saturating_sub(1)];
            assert!(
                above.iter().all(|row| !is_bar(row)),
                "the bar is not in the last row\n{}",
                rows.join("\n")
            );
            let running = rows.last().is_some_and(|row| row.contains("ETA"));
            running_below_logs += u32::from(running && rows.len() == usize::from(ROWS));
        }
    }
    assert!(child.wait().expect("no error").success());
    let report = report.join().expect("no panic").expect("readable");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    assert!(
        running_below_logs > 0,
        "no bar was seen below a full screen of logs"
    );

    let (bars, logs): (Vec<String>, Vec<String>) =
        all_rows(&mut parser).into_iter().partition(|row| is_bar(row));
    // There is one bar, finished, and no part of earlier drawings.
    assert!(bars.len() == 1 && is_finished(&bars[0]), "{bars:?}");
    for row in &logs {
        assert!(is_whole(row), "this row is not a whole log line\n{row}");
    }
    let of_workers = logs.iter().filter(|row| row.contains(" batch_eval::op: "));
    let counts = &report["run"]["logs"];
    assert_eq!(
        Some(of_workers.count() as u64),
        counts["delivered"].as_u64(),
        "{counts}"
    );
}
