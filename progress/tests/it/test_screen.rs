//! Reporters on a test screen.

use std::io::Write;
use std::time::Duration;

use progress::{Outcome, Render, Reporter, Total};

#[test]
fn lines_are_written_by_the_clock_of_the_test() {
    let (reporter, screen) = Reporter::builder()
        .start_in_memory()
        .expect("lines need no feature");
    let bar = reporter.bar("job", Total::Known(10));
    let counters = bar.counters();
    for _ in 0..10 {
        counters.counter(Outcome::Done).inc();
        screen.advance(Duration::from_secs(2));
    }
    reporter.finish();
    assert_eq!(
        screen.contents(),
        "job: 1/10 (10.0 %), 0.50/s, ETA 18 s\n\
         job: 6/10 (60.0 %), 0.50/s, ETA 8.0 s\n\
         job: 10/10 (100 %), 0.50/s, took 20 s\n"
    );
}

#[cfg(feature = "indicatif")]
#[test]
fn bars_are_below_log_lines_and_erased_by_suspend() {
    let (reporter, screen) = Reporter::builder()
        .render(Render::Bar)
        .columns(60)
        .rows(3)
        .start_in_memory()
        .expect("bars are built in");
    assert_eq!(screen.contents(), "");
    let bar = reporter.bar("train", Total::Known(2));
    let counters = progress::Counters::in_process();
    let source = bar.add_labeled_source("worker 0", counters.slots());
    counters.step(1, Total::Known(2));
    screen.advance(Duration::from_secs(1));
    writeln!(reporter.writer(), "a log line").expect("it never fails");
    let contents = screen.contents();
    assert!(contents.starts_with("a log line\ntrain       "), "{contents}");
    assert!(
        contents.contains("0/2 (25.0 %)") && contents.ends_with("  0, at 1/2\n"),
        "{contents}"
    );
    reporter.suspend(|| assert_eq!(screen.contents(), "a log line\n"));
    assert_eq!(screen.contents(), contents);
    // Bars that do not fit are counted.
    let others = [1, 2].map(|n| reporter.bar(format!("other {n}"), Total::Unknown));
    screen.advance(Duration::from_secs(1));
    assert!(
        screen.contents().ends_with("\n… 2 more\n"),
        "{}",
        screen.contents()
    );
    others.iter().for_each(progress::Bar::finish_and_clear);
    source.retire();
    screen.advance(Duration::from_secs(1));
    bar.finish();
    screen.advance(Duration::from_secs(1));
    let contents = screen.contents();
    assert_eq!(contents.lines().count(), 2, "{contents}");
    assert!(contents.ends_with("0/2 (0.0 %), took 3.0 s\n"), "{contents}");
}

#[test]
fn log_lines_before_and_after_a_drop_are_written() {
    let (reporter, screen) = Reporter::builder()
        .render(Render::None)
        .start_in_memory()
        .expect("nothing is drawn");
    let mut log = reporter.writer();
    reporter.bar("job", Total::Unknown);
    writeln!(log, "before").expect("it never fails");
    drop(reporter);
    screen.advance(Duration::from_secs(9));
    writeln!(log, "after").expect("it never fails");
    assert_eq!(screen.contents(), "before\nafter\n");
}
