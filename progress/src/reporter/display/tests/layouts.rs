//! Layouts of bars with writers that have lines of their own: replacements of dead writers, narrow terminals.

use super::terminal::screen;
use super::*;
use crate::{Counts, Source};

/// Adds a writer with a line of its own.
fn writer(bar: &Bar, label: &str) -> (Counters, Source) {
    let counters = Counters::in_process();
    let source = bar.add_labeled_source(label, counters.slots());
    (counters, source)
}

#[test]
fn each_labeled_source_has_a_line_with_a_bar_of_its_running_task() {
    let (mut display, term) = screen(80);
    let bar = Bar::new("train", Total::Known(8));
    let (first, first_source) = writer(&bar, "worker 0");
    let (second, _) = writer(&bar, "worker 1");
    let (third, _) = writer(&bar, "worker 2");
    display.add(secs(0.0), &bar, None, REPORTER);
    display.add(secs(0.0), &Bar::new("next", Total::Unknown), None, REPORTER);
    first.counter(Done).add(2);
    first.step(50, Total::Known(100));
    second.counter(Done).inc();
    second.step(1, Total::Known(4));
    third.step(7, Total::Unknown);
    first_source.set_message("on node 3");
    display.draw(secs(1.0));
    assert_eq!(
        term.contents(),
        "train       ████████████████▍░░░░░░░░░░░░░░░░░░  3/8 (46.9 %), 3.75/s, ETA 1.1 s\n\
         \x20 worker 0  █████████████████▌░░░░░░░░░░░░░░░░░  2, at 50/100, on node 3\n\
         \x20 worker 1  ████████▊░░░░░░░░░░░░░░░░░░░░░░░░░░  1, at 1/4\n\
         \x20 worker 2  0, at 7\n\
         next        0, 1.0 s elapsed"
    );
    // Between two tasks, the bar of the writer is empty.
    second.counter(Done).inc();
    display.draw(secs(1.0));
    let drawn = term.contents();
    assert!(drawn.contains("  worker 1  ░░░░░░░░░░"), "{drawn}");
    display.draw(secs(2.0));
    bar.finish();
    display.draw(secs(2.0));
    let half = "█".repeat(17) + "▌" + &"░".repeat(17);
    assert_eq!(
        term.contents(),
        format!("train  {half}  4/8 (50.0 %), 2.00/s, took 2.0 s\nnext   0, 2.0 s elapsed")
    );
}

#[test]
fn bar_never_moves_back_while_tasks_of_a_dead_writer_are_redone() {
    let (mut display, term) = screen(80);
    let bar = Bar::new("train", Total::Known(8));
    let (alive, _) = writer(&bar, "worker 0");
    let (dead, dead_source) = writer(&bar, "worker 1");
    display.add(secs(0.0), &bar, None, REPORTER);
    let percentage = |drawn: &str| -> f64 {
        let first = drawn.lines().next().expect("a bar");
        let (_, rest) = first.split_once('(').expect("a percentage");
        let (percentage, _) = rest.split_once(" %").expect("a percentage");
        percentage.parse().expect("a number")
    };
    alive.counter(Done).add(2);
    dead.counter(Done).add(3);
    dead.step(3, Total::Known(4));
    display.draw(secs(1.0));
    let before = term.contents();
    assert_eq!(percentage(&before), 71.9, "{before}");

    // The writer dies in its fourth task, and two of its results are lost. These tasks are done again.
    let counts = Counts {
        done: 1,
        retried: 1,
        ..Counts::default()
    };
    dead_source.retire_with(counts);
    display.draw(secs(1.1));
    let without = term.contents();
    assert!(without.contains("5/8 (71.9 %), 1 retried"), "{without}");
    assert!(!without.contains("worker 1"), "{without}");

    let (again, again_source) = writer(&bar, "worker 1");
    let mut last = percentage(&without);
    let mut now = 1.1;
    for done in 1..=4 {
        for step in 0..4 {
            again.step(step, Total::Known(4));
            now += 0.1;
            display.draw(secs(now));
            let drawn = term.contents();
            let rows: Vec<&str> = drawn.lines().map(|line| &line[..10]).collect();
            assert_eq!(rows, ["train     ", "  worker 0", "  worker 1"], "{drawn}");
            assert!(percentage(&drawn) >= last, "{drawn}\nafter {last}");
            last = percentage(&drawn);
        }
        again.counter(Done).inc();
        assert_eq!(bar.counts().ended(), 3 + done);
    }
    again_source.retire();
    alive.counter(Failed).inc();
    finish(&mut display, secs(now));
    let end = term.contents();
    assert!(end.starts_with("train  ███") && end.lines().count() == 1, "{end}");
    assert!(end.contains("  8/8 (100 %), 1 failed, 1 retried, "), "{end}");
}

#[test]
fn new_source_takes_the_free_line_with_its_label_or_any_free_line() {
    let (mut display, term) = screen(80);
    let bar = Bar::new("job", Total::Unknown);
    let [a, b, _c] = ["a", "b", "c"].map(|label| writer(&bar, label).1);
    display.add(secs(0.0), &bar, None, REPORTER);
    let mut labels = || -> String {
        display.draw(secs(1.0));
        let drawn = term.contents();
        let lines = drawn.lines().skip(1);
        lines.map(|line| line.trim_start()[..1].to_owned()).collect()
    };
    assert_eq!(labels(), "abc");
    a.retire();
    b.retire();
    assert_eq!(labels(), "c");
    let _b = writer(&bar, "b");
    assert_eq!(labels(), "bc");
    let _d = writer(&bar, "d");
    let _e = writer(&bar, "e");
    assert_eq!(labels(), "dbce");
}

#[test]
fn messages_come_last_and_an_unknown_total_has_no_bar() {
    let (mut display, term) = screen(80);
    let bar = Bar::new("load", Total::Unknown).unit(Unit::Bytes);
    display.add(secs(0.0), &bar, None, REPORTER);
    bar.counters().bytes().add(3 << 20);
    bar.set_message("ratings.csv");
    display.draw(secs(2.0));
    assert_eq!(
        term.contents(),
        "load  3.0 MiB, 1.5 MiB/s, 2.0 s elapsed, ratings.csv"
    );
    bar.set_total(Total::Known(4 << 20));
    display.draw(secs(2.0));
    assert_eq!(
        term.contents(),
        "load  ███████▌░░  3.0 MiB/4.0 MiB (75.0 %), 1.5 MiB/s, ETA 0.7 s, ratings.csv"
    );
}

#[test]
fn lines_of_sources_fit_into_a_narrow_terminal() {
    let (mut display, term) = screen(30);
    let bar = Bar::new("train", Total::Known(8));
    let (counters, _) = writer(&bar, "worker 0");
    display.add(secs(0.0), &bar, None, REPORTER);
    counters.counter(Done).inc();
    counters.step(50, Total::Known(100));
    display.draw(secs(1.0));
    assert_eq!(
        term.contents(),
        "train       1/8 (18.8 %)\n  worker 0  ███████▌░░░░░░░  1"
    );
}
