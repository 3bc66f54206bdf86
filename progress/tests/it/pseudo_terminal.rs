//! Bars on a real terminal device: a test runs its own binary on it as a child, and compares the screen.

use std::io::{BufRead, Write};
use std::time::Duration;

use rustix::process::Signal;
use rustix::termios::Action;

use progress::{Bar, Counters, Outcome, Reporter, Total};

use super::broken_stderr;
use super::terminal::{SCENARIO, Terminal};

/// A stop that is longer than any delay of a busy machine, so that the reporter notices it.
pub(crate) const STOPPED: Duration = Duration::from_secs(3);

/// Runs a scenario as a child. Each line on its standard input lets it continue.
#[test]
fn child() {
    let Ok(scenario) = std::env::var(SCENARIO) else {
        return;
    };
    if let Some(scenario) = broken_stderr::scenario(&scenario) {
        return scenario();
    }
    let reporter = Reporter::builder().start().expect("a thread");
    match scenario.as_str() {
        "single" => single(&reporter),
        "nested" => nested(&reporter),
        "workers" => workers(&reporter),
        "unknown" => unknown(&reporter),
        "idle" => idle(&reporter),
        "several" => several(&reporter),
        "panic" => panic_below_bars(&reporter),
        _ => panic!("no scenario {scenario}"),
    }
    reporter.finish();
}

/// Waits for the test's [`Terminal::go_on`].
pub(crate) fn wait() {
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .expect("standard input");
}

fn single(reporter: &Reporter) {
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
}

fn nested(reporter: &Reporter) {
    let run = reporter.bar("run", Total::Known(2));
    let part = Bar::new("load", Total::Known(10));
    reporter.add_nested(&run, &part);
    reporter.bar("other", Total::Known(5));
    part.counters().counter(Outcome::Done).add(5);
    wait();
    part.finish();
    run.counters().counter(Outcome::Done).add(1);
    wait();
}

/// Two writers with lines of their own. One dies in a task and is replaced. Its last result is lost, and the task is
/// done again.
fn workers(reporter: &Reporter) {
    let bar = reporter.bar("train", Total::Known(4));
    let writers = [0, 1].map(|n| {
        let counters = Counters::in_process();
        let source = bar.add_labeled_source(format!("worker {n}"), counters.slots());
        (counters, source)
    });
    let [(alive, _), (dead, source)] = writers;
    alive.counter(Outcome::Done).inc();
    dead.counter(Outcome::Done).inc();
    dead.step(50, Total::Known(100));
    source.set_message("node 7");
    wait();
    source.retire_with(progress::Counts::default());
    wait();
    let again = Counters::in_process();
    let source = bar.add_labeled_source("worker 1", again.slots());
    again.step(25, Total::Known(100));
    wait();
    again.counter(Outcome::Done).add(2);
    source.retire();
    alive.counter(Outcome::Done).inc();
}

fn unknown(reporter: &Reporter) {
    let bar = reporter.bar("stream", Total::Unknown);
    bar.counters().counter(Outcome::Done).add(9);
    bar.set_message("from a pipe");
    wait();
    bar.set_total(Total::Known(18));
    bar.set_message("");
    wait();
}

/// Bars whose counts do not change, so that only changes of the terminal redraw them.
fn idle(reporter: &Reporter) {
    let job = reporter.bar("job", Total::Known(8));
    reporter.add_nested(&job, &Bar::new("part", Total::Known(3)));
    let mut log = reporter.writer();
    for n in 0..4 {
        writeln!(log, "log line {n}").expect("written");
        wait();
    }
}

/// Independent reporters on one terminal.
fn several(first: &Reporter) {
    let start = || Reporter::builder().start().expect("a thread");
    let second = start();
    first.bar("first", Total::Known(3));
    let mut log = second.writer();
    second.bar("second", Total::Known(3));
    wait();
    writeln!(log, "log line 0").expect("written");
    second.finish();
    wait();
    // The writer of an ended reporter writes above the bars of the next one.
    let third = start();
    third.bar("third", Total::Known(3));
    wait();
    writeln!(log, "log line 1").expect("written");
    third.suspend(|| eprintln!("another writer"));
    wait();
    drop(third);
    wait();
}

/// A panic of another thread while bars are drawn, and other output within `suspend`.
fn panic_below_bars(reporter: &Reporter) {
    let bars = [0, 1, 2, 3].map(|n| reporter.bar(format!("bar {n}"), Total::Known(9)));
    wait();
    reporter.install_panic_hook();
    // The second call has no effect.
    reporter.install_panic_hook();
    let panicked = std::thread::spawn(|| panic!("the first line\nthe second line")).join();
    assert!(panicked.is_err());
    wait();
    reporter.suspend(|| eprintln!("another writer"));
    bars.iter().for_each(Bar::finish_and_clear);
    wait();
}

const PLAIN: &[(&str, &str)] = &[("NO_COLOR", "1")];

/// Whether each row starts with the text of the same index in `begins`, and there are no other rows.
fn start_with(rows: &[String], begins: &[&str]) -> bool {
    rows.len() == begins.len() && rows.iter().zip(begins).all(|(row, begin)| row.starts_with(begin))
}

#[test]
fn log_lines_are_written_above_a_bar() {
    let mut terminal = Terminal::start("single", 60, PLAIN);
    let rows = terminal.until(|rows| start_with(rows, &["job  "]) && rows[0].contains("4/8 (50.0 %)"));
    assert!(rows[0].contains("█░"), "{rows:?}");
    terminal.go_on();
    let logs = ["log line 0", "log line 1", "job  "];
    let rows = terminal.until(|rows| start_with(rows, &logs) && rows[2].contains("4/8"));
    assert_eq!(rows[..2], logs[..2]);
    terminal.go_on();
    let (rows, raw) = terminal.end();
    assert!(
        start_with(&rows, &["log line 0", "log line 1", "job  █"]),
        "{rows:?}"
    );
    assert!(
        rows[2].contains("8/8 (100 %)") && rows[2].contains("took"),
        "{rows:?}"
    );
    assert!(!raw.contains("\u{1b}[3"), "no colours: {raw:?}");
}

#[test]
fn terminal_that_was_held_gets_missed_lines_and_the_newest_bar() {
    let mut terminal = Terminal::start("single", 80, PLAIN);
    terminal.until(|rows| start_with(rows, &["job  "]) && rows[0].contains("4/8 (50.0 %)"));
    terminal.flow(Action::OOff);
    terminal.go_on();
    // The job waits for a shorter time.
    std::thread::sleep(Duration::from_millis(500));
    terminal.flow(Action::OOn);
    let logs = ["log line 0", "log line 1", "job  "];
    terminal.until(|rows| start_with(rows, &logs) && rows[2].contains("4/8"));
    terminal.go_on();
    let (rows, _) = terminal.end();
    assert!(
        start_with(&rows, &logs) && rows[2].contains("8/8 (100 %)"),
        "{rows:?}"
    );
}

#[test]
fn nested_bar_follows_its_parent_and_moves_up_when_finished() {
    let mut terminal = Terminal::start("nested", 80, PLAIN);
    let begins = ["run     ░", "  load  █", "other   ░"];
    terminal.until(|rows| start_with(rows, &begins) && rows[1].contains("5/10 (50.0 %)"));
    terminal.go_on();
    let ended = ["  load  █", "run    █", "other  ░"];
    terminal.until(|rows| start_with(rows, &ended) && rows[0].contains("took") && rows[1].contains("1/2"));
    terminal.go_on();
    let (rows, _) = terminal.end();
    assert!(
        start_with(&rows, &["  load  █", "run    █", "other  ░"]),
        "{rows:?}"
    );
    assert!(rows.iter().all(|row| row.contains("took")), "{rows:?}");
}

#[test]
fn line_of_a_dead_worker_is_removed_and_taken_by_its_replacement() {
    let mut terminal = Terminal::start("workers", 100, PLAIN);
    let both = ["train       █", "  worker 0  ", "  worker 1  █"];
    let rows = terminal.until(|rows| start_with(rows, &both) && rows[2].contains("at 50/100"));
    assert!(
        rows[0].contains("2/4 (62.5 %)") && rows[2].ends_with("node 7"),
        "{rows:?}"
    );
    terminal.go_on();
    let one = ["train       █", "  worker 0  "];
    let rows = terminal.until(|rows| start_with(rows, &one));
    // The bar does not move back by the lost result.
    assert!(rows[0].contains("2/4 (62.5 %)"), "{rows:?}");
    terminal.go_on();
    let rows = terminal.until(|rows| start_with(rows, &both) && rows[2].contains("at 25/100"));
    assert!(
        rows[0].contains("2/4 (62.5 %)") && !rows[2].contains("node"),
        "{rows:?}"
    );
    terminal.go_on();
    let (rows, _) = terminal.end();
    assert!(
        start_with(&rows, &["train  █"]) && rows[0].contains("4/4 (100 %)"),
        "{rows:?}"
    );
}

#[test]
fn unknown_total_has_no_bar_and_shows_a_message() {
    let mut terminal = Terminal::start("unknown", 80, PLAIN);
    let rows = terminal
        .until(|rows| start_with(rows, &["stream  9, "]) && rows[0].ends_with("elapsed, from a pipe"));
    assert!(!rows[0].contains(['█', '░']), "{rows:?}");
    terminal.go_on();
    terminal.until(|rows| start_with(rows, &["stream  █"]) && rows[0].contains("9/18 (50.0 %)"));
    terminal.go_on();
    let (rows, _) = terminal.end();
    assert!(
        start_with(&rows, &["stream  █"]) && rows[0].contains("took"),
        "{rows:?}"
    );
}

#[test]
fn narrow_terminal_has_lines_without_bars() {
    let mut terminal = Terminal::start("idle", 20, PLAIN);
    let rows = terminal.until(|rows| rows.len() == 3);
    assert_eq!(rows, ["log line 0", "job     0/8 (0.0 %)", "  part  0/3 (0.0 %)"]);
    (0..4).for_each(|_| terminal.go_on());
    let (rows, _) = terminal.end();
    let logs = ["log line 0", "log line 1", "log line 2", "log line 3"];
    assert_eq!(rows[..4], logs);
    assert!(
        start_with(&rows[4..], &["job     0/8 (0.0 %)", "  part  0/3 (0.0 %)"]),
        "{rows:?}"
    );
}

#[test]
fn resized_terminal_is_redrawn() {
    let job = |blanks: usize| format!("job     {}  0/8 (0.0 %)", "░".repeat(blanks));
    let part = |blanks: usize| format!("  part  {}  0/3 (0.0 %)", "░".repeat(blanks));
    let mut terminal = Terminal::start("idle", 80, PLAIN);
    terminal.until(|rows| *rows == ["log line 0".to_owned(), job(40), part(40)]);
    // The resize alone redraws the bars.
    terminal.resize(40);
    terminal.until(|rows| *rows == ["log line 0".to_owned(), job(15), part(15)]);
    terminal.go_on();
    let logs = ["log line 0", "log line 1"].map(str::to_owned);
    terminal.until(|rows| rows.starts_with(&logs) && rows[2..] == [job(15), part(15)]);
    // A log line is written while the bars still have the old width.
    terminal.resize(30);
    terminal.go_on();
    let narrow = ["job     0/8 (0.0 %)", "  part  0/3 (0.0 %)"];
    let rows = terminal.until(|rows| rows.len() == 5 && rows[3..] == narrow);
    assert_eq!(rows[..3], ["log line 0", "log line 1", "log line 2"]);
    // This emulator does not join wrapped lines when it becomes wider. On one that does, one line of the old bars may
    // stay.
    terminal.resize(80);
    let rows = terminal.until(|rows| rows.ends_with(&[job(40), part(40)]));
    assert_eq!(rows[..3], ["log line 0", "log line 1", "log line 2"]);
    assert!(rows.len() <= 6, "{rows:?}");
    (0..2).for_each(|_| terminal.go_on());
    let (rows, _) = terminal.end();
    assert_eq!(rows[rows.len() - 3], "log line 3", "{rows:?}");
}

#[test]
fn several_reporters_share_a_terminal() {
    let mut terminal = Terminal::start("several", 80, PLAIN);
    terminal.until(|rows| start_with(rows, &["first   ░", "second  ░"]));
    terminal.go_on();
    terminal.until(|rows| start_with(rows, &["log line 0", "second", "first"]) && rows[1].contains("took"));
    terminal.go_on();
    terminal.until(|rows| start_with(rows, &["log line 0", "second", "first", "third"]));
    terminal.go_on();
    let logs = ["log line 0", "second", "log line 1", "another writer"];
    terminal.until(|rows| {
        rows.len() == 6 && start_with(&rows[..4], &logs) && start_with(&rows[4..], &["first", "third"])
    });
    terminal.go_on();
    terminal
        .until(|rows| rows.len() == 5 && start_with(&rows[..4], &logs) && start_with(&rows[4..], &["first"]));
    terminal.go_on();
    let (rows, _) = terminal.end();
    assert!(rows.len() == 5 && rows[4].contains("took"), "{rows:?}");
}

#[test]
fn panic_message_is_complete_above_the_bars() {
    let mut terminal = Terminal::start("panic", 160, PLAIN);
    let bars = ["bar 0 ", "bar 1 ", "bar 2 ", "bar 3 "];
    terminal.until(|rows| start_with(rows, &bars));
    terminal.go_on();
    let rows = terminal.until(|rows| rows.len() > 6 && start_with(&rows[rows.len() - 4..], &bars));
    let report = rows.iter().position(|row| row.ends_with("the first line"));
    let report = report.unwrap_or_else(|| panic!("the message\n{}", rows.join("\n")));
    assert!(rows[report - 1].starts_with("thread '<unnamed>'"), "{rows:?}");
    assert_eq!(rows[report + 1], "the second line");
    terminal.go_on();
    let rows = terminal.until(|rows| rows.iter().any(|row| row == "another writer"));
    assert_eq!(rows[report + 1], "the second line");
    terminal.go_on();
    let (rows, _) = terminal.end();
    assert_eq!(rows.last().map(String::as_str), Some("another writer"));
}

#[test]
fn terminal_without_a_size_has_the_default_size_or_that_of_the_environment() {
    let row = |blanks: usize| format!("job     {}  0/8 (0.0 %)", "░".repeat(blanks));
    let (none, flat) = ((0, 0), (0, 12));
    let cases: [(_, &[(&str, &str)], _); 5] = [
        (none, &[], 40),
        (flat, &[], 40),
        (none, &[("COLUMNS", "0"), ("LINES", "0")], 40),
        (none, &[("COLUMNS", "40"), ("LINES", "2")], 15),
        // A size that the terminal reports has priority.
        ((80, 12), &[("COLUMNS", "0"), ("LINES", "0")], 40),
    ];
    for (size, vars, blanks) in cases {
        let mut terminal = Terminal::start_sized("idle", size, vars);
        terminal.until(|rows| rows.len() == 3 && rows[1] == row(blanks));
        (0..4).for_each(|_| terminal.go_on());
        terminal.end();
    }
}

#[test]
fn output_of_the_shell_while_the_job_is_stopped_is_not_erased() {
    let mut terminal = Terminal::start("idle", 80, PLAIN);
    terminal.until(|rows| start_with(rows, &["log line 0", "job  ", "  part"]));
    terminal.signal(Signal::STOP);
    terminal.write_as_another("\n[1]+  Stopped\n$ fg\n");
    let shell = ["[1]+  Stopped", "$ fg"];
    let contains = |rows: &[String]| shell.iter().all(|line| rows.iter().any(|row| row == line));
    terminal.until(contains);
    // A person takes at least this long to continue a job.
    std::thread::sleep(STOPPED);
    terminal.signal(Signal::CONT);
    let rows = terminal.until(|rows| rows.last().is_some_and(|row| row.starts_with("  part")));
    assert!(contains(&rows), "{rows:?}");
    (0..4).for_each(|_| terminal.go_on());
    let (rows, _) = terminal.end();
    assert!(contains(&rows), "{rows:?}");
}

#[test]
fn environment_variables_decide_on_colours() {
    let colours = |vars: &[(&str, &str)]| {
        let mut terminal = Terminal::start("single", 80, vars);
        terminal.until(|rows| start_with(rows, &["job  "]) && rows[0].contains("4/8"));
        (0..2).for_each(|_| terminal.go_on());
        let (rows, raw) = terminal.end();
        assert!(rows[2].contains("8/8"), "{rows:?}");
        raw.contains("\u{1b}[32m")
    };
    assert!(colours(&[]));
    assert!(!colours(&[("NO_COLOR", "1")]));
    assert!(colours(&[("NO_COLOR", "")]));
    assert!(!colours(&[("CLICOLOR", "0")]));
    assert!(colours(&[("CLICOLOR", "0"), ("CLICOLOR_FORCE", "1")]));
    assert!(!colours(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
}

#[test]
fn plain_lines_on_dumb_terminals_and_in_ci() {
    for vars in [("TERM", "dumb"), ("TERM", ""), ("CI", "true")] {
        let mut terminal = Terminal::start("single", 80, &[vars]);
        (0..2).for_each(|_| terminal.go_on());
        let (rows, raw) = terminal.end();
        assert!(!raw.contains('\u{1b}'), "{vars:?}: {raw:?}");
        assert_eq!(rows[..2], ["log line 0", "log line 1"], "{vars:?}");
        assert!(
            start_with(&rows[2..], &["job: 8/8 (100 %)"]),
            "{vars:?}: {rows:?}"
        );
    }
}
