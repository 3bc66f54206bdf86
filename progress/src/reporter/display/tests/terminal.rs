//! Bars on an emulated terminal, log lines above them, and suspensions.

use indicatif::InMemoryTerm;

use super::*;
use crate::render::{Charset, Palette, Style, Terminal};

/// An emulated terminal that converts line breaks as the line discipline of a real one does.
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

fn screen_with(columns: u16, charset: Charset, palette: Palette) -> (Display, InMemoryTerm) {
    let term = InMemoryTerm::new(12, columns);
    let output = Output::direct(Box::new(Screen(term.clone())));
    let terminal = Terminal::ansi((columns, 12), Style { charset, palette });
    (display(Renderer::Terminal(terminal), output), term)
}

pub(super) fn screen(columns: u16) -> (Display, InMemoryTerm) {
    screen_with(columns, Charset::Unicode, Palette::Plain)
}

/// Returns a bar that counted 1200 of 6710 tasks in half a second, three of which failed.
fn at_1200(display: &mut Display) -> Bar {
    let bar = Bar::new("recommend", Total::Known(6710));
    display.add(secs(0.0), &bar, None, REPORTER);
    let counters = bar.counters();
    counters.counter(Done).add(1197);
    counters.counter(Failed).add(3);
    display.draw(secs(0.5));
    bar
}

const BAR: &str = "recommend  ███▌░░░░░░░░░░░░░░░░  1200/6710 (17.9 %), 3 failed, 2400/s, ETA 2.3 s";

#[test]
fn bar_shows_position_failures_rate_and_eta() {
    let (mut display, term) = screen(80);
    at_1200(&mut display);
    assert_eq!(term.contents(), BAR);
}

#[test]
fn log_lines_are_written_above_the_bar() {
    let (mut display, term) = screen(80);
    let bar = at_1200(&mut display);
    // These lines come faster than bars are restored. Each is on the screen immediately.
    for n in 0..3 {
        let before = term.contents();
        display
            .print(secs(0.51), format!("log line {n}\n").as_bytes())
            .expect("written");
        assert!(term.contents().contains(&format!("log line {n}")), "{before}");
    }
    assert!(
        !term.contents().contains("█"),
        "the bar is not redrawn with each line of a flood"
    );
    display.draw(secs(0.6));
    assert_eq!(
        term.contents(),
        format!(
            "log line 0\nlog line 1\nlog line 2\n{}",
            BAR.replace("2400/s, ETA 2.3 s", "2353/s, ETA 2.3 s")
        )
    );
    display.print(secs(0.7), b"log line 3\n").expect("written");
    assert!(
        term.contents().contains("log line 3\nrecommend  ███▌"),
        "the bar is redrawn with the line"
    );
    bar.counters().counter(Done).add(5510);
    finish(&mut display, secs(2.0));
    assert_eq!(
        term.contents(),
        "log line 0\nlog line 1\nlog line 2\nlog line 3\n\
         recommend  ████████████████████  6710/6710 (100 %), 3 failed, 3355/s, took 2.0 s"
    );
}

#[test]
fn long_log_line_wraps() {
    let (mut display, term) = screen(80);
    at_1200(&mut display);
    let long = "x".repeat(200);
    display
        .print(secs(0.51), format!("{long}\n").as_bytes())
        .expect("written");
    assert_eq!(
        term.contents(),
        format!("{}\n{}\n{}\n{BAR}", &long[..80], &long[80..160], &long[160..])
    );
}

#[test]
fn bars_have_the_same_columns_and_finished_ones_move_up() {
    let (mut display, term) = screen(60);
    let total = Bar::new("run", Total::Known(4));
    let part = Bar::new("load", Total::Known(200));
    let open = Bar::new("stream", Total::Unknown);
    display.add(secs(0.0), &total, None, REPORTER);
    display.add(secs(0.0), &part, Some(&total), REPORTER);
    display.add(secs(0.0), &open, None, REPORTER);
    total.counters().counter(Done).add(1);
    part.counters().counter(Done).add(150);
    open.counters().counter(Done).add(9);
    display.draw(secs(1.0));
    assert_eq!(
        term.contents(),
        "run     ███▊░░░░░░░░░░░  1/4 (25.0 %), 1.00/s, ETA 3.0 s\n\
         \x20 load  ███████████▎░░░  150/200 (75.0 %), 150/s, ETA 0.3 s\n\
         stream  9, 9.00/s, 1.0 s elapsed"
    );
    part.finish();
    display.draw(secs(1.0));
    assert_eq!(
        term.contents(),
        "  load  ███████████▎░░░  150/200 (75.0 %), 150/s, took 1.0 s\n\
         run     ███▊░░░░░░░░░░░  1/4 (25.0 %), 1.00/s, ETA 3.0 s\n\
         stream  9, 9.00/s, 1.0 s elapsed"
    );
}

#[test]
fn parts_that_do_not_fit_are_omitted_in_order() {
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
        let (mut display, term) = screen(columns);
        let bar = at_1200(&mut display);
        bar.set_message("all well");
        display.draw(secs(0.5));
        assert_eq!(term.contents(), line, "{columns} columns");
    }
}

#[test]
fn wide_characters_occupy_two_columns() {
    let (mut display, term) = screen(60);
    display.add(secs(0.0), &Bar::new("推荐", Total::Known(2)), None, REPORTER);
    display.add(secs(0.0), &Bar::new("ascii", Total::Known(2)), None, REPORTER);
    display.draw(secs(1.0));
    assert_eq!(
        term.contents(),
        format!("推荐   {0}  0/2 (0.0 %)\nascii  {0}  0/2 (0.0 %)", "░".repeat(40))
    );
}

#[test]
fn ascii_charset_draws_bars_of_ascii_characters() {
    let (mut display, term) = screen_with(80, Charset::Ascii, Palette::Plain);
    at_1200(&mut display);
    assert_eq!(term.contents(), BAR.replace("███▌░", "###--").replace('░', "-"));
}

#[test]
fn colours_occupy_no_columns_and_plain_text_has_none() {
    let formatted = |palette| {
        let (mut display, term) = screen_with(80, Charset::Unicode, palette);
        at_1200(&mut display);
        assert_eq!(term.contents(), BAR);
        String::from_utf8(term.contents_formatted()).expect("text")
    };
    assert!(formatted(Palette::Ansi).contains("\u{1b}[31m3 failed"));
    assert!(!formatted(Palette::Plain).contains("\u{1b}[3"));
}

#[test]
fn hostile_labels_stay_in_their_line() {
    let (mut display, term) = screen(80);
    display.add(
        secs(0.0),
        &Bar::new("\u{1b}[2J\n\u{202e}", Total::Unknown),
        None,
        REPORTER,
    );
    display.draw(secs(1.0));
    assert_eq!(term.contents(), "\\u{1b}[2J\\n\\u{202e}  0, 1.0 s elapsed");
}

#[test]
fn suspended_display_has_no_bars_until_it_is_resumed() {
    let (mut display, term) = screen(80);
    at_1200(&mut display);
    display.suspend();
    assert_eq!(term.contents(), "");
    display.draw(secs(0.5));
    display.print(secs(0.5), b"other output\n").expect("written");
    assert_eq!(term.contents(), "other output");
    display.resume(secs(0.5));
    assert_eq!(term.contents(), format!("other output\n{BAR}"));
}

#[test]
fn abandoned_bars_are_erased() {
    let (mut display, term) = screen(80);
    at_1200(&mut display);
    display.print(secs(0.5), b"before\n").expect("written");
    display.abandon(secs(0.5), REPORTER);
    display.print(secs(0.5), b"after\n").expect("written");
    display.draw(secs(9.0));
    assert_eq!(term.contents(), "before\nafter");
}

#[test]
fn bars_that_do_not_fit_are_counted_in_the_last_row() {
    let (mut display, term) = screen(80);
    let bars: Vec<Bar> = (0..100)
        .map(|n| Bar::new(format!("bar {n}"), Total::Known(9)))
        .collect();
    for bar in &bars {
        display.add(secs(0.0), bar, None, REPORTER);
    }
    for tick in 0..5 {
        display.draw(secs(f64::from(tick)));
        let drawn = term.contents();
        let lines: Vec<&str> = drawn.lines().collect();
        assert_eq!((lines.len(), lines[11]), (12, "… 89 more"), "{drawn}");
        assert!(
            lines[0].starts_with("bar 0 ") && lines[10].starts_with("bar 10 "),
            "{drawn}"
        );
    }
    bars[12..].iter().for_each(Bar::finish_and_clear);
    display.draw(secs(6.0));
    assert!(
        term.contents()
            .lines()
            .last()
            .expect("a line")
            .starts_with("bar 11 ")
    );
}
