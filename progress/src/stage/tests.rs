//! What is on the screen and in the file, to the character, under a clock that the test holds.

#[cfg(feature = "indicatif")]
mod layouts;

use std::io::Write;
use std::sync::{Arc, Mutex};

use super::*;
use crate::Counters;
use crate::Outcome::{Done, Failed, Retried};
use crate::bar::{Total, Unit};
use crate::render::{Json, Lines, Schedule};

const MEMBER: Member = Member(0);
const EVERY: Duration = Duration::from_secs(10);

fn secs(s: f64) -> Duration {
    Duration::from_secs_f64(s)
}

/// A file that can be read while it is written.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Paper {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().expect("no panic"))).expect("text")
    }
}

fn stage(renderer: Renderer, output: Output) -> Stage {
    Stage::new(renderer, output, Arc::new(Clock::held()))
}

fn lines() -> (Stage, Paper) {
    let paper = Paper::default();
    let output = Output::direct(Box::new(paper.clone()));
    let renderer = Renderer::Lines(Lines::new(Schedule::new(EVERY)));
    (stage(renderer, output), paper)
}

/// Ends all bars now.
fn finish(stage: &mut Stage, now: Duration) {
    stage.finish(now, Instant::now(), MEMBER);
}

#[test]
fn a_line_after_a_second_then_every_ten_and_at_the_end() {
    let (mut stage, paper) = lines();
    let bar = Bar::new("recommend", Total::Known(6710));
    let counters = bar.counters();
    stage.add(secs(0.0), &bar, None, MEMBER);

    let mut written = Vec::new();
    for quarter in 1..=100_u32 {
        counters.counter(Done).add(50);
        let now = f64::from(quarter) / 4.0;
        stage.tick(secs(now));
        let text = paper.take();
        if !text.is_empty() {
            written.push((now, text));
        }
    }
    counters.counter(Failed).add(10);
    counters.counter(Done).add(1700);
    finish(&mut stage, secs(25.5));
    written.push((25.5, paper.take()));

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
fn lines_that_were_slept_through_are_not_made_up_for() {
    let (mut stage, paper) = lines();
    stage.add(secs(0.0), &Bar::new("idle", Total::Unknown), None, MEMBER);
    for (now, written) in [
        (38.0, 1),
        (38.25, 0),
        (42.75, 0),
        (43.0, 1),
        (43.25, 0),
        (53.0, 1),
    ] {
        stage.tick(secs(now));
        assert_eq!(paper.take().lines().count(), written, "at {now} s");
    }
}

#[test]
fn lines_every_eternity_are_the_first_and_the_last() {
    let paper = Paper::default();
    let renderer = Renderer::Lines(Lines::new(Schedule::new(Duration::MAX)));
    let mut stage = stage(renderer, Output::direct(Box::new(paper.clone())));
    stage.add(secs(0.0), &Bar::new("job", Total::Unknown), None, MEMBER);
    for now in [1.0, 2.0, 1e9] {
        stage.tick(secs(now));
    }
    assert_eq!(paper.take(), "job: 0, 1.0 s elapsed\n");
}

#[test]
fn an_eta_beyond_reason_is_not_told() {
    let (mut stage, paper) = lines();
    let bar = Bar::new("huge", Total::Known(u64::MAX));
    stage.add(secs(0.0), &bar, None, MEMBER);
    bar.counters().counter(Done).add(1000);
    stage.tick(secs(1.0));
    assert_eq!(paper.take(), "huge: 1000/18446744073709551615 (0.0 %), 1000/s\n");
}

#[test]
fn a_line_says_what_there_is_to_say() {
    let (mut stage, paper) = lines();
    let bar = Bar::new("recommend", Total::Known(6710));
    let counters = bar.counters();
    stage.add(secs(0.0), &bar, None, MEMBER);
    counters.counter(Done).add(2297);
    counters.counter(Failed).add(3);
    counters.counter(Retried).add(2);
    counters.bytes().add(1536);
    bar.set_message("worker 1\nrestarted");
    stage.tick(secs(1.0));
    assert_eq!(
        paper.take(),
        "recommend: 2300/6710 (34.3 %), 3 failed, 2 retried, 1.5 KiB, 2300/s, ETA 1.9 s, worker 1\\nrestarted\n"
    );
}

#[test]
fn an_unknown_total_has_no_share_and_no_eta() {
    let (mut stage, paper) = lines();
    let bar = Bar::new("stream", Total::Unknown);
    let counters = bar.counters();
    stage.add(secs(0.0), &bar, None, MEMBER);
    counters.counter(Done).add(1200);
    stage.tick(secs(2.0));
    assert_eq!(paper.take(), "stream: 1200, 600/s, 2.0 s elapsed\n");

    bar.set_total(Total::Known(2400));
    stage.tick(secs(12.0));
    assert_eq!(paper.take(), "stream: 1200/2400 (50.0 %), 81.3/s, ETA 14 s\n");
    finish(&mut stage, secs(12.0));
    assert_eq!(paper.take(), "stream: 1200/2400 (50.0 %), 100/s, took 12 s\n");
}

#[test]
fn nothing_counted_yet_has_no_rate_and_an_empty_job_is_complete() {
    let (mut stage, paper) = lines();
    let (idle, empty) = (
        Bar::new("idle", Total::Known(5)),
        Bar::new("empty", Total::Known(0)),
    );
    stage.add(secs(0.0), &idle, None, MEMBER);
    stage.add(secs(0.0), &empty, None, MEMBER);
    stage.tick(secs(1.0));
    assert_eq!(paper.take(), "idle: 0/5 (0.0 %)\nempty: 0/0 (100 %)\n");
}

#[test]
fn nearly_done_is_not_100_percent() {
    let (mut stage, paper) = lines();
    let bar = Bar::new("many", Total::Known(1_000_000));
    bar.counters().counter(Done).add(999_999);
    stage.add(secs(0.0), &bar, None, MEMBER);
    stage.tick(secs(1.0));
    assert_eq!(paper.take(), "many: 999999/1000000 (99.9 %)\n");
}

#[test]
fn a_bar_ends_once_and_a_dismissed_one_without_a_word() {
    let (mut stage, paper) = lines();
    let (ended, dismissed) = (
        Bar::new("ended", Total::Unknown),
        Bar::new("gone", Total::Unknown),
    );
    stage.add(secs(0.0), &ended, None, MEMBER);
    stage.add(secs(0.0), &dismissed, None, MEMBER);
    ended.counters().counter(Done).add(1);
    stage.tick(secs(0.5));
    ended.finish();
    dismissed.dismiss();
    stage.tick(secs(0.6));
    assert_eq!(paper.take(), "ended: 1, 2.00/s, took 0.5 s\n");
    stage.tick(secs(20.0));
    finish(&mut stage, secs(30.0));
    assert_eq!(paper.take(), "");
}

#[test]
fn a_bar_that_ended_before_all_was_dropped_has_its_last_line() {
    let (mut stage, paper) = lines();
    let (ended, running) = (
        Bar::new("ended", Total::Unknown),
        Bar::new("running", Total::Unknown),
    );
    stage.add(secs(0.0), &ended, None, MEMBER);
    stage.add(secs(0.0), &running, None, MEMBER);
    stage.tick(secs(0.5));
    ended.finish();
    stage.abandon(secs(0.6), MEMBER);
    stage.tick(secs(20.0));
    assert_eq!(paper.take(), "ended: 0, took 0.5 s\n");
}

#[test]
fn a_bar_ends_when_it_is_finished_and_not_when_that_is_drawn() {
    let (mut stage, paper) = lines();
    let [short, suspended, absent] =
        ["short", "suspended", "absent"].map(|label| Bar::new(label, Total::Unknown));
    stage.add(secs(0.0), &short, None, MEMBER);
    stage.add(secs(0.0), &suspended, None, MEMBER);
    short.counters().counter(Done).add(10);
    suspended.counters().counter(Done).add(10);
    stage.tick(secs(0.01));
    short.finish();
    stage.tick(secs(0.2));
    assert_eq!(paper.take(), "short: 10, 1000/s, took 10 ms\n");
    // While the screen belongs to others, nothing is drawn.
    stage.suspend();
    stage.tick(secs(0.5));
    suspended.finish();
    absent.finish();
    stage.tick(secs(60.0));
    stage.resume(secs(60.0));
    // A bar that had ended before it was shown took no time.
    stage.add(secs(60.0), &absent, None, MEMBER);
    stage.tick(secs(60.0));
    assert_eq!(
        paper.take(),
        "suspended: 10, 20.0/s, took 0.5 s\nabsent: 0, took 0 ms\n"
    );
}

#[test]
fn labels_and_messages_cannot_forge_lines_or_move_the_cursor() {
    let hostile = "a\u{1b}[2J\u{1b}]0;t\u{7}\r\nINFO forged\u{2028}\u{202e}x";
    let (mut stage, paper) = lines();
    let outer = Bar::new(hostile, Total::Unknown);
    let bar = Bar::new(hostile, Total::Unknown);
    bar.set_message(hostile);
    stage.add(secs(0.0), &outer, None, MEMBER);
    stage.add(secs(0.0), &bar, Some(&outer), MEMBER);
    let _row = bar.add_row(hostile, Counters::in_process().slots());
    stage.tick(secs(1.0));
    let written = paper.take();
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
    let (mut stage, paper) = lines();
    let bars = ["run", "load", "recommend", "other", "user"].map(|label| Bar::new(label, Total::Unknown));
    let [run, load, recommend, other, user] = &bars;
    stage.add(secs(0.0), run, None, MEMBER);
    stage.add(secs(0.0), other, None, MEMBER);
    stage.add(secs(0.0), load, Some(run), MEMBER);
    stage.add(secs(0.0), user, Some(load), MEMBER);
    stage.add(secs(0.0), recommend, Some(run), MEMBER);
    stage.add(secs(0.0), run, None, MEMBER);
    stage.tick(secs(1.0));
    let labels: Vec<String> = paper
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
fn json_lines_parse() {
    let paper = Paper::default();
    let renderer = Renderer::Json(Json::new(Schedule::new(EVERY)));
    let mut stage = stage(renderer, Output::direct(Box::new(paper.clone())));
    let run = Bar::new("a \"run\"", Total::Unknown);
    let load = Bar::new("load", Total::Known(4096)).unit(Unit::Bytes);
    stage.add(secs(0.0), &run, None, MEMBER);
    stage.add(secs(0.0), &load, Some(&run), MEMBER);
    load.counters().bytes().add(1024);
    load.set_message("tab\tbreak\n");
    stage.tick(secs(2.0));
    let objects: Vec<serde_json::Value> = paper
        .take()
        .lines()
        .map(|line| serde_json::from_str(line).expect("valid JSON"))
        .collect();
    let expected = serde_json::json!([
        {
            "event": "progress", "bar": ["a \"run\""], "state": "running", "unit": "tasks", "position": 0,
            "total": null, "share": null, "step_done": null, "step_total": null, "done": 0, "failed": 0, "retried": 0, "bytes": 0, "per_second": null,
            "eta_seconds": null, "elapsed_seconds": 2, "message": ""
        },
        {
            "event": "progress", "bar": ["a \"run\"", "load"], "state": "running", "unit": "bytes",
            "position": 1024, "total": 4096, "share": 0.25, "step_done": null, "step_total": null, "done": 0, "failed": 0, "retried": 0, "bytes": 1024,
            "per_second": 512, "eta_seconds": 6, "elapsed_seconds": 2, "message": "tab\tbreak\n"
        }
    ]);
    assert_eq!(serde_json::Value::from(objects).to_string(), expected.to_string());
}

#[cfg(feature = "indicatif")]
mod screen {
    use indicatif::InMemoryTerm;

    use super::*;
    use crate::render::{Glyphs, Look, Palette, Terminal};

    /// A terminal, with the line discipline that a real one has in front of it.
    #[derive(Clone)]
    struct Screen(InMemoryTerm);

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let text = std::str::from_utf8(bytes).expect("text").replace('\n', "\r\n");
            indicatif::TermLike::write_str(&self.0, &text)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn screen_with(columns: u16, glyphs: Glyphs, palette: Palette) -> (Stage, InMemoryTerm) {
        let term = InMemoryTerm::new(12, columns);
        let output = Output::direct(Box::new(Screen(term.clone())));
        let terminal = Terminal::ansi((columns, 12), Look { glyphs, palette });
        (stage(Renderer::Terminal(terminal), output), term)
    }

    pub(super) fn screen(columns: u16) -> (Stage, InMemoryTerm) {
        screen_with(columns, Glyphs::Unicode, Palette::Plain)
    }

    /// A bar that counted 1200 of 6710 in half a second, three of which failed.
    fn at_1200(stage: &mut Stage) -> Bar {
        let bar = Bar::new("recommend", Total::Known(6710));
        stage.add(secs(0.0), &bar, None, MEMBER);
        let counters = bar.counters();
        counters.counter(Done).add(1197);
        counters.counter(Failed).add(3);
        stage.tick(secs(0.5));
        bar
    }

    const BAR: &str = "recommend  ███▌░░░░░░░░░░░░░░░░  1200/6710 (17.9 %), 3 failed, 2400/s, ETA 2.3 s";

    #[test]
    fn a_bar() {
        let (mut stage, term) = screen(80);
        at_1200(&mut stage);
        assert_eq!(term.contents(), BAR);
    }

    #[test]
    fn log_lines_stay_above_the_bar() {
        let (mut stage, term) = screen(80);
        let bar = at_1200(&mut stage);
        // Faster than bars are restored: each of these is on the screen at once.
        for n in 0..3 {
            let before = term.contents();
            stage
                .print(secs(0.51), format!("log line {n}\n").as_bytes())
                .expect("written");
            assert!(term.contents().contains(&format!("log line {n}")), "{before}");
        }
        assert!(
            !term.contents().contains("█"),
            "a flood does not redraw each time"
        );
        stage.tick(secs(0.6));
        assert_eq!(
            term.contents(),
            format!(
                "log line 0\nlog line 1\nlog line 2\n{}",
                BAR.replace("2400/s, ETA 2.3 s", "2353/s, ETA 2.3 s")
            )
        );
        stage.print(secs(0.7), b"log line 3\n").expect("written");
        assert!(
            term.contents().contains("log line 3\nrecommend  ███▌"),
            "the bar is back at once"
        );
        bar.counters().counter(Done).add(5510);
        finish(&mut stage, secs(2.0));
        assert_eq!(
            term.contents(),
            "log line 0\nlog line 1\nlog line 2\nlog line 3\n\
             recommend  ████████████████████  6710/6710 (100 %), 3 failed, 3355/s, took 2.0 s"
        );
    }

    #[test]
    fn a_log_line_longer_than_the_screen_is_wide() {
        let (mut stage, term) = screen(80);
        at_1200(&mut stage);
        let long = "x".repeat(200);
        stage
            .print(secs(0.51), format!("{long}\n").as_bytes())
            .expect("written");
        assert_eq!(
            term.contents(),
            format!("{}\n{}\n{}\n{BAR}", &long[..80], &long[80..160], &long[160..])
        );
    }

    #[test]
    fn bars_begin_and_end_in_the_same_columns_and_a_finished_one_moves_up() {
        let (mut stage, term) = screen(60);
        let total = Bar::new("run", Total::Known(4));
        let part = Bar::new("load", Total::Known(200));
        let open = Bar::new("stream", Total::Unknown);
        stage.add(secs(0.0), &total, None, MEMBER);
        stage.add(secs(0.0), &part, Some(&total), MEMBER);
        stage.add(secs(0.0), &open, None, MEMBER);
        total.counters().counter(Done).add(1);
        part.counters().counter(Done).add(150);
        open.counters().counter(Done).add(9);
        stage.tick(secs(1.0));
        assert_eq!(
            term.contents(),
            "run     ███▊░░░░░░░░░░░  1/4 (25.0 %), 1.00/s, ETA 3.0 s\n\
             \x20 load  ███████████▎░░░  150/200 (75.0 %), 150/s, ETA 0.3 s\n\
             stream  9, 9.00/s, 1.0 s elapsed"
        );
        part.finish();
        stage.tick(secs(1.0));
        assert_eq!(
            term.contents(),
            "  load  ███████████▎░░░  150/200 (75.0 %), 150/s, took 1.0 s\n\
             run     ███▊░░░░░░░░░░░  1/4 (25.0 %), 1.00/s, ETA 3.0 s\n\
             stream  9, 9.00/s, 1.0 s elapsed"
        );
    }

    #[test]
    fn what_does_not_fit_is_left_out_by_and_by() {
        let expected = [
            (
                120,
                "recommend  ███████▏░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░  1200/6710 (17.9 %), 3 failed, 2400/s, ETA 2.3 s, all well",
            ),
            (
                80,
                "recommend  █▊░░░░░░░░  1200/6710 (17.9 %), 3 failed, 2400/s, ETA 2.3 s, all well",
            ),
            (79, &BAR.replace("███▌░░░░░░░░░░░░░░░░", "██▋░░░░░░░░░░░░")),
            (60, "recommend  1200/6710 (17.9 %), 3 failed, 2400/s, ETA 2.3 s"),
            (50, "recommend  1200/6710 (17.9 %), 3 failed, ETA 2.3 s"),
            (40, "recommend  1200/6710 (17.9 %), 3 failed"),
            (30, "recommend  1200/6710 (17.9 %)"),
            (20, "recom…  1200/6710 (1"),
            (5, "…  12"),
            (1, "…"),
        ];
        for (columns, line) in expected {
            let (mut stage, term) = screen(columns);
            let bar = at_1200(&mut stage);
            bar.set_message("all well");
            stage.tick(secs(0.5));
            assert_eq!(term.contents(), line, "{columns} columns");
        }
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let (mut stage, term) = screen(60);
        stage.add(secs(0.0), &Bar::new("推荐", Total::Known(2)), None, MEMBER);
        stage.add(secs(0.0), &Bar::new("ascii", Total::Known(2)), None, MEMBER);
        stage.tick(secs(1.0));
        assert_eq!(
            term.contents(),
            format!("推荐   {0}  0/2 (0.0 %)\nascii  {0}  0/2 (0.0 %)", "░".repeat(40))
        );
    }

    #[test]
    fn ascii_where_the_locale_has_no_more() {
        let (mut stage, term) = screen_with(80, Glyphs::Ascii, Palette::Plain);
        at_1200(&mut stage);
        assert_eq!(term.contents(), BAR.replace("███▌░", "###--").replace('░', "-"));
    }

    #[test]
    fn colours_take_no_room_and_plain_has_none() {
        let formatted = |palette| {
            let (mut stage, term) = screen_with(80, Glyphs::Unicode, palette);
            at_1200(&mut stage);
            assert_eq!(term.contents(), BAR);
            String::from_utf8(term.contents_formatted()).expect("text")
        };
        assert!(formatted(Palette::Ansi).contains("\u{1b}[31m3 failed"));
        assert!(!formatted(Palette::Plain).contains("\u{1b}[3"));
    }

    #[test]
    fn hostile_labels_stay_in_their_line() {
        let (mut stage, term) = screen(80);
        stage.add(
            secs(0.0),
            &Bar::new("\u{1b}[2J\n\u{202e}", Total::Unknown),
            None,
            MEMBER,
        );
        stage.tick(secs(1.0));
        assert_eq!(term.contents(), "\\u{1b}[2J\\n\\u{202e}  0, 1.0 s elapsed");
    }

    #[test]
    fn a_suspended_screen_belongs_to_others() {
        let (mut stage, term) = screen(80);
        at_1200(&mut stage);
        stage.suspend();
        assert_eq!(term.contents(), "");
        stage.tick(secs(0.5));
        stage.print(secs(0.5), b"others\n").expect("written");
        assert_eq!(term.contents(), "others");
        stage.resume(secs(0.5));
        assert_eq!(term.contents(), format!("others\n{BAR}"));
    }

    #[test]
    fn an_abandoned_screen_is_clean() {
        let (mut stage, term) = screen(80);
        at_1200(&mut stage);
        stage.print(secs(0.5), b"before\n").expect("written");
        stage.abandon(secs(0.5), MEMBER);
        stage.print(secs(0.5), b"after\n").expect("written");
        stage.tick(secs(9.0));
        assert_eq!(term.contents(), "before\nafter");
    }

    #[test]
    fn bars_that_do_not_fit_are_counted_and_do_not_scroll() {
        let (mut stage, term) = screen(80);
        let bars: Vec<Bar> = (0..100)
            .map(|n| Bar::new(format!("bar {n}"), Total::Known(9)))
            .collect();
        for bar in &bars {
            stage.add(secs(0.0), bar, None, MEMBER);
        }
        for tick in 0..5 {
            stage.tick(secs(f64::from(tick)));
            let drawn = term.contents();
            let lines: Vec<&str> = drawn.lines().collect();
            assert_eq!((lines.len(), lines[11]), (12, "… 89 more"), "{drawn}");
            assert!(
                lines[0].starts_with("bar 0 ") && lines[10].starts_with("bar 10 "),
                "{drawn}"
            );
        }
        bars[12..].iter().for_each(Bar::dismiss);
        stage.tick(secs(6.0));
        assert!(
            term.contents()
                .lines()
                .last()
                .expect("bars")
                .starts_with("bar 11 ")
        );
    }
}

#[test]
fn running_tasks_count_in_the_rate_and_the_eta() {
    let (mut stage, paper) = lines();
    let bar = Bar::new("slow", Total::Known(4));
    let counters = bar.counters();
    stage.add(secs(0.0), &bar, None, MEMBER);
    // Four tasks of five seconds each: nobody has to wait for the first to end.
    for second in 1..=11_u32 {
        match second % 5 {
            0 => counters.counter(Done).inc(),
            part => counters.step(part.into(), Total::Known(5)),
        }
        stage.tick(secs(f64::from(second)));
    }
    assert_eq!(
        paper.take(),
        "slow: 0/4 (5.0 %), 0.20/s, ETA 19 s\nslow: 2/4 (55.0 %), 0.20/s, ETA 9.0 s\n"
    );
}

#[test]
fn workers_have_lines_off_a_terminal_too() {
    let (mut stage, paper) = lines();
    let bar = Bar::new("train", Total::Known(8));
    let counters = Counters::in_process();
    let source = bar.add_row("worker 0", counters.slots());
    stage.add(secs(0.0), &bar, None, MEMBER);
    counters.counter(Done).inc();
    counters.step(1, Total::Known(4));
    source.set_message("warm");
    stage.tick(secs(1.0));
    assert_eq!(
        paper.take(),
        "train: 1/8 (15.6 %), 1.25/s, ETA 5.4 s\ntrain/worker 0: 1, at 1/4, warm\n"
    );
    finish(&mut stage, secs(2.0));
    assert_eq!(paper.take(), "train: 1/8 (12.5 %), 0.50/s, took 2.0 s\n");
}

#[test]
fn json_lines_tell_the_steps_of_a_worker() {
    let paper = Paper::default();
    let renderer = Renderer::Json(Json::new(Schedule::new(EVERY)));
    let mut stage = stage(renderer, Output::direct(Box::new(paper.clone())));
    let bar = Bar::new("train", Total::Known(8));
    let counters = Counters::in_process();
    let _source = bar.add_row("worker 0", counters.slots());
    stage.add(secs(0.0), &bar, None, MEMBER);
    counters.step(1, Total::Known(4));
    stage.tick(secs(1.0));
    let objects: Vec<serde_json::Value> = paper
        .take()
        .lines()
        .map(|line| serde_json::from_str(line).expect("valid JSON"))
        .collect();
    assert_eq!(objects[0]["share"], 0.03125);
    assert_eq!(objects[0]["step_done"], serde_json::Value::Null);
    assert_eq!(objects[1]["bar"], serde_json::json!(["train", "worker 0"]));
    let steps = ["share", "step_done", "step_total"].map(|name| objects[1][name].as_f64());
    assert_eq!(steps, [0.25, 1.0, 4.0].map(Some));
}
