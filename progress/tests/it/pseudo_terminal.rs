//! A real terminal device: the test runs its own binary again on one, and asserts the screen.

use std::fs::File;
use std::io::{BufRead, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

use indicatif::{InMemoryTerm, TermLike};
use progress::{Outcome, Reporter, Total};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::WATCHDOG;

const CHILD: &str = "PROGRESS_TEST_CHILD";

/// Draws a bar, and when told to, logs and finishes.
#[test]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let reporter = Reporter::builder().start().expect("a thread");
    let bar = reporter.bar("job", Total::Known(8));
    let counters = bar.counters();
    counters.counter(Outcome::Done).add(4);
    wait();
    let mut log = reporter.writer();
    for n in 0..2 {
        writeln!(log, "log line {n}").expect("written");
    }
    wait();
    counters.counter(Outcome::Done).add(4);
    reporter.finish();
}

fn wait() {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).expect("told");
}

fn terminal(columns: u16, rows: u16) -> (File, OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
    grantpt(&master).expect("granted");
    unlockpt(&master).expect("unlocked");
    let name = ptsname(&master, Vec::new()).expect("a name");
    let slave = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("opened");
    let size = Winsize {
        ws_col: columns,
        ws_row: rows,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&slave, size).expect("sized");
    (File::from(master), slave)
}

#[test]
fn a_bar_and_log_lines_on_a_real_terminal() {
    let (mut master, slave) = terminal(60, 10);
    let mut child = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "pseudo_terminal::child", "--nocapture"])
        .envs([
            (CHILD, "1"),
            ("TERM", "xterm"),
            ("NO_COLOR", "1"),
            ("LC_ALL", "C.UTF-8"),
        ])
        .env_remove("CI")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::from(slave))
        .spawn()
        .expect("started");
    let mut tell = child.stdin.take().expect("piped");

    let (send, receive) = channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        // At its end, Linux gives an error instead of nothing.
        while let Ok(n @ 1..) = master.read(&mut buffer) {
            if send.send(buffer[..n].to_vec()).is_err() {
                return;
            }
        }
    });
    let screen = InMemoryTerm::new(10, 60);
    let mut bytes = Vec::new();
    let mut read_until = |done: &dyn Fn(&str) -> bool| {
        while !done(&screen.contents()) {
            match receive.recv_timeout(WATCHDOG) {
                Ok(more) => bytes.extend(more),
                Err(_) => break,
            }
            // Reads may end within a character.
            let valid = match std::str::from_utf8(&bytes) {
                Ok(text) => text.len(),
                Err(error) => error.valid_up_to(),
            };
            let text: Vec<u8> = bytes.drain(..valid).collect();
            let text = String::from_utf8(text).expect("checked");
            screen.write_str(&text).expect("in memory");
        }
        screen.contents()
    };

    let drawn = read_until(&|screen| screen.contains("4/8"));
    assert!(drawn.starts_with("job  ") && drawn.contains("█░"), "{drawn}");
    tell.write_all(b"\n").expect("told");
    let drawn = read_until(&|screen| screen.contains("line 1") && screen.contains("4/8"));
    let lines: Vec<&str> = drawn.lines().collect();
    assert_eq!(
        (lines.len(), &lines[..2]),
        (3, &["log line 0", "log line 1"][..]),
        "{drawn}"
    );
    tell.write_all(b"\n").expect("told");
    let drawn = read_until(&|_| false);
    let lines: Vec<&str> = drawn.lines().collect();
    assert_eq!(
        (lines.len(), &lines[..2]),
        (3, &["log line 0", "log line 1"][..]),
        "{drawn}"
    );
    assert!(
        lines[2].starts_with("job  █") && lines[2].contains("8/8 (100 %)"),
        "{drawn}"
    );
    assert!(child.wait().expect("ended").success());
}
