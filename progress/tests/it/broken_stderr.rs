//! Jobs whose standard error is closed, full, unread, gone, or in use by another job.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::termios::{Action, LocalModes, OptionalActions};

use progress::{Outcome, Render, Reporter, Total};

use super::WATCHDOG;
use super::pseudo_terminal::{STOPPED, wait};
use super::terminal::{Terminal, command, open, resize};

/// Returns the scenario of this module with this name.
pub(crate) fn scenario(name: &str) -> Option<fn()> {
    Some(match name {
        "job" => job,
        "background" => background,
        "resumed" => resumed,
        "background_then_foreground" => background_then_foreground,
        "disabled" => disabled,
        "stopped" => stopped,
        _ => return None,
    })
}

/// The variable that names the job's renderer.
const RENDER: &str = "PROGRESS_TEST_RENDER";
/// The job's exit status.
const STATUS: i32 = 7;
const OUTPUTS: u64 = 20_000;

/// A job with outputs, an exit status, four bars and log lines.
fn job() {
    let render = std::env::var(RENDER).map_or(Render::Auto, |name| name.parse().expect("a renderer"));
    let reporter = Reporter::builder().render(render).start().expect("a thread");
    reporter.install_panic_hook();
    let bars = [0, 1, 2, 3].map(|n| reporter.bar(format!("bar {n}"), Total::Known(OUTPUTS / 4)));
    let mut log = reporter.writer();
    let mut sum = 0;
    std::thread::scope(|scope| {
        let workers: Vec<_> = bars
            .iter()
            .map(|bar| {
                let counters = bar.counters();
                scope.spawn(move || {
                    let done = counters.counter(Outcome::Done);
                    (0..OUTPUTS / 4).for_each(|_| done.inc());
                    done.get()
                })
            })
            .collect();
        for _ in 0..2000 {
            writeln!(log, "a log line of about one hundred characters, of which there are enough for any pipe or terminal to be full")
                .expect("it never fails");
        }
        sum += workers
            .into_iter()
            .map(|worker| worker.join().expect("no panic"))
            .sum::<u64>();
    });
    // A second reporter on the same terminal.
    let another = Reporter::builder().render(render).start().expect("a thread");
    another.bar("another", Total::Unknown);
    reporter.finish();
    drop(another);
    println!("{sum} outputs");
    std::process::exit(STATUS);
}

/// Runs the job with this standard error, and asserts that it writes all outputs and returns its exit status.
fn assert_job(name: &str, render: Render, stderr: impl Into<Stdio>) {
    let mut command = command("job");
    command.env(RENDER, render.to_string()).stderr(stderr);
    assert_outputs_and_status(name, command);
}

fn assert_outputs_and_status(name: &str, mut command: Command) {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    drop(command);
    let mut outputs = String::new();
    let mut stdout = child.stdout.take().expect("piped");
    let (send, ended) = channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            stdout.read_to_string(&mut outputs).expect("text");
            let status = child.wait().expect("ended");
            let _ = send.send(status);
        });
        let status = ended.recv_timeout(WATCHDOG);
        let status = status.unwrap_or_else(|_| abort(name));
        assert_eq!(status.code(), Some(STATUS), "{name}: {status}");
    });
    assert!(
        outputs.contains(&format!("{OUTPUTS} outputs\n")),
        "{name}: {outputs}"
    );
}

/// Aborts the test, because there is no other way to end the thread that waits for the child.
fn abort(name: &str) -> ExitStatus {
    eprintln!("{name}: the job hangs");
    std::process::abort()
}

const RENDERS: [Render; 3] = [Render::Bar, Render::Lines, Render::JsonLines];

#[test]
fn job_with_an_unread_stderr_succeeds() {
    for render in RENDERS {
        let (unread, stderr) = std::io::pipe().expect("a pipe");
        assert_job("unread", render, stderr);
        drop(unread);
    }
}

#[test]
fn job_with_an_unread_nonblocking_stderr_succeeds() {
    let (unread, stderr) = std::io::pipe().expect("a pipe");
    rustix::fs::fcntl_setfl(&stderr, OFlags::NONBLOCK).expect("set");
    assert_job("nonblocking", Render::Bar, stderr);
    drop(unread);
}

#[test]
fn job_with_a_broken_pipe_as_stderr_succeeds() {
    for render in RENDERS {
        let (reader, stderr) = std::io::pipe().expect("a pipe");
        drop(reader);
        assert_job("broken", render, stderr);
    }
}

#[test]
fn job_with_a_full_stderr_succeeds() {
    for render in RENDERS {
        let full = OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .expect("the device exists");
        assert_job("full", render, full);
    }
}

#[test]
fn job_with_a_closed_stderr_succeeds() {
    for render in RENDERS {
        let job = command("job");
        let mut shell = Command::new("sh");
        shell
            .args(["-c", "exec \"$@\" 2>&-", "sh"])
            .arg(job.get_program())
            .args(job.get_args());
        for (name, value) in job.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell.env(RENDER, render.to_string());
        assert_outputs_and_status("closed", shell);
    }
}

#[test]
fn job_on_a_terminal_that_is_gone_succeeds() {
    for render in RENDERS {
        let (device, stderr) = open();
        resize(&device, (80, 24));
        drop(device);
        assert_job("dead", render, stderr);
    }
}

#[test]
fn job_on_a_held_terminal_succeeds() {
    for render in RENDERS {
        let (device, stderr) = open();
        resize(&device, (80, 24));
        // Ctrl-S.
        rustix::termios::tcflow(&stderr, Action::OOff).expect("held");
        assert_job("held", render, stderr);
        drop(device);
    }
}

/// Makes this process the leader of a session on the terminal on standard error, with `stty tostop`.
fn lead_session() {
    let terminal = std::io::stderr();
    rustix::process::setsid().expect("this process leads no group");
    rustix::process::ioctl_tiocsctty(&terminal).expect("the session's");
    let mut modes = rustix::termios::tcgetattr(&terminal).expect("a terminal");
    modes.local_modes |= LocalModes::TOSTOP;
    rustix::termios::tcsetattr(&terminal, OptionalActions::Now, &modes).expect("set");
}

/// A session whose job runs in the background.
fn background() {
    lead_session();
    let mut job = command("job");
    let job = job
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("started");
    std::process::exit(status_unless_stopped(&job));
}

/// A session that moves a job from the background to the foreground.
fn resumed() {
    lead_session();
    let mut job = command("background_then_foreground");
    let mut job = job
        .process_group(0)
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let stdout = BufReader::new(job.stdout.take().expect("piped"));
    for line in stdout.lines() {
        if line.expect("text").ends_with("in the background") {
            // The job may draw as soon as it is in the foreground.
            eprintln!("to the foreground");
            rustix::termios::tcsetpgrp(std::io::stderr(), Pid::from_child(&job)).expect("its foreground");
        }
    }
    assert_eq!(job.wait().expect("not stopped").code(), Some(STATUS));
}

/// Shows a bar in the background for some drawings, and then in the foreground until the test lets it end.
fn background_then_foreground() {
    let reporter = Reporter::builder().start().expect("a thread");
    let bar = reporter.bar("job", Total::Known(8));
    std::thread::sleep(Duration::from_millis(500));
    writeln!(reporter.writer(), "log line 0").expect("written");
    println!("in the background");
    let group = rustix::process::getpgrp();
    while rustix::termios::tcgetpgrp(std::io::stderr()).expect("a terminal") != group {
        std::thread::yield_now();
    }
    writeln!(reporter.writer(), "log line 1").expect("written");
    wait();
    bar.finish();
    reporter.finish();
    std::process::exit(STATUS);
}

#[test]
fn bars_are_drawn_only_in_the_foreground() {
    let mut terminal = Terminal::start("resumed", 80, &[]);
    terminal.until(|rows| rows.len() == 4 && rows[2] == "log line 1" && rows[3].starts_with("job  ░"));
    let (background, foreground) = terminal.raw.split_once("to the foreground").expect("the line");
    assert_eq!(background, "log line 0\r\n");
    assert!(foreground.contains("░"), "{foreground:?}");
    terminal.go_on();
    let (rows, _) = terminal.end();
    assert!(rows.len() == 4 && rows[3].contains("took"), "{rows:?}");
}

fn status_unless_stopped(job: &Child) -> i32 {
    let pid = Pid::from_child(job);
    let status = rustix::process::waitpid(Some(pid), WaitOptions::UNTRACED);
    let (_, status) = status.expect("a child").expect("it changed");
    if status.stopped() {
        println!("stopped by signal {:?}", status.stopping_signal());
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
    status.exit_status().unwrap_or(1)
}

#[test]
fn background_job_is_not_stopped_and_draws_no_bars() {
    let (mut device, slave) = open();
    resize(&device, (80, 24));
    let mut session = command("background");
    session.stderr(slave);
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = device.read(&mut buffer) {
            all.extend_from_slice(&buffer[..n]);
        }
        String::from_utf8_lossy(&all).into_owned()
    });
    assert_outputs_and_status("background", session);
    let all = reader.join().expect("no panic");
    assert_eq!(all.matches("a log line").count(), 2000);
    // Last lines are written, but no frames.
    assert_eq!(all.matches("5000/5000 (100 %)").count(), 4, "{all:?}");
    assert!(!all.contains("\u{1b}[J") && !all.contains("\u{1b}[K"), "{all:?}");
}

/// A worker process, whose leader draws.
fn disabled() {
    progress::disable_drawing();
    for render in [Render::Auto, Render::Bar, Render::Lines, Render::JsonLines] {
        let reporter = Reporter::builder()
            .render(render)
            .start()
            .expect("no thread to start");
        let bar = reporter.bar("job", Total::Known(3));
        bar.counters().counter(Outcome::Done).inc();
        writeln!(reporter.writer(), "log line").expect("written");
        reporter.finish();
        assert_eq!(bar.counts().ended(), 1);
    }
}

#[test]
fn process_with_disabled_drawing_only_writes_log_lines() {
    let (rows, raw) = Terminal::start("disabled", 80, &[]).end();
    assert_eq!(rows, ["log line"; 4], "{raw:?}");
    assert!(!raw.contains('\u{1b}'), "{raw:?}");
}

/// A job that the test stops and continues.
fn stopped() {
    let reporter = Reporter::builder()
        .render(Render::JsonLines)
        .start()
        .expect("a thread");
    let bar = reporter.bar("job", Total::Known(100));
    bar.counters().counter(Outcome::Done).add(10);
    let mut log = reporter.writer();
    writeln!(log, "ready").expect("written");
    wait();
    bar.finish();
    reporter.finish();
}

#[test]
fn time_does_not_count_while_the_process_is_stopped() {
    let before = std::time::Instant::now();
    // The terminal is wide enough for one JSON line.
    let mut terminal = Terminal::start("stopped", 1000, &[]);
    terminal.until(|rows| rows.iter().any(|row| row == "ready"));
    terminal.signal(Signal::STOP);
    std::thread::sleep(STOPPED);
    terminal.signal(Signal::CONT);
    terminal.go_on();
    let (rows, _) = terminal.end();
    let last: serde_json::Value = serde_json::from_str(rows.last().expect("a line")).expect("JSON");
    assert_eq!(last["state"], "finished");
    let elapsed = last["elapsed_seconds"].as_f64().expect("a number");
    let ran = before.elapsed().saturating_sub(STOPPED).as_secs_f64();
    // A part of the stop up to the clock's threshold may count.
    assert!(elapsed <= ran + 1.0, "{elapsed} s of {ran} s");
    assert_eq!(last["position"], 10);
}
