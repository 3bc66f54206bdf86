//! The reporter as those test it who use it.

use std::io::Write;
use std::time::Duration;

use progress::{Outcome, Render, Reporter, Total};

#[test]
fn lines_come_by_the_clock_of_the_test() {
    let (reporter, rehearsal) = Reporter::builder().rehearse().expect("lines need nothing");
    let bar = reporter.bar("job", Total::Known(10));
    let counters = bar.counters();
    for _ in 0..10 {
        counters.counter(Outcome::Done).inc();
        rehearsal.tick(Duration::from_secs(2));
    }
    reporter.finish();
    assert_eq!(
        rehearsal.screen(),
        "job: 1/10 (10.0 %), 0.50/s, ETA 18 s\n\
         job: 6/10 (60.0 %), 0.50/s, ETA 8.0 s\n\
         job: 10/10 (100 %), 0.50/s, took 20 s\n"
    );
}

#[cfg(feature = "indicatif")]
#[test]
fn bars_stay_below_logs_and_leave_a_suspended_screen() {
    let (reporter, rehearsal) = Reporter::builder()
        .render(Render::Bar)
        .columns(60)
        .rows(3)
        .rehearse()
        .expect("bars are built in");
    assert_eq!(rehearsal.screen(), "");
    let bar = reporter.bar("train", Total::Known(2));
    let counters = progress::Counters::in_process();
    let source = bar.add_row("worker 0", counters.slots());
    counters.step(1, Total::Known(2));
    rehearsal.tick(Duration::from_secs(1));
    writeln!(reporter.writer(), "a log line").expect("memory");
    let screen = rehearsal.screen();
    assert!(screen.starts_with("a log line\ntrain       "), "{screen}");
    assert!(
        screen.contains("0/2 (25.0 %)") && screen.ends_with("  0, at 1/2\n"),
        "{screen}"
    );
    reporter.suspend(|| assert_eq!(rehearsal.screen(), "a log line\n"));
    assert_eq!(rehearsal.screen(), screen);
    // What does not fit is counted.
    let others = [1, 2].map(|n| reporter.bar(format!("other {n}"), Total::Unknown));
    rehearsal.tick(Duration::from_secs(1));
    assert!(
        rehearsal.screen().ends_with("\n… 2 more\n"),
        "{}",
        rehearsal.screen()
    );
    others.iter().for_each(progress::Bar::dismiss);
    source.retire();
    rehearsal.tick(Duration::from_secs(1));
    bar.finish();
    rehearsal.tick(Duration::from_secs(1));
    let screen = rehearsal.screen();
    assert_eq!(screen.lines().count(), 2, "{screen}");
    assert!(screen.ends_with("0/2 (0.0 %), took 3.0 s\n"), "{screen}");
}

#[test]
fn a_dropped_reporter_leaves_what_was_said() {
    let (reporter, rehearsal) = Reporter::builder()
        .render(Render::None)
        .rehearse()
        .expect("nothing is drawn");
    let mut log = reporter.writer();
    reporter.bar("job", Total::Unknown);
    writeln!(log, "before").expect("memory");
    drop(reporter);
    rehearsal.tick(Duration::from_secs(9));
    writeln!(log, "after").expect("memory");
    assert_eq!(rehearsal.screen(), "before\nafter\n");
}
