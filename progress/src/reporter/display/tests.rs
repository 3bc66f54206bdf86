//! Lines and bars, character by character, with a manual clock.

#[cfg(feature = "indicatif")]
mod layouts;
#[cfg(feature = "indicatif")]
mod terminal;

use std::io::Write;
use std::sync::{Arc, Mutex};

use super::*;
use crate::Outcome::{Done, Failed, Retried};
use crate::render::{Json, Lines, Schedule};
use crate::{Counters, Total, Unit};

const REPORTER: ReporterId = ReporterId(0);
const LINE_INTERVAL: Duration = Duration::from_secs(10);

fn secs(s: f64) -> Duration {
    Duration::from_secs_f64(s)
}

/// A file in memory that can be read while it is written.
#[derive(Clone, Default)]
struct SharedText(Arc<Mutex<Vec<u8>>>);

impl Write for SharedText {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SharedText {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().expect("no panic"))).expect("text")
    }
}

fn display(renderer: Renderer, output: Output) -> Display {
    Display::new(renderer, output, Arc::new(Clock::manual()))
}

fn lines() -> (Display, SharedText) {
    let file = SharedText::default();
    let output = Output::direct(Box::new(file.clone()));
    let renderer = Renderer::Lines(Lines::new(Schedule::new(LINE_INTERVAL)));
    (display(renderer, output), file)
}

/// Finishes all bars now.
fn finish(display: &mut Display, now: Duration) {
    display.finish(now, Instant::now(), REPORTER);
}

#[test]
fn lines_are_written_after_one_second_then_every_ten_and_at_the_end() {
    let (mut display, file) = lines();
    let bar = Bar::new("recommend", Total::Known(6710));
    let counters = bar.counters();
    display.add(secs(0.0), &bar, None, REPORTER);

    let mut written = Vec::new();
    for quarter in 1..=100_u32 {
        counters.counter(Done).add(50);
        let now = f64::from(quarter) / 4.0;
        display.draw(secs(now));
        let text = file.take();
        if !text.is_empty() {
            written.push((now, text));
        }
    }
    counters.counter(Failed).add(10);
    counters.counter(Done).add(1700);
    finish(&mut display, secs(25.5));
    written.push((25.5, file.take()));

    let expected = [
        (1.0, "recommend: 200/6710 (3.0 %), 200/s, ETA 32 s\n"),
        (11.0, "recommend: 2200/6710 (32.8 %), 200/s, ETA 22 s\n"),
        (21.0, "recommend: 4200/6710 (62.6 %), 200/s, ETA 12 s\n"),
        (
            25.5,
            "recommend: 6710/6710 (100 %), 10 failed, 263/s, took 25 s\n",
        ),
    ];
    assert_eq!(written, expected.map(|(now, line)| (now, line.to_owned())));
}

#[test]
fn missed_lines_are_skipped() {
    let (mut display, file) = lines();
    display.add(secs(0.0), &Bar::new("idle", Total::Unknown), None, REPORTER);
    for (now, written) in [
        (38.0, 1),
        (38.25, 0),
        (42.75, 0),
        (43.0, 1),
        (43.25, 0),
        (53.0, 1),
    ] {
        display.draw(secs(now));
        assert_eq!(file.take().lines().count(), written, "at {now} s");
    }
}

#[test]
fn longest_line_interval_leaves_one_line() {
    let file = SharedText::default();
    let renderer = Renderer::Lines(Lines::new(Schedule::new(Duration::MAX)));
    let mut display = display(renderer, Output::direct(Box::new(file.clone())));
    display.add(secs(0.0), &Bar::new("job", Total::Unknown), None, REPORTER);
    for now in [1.0, 2.0, 1e9] {
        display.draw(secs(now));
    }
    assert_eq!(file.take(), "job: 0, 1.0 s elapsed\n");
}

#[test]
fn very_long_eta_is_not_shown() {
    let (mut display, file) = lines();
    let bar = Bar::new("huge", Total::Known(u64::MAX));
    display.add(secs(0.0), &bar, None, REPORTER);
    bar.counters().counter(Done).add(1000);
    display.draw(secs(1.0));
    assert_eq!(file.take(), "huge: 1000/18446744073709551615 (0.0 %), 1000/s\n");
}

#[test]
fn line_contains_all_nonzero_counts_and_the_message() {
    let (mut display, file) = lines();
    let bar = Bar::new("recommend", Total::Known(6710));
    let counters = bar.counters();
    display.add(secs(0.0), &bar, None, REPORTER);
    counters.counter(Done).add(2297);
    counters.counter(Failed).add(3);
    counters.counter(Retried).add(2);
    counters.bytes().add(1536);
    bar.set_message("worker 1\nrestarted");
    display.draw(secs(1.0));
    assert_eq!(
        file.take(),
        "recommend: 2300/6710 (34.3 %), 3 failed, 2 retried, 1.5 KiB, 2300/s, ETA 1.9 s, worker 1\\nrestarted\n"
    );
}

#[test]
fn unknown_total_has_no_percentage_and_no_eta() {
    let (mut display, file) = lines();
    let bar = Bar::new("stream", Total::Unknown);
    let counters = bar.counters();
    display.add(secs(0.0), &bar, None, REPORTER);
    counters.counter(Done).add(1200);
    display.draw(secs(2.0));
    assert_eq!(file.take(), "stream: 1200, 600/s, 2.0 s elapsed\n");

    bar.set_total(Total::Known(2400));
    display.draw(secs(12.0));
    assert_eq!(file.take(), "stream: 1200/2400 (50.0 %), 81.3/s, ETA 14 s\n");
    finish(&mut display, secs(12.0));
    assert_eq!(file.take(), "stream: 1200/2400 (50.0 %), 100/s, took 12 s\n");
}

#[test]
fn uncounted_bar_has_no_rate_and_empty_bar_is_complete() {
    let (mut display, file) = lines();
    let (idle, empty) = (
        Bar::new("idle", Total::Known(5)),
        Bar::new("empty", Total::Known(0)),
    );
    display.add(secs(0.0), &idle, None, REPORTER);
    display.add(secs(0.0), &empty, None, REPORTER);
    display.draw(secs(1.0));
    assert_eq!(file.take(), "idle: 0/5 (0.0 %)\nempty: 0/0 (100 %)\n");
}

#[test]
fn percentage_is_below_100_before_the_end() {
    let (mut display, file) = lines();
    let bar = Bar::new("many", Total::Known(1_000_000));
    bar.counters().counter(Done).add(999_999);
    display.add(secs(0.0), &bar, None, REPORTER);
    display.draw(secs(1.0));
    assert_eq!(file.take(), "many: 999999/1000000 (99.9 %)\n");
}

#[test]
fn finished_bar_has_one_last_line_and_cleared_bar_has_none() {
    let (mut display, file) = lines();
    let (ended, cleared) = (
        Bar::new("ended", Total::Unknown),
        Bar::new("gone", Total::Unknown),
    );
    display.add(secs(0.0), &ended, None, REPORTER);
    display.add(secs(0.0), &cleared, None, REPORTER);
    ended.counters().counter(Done).add(1);
    display.draw(secs(0.5));
    ended.finish();
    cleared.finish_and_clear();
    display.draw(secs(0.6));
    assert_eq!(file.take(), "ended: 1, 2.00/s, took 0.5 s\n");
    display.draw(secs(20.0));
    finish(&mut display, secs(30.0));
    assert_eq!(file.take(), "");
}

#[test]
fn finished_bar_of_a_dropped_reporter_has_its_last_line() {
    let (mut display, file) = lines();
    let (ended, running) = (
        Bar::new("ended", Total::Unknown),
        Bar::new("running", Total::Unknown),
    );
    display.add(secs(0.0), &ended, None, REPORTER);
    display.add(secs(0.0), &running, None, REPORTER);
    display.draw(secs(0.5));
    ended.finish();
    display.abandon(secs(0.6), REPORTER);
    display.draw(secs(20.0));
    assert_eq!(file.take(), "ended: 0, took 0.5 s\n");
}

#[test]
fn time_of_a_bar_ends_with_finish_and_not_with_the_drawing() {
    let (mut display, file) = lines();
    let [short, suspended, late] =
        ["short", "suspended", "late"].map(|label| Bar::new(label, Total::Unknown));
    display.add(secs(0.0), &short, None, REPORTER);
    display.add(secs(0.0), &suspended, None, REPORTER);
    short.counters().counter(Done).add(10);
    suspended.counters().counter(Done).add(10);
    display.draw(secs(0.01));
    short.finish();
    display.draw(secs(0.2));
    assert_eq!(file.take(), "short: 10, 1000/s, took 10 ms\n");
    // While the display is suspended, nothing is drawn.
    display.suspend();
    display.draw(secs(0.5));
    suspended.finish();
    late.finish();
    display.draw(secs(60.0));
    display.resume(secs(60.0));
    // A bar that finished before it was shown took no time.
    display.add(secs(60.0), &late, None, REPORTER);
    display.draw(secs(60.0));
    assert_eq!(
        file.take(),
        "suspended: 10, 20.0/s, took 0.5 s\nlate: 0, took 0 ms\n"
    );
}

#[test]
fn labels_and_messages_cannot_forge_lines_or_move_the_cursor() {
    let hostile = "a\u{1b}[2J\u{1b}]0;t\u{7}\r\nINFO forged\u{2028}\u{202e}x";
    let (mut display, file) = lines();
    let outer = Bar::new(hostile, Total::Unknown);
    let bar = Bar::new(hostile, Total::Unknown);
    bar.set_message(hostile);
    display.add(secs(0.0), &outer, None, REPORTER);
    display.add(secs(0.0), &bar, Some(&outer), REPORTER);
    let _source = bar.add_labeled_source(hostile, Counters::in_process().slots());
    display.draw(secs(1.0));
    let written = file.take();
    let visible = r"a\u{1b}[2J\u{1b}]0;t\u{7}\r\nINFO forged\u{2028}\u{202e}x";
    let line = |labels: usize| vec![visible; labels].join("/");
    assert_eq!(
        written,
        format!(
            "{}: 0, 1.0 s elapsed\n{}: 0, 1.0 s elapsed, {visible}\n{}: 0\n",
            line(1),
            line(2),
            line(3)
        )
    );
}

#[test]
fn nested_bars_follow_their_parents() {
    let (mut display, file) = lines();
    let bars = ["run", "load", "recommend", "other", "user"].map(|label| Bar::new(label, Total::Unknown));
    let [run, load, recommend, other, user] = &bars;
    display.add(secs(0.0), run, None, REPORTER);
    display.add(secs(0.0), other, None, REPORTER);
    display.add(secs(0.0), load, Some(run), REPORTER);
    display.add(secs(0.0), user, Some(load), REPORTER);
    display.add(secs(0.0), recommend, Some(run), REPORTER);
    display.add(secs(0.0), run, None, REPORTER);
    display.draw(secs(1.0));
    let labels: Vec<String> = file
        .take()
        .lines()
        .map(|line| line.replace(": 0, 1.0 s elapsed", ""))
        .collect();
    assert_eq!(
        labels,
        ["run", "run/load", "run/load/user", "run/recommend", "other"]
    );
}

#[test]
fn json_lines_are_valid_and_complete() {
    let file = SharedText::default();
    let renderer = Renderer::Json(Json::new(Schedule::new(LINE_INTERVAL)));
    let mut display = display(renderer, Output::direct(Box::new(file.clone())));
    let run = Bar::new("a \"run\"", Total::Unknown);
    let load = Bar::new("load", Total::Known(4096)).unit(Unit::Bytes);
    display.add(secs(0.0), &run, None, REPORTER);
    display.add(secs(0.0), &load, Some(&run), REPORTER);
    load.counters().bytes().add(1024);
    load.set_message("tab\tbreak\n");
    display.draw(secs(2.0));
    let objects: Vec<serde_json::Value> = file
        .take()
        .lines()
        .map(|line| serde_json::from_str(line).expect("valid JSON"))
        .collect();
    let expected = serde_json::json!([
        {
            "event": "progress", "bar": ["a \"run\""], "state": "running", "unit": "tasks", "position": 0,
            "total": null, "fraction": null, "step_done": null, "step_total": null, "done": 0, "failed": 0, "retried": 0, "bytes": 0, "per_second": null,
            "eta_seconds": null, "elapsed_seconds": 2, "message": ""
        },
        {
            "event": "progress", "bar": ["a \"run\"", "load"], "state": "running", "unit": "bytes",
            "position": 1024, "total": 4096, "fraction": 0.25, "step_done": null, "step_total": null, "done": 0, "failed": 0, "retried": 0, "bytes": 1024,
            "per_second": 512, "eta_seconds": 6, "elapsed_seconds": 2, "message": "tab\tbreak\n"
        }
    ]);
    assert_eq!(serde_json::Value::from(objects).to_string(), expected.to_string());
}

#[test]
fn steps_of_running_tasks_count_in_the_rate_and_the_eta() {
    let (mut display, file) = lines();
    let bar = Bar::new("slow", Total::Known(4));
    let counters = bar.counters();
    display.add(secs(0.0), &bar, None, REPORTER);
    // Four tasks of five seconds each. The rate is known before the first one ends.
    for second in 1..=11_u32 {
        match second % 5 {
            0 => counters.counter(Done).inc(),
            part => counters.step(part.into(), Total::Known(5)),
        }
        display.draw(secs(f64::from(second)));
    }
    assert_eq!(
        file.take(),
        "slow: 0/4 (5.0 %), 0.20/s, ETA 19 s\nslow: 2/4 (55.0 %), 0.20/s, ETA 9.0 s\n"
    );
}

#[test]
fn labeled_sources_have_plain_lines() {
    let (mut display, file) = lines();
    let bar = Bar::new("train", Total::Known(8));
    let counters = Counters::in_process();
    let source = bar.add_labeled_source("worker 0", counters.slots());
    display.add(secs(0.0), &bar, None, REPORTER);
    counters.counter(Done).inc();
    counters.step(1, Total::Known(4));
    source.set_message("warm");
    display.draw(secs(1.0));
    assert_eq!(
        file.take(),
        "train: 1/8 (15.6 %), 1.25/s, ETA 5.4 s\ntrain/worker 0: 1, at 1/4, warm\n"
    );
    finish(&mut display, secs(2.0));
    assert_eq!(file.take(), "train: 1/8 (12.5 %), 0.50/s, took 2.0 s\n");
}

#[test]
fn json_lines_contain_the_steps_of_a_writer() {
    let file = SharedText::default();
    let renderer = Renderer::Json(Json::new(Schedule::new(LINE_INTERVAL)));
    let mut display = display(renderer, Output::direct(Box::new(file.clone())));
    let bar = Bar::new("train", Total::Known(8));
    let counters = Counters::in_process();
    let _source = bar.add_labeled_source("worker 0", counters.slots());
    display.add(secs(0.0), &bar, None, REPORTER);
    counters.step(1, Total::Known(4));
    display.draw(secs(1.0));
    let objects: Vec<serde_json::Value> = file
        .take()
        .lines()
        .map(|line| serde_json::from_str(line).expect("valid JSON"))
        .collect();
    assert_eq!(objects[0]["fraction"], 0.03125);
    assert_eq!(objects[0]["step_done"], serde_json::Value::Null);
    assert_eq!(objects[1]["bar"], serde_json::json!(["train", "worker 0"]));
    let steps = ["fraction", "step_done", "step_total"].map(|name| objects[1][name].as_f64());
    assert_eq!(steps, [0.25, 1.0, 4.0].map(Some));
}
